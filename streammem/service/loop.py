"""The service's loop: one thread that owns every socket. It checks, sorts and answers; others write and search."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from streammem import protocol as p
from streammem.checks import LIMITS
from streammem.clock import Clock, SystemClock
from streammem.config import ServiceConfig
from streammem.errors import (
    AccessDenied,
    FormatVersion,
    InputError,
    ObservationError,
    ServiceBusy,
    ServiceError,
    StreammemError,
)
from streammem.feed import scoped
from streammem.health import HealthLimits, HealthSnapshot
from streammem.keys import LOCAL, AllowList, KeyPair, allowed, require
from streammem.memory import Memory
from streammem.security import Authenticator, HandshakeMonitor, check_address, grant_of, secure_server
from streammem.service.ingest import Arrival, Lanes, Writer, Written
from streammem.service.mailbox import Mailbox
from streammem.service.notify import notify, watchdog_seconds
from streammem.service.peers import MOST_STREAMS, Peer, Peers
from streammem.service.requests import Requests
from streammem.service.telling import Telling
from streammem.storage.reports import Status
from streammem.wire import Buffer, decode_observation

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("streammem.service")

RETRY_MS = 500
"""When a client is told to come back."""
SILENT_S = 30.0
"""A client that pings every second and is silent for so long is gone."""
TURN = 256
"""Messages read before answers are sent: 256 x 46 KB are 12 MB."""
WRITER_HANGS_S = 60.0
"""A group that takes so long is a disk that hangs: systemd's watchdog isn't fed any more."""


class Service:
    """One memory behind one ROUTER socket. ``run`` blocks until ``stop``; or use it as a context manager, which runs
    it in a thread. The memory stays open afterwards: who opened it closes it."""

    def __init__(
        self,
        memory: Memory,
        *,
        config: ServiceConfig | None = None,
        bind: str = "",
        keys: KeyPair | None = None,
        allow: AllowList | None = None,
        feed: str = "",
        metrics: str = "",
        metrics_token: str = "",
        clock: Clock | None = None,
        health: HealthLimits | None = None,
    ) -> None:
        """Binds (``bind`` or ``config.bind``; ``feed`` and ``metrics`` where given). A port ``*`` takes a free one,
        ``address`` tells which.

        Raises InsecureAddress before anything is bound, InputError for an address that can't be bound."""
        import zmq

        self.config = config or ServiceConfig()
        self.memory = memory
        self.epoch = secrets.token_hex(8)
        self._keys, self._allow = keys, allow
        check_address(bind or self.config.bind, keys)
        self.telling = Telling(clock or SystemClock(), self.epoch, health)
        self._mail = Mailbox()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._peers = Peers(SILENT_S)
        self._lanes = Lanes()
        self._requests = Requests(memory, workers=self.config.workers, waiting=self.config.waiting)
        self._writer = Writer(
            memory, self._lanes, self._written, group=self.config.group, asked=lambda: self._requests.running > 0
        )
        self._context: zmq.Context[Any] = zmq.Context()
        self._gate: Authenticator | None = None
        self._open = contextlib.ExitStack()
        self._open.callback(self._mail.close)
        self._open.callback(self._context.term)
        # A service that is made and never run: its sockets must be closed before its context goes, or that waits for
        # ever inside the collector. ``run`` takes them over.
        self._unused = weakref.finalize(self, self._open.close)
        try:
            if keys is not None and allow is not None:
                self._gate = Authenticator(self._context, allow, refusals=self.telling.refusals)
                self._open.callback(self._gate.close)
            self._bind(bind or self.config.bind)
            self._open.callback(self.telling.close)
            self.telling.open(self._context, feed, metrics, metrics_token, keys, allow)
        except BaseException:
            self.close()
            raise

    def _bind(self, address: str) -> None:
        import zmq

        self._router = self._context.socket(zmq.ROUTER)
        socket = self._router
        self._open.callback(socket.close, 0)
        socket.linger = 0
        # Without it an answer to a peer that is gone vanishes; with it the peer is forgotten at once.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        # libzmq refuses a larger frame before it allocates it, and ends that connection.
        socket.setsockopt(zmq.MAXMSGSIZE, LIMITS.total_bytes + (1 << 20))
        socket.setsockopt(zmq.SNDHWM, 1000)
        socket.setsockopt(zmq.RCVHWM, 256)
        socket.setsockopt(zmq.BACKLOG, 512)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10_000)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
        secure_server(socket, self._keys)
        self._monitor = HandshakeMonitor(socket, self.telling.refusals)
        self._open.callback(self._monitor.close)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise InputError(
                f"{address} can't be bound: {error}", hint="another service may run there: choose another --bind"
            ) from None
        self.address = socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        self._poller = zmq.Poller()
        for each in (socket, self._mail.fd, self._monitor.socket):
            self._poller.register(each, zmq.POLLIN)

    # -- life

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.run, name="streammem-service", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(self.config.flush_seconds + 5)

    def close(self) -> None:
        """Give up the addresses of a service that wasn't run. One that runs closes itself after ``stop``."""
        self._unused()

    def stop(self) -> None:
        """Ask the loop to end. Safe in a signal handler."""
        self._stopping = True
        self._mail.wake()

    def run(self) -> bool:
        """Serve until ``stop``. True if everything that was received is durable."""
        if self._unused.detach() is None:
            raise ServiceError("this service was closed or is running already", hint="make another one")
        watchdog = watchdog_seconds()
        self._writer.start()
        notify(f"READY=1\nSTATUS=serving {self.memory.directory} at {self.address}")
        fed = 0.0
        try:
            while not self._stopping:
                self._turn()
                now = time.monotonic()
                if watchdog is not None and now - fed > watchdog / 3 and not self._hangs(now):
                    fed = now
                    notify("WATCHDOG=1")
        finally:
            complete = self._end()
        return complete

    def _hangs(self, now: float) -> bool:
        begun = self._writer.busy_since
        return begun is not None and now - begun > WRITER_HANGS_S

    def _end(self) -> bool:
        notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(self.config.flush_seconds * 1e6)}")
        end = time.monotonic() + self.config.flush_seconds
        with contextlib.suppress(StreammemError):
            self._receive(limit=TURN)
        self._lanes.stop()
        complete = False
        while not complete and time.monotonic() < end:
            complete = self._writer.join(0.02)
            self._mail.run()
        self._requests.stop(max(0.0, end - time.monotonic()))
        self._mail.run()
        if not complete:
            log.error("stopped with %d packets unwritten; their producers still hold them", self._lanes.count)
        # Acknowledgements that are on their way get a moment; a lost one costs a resend.
        self._router.close(linger=200)
        self._open.close()
        return complete

    # -- one turn of the loop

    def _turn(self) -> None:
        self._poller.poll(100)
        self._receive(limit=TURN)
        self._mail.run()
        self._tend()

    def _receive(self, limit: int) -> None:
        import zmq

        for _ in range(limit):
            try:
                first = self._router.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            frames: list[zmq.Frame] = []
            size = extra = 0
            more = first.more
            while more:
                frame = self._router.recv(copy=False)
                more = frame.more
                if len(frames) < p.MOST_PARTS and size + len(frame) <= LIMITS.total_bytes + p.ENVELOPE_BYTES:
                    frames.append(frame)
                    size += len(frame)
                else:
                    extra += 1  # read to its end and let go of at once
            self._message(first.bytes, frames, size, extra)

    def _message(self, identity: bytes, frames: list[zmq.Frame], size: int, extra: int) -> None:
        id = 0
        try:
            grant = LOCAL if self._keys is None or not frames else grant_of(frames[0], self._allow)
            peer = self._peers.heard(identity, grant, time.monotonic())
            if peer is None:
                raise ServiceBusy("too many clients are connected", hint="try again later")
            if not frames:
                raise p.Refused("parts", "the message is empty")
            message = p.read_from_client(frames[0].buffer)
            id = message.id
            if extra:
                raise p.Refused("parts", f"the message has {len(frames) + extra} parts or too many bytes", id=id)
            self._dispatch(peer, message, [frame.buffer for frame in frames[1:]], size)
        except p.Refused as refused:
            code = refused.code
            error = p.Error(id=refused.id or id, code=code, message=refused.message, hint=refused.hint)
            self._bad(identity, code, error)
        except StreammemError as failed:
            self._bad(identity, p.code_of(failed), p.error_message(id, failed))

    def _bad(self, identity: bytes, code: str, answer: p.Error) -> None:
        self.telling.bad_message(code)
        self._send(identity, [p.seal(answer)])

    def _dispatch(self, peer: Peer, message: p.FromClient, body: list[Buffer], size: int) -> None:
        if isinstance(message, p.Write):
            self._take(peer, message.id, body, size)
        elif isinstance(message, p.Request):
            self._request(peer, message, body)
        elif isinstance(message, p.Hello):
            if len(message.client) > 64 or len(message.name) > 200:
                raise p.Refused("malformed", "the client's token or name is too long", id=message.id)
            peer.welcomed = True
            peer.name = message.name
            self._peers.introduce(peer, message.client)
            welcome = p.Welcome(
                id=message.id,
                epoch=self.epoch,
                credits=self.config.credits,
                credit_bytes=self.config.credit_bytes,
                role=peer.grant.role,
            )
            self._send(peer.identity, [p.seal(welcome)])
        elif isinstance(message, p.Ping):
            self._dropped_there(peer, message)
            pong = p.Pong(id=message.id, epoch=self.epoch, waiting=self._lanes.count)
            self._send(peer.identity, [p.seal(pong)])
        else:
            self._forget_peer(peer.identity, left=True)

    def _dropped_there(self, peer: Peer, ping: p.Ping) -> None:
        """What the producer dropped itself is part of what is told here."""
        for stream, reasons in list(ping.drops.items())[:MOST_STREAMS]:
            if not allowed(peer.grant.role, peer.grant.streams, "write", stream):
                continue
            for reason, count in list(reasons.items())[:16]:
                self.telling.health.dropped(stream, reason[:40], max(0, min(count, 1 << 40)))

    # -- packets

    def _take(self, peer: Peer, id: int, body: list[Buffer], size: int) -> None:
        if not peer.may_send(size, self.config.credits, self.config.credit_bytes):
            self._later_again(peer, id, "over_credit", "more packets than the credits allow")
            return
        if self._lanes.bytes + size > self.config.queue_bytes and self._lanes.count:
            self._later_again(peer, id, "busy", "the queue of packets is full")
            return
        if self._stopping:
            return  # never acknowledged: the producer keeps it for the next start
        try:
            observation = decode_observation(body)
            require(peer.grant, "write", observation.stream)
        except (ObservationError, AccessDenied, FormatVersion) as error:
            code = "version" if isinstance(error, FormatVersion) else p.code_of(error)
            self.telling.bad_message(code)
            field = getattr(error, "field", "")
            refusal = p.Refusal(id, code, error.message[:500], field, error.hint)
            self._send(peer.identity, [p.seal(p.Acks(id=0, epoch=self.epoch, refused=(refusal,)))])
            return
        peer.waiting += 1
        peer.bytes += size
        if len(peer.streams) < MOST_STREAMS:
            peer.streams.add(observation.stream)
        self._lanes.put(Arrival(peer.identity, id, observation, size, time.monotonic()))

    def _later_again(self, peer: Peer, id: int, code: str, why: str) -> None:
        self.telling.counts[code] += 1
        refusal = p.Refusal(id, code, why, retry_ms=RETRY_MS)
        self._send(peer.identity, [p.seal(p.Acks(id=0, epoch=self.epoch, refused=(refusal,)))])

    def _written(self, group: list[Written]) -> None:
        """Called by the writer."""
        self._mail.put(lambda: self._acknowledge(group))

    def _acknowledge(self, group: list[Written]) -> None:
        by_peer: dict[bytes, list[Written]] = {}
        for written in group:
            by_peer.setdefault(written.arrival.identity, []).append(written)
        for identity, own in by_peer.items():
            peer = self._peers.get(identity)
            if peer is not None:
                peer.waiting -= len(own)
                peer.bytes -= sum(written.arrival.size for written in own)
            refused = [self._refusal(written) for written in own if isinstance(written.outcome, StreammemError)]
            acks = p.Acks(
                id=0,
                epoch=self.epoch,
                written=tuple(written.arrival.id for written in own if written.outcome == "written"),
                duplicates=tuple(written.arrival.id for written in own if written.outcome == "duplicate"),
                refused=tuple(refused),
            )
            self._send(identity, [p.seal(acks)])
        for written in group:
            self.telling.written(written)

    def _refusal(self, written: Written) -> p.Refusal:
        error = written.outcome
        assert isinstance(error, StreammemError)
        retry = RETRY_MS if written.later else 0
        field = getattr(error, "field", "")
        return p.Refusal(written.arrival.id, p.code_of(error), error.message[:500], field, error.hint, retry)

    # -- requests

    def _request(self, peer: Peer, request: p.Request, body: list[Buffer]) -> None:
        if len(request.client) > 64:
            raise p.Refused("malformed", "the client's token is too long", id=request.id)
        if request.method == "health":
            require(peer.grant, "status")
            self._ask_status(lambda status: self._send_health(peer, request.id, status))
            return
        key, client, identity = peer.grant.key, request.client, peer.identity

        def send(parts: list[Buffer]) -> None:
            self._mail.put(lambda: self._send(self._peers.route(key, client, identity), parts))

        def done(seconds: float, failed: bool) -> None:
            self._mail.put(lambda: self.telling.health.answered(seconds, failed=failed))
            if request.method == "forget" and not failed:
                self._mail.put(lambda: self._forgotten(body[0]))

        self._requests.run(request, [bytes(part) for part in body], peer.grant, send, done)

    def _forgotten(self, arguments: Buffer) -> None:
        stream = msgspec.msgpack.decode(bytes(arguments)).get("stream")
        if isinstance(stream, str) and stream not in {info.stream for info in self.memory.streams()}:
            self.telling.forgotten(stream)

    def _ask_status(self, then: Callable[[Status | None], None]) -> None:
        """The memory's status is looked up by a worker (it waits for the writer's lock); ``then`` runs in the loop."""

        def work() -> None:
            status: Status | None = None
            try:
                status = self.memory.status()
            except (StreammemError, OSError) as error:
                log.error("no status: %s", error)
            self._mail.put(lambda: then(status))

        with contextlib.suppress(RuntimeError):  # the pool is shut down: the service ends
            self._requests.submit(work)

    def _send_health(self, peer: Peer, id: int, status: Status | None) -> None:
        snapshot = scoped(self._snapshot(status), peer.grant)
        reply = p.seal(p.Reply(id=id, method="health"))
        self._send(peer.identity, [reply, msgspec.msgpack.encode(snapshot)])

    # -- every turn

    def _snapshot(self, status: Status | None) -> HealthSnapshot:
        return self.telling.snapshot(status, len(self._peers), self._requests.running)

    def _tend(self) -> None:
        now = time.monotonic()
        self._monitor.poll()
        if self.telling.tend(now, self._ask_status, self._snapshot):
            for peer in self._peers.silent(now):
                self._forget_peer(peer.identity, left=True)

    def _forget_peer(self, identity: bytes, *, left: bool) -> None:
        peer = self._peers.drop(identity)
        if peer is None or not left:
            return
        others = {stream for other in self._peers.all() for stream in other.streams}
        for stream in peer.streams - others:
            self.telling.health.left(stream)

    def _send(self, identity: bytes, parts: Sequence[Buffer]) -> None:
        """Never blocks: a peer that doesn't read loses the answer and asks again; one that is gone is forgotten."""
        import zmq

        try:
            self._router.send_multipart([identity, *parts], zmq.NOBLOCK)
        except zmq.Again:
            self.telling.counts["answers_dropped"] += 1
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._forget_peer(identity, left=False)
