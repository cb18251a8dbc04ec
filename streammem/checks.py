"""What an observation must satisfy before anything of it is kept.

Validated once at the edge (a packet that arrives, a call to ``Memory.write``), trusted afterwards. Every refusal is an
ObservationError that names the field; the engine counts refusals by that name.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from streammem.errors import ObservationError
from streammem.model import Box, Observation

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
RESERVED_PARTS = frozenset({"vector", "embedding", "tokens", "depth_m", "thumbnail"})
_NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
DTYPES = {np.dtype(code).str: np.dtype(code) for code in _NUMBERS}
"""Little-endian plain numbers only: nothing that could hold an object."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Limits(msgspec.Struct, frozen=True):
    """Caps on one observation. They are checked on declared sizes, before anything is allocated.

    The defaults are far above what perception makes (about 15 KB without depth, 1.3 MB with 640 x 480 depth) and far
    below what could hurt a 2 GB machine."""

    header_bytes: int = 1 << 20
    buffers: int = 64
    total_bytes: int = 64 << 20
    dims: int = 4
    embedding_dim: int = 16384
    name_chars: int = 200
    text_chars: int = 4096
    entries: int = 4096
    """Labels, detections, texts, speech spans or states in one observation."""
    state_ns: int = 7 * 86400 * 10**9
    """Longest interval that one statement may be about; what lasts longer is said again."""
    thumbnail_bytes: int = 8 << 20
    thumbnail_pixels: int = 100_000_000


LIMITS = Limits()


def refuse(field: str, message: str, hint: str = "") -> ObservationError:
    return ObservationError(f"observation refused: {field} {message}", field=field, hint=hint)


def check_name(value: object, field: str, *, limits: Limits = LIMITS, empty: bool = False) -> None:
    """A name (stream, session, space, ...): printable text, at most 200 characters. Quotes, ``../`` and other scripts
    are legal: a name is data and never becomes part of a path or of an SQL statement."""
    if not isinstance(value, str):
        raise refuse(field, f"must be text, got {type(value).__name__}")
    if not value and not empty:
        raise refuse(field, "is empty")
    if len(value) > limits.name_chars:
        raise refuse(field, f"has {len(value)} characters, the limit is {limits.name_chars}")
    if not value.isprintable():
        raise refuse(field, "holds control or unprintable characters", "use printable text")


def _integer(value: object, field: str, low: int = INT64_MIN, high: int = INT64_MAX) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise refuse(field, f"must be an integer, got {type(value).__name__}")
    if not low <= value <= high:
        raise refuse(field, f"is {value}, outside [{low}, {high}]")


def _text(value: object, field: str, limits: Limits) -> None:
    if not isinstance(value, str):
        raise refuse(field, f"must be text, got {type(value).__name__}")
    if len(value) > limits.text_chars:
        raise refuse(field, f"has {len(value)} characters, the limit is {limits.text_chars}")
    if _CONTROL.search(value):
        raise refuse(field, "holds control characters", "remove them before writing")


def _finite(values: Iterable[float], field: str) -> None:
    for value in values:
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise refuse(field, f"holds {value!r}, not a finite number")


def _share(value: float, field: str) -> None:
    if not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise refuse(field, f"is {value!r}, outside [0, 1]")


def _box(box: Box | None, field: str) -> None:
    if box is None:
        return
    if len(box) != 4:
        raise refuse(field, f"has {len(box)} numbers, expected 4")
    _finite(box, field)
    x0, y0, x1, y1 = box
    # Trackers let boxes leave the picture a little; one whole picture on each side is certainly a unit mistake.
    if x1 < x0 or y1 < y0 or min(box) < -1.0 or max(box) > 2.0:
        raise refuse(field, f"is {tuple(box)}, expected x0 <= x1, y0 <= y1 as fractions of the picture")


def _array(array: object, field: str, limits: Limits) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise refuse(field, f"must be a NumPy array, got {type(array).__name__}")
    if array.dtype.str not in DTYPES:
        raise refuse(field, f"has dtype {array.dtype}, expected one of {', '.join(sorted(DTYPES))}")
    if not 1 <= array.ndim <= limits.dims:
        raise refuse(field, f"has {array.ndim} dimensions, expected 1 to {limits.dims}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise refuse(field, "holds NaN or infinity")
    return array


def _embedding(observation: Observation, limits: Limits) -> None:
    if observation.space is not None:
        check_name(observation.space, "space", limits=limits)
    if observation.embedding is None:
        return
    vector = _array(observation.embedding, "embedding", limits)
    if vector.dtype != np.float32 or vector.ndim != 1:
        raise refuse("embedding", f"has dtype {vector.dtype} and shape {vector.shape}, expected float32 (d,)")
    if not 1 <= len(vector) <= limits.embedding_dim:
        raise refuse("embedding", f"has {len(vector)} dimensions, expected 1 to {limits.embedding_dim}")
    wide = vector.astype(np.float64)  # float32 would overflow for hostile values
    norm = math.sqrt(float(np.dot(wide, wide)))
    if not 0.999 <= norm <= 1.001:
        raise refuse("embedding", f"has norm {norm:.4g}, expected 1", "divide it by its L2 norm")
    if observation.space is None:
        raise refuse("space", "is missing beside an embedding", "give the space's name@version")


def _arrays(observation: Observation, limits: Limits) -> None:
    if len(observation.parts) > limits.buffers - 4:
        raise refuse("parts", f"has {len(observation.parts)} entries, the limit is {limits.buffers - 4}")
    total = len(observation.thumbnail or b"")
    for name, array in observation.parts.items():
        check_name(name, "parts", limits=limits)
        if name in RESERVED_PARTS:
            raise refuse("parts", f"uses the reserved name {name!r}")
        total += _array(array, f"parts[{name}]", limits).nbytes
    if observation.tokens is not None:
        tokens = _array(observation.tokens, "tokens", limits)
        if tokens.dtype != np.float16 or tokens.ndim != 2:
            raise refuse("tokens", f"has dtype {tokens.dtype} and shape {tokens.shape}, expected float16 (n, d)")
        total += tokens.nbytes
    if observation.depth_m is not None:
        depth = _array(observation.depth_m, "depth_m", limits)
        if depth.dtype != np.float32 or depth.ndim != 2:
            raise refuse("depth_m", f"has dtype {depth.dtype} and shape {depth.shape}, expected float32 (h, w)")
        if depth.size and float(depth.min()) < 0:
            raise refuse("depth_m", "holds negative metres", "0 means unknown")
        total += depth.nbytes
    if total > limits.total_bytes:
        raise refuse("bytes", f"are {total}, the limit is {limits.total_bytes}")


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG's header claims, read without decoding; None if it isn't a JPEG."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, end = 2, len(data)
    while at + 4 <= end:
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a length
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        # Start-of-frame markers are C0..CF without C4 (Huffman), C8 (reserved) and CC (arithmetic coding): ITU T.81.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if at + 9 > end:
                return None
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if length < 2 or marker in (0xD9, 0xDA):
            return None
        at += 2 + length
    return None


def _thumbnail(data: object, limits: Limits) -> None:
    if data is None:
        return
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise refuse("thumbnail", f"must be bytes, got {type(data).__name__}")
    if len(data) > limits.thumbnail_bytes:
        raise refuse("thumbnail", f"has {len(data)} bytes, the limit is {limits.thumbnail_bytes}")
    size = jpeg_size(bytes(data))
    if size is None:
        raise refuse("thumbnail", "is not a JPEG")
    if not 0 < size[0] * size[1] <= limits.thumbnail_pixels:
        raise refuse("thumbnail", f"claims {size[0]} x {size[1]} pixels, the limit is {limits.thumbnail_pixels}")


def _words(observation: Observation, limits: Limits) -> None:
    for field in ("labels", "detections", "texts", "speech", "states"):
        entries = getattr(observation, field)
        if not isinstance(entries, tuple):
            raise refuse(field, f"must be a tuple, got {type(entries).__name__}")
        if len(entries) > limits.entries:
            raise refuse(field, f"has {len(entries)} entries, the limit is {limits.entries}")
    for label in observation.labels:
        _text(label.name, "labels", limits)
        _share(label.score, "labels")
    for detection in observation.detections:
        _text(detection.label, "detections", limits)
        _share(detection.score, "detections")
        _box(detection.box, "detections")
        if detection.track is not None:
            check_name(detection.track, "detections", limits=limits)
    for span in observation.texts:
        _text(span.text, "texts", limits)
        _share(span.score, "texts")
        _box(span.box, "texts")
    for said in observation.speech:
        _text(said.text, "speech", limits)
        _text(said.language, "speech", limits)
        _share(said.score, "speech")
        _integer(said.t_start_ns, "speech")
        _integer(said.t_end_ns, "speech")
        if said.t_end_ns < said.t_start_ns:
            raise refuse("speech", "ends before it starts")


def _states(observation: Observation, limits: Limits) -> None:
    for fact in observation.states:
        check_name(fact.entity, "states", limits=limits)
        check_name(fact.attribute, "states", limits=limits)
        for name in (fact.value, fact.kind, fact.relation, fact.place):
            check_name(name, "states", limits=limits, empty=True)
        _share(fact.confidence, "states")
        if fact.until_ns is not None:
            _integer(fact.until_ns, "states")
            if not 0 <= fact.until_ns - observation.capture_ns <= limits.state_ns:
                raise refuse("states", f"last until {fact.until_ns}, expected capture_ns or up to 7 days later")


def _geometry(observation: Observation, limits: Limits) -> None:
    pose, camera = observation.pose, observation.intrinsics
    if pose is not None:
        if len(pose.position_m) != 3 or len(pose.q_xyzw) != 4:
            raise refuse("pose", "needs 3 metres and 4 quaternion numbers")
        _finite((*pose.position_m, *pose.q_xyzw), "pose")
        norm = math.sqrt(sum(part * part for part in pose.q_xyzw))
        # A failed pose is refused, never repaired: the identity is a place too.
        if not 0.999 <= norm <= 1.001:
            raise refuse("pose", f"has a quaternion of norm {norm:.4g}, expected 1")
        check_name(pose.frame_id, "pose", limits=limits)
        _integer(pose.map_version, "pose")
    if camera is not None:
        _finite((camera.fx, camera.fy, camera.cx, camera.cy), "intrinsics")
        _integer(camera.width, "intrinsics", 1, 2**31)
        _integer(camera.height, "intrinsics", 1, 2**31)
        if camera.fx <= 0 or camera.fy <= 0:
            raise refuse("intrinsics", "has a focal length that is not positive")


def _stats(stats: Mapping[str, float], limits: Limits) -> None:
    if len(stats) > limits.entries:
        raise refuse("stats", f"has {len(stats)} entries, the limit is {limits.entries}")
    for name in stats:
        check_name(name, "stats", limits=limits)
    _finite(stats.values(), "stats")


def validate_observation(observation: Observation, *, limits: Limits = LIMITS) -> None:
    """Raise ObservationError, naming the field, unless every rule holds."""
    check_name(observation.stream, "stream", limits=limits)
    check_name(observation.session, "session", limits=limits, empty=True)
    _integer(observation.seq, "seq", 0)
    _integer(observation.capture_ns, "capture_ns")
    if observation.media_ns is not None:
        _integer(observation.media_ns, "media_ns")
    if observation.ingest_ns is not None:
        _integer(observation.ingest_ns, "ingest_ns")
    _thumbnail(observation.thumbnail, limits)
    _embedding(observation, limits)
    _arrays(observation, limits)
    _words(observation, limits)
    _states(observation, limits)
    _geometry(observation, limits)
    _stats(observation.stats, limits)
    for part in (observation.producer.module, observation.producer.model, observation.producer.revision):
        check_name(part, "producer", limits=limits, empty=True)
    check_name(observation.producer.parameters, "producer", limits=limits, empty=True)
