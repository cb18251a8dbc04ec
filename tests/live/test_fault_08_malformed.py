"""Fault 8 and 9: packets that are wrong in every way get a code and are counted; the service goes on."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from live_samples import moment, picture, until
from live_serve import Running

from streammem import protocol as p
from streammem.model import Observation
from streammem.wire import encode_observation

FUZZED = 100_000


@pytest.fixture
def dealer(running: Running) -> Iterator[zmq.Socket[Any]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(running.address)
        yield socket


def answer(socket: zmq.Socket[Any], timeout_ms: int = 5000) -> p.FromService:
    assert socket.poll(timeout_ms), "no answer"
    return p.read_from_service(socket.recv_multipart()[0])


def write(body: list[Any], id: int = 7) -> list[Any]:
    return [p.seal(p.Write(id=id)), *body]


def header(**changes: Any) -> bytes:
    fields: dict[str, Any] = {"version": [1, 0], "kind": "observation", "stream": "cam", "seq": 1, "capture_ns": 5}
    fields.update(changes)
    return msgspec.msgpack.encode({name: value for name, value in fields.items() if value is not ...})


def jpeg_claiming(width: int, height: int) -> bytes:
    return b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00" + b"\xff\xda\xff\xd9"


F4 = np.ones(4, np.float32) / 2
NAN = np.array([np.nan, 1], np.float32)

# situation -> (body, code, field)
PACKETS: dict[str, tuple[list[Any], str, str]] = {
    "no header": ([], "observation", "header"),
    "empty header": ([b""], "observation", "header"),
    "not MessagePack": ([b"\xc1\xff\xff"], "observation", "header"),
    "non-UTF-8 stream": ([header().replace(b"cam", b"\xff\xfe\xfd")], "observation", "header"),
    "a header of 2 MB": ([b"\x80" + b"x" * (2 << 20)], "observation", "header"),
    "deeply nested": ([b"\x91" * 100_000], "observation", "header"),
    "another kind": ([header(kind="surprise")], "observation", "kind"),
    "another major version": ([header(version=[2, 0])], "version", ""),
    "missing seq": ([header(seq=...)], "observation", "header"),
    "seq of text": ([header(seq="one")], "observation", "header"),
    "negative seq": ([header(seq=-1)], "observation", "seq"),
    "time beyond int64": ([header(capture_ns=2**64 - 1)], "observation", ""),
    "empty stream": ([header(stream="")], "observation", "stream"),
    "a stream of 4 kB": ([header(stream="x" * 4096)], "observation", "stream"),
    "control characters": ([header(stream="cam\x1b[2J")], "observation", "stream"),
    "a buffer too few": ([header(buffers=[["embedding", "<f4", [4]]])], "observation", "buffers"),
    "a buffer too many": ([header(), b"1234"], "observation", "buffers"),
    "a name twice": ([header(buffers=[["tokens", "|u1", [1]]] * 2), b"1", b"1"], "observation", "buffers"),
    "an object dtype": ([header(buffers=[["tokens", "|O", [1]]]), b"12345678"], "observation", "tokens"),
    "big-endian": ([header(buffers=[["embedding", ">f4", [1]]]), b"1234"], "observation", "embedding"),
    "a shape that doesn't fit": ([header(buffers=[["embedding", "<f4", [5]]]), b"1234"], "observation", "embedding"),
    "a shape of 2**62": ([header(buffers=[["embedding", "<f4", [2**62]]]), b"1234"], "observation", "embedding"),
    "sides that overflow": ([header(buffers=[["depth_m", "<f4", [2**20] * 4]]), b""], "observation", "depth_m"),
    "negative sides": ([header(buffers=[["depth_m", "<f4", [-1, -4]]]), b"1234"], "observation", "depth_m"),
    "five dimensions": ([header(buffers=[["part:x", "|u1", [1] * 5]]), b"1"], "observation", "parts"),
    "NaN": ([header(space="s@1", buffers=[["embedding", "<f4", [2]]]), NAN.tobytes()], "observation", "embedding"),
    "infinity in a score": ([header(labels=[["mug", float("inf")]])], "observation", "labels"),
    "an embedding of length 2": (
        [header(space="s", buffers=[["embedding", "<f4", [4]]]), (F4 * 2).tobytes()],
        "observation",
        "embedding",
    ),
    "an embedding without a space": (
        [header(buffers=[["embedding", "<f4", [4]]]), F4.tobytes()],
        "observation",
        "space",
    ),
    "10**9 pixels": (
        [header(buffers=[["thumbnail", "|u1", [len(jpeg_claiming(40000, 25001))]]]), jpeg_claiming(40000, 25001)],
        "observation",
        "thumbnail",
    ),
    "not a JPEG": ([header(buffers=[["thumbnail", "|u1", [4]]]), b"GIF8"], "observation", "thumbnail"),
    "a box in pixels": ([header(detections=[["cup", 0.5, [10, 10, 200, 200], None]])], "observation", "detections"),
    "a failed pose": ([header(pose=[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], "map", 0])], "observation", "pose"),
    "5,000 labels": ([header(labels=[["x", 0.5]] * 5000)], "observation", "labels"),
    "an unknown buffer": ([header(buffers=[["surprise", "|u1", [1]]]), b"1"], "observation", "buffers"),
}


@pytest.mark.parametrize("situation", PACKETS)
def test_a_packet_that_is_wrong(running: Running, dealer: zmq.Socket[Any], situation: str) -> None:
    body, code, field = PACKETS[situation]
    dealer.send_multipart(write(body))
    acks = answer(dealer)
    assert isinstance(acks, p.Acks)
    (refusal,) = acks.refused
    assert (refusal.id, refusal.code, refusal.retry_ms) == (7, code, 0)
    assert refusal.field == field or not field
    assert len(refusal.message) <= 500
    counts = running.service.telling.counts
    until(lambda: counts[f"bad_{code}"] + counts["refused"] == 1)
    dealer.send_multipart(write(list(encode_observation(moment(1), ingest=False)), id=8))
    good = answer(dealer)
    assert isinstance(good, p.Acks) and good.written == (8,)


def request(method: str, body: list[Any], **changes: Any) -> list[Any]:
    return [p.seal(p.Request(id=9, client="c", method=method, **changes)), *body]


# situation -> (message, code)
MESSAGES: dict[str, tuple[list[Any], str]] = {
    "an empty frame": ([b""], "malformed"),
    "noise": ([bytes(range(256))], "malformed"),
    "a number": ([msgspec.msgpack.encode(5)], "malformed"),
    "no kind": ([msgspec.msgpack.encode({"version": [1, 0], "id": 1})], "malformed"),
    "an unknown kind": ([msgspec.msgpack.encode({"kind": "dance", "version": [1, 0], "id": 1})], "kind"),
    "version 2": ([msgspec.msgpack.encode({"kind": "ping", "version": [2, 0], "id": 1})], "version"),
    "version 2 of an unknown kind": ([msgspec.msgpack.encode({"kind": "dance", "version": [2, 0]})], "version"),
    "a negative id": ([msgspec.msgpack.encode({"kind": "ping", "version": [1, 0], "id": -1})], "malformed"),
    "an id beyond int64": ([msgspec.msgpack.encode({"kind": "ping", "version": [1, 0], "id": 2**63})], "malformed"),
    "an envelope of 1 MB": ([b"\x80" + b"x" * (1 << 20)], "oversize"),
    "200 parts": (write([b"x"] * 200), "parts"),
    "an unknown method": (request("drop_table", [b"\x80"]), "method"),
    "a method of the class": (request("__class__", [b"\x80"]), "method"),
    "a request without arguments": (request("search", []), "parts"),
    "two bodies": (request("search", [b"\x80", b"\x80"]), "parts"),
    "arguments that aren't a map": (request("search", [b"\x01"]), "malformed"),
    "arguments of another type": (request("search", [msgspec.msgpack.encode({"query": 5})]), "malformed"),
    "arguments of 9 MB": (request("search", [b"\x80" + b"x" * (9 << 20)]), "oversize"),
    "a token of 1 kB": ([p.seal(p.Hello(id=1, client="x" * 1000))], "malformed"),
}


@pytest.mark.parametrize("situation", MESSAGES)
def test_a_message_that_is_wrong(running: Running, dealer: zmq.Socket[Any], situation: str) -> None:
    message, code = MESSAGES[situation]
    dealer.send_multipart(message)
    error = answer(dealer)
    assert isinstance(error, p.Error)
    assert error.code == code
    assert running.service.telling.counts[f"bad_{code}"] == 1
    assert running.service.telling.snapshot(None, 0, 0).bad_messages == {code: 1}
    dealer.send_multipart([p.seal(p.Ping(id=3))])
    assert isinstance(answer(dealer), p.Pong)


def test_fault_09_both_versions_are_named(dealer: zmq.Socket[Any]) -> None:
    dealer.send_multipart([msgspec.msgpack.encode({"kind": "hello", "version": [3, 1], "id": 1, "client": "c"})])
    error = answer(dealer)
    assert isinstance(error, p.Error)
    assert error.message == "the message speaks protocol 3.1, this release speaks 1.1"


def test_a_frame_above_the_limit_is_never_allocated(running: Running, dealer: zmq.Socket[Any]) -> None:
    """libzmq ends the connection at the frame's declared size. The next connection works."""
    before = running.service.telling.counts.total()
    dealer.send_multipart(write([b"\0" * (70 << 20)]))
    assert not dealer.poll(700)
    assert running.service.telling.counts.total() == before
    with running.connect() as client:
        assert client.write(moment(1)).written == 1


def test_more_than_the_credits(running: Running, dealer: zmq.Socket[Any]) -> None:
    """A producer that ignores its credits is told to come back for what is above them; nothing grows."""
    message = [bytes(part) for part in encode_observation(moment(1), ingest=False)]
    for id in range(1, 3000):
        dealer.send_multipart(write(message, id=id))
    seen: dict[str, int] = {}
    for _ in range(3000):
        if sum(seen.values()) == 2999:
            break
        acks = answer(dealer)
        assert isinstance(acks, p.Acks)
        for refusal in acks.refused:
            assert refusal.retry_ms > 0
            seen[refusal.code] = seen.get(refusal.code, 0) + 1
        seen["kept"] = seen.get("kept", 0) + len(acks.written) + len(acks.duplicates)
    assert sum(seen.values()) == 2999
    assert running.memory.observation_count == 1


def mutated(rng: random.Random, message: list[bytes]) -> list[bytes]:
    """One to three random changes: bits, bytes, lengths, parts added, removed, swapped, repeated, cut."""
    parts = [bytearray(part) for part in message]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(parts)) if parts else 0
        choice = rng.randrange(8)
        if not parts:
            parts.append(bytearray(rng.randbytes(rng.randrange(50))))
        elif choice == 0 and parts[at]:
            parts[at][rng.randrange(len(parts[at]))] ^= 1 << rng.randrange(8)
        elif choice == 1 and parts[at]:
            parts[at][rng.randrange(len(parts[at]))] = rng.choice((0, 0xC1, 0xDF, 0xDD, 0xC6, 0xFF, 0x7F))
        elif choice == 2:
            del parts[at][rng.randrange(len(parts[at]) + 1) :]
        elif choice == 3:
            parts[at] += rng.randbytes(rng.randrange(1, 40))
        elif choice == 4:
            parts.insert(at, bytearray(rng.randbytes(rng.randrange(30))))
        elif choice == 5:
            del parts[at]
        elif choice == 6:
            rng.shuffle(parts)
        else:
            parts[at] = bytearray(rng.randbytes(rng.randrange(200)))
    return [bytes(part) for part in parts] or [b""]


@pytest.mark.slow
def test_fault_08_a_hundred_thousand_mutated_messages(running: Running) -> None:
    """The service answers the last question as it did the first, and keeps only observations that pass every check."""
    rng = random.Random(20261122)
    small = Observation(stream="fuzz", seq=1, capture_ns=5, thumbnail=picture(1, 8))
    seeds = [
        write([bytes(part) for part in encode_observation(moment(3), ingest=False)]),
        write([bytes(part) for part in encode_observation(small, ingest=False)]),
        [p.seal(p.Hello(id=1, client="fuzz"))],
        [p.seal(p.Ping(id=1, drops={"cam": {"live_replaced": 3}}))],
        request("search", [msgspec.msgpack.encode({"query": "mug", "k": 3})]),
        request("put_state", [msgspec.msgpack.encode({"key": "a/b/c", "value": b"12"})]),
        request("record", [msgspec.msgpack.encode({"record_id": 5})]),
        [p.seal(p.Bye(id=1))],
    ]
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.sndhwm = 0
        socket.connect(running.address)
        for number in range(FUZZED):
            socket.send_multipart(mutated(rng, seeds[number % len(seeds)]))
            if number % 50 == 0:
                while socket.poll(0):
                    p.read_from_service(socket.recv_multipart()[0])
        # The ping that follows everything on this connection: when it is answered, all was read.
        socket.send_multipart([p.seal(p.Ping(id=424242))])
        until(lambda: answered(socket, 424242), 120)
    counts = running.service.telling.counts
    bad = sum(count for name, count in counts.items() if name.startswith("bad_"))
    assert bad > FUZZED // 3
    with running.connect() as client:
        assert client.write(moment(9)).written + client.write(moment(9)).duplicates >= 1
        assert client.search("mug")
        assert running.memory.verify() == []


def answered(socket: zmq.Socket[Any], id: int) -> bool:
    while socket.poll(0):
        message = p.read_from_service(socket.recv_multipart()[0])
        if isinstance(message, p.Pong) and message.id == id:
            return True
    return False
