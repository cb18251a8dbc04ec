"""A producer for a memory service in one file: Python 3.8 or newer, pyzmq and msgpack, nothing else.

Copy it to the robot, the simulator or the old container that can't have more:

    from mini_producer import MiniProducer

    with MiniProducer("tcp://127.0.0.1:5570", stream="robot-1") as producer:
        producer.send(capture_ns=time.time_ns(), thumbnail=jpeg_bytes, labels=[("mug", 0.9)])

What was sent is held until the service has synced it to disk, and sent again after a reconnect or a restart. There is
no thread: ``send``, ``poll`` and ``flush`` do the talking, so call one of them at least every few seconds. When the
buffer is full, ``send`` waits; with ``live=True`` it drops the oldest unsent packet instead and counts it.

Arrays are NumPy arrays, or ``(dtype, shape, bytes)`` with a little-endian dtype such as ``"<f4"``. An embedding is
float32 of norm 1 and needs the name of its space. Nothing is checked here; the service checks everything, and what it
refuses is in ``refused``.
"""

from __future__ import annotations

import contextlib
import struct
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgpack
import zmq

VERSION = (1, 0)
RESEND_S = 5.0
DEAD_S = 5.0
PING_S = 1.0


class ServiceAway(Exception):
    """Nobody acknowledged in time. Everything unacknowledged is still held."""


class Refused(Exception):
    """The service speaks another version, or this key may not write."""


def encode(
    stream: str,
    seq: int,
    capture_ns: int,
    session: str = "",
    media_ns: int | None = None,
    space: str | None = None,
    embedding: Any = None,
    parts: Mapping[str, Any] | None = None,
    tokens: Any = None,
    depth_m: Any = None,
    thumbnail: bytes | None = None,
    labels: Iterable[Any] = (),
    detections: Iterable[Any] = (),
    texts: Iterable[Any] = (),
    speech: Iterable[Any] = (),
    pose: Sequence[Any] | None = None,
    intrinsics: Sequence[Any] | None = None,
    stats: Mapping[str, float] | None = None,
    producer: Sequence[str] | None = None,
    states: Iterable[Any] = (),
) -> list[bytes]:
    """One observation as the message parts ``[header, buffer, ...]``.

    labels ``[(name, score)]``; detections ``[(label, score, (x0, y0, x1, y1), track or None)]``; texts
    ``[(text, score, box or None)]``; speech ``[(text, t_start_ns, t_end_ns, score, language)]``; pose
    ``((x, y, z) metres, (x, y, z, w), frame_id, map_version)``; intrinsics ``(fx, fy, cx, cy, width, height)``;
    producer ``(module, model, revision, parameters)``; states ``[(entity, attribute, value, confidence, kind, relation,
    place, until_ns or None)]``, the last five may be left out."""
    named = [("part:" + name, (parts or {})[name]) for name in sorted(parts or {})]
    named += [("embedding", embedding), ("tokens", tokens), ("depth_m", depth_m)]
    infos: list[Any] = []
    buffers: list[bytes] = []
    for name, array in named:
        if array is not None:
            dtype, shape, data = array if isinstance(array, tuple) else _plain(array)
            infos.append([name, dtype, list(shape)])
            buffers.append(bytes(data))
    if thumbnail is not None:
        infos.append(["thumbnail", "|u1", [len(thumbnail)]])
        buffers.append(bytes(thumbnail))
    stated = [[*s[:3], float(s[3]) if len(s) > 3 else 1.0, *_rest(s[4:], ("", "", "", None))] for s in states]
    version = (1, 1) if stated else VERSION  # the lowest that holds what is said
    header: dict[str, Any] = {"version": version, "kind": "observation", "stream": stream}
    # The service's own encoder leaves out what has its default; so does this one, to the byte.
    if session:
        header["session"] = session
    header["seq"], header["capture_ns"] = seq, capture_ns
    optional: tuple[tuple[str, Any], ...] = (
        ("media_ns", media_ns),
        ("space", space),
        ("labels", [[name, float(score)] for name, score in labels]),
        ("detections", [[d[0], float(d[1]), _floats(d[2]), d[3] if len(d) > 3 else None] for d in detections]),
        ("texts", [[t[0], float(t[1]), _floats(t[2]) if len(t) > 2 and t[2] else None] for t in texts]),
        (
            "speech",
            [[s[0], s[1], s[2], float(s[3]) if len(s) > 3 else 1.0, s[4] if len(s) > 4 else ""] for s in speech],
        ),
        ("pose", pose and [_floats(pose[0]), _floats(pose[1]), *_rest(pose[2:], ("map", 0))]),
        ("intrinsics", intrinsics and [*_floats(intrinsics[:4]), *intrinsics[4:]]),
        ("stats", {name: float(value) for name, value in sorted((stats or {}).items())}),
        ("producer", producer and [producer[0], *_rest(producer[1:], ("", "", ""))]),
        ("states", stated),
        ("buffers", infos),
    )
    for name, value in optional:
        if value is not None and value != [] and value != {}:
            header[name] = value
    # The service's encoder writes the header's size in two bytes, whatever it is: 23 fields are possible.
    pairs = [msgpack.packb(item, use_bin_type=True) for pair in header.items() for item in pair]
    return [b"\xde" + struct.pack(">H", len(header)) + b"".join(pairs), *buffers]


def _plain(array: Any) -> tuple[str, tuple[int, ...], bytes]:
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.dtype.str, array.shape, array.tobytes()


def _floats(values: Iterable[float]) -> list[float]:
    return [float(value) for value in values]


def _rest(given: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    return [*given, *defaults[len(given):]]  # fmt: skip


class MiniProducer:
    """One stream to one service. Not thread-safe."""

    def __init__(
        self,
        address: str,
        stream: str,
        session: str | None = None,
        first_seq: int = 0,
        packets: int = 256,
        live: bool = False,
        name: str = "",
        server_key: str | None = None,
        public_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        """``packets``: how many are held unacknowledged. Keys (Z85 text, from ``streammem keys new``) where the service
        is on another machine. A new ``session`` (default: a random one) makes its seqs count anew."""
        self.address, self.stream, self.live = address, stream, live
        self.session = uuid.uuid4().hex[:12] if session is None else session
        self.seq = first_seq
        self.acknowledged = self.dropped = self.resent = 0
        self.refused: dict[str, int] = {}
        """How many packets the service refused, by field."""
        self._name, self._keys = name, (server_key, public_key, secret_key)
        self._client = uuid.uuid4().hex
        self._most = packets
        self._credits = self._credit_bytes = 0
        self._epoch: str | None = None
        self._ids = 0
        self._held: OrderedDict[int, list[Any]] = OrderedDict()  # id -> [parts, size, sent at or None, not before]
        self._told = 0
        self._context: Any = zmq.Context()
        self._socket: Any = None
        self._open()

    def __enter__(self) -> MiniProducer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Packets that aren't acknowledged."""
        return len(self._held)

    def send(self, capture_ns: int, timeout_s: float | None = None, **fields: Any) -> int:
        """Queue one observation (see :func:`encode`) and give its seq. With a full buffer it waits, for ``timeout_s``
        at most, then raises ServiceAway; the observation isn't queued then."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while len(self._held) >= self._most:
            if self.live and self._drop_oldest():
                break
            if end is not None and time.monotonic() > end:
                raise ServiceAway(f"{self.address} acknowledged nothing within {timeout_s} s")
            self.poll(0.05)
        seq, self.seq = self.seq, self.seq + 1
        parts = encode(self.stream, seq, capture_ns, session=self.session, **fields)
        self._ids += 1
        self._held[self._ids] = [parts, sum(len(part) for part in parts), None, 0.0]
        self.poll(0)
        return seq

    def poll(self, timeout_s: float = 0.0) -> None:
        """Read what the service said, send what may be sent. Raises Refused."""
        self._tend()
        self._push()
        if self._socket.poll(int(timeout_s * 1000)):
            while True:
                try:
                    frames = self._socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                self._heard_at = time.monotonic()
                self._take(msgpack.unpackb(frames[0], raw=False))
            self._push()

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything is acknowledged. Raises ServiceAway."""
        end = time.monotonic() + timeout_s
        while self._held:
            if time.monotonic() > end:
                raise ServiceAway(f"{len(self._held)} packets are not acknowledged by {self.address}")
            self.poll(0.05)

    def close(self, timeout_s: float = 10.0) -> int:
        """Flush for so long, say goodbye. Gives how many packets were not acknowledged."""
        with contextlib.suppress(ServiceAway, Refused):
            self.flush(timeout_s)
        if self._credits:
            self._put({"kind": "bye", "version": VERSION, "id": 0})
        self._socket.close(linger=200)
        self._context.term()
        return len(self._held)

    # -- inside

    def _open(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket = socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 5000)
        server, public, secret = self._keys
        if server and public and secret:
            socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = (
                server.encode(), public.encode(), secret.encode(),
            )  # fmt: skip
        socket.connect(self.address)
        self._heard_at = time.monotonic()
        self._pinged_at = self._greeted_at = 0.0
        self._credits = 0
        self._again()

    def _again(self) -> None:
        for packet in self._held.values():
            packet[2] = None

    def _put(self, message: dict[str, Any], parts: Sequence[bytes] = ()) -> bool:
        try:
            self._socket.send_multipart([msgpack.packb(message, use_bin_type=True), *parts], zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _tend(self) -> None:
        now = time.monotonic()
        if now - self._heard_at > DEAD_S:
            self._open()
        if not self._credits:
            if now - self._greeted_at > 0.5:
                self._greeted_at = now
                hello = {"kind": "hello", "version": VERSION, "id": 0, "client": self._client}
                if self._name:
                    hello["name"] = self._name
                self._put(hello)
        elif now - self._pinged_at > PING_S:
            self._pinged_at = now
            ping = {"kind": "ping", "version": VERSION, "id": 0}
            if self.dropped > self._told:
                ping["drops"] = {self.stream: {"live_replaced": self.dropped - self._told}}
            if self._put(ping):
                self._told = self.dropped
        for packet in self._held.values():
            # The service is alive, and an acknowledgement was lost.
            if packet[2] is not None and now - packet[2] > RESEND_S and self._heard_at > packet[2] + RESEND_S:
                packet[2] = None

    def _push(self) -> None:
        now = time.monotonic()
        flying = [packet for packet in self._held.values() if packet[2] is not None]
        count, size = len(flying), sum(packet[1] for packet in flying)
        for number, packet in self._held.items():
            if packet[2] is not None:
                continue
            if count >= self._credits or (count and size + packet[1] > self._credit_bytes) or packet[3] > now:
                return
            if not self._put({"kind": "write", "version": VERSION, "id": number}, packet[0]):
                return
            self.resent += packet[3] < 0
            packet[2], packet[3] = now, -1.0
            count, size = count + 1, size + packet[1]

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        epoch = message.get("epoch")
        if kind == "welcome":
            self._credits, self._credit_bytes = message["credits"], message["credit_bytes"]
        elif kind == "acks":
            for number in [*message.get("written", ()), *message.get("duplicates", ())]:
                self.acknowledged += self._held.pop(number, None) is not None
            for number, code, _, field, _, retry_ms in message.get("refused", ()):
                if retry_ms and number in self._held:
                    self._held[number][2], self._held[number][3] = None, time.monotonic() + retry_ms / 1000.0
                elif self._held.pop(number, None) is not None:
                    self.refused[field or code] = self.refused.get(field or code, 0) + 1
        elif kind == "error" and message["code"] in ("version", "access_denied"):
            raise Refused("{code}: {message}".format(**message))
        if epoch is not None and epoch != self._epoch:
            if self._epoch is not None:
                self._credits = message.get("credits", 0)
                self._again()
            self._epoch = epoch

    def _drop_oldest(self) -> bool:
        for number, packet in self._held.items():
            if packet[2] is None and packet[3] == 0.0:
                del self._held[number]
                self.dropped += 1
                return True
        return False
