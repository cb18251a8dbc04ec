"""The status feed: a service's health, published to whoever may see it, and the reader that notices what it missed.

    message: [topic][header: epoch, sequence, time][body: changes of state, and a whole snapshot now and then]

It is an XPUB socket in manual mode: the service sees each subscription together with the key that made it, and gives
it the topic of that key, whatever was asked for. So a key with stream scopes gets its own feed, in which other streams
don't occur. Each topic has its own sequence without gaps; whoever joins gets a snapshot at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from streammem.clock import Clock
from streammem.health import HealthSnapshot, StateChange
from streammem.keys import LOCAL, AllowList, Grant, KeyPair, allowed, visible
from streammem.security import check_address, frame_property, secure_client, secure_server

if TYPE_CHECKING:
    import zmq

_LOCAL_TOPIC = b"local"
_LARGEST = 8 << 20
# A subscription costs the service one snapshot; a client that subscribes in a loop gets at most this many a second.
_SNAPSHOTS_A_SECOND = 10
_ASK_AGAIN_S = 1.0


class FeedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the feed. ``sequence`` counts from 1 within ``epoch`` (one run of the service) and topic."""

    epoch: str
    sequence: int
    t_ns: int
    changes: tuple[StateChange, ...] = ()
    snapshot: HealthSnapshot | None = None


def scoped(snapshot: HealthSnapshot, grant: Grant) -> HealthSnapshot:
    """What this client may see of it: its streams; sums over its streams only; the whole memory's bytes and the
    refused connections only where the scopes hold ``*``."""
    if "*" in grant.streams:
        return snapshot if grant.role != "produce" else msgspec.structs.replace(snapshot, refused={}, bad_messages={})
    names = set(visible(grant, (stream.stream for stream in snapshot.streams)))
    streams = tuple(stream for stream in snapshot.streams if stream.stream in names)
    drops: dict[str, int] = {}
    for stream in streams:
        for reason, count in stream.drops.items():
            drops[reason] = drops.get(reason, 0) + count
    return HealthSnapshot(
        epoch=snapshot.epoch,
        t_ns=snapshot.t_ns,
        uptime_s=snapshot.uptime_s,
        streams=streams,
        drops=drops,
        version=snapshot.version,
    )


class StatusFeed:
    """The publishing end. The thread that owns it calls :meth:`poll` and :meth:`publish`; nothing blocks."""

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        *,
        epoch: str,
        clock: Clock,
        keys: KeyPair | None = None,
        allow: AllowList | None = None,
    ) -> None:
        """Binds. Raises InsecureAddress before that, where others could reach ``address`` and there are no keys."""
        import zmq

        check_address(address, keys)
        self.epoch, self._clock, self._allow, self._secure = epoch, clock, allow, keys is not None
        self.socket = context.socket(zmq.XPUB)
        self.socket.linger = 0
        # A reader that stops reading loses messages beyond this, sees the gap and asks for a snapshot.
        self.socket.sndhwm = 100
        self.socket.maxmsgsize = 4096
        self.socket.setsockopt(zmq.XPUB_MANUAL, 1)
        secure_server(self.socket, keys)
        try:
            self.socket.bind(address)
        except zmq.ZMQError:
            self.socket.close()
            raise
        self.address = self.socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        self._topics: dict[bytes, int] = {}
        self._waiting: set[bytes] = set()
        self._second, self._spent = -1, 0
        self.refused = 0

    def poll(self) -> bool:
        """Take subscriptions. True if someone waits for a snapshot: call :meth:`publish` with one soon."""
        import zmq

        while self.socket.poll(0, zmq.POLLIN):
            frame = self.socket.recv(copy=False)
            data = bytes(frame.buffer[:1])
            topic, grant = self._who(frame)
            if grant is None or not allowed(grant.role, grant.streams, "feed"):
                self.refused += data == b"\x01"
            elif data == b"\x01":
                # Applies to the connection that this subscription came from (XPUB_MANUAL).
                self.socket.setsockopt(zmq.SUBSCRIBE, topic)
                self._topics.setdefault(topic, 0)
                self._waiting.add(topic)
            elif data == b"\x00":
                self.socket.setsockopt(zmq.UNSUBSCRIBE, topic)
        return bool(self._waiting) and self._may_answer()

    def publish(
        self, snapshot: HealthSnapshot | None = None, changes: Sequence[StateChange] = (), *, whole: bool = False
    ) -> None:
        """Send ``changes`` to everyone who may see their streams; ``snapshot`` to those who wait for one, or to all
        if ``whole``. Topics of keys that are no longer let in end here."""
        for topic in list(self._topics):
            grant = self._grant(topic)
            if grant is None:
                del self._topics[topic]
                self._waiting.discard(topic)
                continue
            seen = tuple(change for change in changes if visible(grant, [change.stream]))
            given = scoped(snapshot, grant) if snapshot is not None and (whole or topic in self._waiting) else None
            if not seen and given is None:
                continue
            if given is not None:
                self._waiting.discard(topic)
            self._topics[topic] += 1
            message = FeedMessage(
                epoch=self.epoch,
                sequence=self._topics[topic],
                t_ns=self._clock.now_ns(),
                changes=seen,
                snapshot=given,
            )
            self.socket.send_multipart([topic, msgspec.msgpack.encode(message)])

    def close(self) -> None:
        self.socket.close(linger=0)

    def _who(self, frame: zmq.Frame) -> tuple[bytes, Grant | None]:
        user = frame_property(frame, "User-Id")
        topic = b"key:" + user.encode() if user else _LOCAL_TOPIC
        return topic, self._grant(topic)

    def _grant(self, topic: bytes) -> Grant | None:
        if topic == _LOCAL_TOPIC:
            return None if self._secure else LOCAL
        return self._allow.grant(topic[4:].decode()) if self._allow is not None else None

    def _may_answer(self) -> bool:
        second = self._clock.monotonic_ns() // 1_000_000_000
        if second != self._second:
            self._second, self._spent = second, 0
        self._spent += 1
        return self._spent <= _SNAPSHOTS_A_SECOND


class FeedReader:
    """The reading end: the newest snapshot with later changes applied, and what was missed.

    ``missed`` counts messages that never arrived; after a gap ``snapshot`` is old until the next whole one, which is
    asked for at once; ``restarts`` counts new epochs (the service was started again)."""

    def __init__(
        self, context: zmq.Context[Any], address: str, *, keys: KeyPair | None = None, server: str = ""
    ) -> None:
        import zmq

        check_address(address, keys)
        self.snapshot: HealthSnapshot | None = None
        self.changes: list[StateChange] = []
        """Those of the last message."""
        self.missed = self.restarts = self.bad = 0
        self.fresh = False
        """Whether ``snapshot`` is complete: nothing was missed since."""
        self._epoch, self._sequence, self._asked_at = "", 0, float("-inf")
        self.socket = context.socket(zmq.SUB)
        self.socket.linger = 0
        self.socket.rcvhwm = 100
        self.socket.maxmsgsize = _LARGEST
        # A cable that was pulled is noticed by ZeroMQ's own heartbeat; it connects again by itself.
        self.socket.heartbeat_ivl = 2000
        self.socket.heartbeat_timeout = 6000
        secure_client(self.socket, keys, server)
        self.socket.connect(address)
        self.socket.subscribe(b"")

    def read(self, timeout_s: float) -> FeedMessage | None:
        """The next message, or None after ``timeout_s`` seconds of silence."""
        end = time.monotonic() + timeout_s
        while self.socket.poll(max(0, round((end - time.monotonic()) * 1000))):
            parts = self.socket.recv_multipart()
            try:
                message = msgspec.msgpack.decode(parts[-1], type=FeedMessage)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.bad += 1
                continue
            self._take(message)
            return message
        return None

    def _take(self, message: FeedMessage) -> None:
        if message.epoch != self._epoch:
            self.restarts += bool(self._epoch)
            self._epoch, self.fresh = message.epoch, message.snapshot is not None
        elif message.sequence != self._sequence + 1:
            self.missed += max(0, message.sequence - self._sequence - 1)
            self.fresh = message.snapshot is not None
        self._sequence = message.sequence
        self.changes = list(message.changes)
        if message.snapshot is not None:
            self.snapshot, self.fresh = message.snapshot, True
        elif self.snapshot is not None:
            after = {change.stream: change.after for change in message.changes}
            streams = tuple(
                msgspec.structs.replace(stream, state=after.get(stream.stream, stream.state))
                for stream in self.snapshot.streams
            )
            self.snapshot = msgspec.structs.replace(self.snapshot, streams=streams)
        if not self.fresh and time.monotonic() - self._asked_at > _ASK_AGAIN_S:
            # Subscribing again is the request for a snapshot.
            self._asked_at = time.monotonic()
            self.socket.unsubscribe(b"")
            self.socket.subscribe(b"")

    def close(self) -> None:
        self.socket.close(linger=0)
