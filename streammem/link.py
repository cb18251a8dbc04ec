"""One connection to a memory service: a DEALER socket in its own thread, with credits, resends and requests.

What was handed over is held until it is acknowledged. It is sent again after a reconnect, after a restart of the
service (another epoch), and when no acknowledgement came for ``resend_s``; the service drops what it has already.
A service that is silent for ``dead_s`` (stopped, half-open TCP) gets a fresh socket, so that nothing hangs for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import socket as sockets
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streammem import protocol as p
from streammem.errors import DeadlineExceeded, ProtocolError, ServiceUnreachable, StreammemError
from streammem.keys import KeyPair
from streammem.printable import printable
from streammem.redact import redact
from streammem.security import HandshakeMonitor, check_address, secure_client
from streammem.window import Key, Packet, Window
from streammem.wire import Buffer

if TYPE_CHECKING:
    pass

log = logging.getLogger("streammem.link")


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """In seconds. A stopped service is noticed after ``dead_s``; a lost acknowledgement costs ``resend_s``."""

    ping_s: float = 1.0
    dead_s: float = 5.0
    resend_s: float = 5.0
    hello_s: float = 0.5
    linger_s: float = 0.2


class _Call:
    __slots__ = ("deadline", "done", "error", "frames", "id", "parts", "sent", "timeout_s")

    def __init__(self, id: int, parts: list[Buffer], timeout_s: float) -> None:
        self.id, self.parts, self.timeout_s = id, parts, timeout_s
        self.deadline = time.monotonic() + timeout_s
        self.sent = False
        self.done = threading.Event()
        self.frames: list[bytes] = []
        self.error: StreammemError | None = None


class Link:
    """Safe to use from several threads. Nothing is sent before :meth:`start`; ``close`` frees the thread and socket."""

    def __init__(
        self,
        address: str,
        *,
        keys: KeyPair | None = None,
        server: str = "",
        name: str = "",
        timing: Timing | None = None,
        on_outcome: Callable[[Packet], None] | None = None,
    ) -> None:
        """Raises InsecureAddress for an address beyond this machine without keys."""
        check_address(address, keys)
        self.address, self.name = address, name
        self.timing = timing or Timing()
        self.client = secrets.token_hex(16)
        self.epoch = ""
        self.role = ""
        self.credits = self.credit_bytes = self.message_bytes = self.connections = 0
        self._keys, self._server = keys, server
        self._on_outcome = on_outcome
        self._condition = threading.Condition()
        self._ids = 0
        self.window = Window()
        self._calls: dict[int, _Call] = {}
        self._drops: dict[str, dict[str, int]] = {}
        self._welcomed = False
        self._heard_at = self._pinged_at = self._greeted_at = 0.0
        self._closing = False
        self._trouble: StreammemError | None = None
        self._wake_in, self._wake_out = sockets.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="streammem-link", daemon=True)
        self._random = random.Random()

    def start(self) -> None:
        self._pid = os.getpid()
        self._thread.start()

    # -- called by anyone

    def offer(self, key: Key, parts: Sequence[Buffer]) -> Packet:
        """Queue an encoded observation. Never blocks: who calls bounds the queue."""
        with self._condition:
            self._check()
            self._ids += 1
            packet = Packet(self._ids, key, parts)
            idle = self.window.idle
            self.window.add(packet)
        if idle:
            self._wake()
        return packet

    def replace_oldest(self, stream: str | None = None) -> Packet | None:
        """Take back the oldest packet that was never sent (of one stream); None where there is none."""
        with self._condition:
            packet = self.window.replace_oldest(stream)
            if packet is not None:
                self._finish(packet, "replaced")
            return packet

    @property
    def held(self) -> tuple[int, int]:
        """(packets, bytes) that aren't acknowledged."""
        with self._condition:
            return len(self.window), self.window.bytes

    def wait(self, ready: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until ``ready()`` (called with the lock held whenever something was acknowledged), or give up."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with self._condition:
            while not ready():
                self._check()
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._condition.wait(min(left, 0.5) if left is not None else 0.5)
            return True

    def count_drop(self, stream: str, reason: str, count: int = 1) -> None:
        """The service is told with the next ping."""
        with self._condition:
            counts = self._drops.setdefault(stream, {})
            counts[reason] = counts.get(reason, 0) + count

    def call(self, method: str, arguments: bytes, *buffers: Buffer, timeout_s: float) -> list[bytes]:
        """The body of the reply. Sent again after a reconnect until the deadline; the service answers a request that it
        has done already from its notes. Raises the service's error, ServiceUnreachable or DeadlineExceeded."""
        with self._condition:
            self._check()
            self._ids += 1
            request = p.Request(
                id=self._ids, client=self.client, method=method, deadline_ms=max(1, round(timeout_s * 1000))
            )
            call = _Call(self._ids, [p.seal(request), arguments, *buffers], timeout_s)
            self._calls[call.id] = call
        self._wake()
        try:
            # A little longer than the deadline, so that the thread's own, better informed error comes first.
            if not call.done.wait(timeout_s + 1.0):
                raise self.no_answer(timeout_s)
        finally:
            with self._condition:
                self._calls.pop(call.id, None)
        if call.error is not None:
            raise call.error
        return call.frames

    def wait_welcome(self, timeout_s: float) -> None:
        """Raises ServiceUnreachable, AccessDenied or ProtocolError."""
        if not self.wait(lambda: self._welcomed, timeout_s):
            raise self.no_answer(timeout_s)

    @property
    def connected(self) -> bool:
        """The service answered within the last ``dead_s``."""
        return self._welcomed and time.monotonic() - self._heard_at < self.timing.dead_s

    def close(self, *, bye: bool = True) -> None:
        """Let go of everything, also of what wasn't acknowledged: wait for that before."""
        with self._condition:
            if self._closing:
                return
            self._closing = True
            self._say_bye = bye
            self._condition.notify_all()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(5.0)
        self._wake_in.close()
        self._wake_out.close()

    # -- shared

    def _check(self) -> None:
        if self._closing:
            raise ServiceUnreachable(f"the connection to {self._shown} is closed", hint="connect again")
        if self._trouble is not None:
            raise self._trouble

    @property
    def _shown(self) -> str:
        return redact(printable(self.address))

    def no_answer(self, timeout_s: float) -> StreammemError:
        monitor = self._monitor.failed if hasattr(self, "_monitor") else ""
        if monitor == "refused":
            return ServiceUnreachable(
                f"{self._shown} refused this key", hint="ask its keeper: streammem keys new, streammem keys list"
            )
        if monitor:
            return ServiceUnreachable(
                f"{self._shown} answers, but not in this way ({monitor})",
                hint="keys on one side only, or a wrong server key: give --keys FILE",
            )
        if self.connected:
            return DeadlineExceeded(
                f"{self._shown} is there and didn't answer within {timeout_s:g} s", hint="try again, or wait longer"
            )
        return ServiceUnreachable(
            f"no memory service answers at {self._shown} (waited {timeout_s:g} s)", hint="streammem serve MEMORY"
        )

    def _wake(self) -> None:
        # Full: it has a reason to wake up already.
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_out.send(b"x")

    def _finish(self, packet: Packet, outcome: str | StreammemError) -> None:
        """With the lock held."""
        packet.outcome = outcome
        if self._on_outcome is not None:
            self._on_outcome(packet)
        self._condition.notify_all()

    # -- the thread

    def _run(self) -> None:
        import zmq

        self._context = zmq.Context()
        try:
            self._open()
            while not self._closing:
                self._poll()
                self._receive()
                self._tend()
                self._send()
            if self._welcomed and self._say_bye:
                self._try_send([p.seal(p.Bye(id=0))])
        except StreammemError as error:
            self._trouble = error
        except zmq.ZMQError as error:
            log.exception("the connection to %s broke", self._shown)
            self._trouble = ServiceUnreachable(f"the connection to {self._shown} broke: {error}", hint="connect again")
        finally:
            with self._condition:
                for call in self._calls.values():
                    call.error = call.error or self._trouble or self.no_answer(0.0)
                    call.done.set()
                self._condition.notify_all()
            self._shut(linger_s=self.timing.linger_s)
            self._context.term()

    def _open(self) -> None:
        import zmq

        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        # A pipe only to a finished connection: what waits there would survive a reconnect and be sent twice.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.SNDHWM, 1000)
        socket.setsockopt(zmq.RCVHWM, 10_000)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        socket.setsockopt(zmq.HEARTBEAT_IVL, round(self.timing.ping_s * 1000))
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, round(self.timing.dead_s * 1000))
        socket.setsockopt(zmq.MAXMSGSIZE, 128 << 20)
        secure_client(socket, self._keys, self._server)
        self._socket = socket
        self._monitor = HandshakeMonitor(socket)
        self._seen_connections = 0
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._wake_in.fileno(), zmq.POLLIN)
        self._poller.register(self._monitor.socket, zmq.POLLIN)
        try:
            socket.connect(self.address)
        except zmq.ZMQError as error:
            raise ServiceUnreachable(
                f"{self._shown} isn't an address that can be connected to: {error}", hint="tcp://HOST:PORT"
            ) from None
        self._heard_at = time.monotonic()

    def _shut(self, linger_s: float = 0.0) -> None:
        if hasattr(self, "_monitor"):
            self._monitor.close()
        if hasattr(self, "_socket"):
            self._socket.close(linger=round(linger_s * 1000))

    def _poll(self) -> None:
        for fd, _ in self._poller.poll(100 if self._welcomed else 20):
            if fd == self._wake_in.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._wake_in.recv(4096)

    def _receive(self) -> None:
        import zmq

        for _ in range(1000):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._heard_at = time.monotonic()
            try:
                message = p.read_from_service(frames[0])
            except p.Refused as refused:
                raise ProtocolError(f"{self._shown}: {refused.message}", hint=refused.hint) from None
            with self._condition:
                self._take(message, frames)

    def _take(self, message: p.FromService, frames: list[bytes]) -> None:
        if isinstance(message, p.Acks):
            self._acknowledged(message)
        elif isinstance(message, p.Welcome):
            self._new_epoch(message.epoch)
            self.credits, self.credit_bytes = message.credits, message.credit_bytes
            self.message_bytes, self.role = message.message_bytes, message.role
            self._welcomed = True
            self._condition.notify_all()
        elif isinstance(message, p.Reply):
            call = self._calls.get(message.id)
            if call is not None:
                call.frames = frames[1:]
                call.done.set()
        elif isinstance(message, p.Error):
            self._error(message)
        elif isinstance(message, p.Pong):
            self._new_epoch(message.epoch)

    def _error(self, message: p.Error) -> None:
        error = p.exception_of(message.code, message.message, message.hint, message.about)
        call = self._calls.get(message.id)
        if call is not None:
            call.error = error
            call.done.set()
        elif self.window.in_flight(message.id) is not None:
            self._land(message.id, error)
        elif message.code in ("version", "access_denied") and message.id == 0:
            raise error  # about the connection itself: another version, or a key that isn't let in any more
        else:
            log.debug("%s: %s", self._shown, error)

    def _new_epoch(self, epoch: str) -> None:
        if epoch == self.epoch:
            return
        if self.epoch:
            # The service was started anew: what it hadn't acknowledged it may never have read.
            self._put_back()
            self._welcomed = False
            self._greeted_at = 0.0
        self.epoch = epoch

    def _acknowledged(self, acks: p.Acks) -> None:
        for id in acks.written:
            self._land(id, "written")
        for id in acks.duplicates:
            packet = self.window.in_flight(id)
            # Sent twice and there already: our own first copy arrived and its acknowledgement didn't.
            self._land(id, "written" if packet is not None and packet.tries > 1 else "duplicate")
        for refusal in acks.refused:
            packet = self.window.in_flight(refusal.id)
            if packet is not None and refusal.retry_ms:
                # Spread out: a hundred producers that come back at once would be refused at once again.
                packet.wait_until = time.monotonic() + refusal.retry_ms / 1000 * self._random.uniform(0.5, 1.5)
                self.window.put_back([packet])
            else:
                about = {"field": refusal.field}
                self._land(refusal.id, p.exception_of(refusal.code, refusal.message, refusal.hint, about))
        self._new_epoch(acks.epoch)

    def _land(self, id: int, outcome: str | StreammemError) -> None:
        packet = self.window.in_flight(id)
        if packet is not None:
            self.window.land(packet)
            self._finish(packet, outcome)

    def _put_back(self) -> None:
        """Everything that was sent and not answered will be sent again."""
        self.window.put_back()
        for call in self._calls.values():
            call.sent = False

    def _tend(self) -> None:
        """Greet, ping, notice silence, give up on what is too late."""
        now = time.monotonic()
        timing = self.timing
        self._monitor.poll()
        with self._condition:
            if self._monitor.connections != self._seen_connections:
                self._seen_connections = self._monitor.connections
                self.connections += 1
                self._heard_at = now
                self._welcomed = False
                self._greeted_at = 0.0
                self._put_back()
            silent_s = now - self._heard_at
            if self._seen_connections and silent_s > timing.dead_s:
                self._shut()
                self._open()
                self._welcomed = False
                self._put_back()
            if self._seen_connections and not self._welcomed and now - self._greeted_at > timing.hello_s:
                self._greeted_at = now
                self._try_send([p.seal(p.Hello(id=0, client=self.client, name=self.name))])
            elif self._welcomed and (silent_s > timing.ping_s or self._drops) and now - self._pinged_at > timing.ping_s:
                self._pinged_at = now
                if self._try_send([p.seal(p.Ping(id=0, drops=self._drops))]):
                    self._drops = {}
            self.window.put_back(self.window.overdue(now, self._heard_at, self.timing.resend_s))
            for call in self._calls.values():
                if now > call.deadline and not call.done.is_set():
                    call.error = self.no_answer(call.timeout_s)
                    call.done.set()

    def _send(self) -> None:
        """Requests first; then packets, in order, as far as the credits go."""
        if not self._seen_connections:
            return
        with self._condition:
            for call in list(self._calls.values()):
                if not call.sent and not call.done.is_set() and self._welcomed:
                    call.sent = self._try_send(call.parts)
            now = time.monotonic()
            while self._welcomed and (packet := self.window.next(self.credits, self.credit_bytes, now)) is not None:
                if not self._try_send([p.seal(p.Write(id=packet.id)), *packet.parts]):
                    return
                self.window.mark_sent(packet, now)

    def _try_send(self, parts: Sequence[Any]) -> bool:
        import zmq

        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True
