"""Packets: round trips, golden bytes, and every way in which one is refused."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_moments import observation, tiny_jpeg

from streammem.checks import DTYPES, Limits, jpeg_size
from streammem.errors import FormatVersion, ObservationError
from streammem.model import Detection, Label, Observation, Pose, Speech, StateFact, TextSpan
from streammem.wire import (
    content_hash,
    decode_observation,
    encode_observation,
    pack,
    unpack,
    validate_observation,
)


def same(left: object, right: object) -> bool:
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left == right


def assert_same(left: Observation, right: Observation) -> None:
    for entry in fields(Observation):
        assert same(getattr(left, entry.name), getattr(right, entry.name)), entry.name


text = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30)
name = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=40).filter(str.isprintable)
said = text.filter(str.isprintable)
share = st.floats(0, 1)
int64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    vector = rng.normal(size=draw(st.integers(1, 64))).astype(np.float32)
    parts = {}
    for part in draw(
        st.lists(name.filter(lambda n: n not in ("vector", "tokens", "depth_m", "embedding")), max_size=3)
    ):
        shape = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
        parts[part] = rng.integers(0, 100, shape).astype(draw(st.sampled_from(sorted(DTYPES))))
    return Observation(
        stream=draw(name),
        session=draw(st.one_of(st.just(""), name)),
        seq=draw(st.integers(0, 2**63 - 1)),
        capture_ns=draw(int64),
        media_ns=draw(st.none() | int64),
        ingest_ns=draw(st.none() | int64),
        space="x@1",
        embedding=draw(st.sampled_from([None, vector / np.linalg.norm(vector)])),
        parts=parts,
        tokens=draw(st.sampled_from([None, rng.normal(size=(3, 4)).astype(np.float16), np.empty((0, 4), np.float16)])),
        depth_m=draw(st.sampled_from([None, rng.random((2, 3)).astype(np.float32)])),
        thumbnail=draw(st.sampled_from([None, tiny_jpeg(1)])),
        labels=tuple(Label(*pair) for pair in draw(st.lists(st.tuples(text, share), max_size=3))),
        texts=tuple(TextSpan(*pair) for pair in draw(st.lists(st.tuples(text, share), max_size=3))),
        states=tuple(
            StateFact(*given) for given in draw(st.lists(st.tuples(name, name, said, share, said), max_size=3))
        ),
        stats=draw(st.dictionaries(name, st.floats(allow_nan=False, allow_infinity=False), max_size=3)),
    )


@settings(max_examples=150, deadline=None)
@given(observations())
def test_round_trip(original: Observation) -> None:
    validate_observation(original)
    again = decode_observation(unpack(pack(encode_observation(original))))
    assert_same(again, original)
    validate_observation(again)
    assert content_hash(again) == content_hash(original)
    assert content_hash(replace(original, ingest_ns=5)) == content_hash(original)


def test_decoded_arrays_are_read_only() -> None:
    again = decode_observation(encode_observation(observation(1)))
    assert again.embedding is not None
    with pytest.raises(ValueError, match="read-only"):
        again.embedding[0] = 1


def test_golden_bytes() -> None:
    """The wire format is a promise: these bytes may only change together with PROTOCOL."""
    packet = pack(
        encode_observation(
            Observation(
                stream="cam",
                seq=7,
                capture_ns=1_000,
                space="x@1",
                embedding=np.array([0.6, 0.8], np.float32),
                parts={"s": np.array([[1, 2]], np.uint8)},
                labels=(Label("cup", 0.5),),
            )
        )
    )
    golden = (
        "03000000860000000000000002000000000000000800000000000000de0008a776657273696f6e920100a46b696e64ab6f62"
        "736572766174696f6ea673747265616da363616da373657107aa636170747572655f6e73cd03e8a57370616365a3784031a6"
        "6c6162656c739192a3637570cb3fe0000000000000a7627566666572739293a6706172743a73a37c753192010293a9656d62"
        "656464696e67a33c6634910201029a99193fcdcc4c3f"
    )
    assert packet.hex() == golden
    assert decode_observation(unpack(bytes.fromhex(golden))).labels == (Label("cup", 0.5),)


def test_golden_bytes_of_a_statement() -> None:
    """1.1 added ``states`` behind everything else, and only a packet that uses it says 1.1."""
    fact = StateFact("mug-1", "place", "table", 0.5, relation="on")
    header = encode_observation(Observation(stream="cam", seq=7, capture_ns=1_000, states=(fact,)))[0]
    golden = (
        "de0006a776657273696f6e920101a46b696e64ab6f62736572766174696f6ea673747265616da363616da373657107aa"
        "636170747572655f6e73cd03e8a67374617465739198a56d75672d31a5706c616365a57461626c65cb3fe0000000000000"
        "a0a26f6ea0c0"
    )
    assert bytes(header).hex() == golden
    assert decode_observation([bytes.fromhex(golden)]).states == (fact,)
    older = bytes.fromhex(golden).replace(b"\xa6states", b"\xa6secret")  # a reader of 1.0 meets an unknown field
    assert decode_observation([older]).states == ()


def test_content_hash_does_not_depend_on_the_order_of_maps() -> None:
    parts = {"a": np.zeros((1, 2), np.float32), "b": np.ones((1, 2), np.float32)}
    one = observation(1, parts=parts, stats={"x": 1.0, "y": 2.0})
    two = observation(1, parts=dict(reversed(parts.items())), stats={"y": 2.0, "x": 1.0})
    assert content_hash(one) == content_hash(two)
    assert content_hash(one) != content_hash(observation(2))


BOMB = b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 11, 8, 60000, 60000) + bytes(9)
ONE = np.array([1.0, 0.0], np.float32)
REFUSED = {
    "empty stream": ("stream", {"stream": ""}),
    "control character in stream": ("stream", {"stream": "a\x00b"}),
    "newline in stream": ("stream", {"stream": "a\nb"}),
    "4 kB stream": ("stream", {"stream": "a" * 4096}),
    "surrogate in stream": ("stream", {"stream": "\ud800"}),
    "stream is bytes": ("stream", {"stream": b"cam"}),
    "control character in session": ("session", {"session": "\x1b[31m"}),
    "negative seq": ("seq", {"seq": -1}),
    "seq beyond int64": ("seq", {"seq": 2**63}),
    "seq is true": ("seq", {"seq": True}),
    "capture_ns is a float": ("capture_ns", {"capture_ns": 1.5}),
    "capture_ns beyond int64": ("capture_ns", {"capture_ns": -(2**63) - 1}),
    "media_ns beyond int64": ("media_ns", {"media_ns": 2**63}),
    "NaN in the embedding": ("embedding", {"embedding": np.array([np.nan, 1], np.float32)}),
    "infinity in the embedding": ("embedding", {"embedding": np.array([np.inf, 1], np.float32)}),
    "zero embedding": ("embedding", {"embedding": np.zeros(4, np.float32)}),
    "embedding not normalised": ("embedding", {"embedding": ONE * 2}),
    "embedding in float64": ("embedding", {"embedding": ONE.astype(np.float64)}),
    "embedding with two dimensions": ("embedding", {"embedding": ONE[None]}),
    "embedding is a list": ("embedding", {"embedding": [1.0, 0.0]}),
    "embedding without a space": ("space", {"space": None}),
    "objects in a part": ("parts[p]", {"parts": {"p": np.array([object()])}}),
    "big-endian part": ("parts[p]", {"parts": {"p": np.zeros(2, ">f4")}}),
    "NaN in a part": ("parts[p]", {"parts": {"p": np.array([np.nan], np.float32)}}),
    "part without dimensions": ("parts[p]", {"parts": {"p": np.float32(1) + np.zeros((), np.float32)}}),
    "part with five dimensions": ("parts[p]", {"parts": {"p": np.zeros((1, 1, 1, 1, 1), np.float32)}}),
    "part with a reserved name": ("parts", {"parts": {"vector": np.zeros(2, np.float32)}}),
    "part with a control character": ("parts", {"parts": {"a\x01": np.zeros(2, np.float32)}}),
    "too many parts": ("parts", {"parts": {str(i): np.zeros(1, np.float32) for i in range(61)}}),
    "tokens in float32": ("tokens", {"tokens": np.zeros((2, 2), np.float32)}),
    "negative depth": ("depth_m", {"depth_m": np.full((2, 2), -1, np.float32)}),
    "80 MB of parts": ("bytes", {"parts": {"p": np.zeros(80 << 20, np.uint8)}}),
    "thumbnail isn't a JPEG": ("thumbnail", {"thumbnail": b"\x89PNG" + bytes(20)}),
    "thumbnail is cut off": ("thumbnail", {"thumbnail": b"\xff\xd8\xff\xe0"}),
    "JPEG bomb": (
        "thumbnail",
        {"thumbnail": BOMB},
    ),
    "label score above 1": ("labels", {"labels": (Label("a", 1.5),)}),
    "label score is NaN": ("labels", {"labels": (Label("a", float("nan")),)}),
    "labels in a list": ("labels", {"labels": [Label("a", 0.5)]}),
    "5,000 labels": ("labels", {"labels": (Label("a", 0.5),) * 5000}),
    "box in pixels": ("detections", {"detections": (Detection("a", 0.5, (0.0, 0.0, 640.0, 480.0)),)}),
    "box turned around": ("detections", {"detections": (Detection("a", 0.5, (0.5, 0.0, 0.1, 1.0)),)}),
    "control characters in a text": ("texts", {"texts": (TextSpan("\x1b]0;", 0.5),)}),
    "10,000 characters of text": ("texts", {"texts": (TextSpan("a" * 10_000, 0.5),)}),
    "speech that ends before it starts": ("speech", {"speech": (Speech("a", 2, 1),)}),
    "state of nothing": ("states", {"states": (StateFact("", "place", "table"),)}),
    "state with an escape sequence": ("states", {"states": (StateFact("mug", "place", "\x1b]0;"),)}),
    "state of 4 kB": ("states", {"states": (StateFact("mug", "place", "a" * 4096),)}),
    "state surer than sure": ("states", {"states": (StateFact("mug", "place", "table", 1.5),)}),
    "state that ended before it was seen": ("states", {"states": (StateFact("mug", "at", "x", until_ns=5),)}),
    "state for ever": ("states", {"states": (StateFact("mug", "at", "x", until_ns=2**63 - 1),)}),
    "5,000 states": ("states", {"states": (StateFact("mug", "at", "x"),) * 5000}),
    "pose with NaN": ("pose", {"pose": Pose((0.0, float("nan"), 0.0), (0.0, 0.0, 0.0, 1.0))}),
    "pose with a zero quaternion": ("pose", {"pose": Pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))}),
    "pose with a quaternion of length 2": ("pose", {"pose": Pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 2.0))}),
    "stats with infinity": ("stats", {"stats": {"a": float("inf")}}),
}


@pytest.mark.parametrize("situation", REFUSED)
def test_refused(situation: str) -> None:
    field, changes = REFUSED[situation]
    with pytest.raises(ObservationError) as caught:
        validate_observation(observation(1, **changes))
    assert caught.value.field == field
    assert str(caught.value).startswith("observation refused: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stream", ["'", '"; DROP TABLE x; --', "../../etc/passwd", "相机", "ü" * 200, "a/b", "."])
def test_hostile_names_are_legal_data(stream: str) -> None:
    validate_observation(observation(1, stream=stream))


def header(**changes: object) -> bytes:
    fields_ = {"version": (1, 0), "kind": "observation", "stream": "a", "seq": 1, "capture_ns": 1, "buffers": []}
    return msgspec.msgpack.encode({**fields_, **changes})


BAD_PACKETS = {
    "no parts": ([], "header"),
    "header isn't MessagePack": ([b"\xc1\xc1"], "header"),
    "header is cut off": ([header()[:-3]], "header"),
    "header of 2 MB": ([header(stream="a" * (2 << 20))], "header"),
    "text isn't UTF-8": ([header(stream="abc").replace(b"abc", b"\xff\xfe\xfd")], "header"),
    "another kind": ([header(kind="request")], "kind"),
    "seq beyond 64 bits": ([header(seq=2**63)[:-1]], "header"),
    "a buffer too many": ([header(), b"x"], "buffers"),
    "a buffer too few": ([header(buffers=[("embedding", "<f4", (2,))])], "buffers"),
    "object dtype": ([header(buffers=[("embedding", "|O", (2,))]), bytes(16)], "embedding"),
    "wrong byte count": ([header(buffers=[("embedding", "<f4", (2,))]), bytes(7)], "embedding"),
    "shape of 10^18": ([header(buffers=[("embedding", "<f4", (10**9, 10**9))]), bytes(8)], "embedding"),
    "empty array with a side of 10^18": ([header(buffers=[("tokens", "<f2", (0, 10**18))]), b""], "tokens"),
    "negative side": ([header(buffers=[("embedding", "<f4", (-2, -1))]), bytes(8)], "embedding"),
    "name twice": ([header(buffers=[("part:a", "|u1", (1,))] * 2), b"x", b"x"], "buffers"),
    "unknown buffer": ([header(buffers=[("other", "|u1", (1,))]), b"x"], "buffers"),
}


@pytest.mark.parametrize("situation", BAD_PACKETS)
def test_bad_packet(situation: str) -> None:
    parts, field = BAD_PACKETS[situation]
    with pytest.raises(ObservationError) as caught:
        decode_observation(parts)
    assert caught.value.field == field


def test_versions() -> None:
    with pytest.raises(FormatVersion, match=r"speaks protocol 2\.0, this release speaks 1\.1"):
        decode_observation([header(version=(2, 0))])
    newer = [header(version=(1, 7), new_field=[1, 2], buffers=[("hologram", "|u1", (1,))]), b"x"]
    assert decode_observation(newer).stream == "a"  # a newer minor version may add fields and buffers


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2**32))
def test_mutated_blobs_are_refused_or_read(noise: bytes, seed: int) -> None:
    rng = np.random.default_rng(seed)
    blob = bytearray(pack(encode_observation(observation(seed % 9))))
    at = int(rng.integers(len(blob)))
    blob[at : at + len(noise)] = noise
    with suppress(ObservationError, FormatVersion):
        validate_observation(decode_observation(unpack(bytes(blob))))


def test_caps_are_checked_before_allocation() -> None:
    blob = struct.pack("<I", 2**32 - 1)
    with pytest.raises(ObservationError, match="declares 4294967295 parts"):
        unpack(blob)
    with pytest.raises(ObservationError, match="exceed the limit of 10"):
        decode_observation([header(), *[]], limits=Limits(total_bytes=10))


def test_jpeg_size_skips_other_segments() -> None:
    assert jpeg_size(tiny_jpeg(1)) == (8, 8)
    exif = b"\xff\xd8\xff\xe1" + struct.pack(">H", 100) + bytes(98)
    assert jpeg_size(exif + tiny_jpeg(1)[2:]) == (8, 8)
    assert jpeg_size(b"\xff\xd8\xff" + b"\xff" * 50) is None
