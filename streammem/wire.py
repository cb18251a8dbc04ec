"""Observation <-> multipart message: ``[header][buffer 0][buffer 1]...``.

The header is MessagePack: protocol version (major, minor), kind, identity, the small fields, and for every buffer its
name, dtype and shape. The buffers are the raw little-endian bytes of the arrays, so that a message is cut, not parsed.
A newer minor version may add header fields (they are ignored here); a newer major version is refused with both
versions named. ``pack`` joins the parts to one blob for the journal.

The encoding is canonical: maps are sorted, defaults are left out, ``ingest_ns`` is left out on request. One observation
therefore has one ``content_hash``, on every machine.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence

import msgspec
import numpy as np

from streammem.checks import DTYPES, LIMITS, Limits, refuse, validate_observation
from streammem.errors import FormatVersion
from streammem.model import (
    NO_PRODUCER,
    Detection,
    Intrinsics,
    Label,
    Observation,
    Pose,
    Producer,
    Speech,
    StateFact,
    TextSpan,
)

__all__ = [
    "LIMITS",
    "PROTOCOL",
    "Buffer",
    "Limits",
    "content_hash",
    "decode_observation",
    "encode_observation",
    "pack",
    "unpack",
    "validate_observation",
]

PROTOCOL = (1, 1)
"""(major, minor). Minor: fields were added. Major: a reader of the old version would misunderstand.

A packet states the lowest version that holds what it says, so that what could be said before keeps its bytes, its
content hash and so the memory's digest. 1.1: ``states``."""
Buffer = bytes | bytearray | memoryview
PART = "part:"

_COUNT = struct.Struct("<I")
_SIZE = struct.Struct("<Q")


class BufferInfo(msgspec.Struct, frozen=True, array_like=True):
    """What a buffer holds. ``dtype`` in NumPy's notation, ``<f4``; raw bytes are ``|u1``."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Preamble(msgspec.Struct, frozen=True):
    """What every header begins with, of whatever version and kind."""

    version: tuple[int, int]
    kind: str


class ObservationHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    version: tuple[int, int]
    kind: str
    stream: str
    session: str = ""
    seq: int
    capture_ns: int
    media_ns: int | None = None
    ingest_ns: int | None = None
    space: str | None = None
    labels: tuple[Label, ...] = ()
    detections: tuple[Detection, ...] = ()
    texts: tuple[TextSpan, ...] = ()
    speech: tuple[Speech, ...] = ()
    pose: Pose | None = None
    intrinsics: Intrinsics | None = None
    stats: dict[str, float] = {}
    producer: Producer = NO_PRODUCER
    states: tuple[StateFact, ...] = ()
    buffers: tuple[BufferInfo, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_headers = msgspec.msgpack.Decoder(ObservationHeader)
_preambles = msgspec.msgpack.Decoder(Preamble)


def _arrays(observation: Observation) -> list[tuple[str, np.ndarray]]:
    named = [(PART + name, observation.parts[name]) for name in sorted(observation.parts)]
    for name, array in (
        ("embedding", observation.embedding),
        ("tokens", observation.tokens),
        ("depth_m", observation.depth_m),
    ):
        if array is not None:
            named.append((name, array))
    return named


def encode_observation(observation: Observation, *, ingest: bool = True) -> list[Buffer]:
    """``[header, buffer...]``; the buffers are views of the observation's arrays where those are contiguous.

    ``ingest=False`` leaves ``ingest_ns`` out. The observation is expected to have passed ``validate_observation``."""
    infos: list[BufferInfo] = []
    buffers: list[Buffer] = []
    for name, array in _arrays(observation):
        plain = np.ascontiguousarray(array)
        infos.append(BufferInfo(name, plain.dtype.str, plain.shape))
        buffers.append(plain.reshape(-1).view(np.uint8).data if plain.size else b"")
    if observation.thumbnail is not None:
        infos.append(BufferInfo("thumbnail", "|u1", (len(observation.thumbnail),)))
        buffers.append(observation.thumbnail)
    header = ObservationHeader(
        version=(1, 1) if observation.states else (1, 0),
        kind="observation",
        stream=observation.stream,
        session=observation.session,
        seq=int(observation.seq),
        capture_ns=int(observation.capture_ns),
        media_ns=observation.media_ns,
        ingest_ns=observation.ingest_ns if ingest else None,
        space=observation.space,
        labels=observation.labels,
        detections=observation.detections,
        texts=observation.texts,
        speech=observation.speech,
        pose=observation.pose,
        intrinsics=observation.intrinsics,
        stats=dict(sorted(observation.stats.items())),
        producer=observation.producer,
        states=observation.states,
        buffers=tuple(infos),
    )
    return [_encoder.encode(header), *buffers]


def _read_header(data: Buffer, limits: Limits) -> ObservationHeader:
    if len(data) > limits.header_bytes:
        raise refuse("header", f"has {len(data)} bytes, the limit is {limits.header_bytes}")
    try:
        preamble = _preambles.decode(data)
        if preamble.version[0] != PROTOCOL[0]:
            raise FormatVersion(
                f"the packet speaks protocol {preamble.version[0]}.{preamble.version[1]}, "
                f"this release speaks {PROTOCOL[0]}.{PROTOCOL[1]}",
                hint="use the same major version on both sides",
            )
        if preamble.kind != "observation":
            raise refuse("kind", f"is {preamble.kind!r}, expected 'observation'")
        return _headers.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refuse("header", f"can't be read: {str(error)[:200]}") from error


def _field(name: str) -> str:
    """What a refusal calls a buffer: one of a few names, whatever the sender called it."""
    return name if name in ("embedding", "tokens", "depth_m", "thumbnail") else "parts"


def _check_sizes(header: ObservationHeader, parts: Sequence[Buffer], limits: Limits) -> None:
    infos = header.buffers
    if len(infos) > limits.buffers or len(parts) - 1 != len(infos):
        raise refuse(
            "buffers", f"are {len(parts) - 1}, the header declares {len(infos)}, the limit is {limits.buffers}"
        )
    if sum(len(part) for part in parts) > limits.total_bytes:
        raise refuse("bytes", f"exceed the limit of {limits.total_bytes}")
    if len({info.name for info in infos}) != len(infos):
        raise refuse("buffers", "repeat a name")
    for info, part in zip(infos, parts[1:], strict=True):
        dtype = DTYPES.get(info.dtype)
        if dtype is None:
            raise refuse(
                _field(info.name), f"has dtype {info.dtype[:20]!r}, expected one of {', '.join(sorted(DTYPES))}"
            )
        if not 1 <= len(info.shape) <= limits.dims or not all(0 <= side <= limits.total_bytes for side in info.shape):
            raise refuse(_field(info.name), f"has shape {info.shape[:8]}, expected 1 to {limits.dims} dimensions")
        expected = math.prod(info.shape) * dtype.itemsize
        if expected != len(part):
            raise refuse(_field(info.name), f"has {len(part)} bytes, dtype and shape need {expected}")


def decode_observation(parts: Sequence[Buffer], *, limits: Limits = LIMITS) -> Observation:
    """The observation of one message. Arrays are read-only views of the buffers.

    Sizes are checked here, before anything is allocated; meaning is checked by ``validate_observation``.
    Raises ObservationError, or FormatVersion for another major version."""
    if not parts:
        raise refuse("header", "is missing")
    header = _read_header(parts[0], limits)
    _check_sizes(header, parts, limits)
    arrays: dict[str, np.ndarray] = {}
    known: dict[str, np.ndarray] = {}
    thumbnail: bytes | None = None
    for info, part in zip(header.buffers, parts[1:], strict=True):
        if info.name == "thumbnail":
            thumbnail = bytes(part)
            continue
        array = np.frombuffer(part, DTYPES[info.dtype]).reshape(info.shape)
        array.flags.writeable = False
        if info.name.startswith(PART):
            arrays[info.name[len(PART) :]] = array
        elif info.name in ("embedding", "tokens", "depth_m"):
            known[info.name] = array
        elif header.version[1] <= PROTOCOL[1]:
            raise refuse("buffers", f"hold an unknown name {info.name[:80]!r}")
    return _observation(header, known, arrays, thumbnail)


def encode_normalised(observation: Observation) -> tuple[list[Buffer], Observation]:
    """What ``encode_observation`` gives without ``ingest_ns``, and the observation that decoding it would give: the
    small fields in their declared types, the arrays as they are. Nothing large is copied."""
    parts = encode_observation(observation, ingest=False)
    header = _headers.decode(parts[0])
    named = {name: np.ascontiguousarray(array) for name, array in _arrays(observation)}
    known = {name: array for name, array in named.items() if not name.startswith(PART)}
    arrays = {name[len(PART) :]: array for name, array in named.items() if name.startswith(PART)}
    return parts, _observation(header, known, arrays, observation.thumbnail)


def _observation(
    header: ObservationHeader, known: dict[str, np.ndarray], arrays: dict[str, np.ndarray], thumbnail: bytes | None
) -> Observation:
    return Observation(
        stream=header.stream,
        session=header.session,
        seq=header.seq,
        capture_ns=header.capture_ns,
        media_ns=header.media_ns,
        ingest_ns=header.ingest_ns,
        space=header.space,
        embedding=known.get("embedding"),
        parts=arrays,
        tokens=known.get("tokens"),
        depth_m=known.get("depth_m"),
        thumbnail=thumbnail,
        labels=header.labels,
        detections=header.detections,
        texts=header.texts,
        speech=header.speech,
        pose=header.pose,
        intrinsics=header.intrinsics,
        stats=header.stats,
        producer=header.producer,
        states=header.states,
    )


def pack(parts: Sequence[Buffer]) -> bytes:
    """Parts -> one blob: ``u32 n, u64 size[n], bytes...``, little-endian."""
    return b"".join(pack_pieces(parts))


def pack_pieces(parts: Sequence[Buffer]) -> list[Buffer]:
    """What ``pack`` joins, in its order: for who writes it or hashes it and needs no blob."""
    sizes = struct.pack(f"<{len(parts)}Q", *(len(part) for part in parts))
    return [_COUNT.pack(len(parts)) + sizes, *parts]


def unpack(blob: Buffer, *, limits: Limits = LIMITS) -> list[memoryview]:
    """The parts of ``pack``, as views. Raises ObservationError if the sizes don't add up."""
    view = memoryview(blob)
    if len(view) < _COUNT.size:
        raise refuse("blob", "is shorter than its header")
    (count,) = _COUNT.unpack_from(view)
    at = _COUNT.size + count * _SIZE.size
    if count > limits.buffers + 1 or at > len(view):
        raise refuse("blob", f"declares {count} parts, the limit is {limits.buffers + 1}")
    sizes = struct.unpack_from(f"<{count}Q", view, _COUNT.size)
    if at + sum(sizes) != len(view):
        raise refuse("blob", f"has {len(view)} bytes, its parts need {at + sum(sizes)}")
    parts = []
    for size in sizes:
        parts.append(view[at : at + size])
        at += size
    return parts


def content_hash(observation: Observation) -> bytes:
    """16 bytes that depend on the content alone: neither on ``ingest_ns`` nor on the order of maps."""
    return hash_blob(pack(encode_observation(observation, ingest=False)))


def hash_blob(blob: Buffer) -> bytes:
    """``content_hash`` of an observation that is already packed without ``ingest_ns``."""
    return hash_pieces([blob])


def hash_pieces(pieces: Sequence[Buffer]) -> bytes:
    """``hash_blob`` of what the pieces make when they are joined."""
    # SHA-256 is in the CPU's own instructions: 27 us for 46 KB, where blake2b takes 74.
    state = hashlib.sha256()
    for piece in pieces:
        state.update(piece)
    return state.digest()[:16]


def observation_from_blob(blob: Buffer, *, limits: Limits = LIMITS) -> Observation:
    """``decode_observation(unpack(blob))``."""
    return decode_observation(unpack(blob, limits=limits), limits=limits)
