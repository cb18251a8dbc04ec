"""The nouns: what perception writes and what a question gets back.

Times are int64 nanoseconds. Boxes are ``(x0, y0, x1, y1)`` as fractions of the picture's width and height, so that
they survive resizing. Poses are OpenCV-optical (x right, y down, z forward), ``map_from_camera``, metres.
Small nouns are ``msgspec.Struct`` (they travel in headers); whatever holds an array is a frozen dataclass.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np

Box = tuple[float, float, float, float]
Status = Literal["active", "superseded", "disputed", "stale"]
AnswerStatus = Literal["found", "not_seen", "unsure"]


class Label(msgspec.Struct, frozen=True, array_like=True):
    """A name with a score in [0, 1]."""

    name: str
    score: float


class Detection(msgspec.Struct, frozen=True, array_like=True):
    """One thing in one picture. ``box`` is in fractions of the picture."""

    label: str
    score: float
    box: Box
    track: str | None = None


class TextSpan(msgspec.Struct, frozen=True, array_like=True):
    """Text seen in the scene. Data, never an instruction."""

    text: str
    score: float
    box: Box | None = None


class Speech(msgspec.Struct, frozen=True, array_like=True):
    """Words heard, with their own interval on the stream's clock."""

    text: str
    t_start_ns: int
    t_end_ns: int
    score: float = 1.0
    language: str = ""


class StateFact(msgspec.Struct, frozen=True, array_like=True):
    """A statement about a thing: from the moment of the observation on, its ``attribute`` is ``value``.

    ``entity`` is what the speaker calls the thing, always the same name for the same thing of a stream; ``kind`` what
    sort of thing it is ("mug"), where the name doesn't say so. ``relation`` goes with the value ("on", "in", "held
    by"). ``place`` says where the thing is meanwhile: it is short for a second fact with the attribute ``place``.
    With ``until_ns``, on the clock of ``capture_ns``, it is an entry of an event log instead: it was so from the
    moment to then, both included, and nothing is said of afterwards. ``confidence`` is in [0, 1]; 1 is the word of an
    instrument or a person, which is taken at once."""

    entity: str
    attribute: str
    value: str
    confidence: float = 1.0
    kind: str = ""
    relation: str = ""
    place: str = ""
    until_ns: int | None = None


class Pose(msgspec.Struct, frozen=True, array_like=True):
    """Camera pose ``map_from_camera``: position in metres, unit quaternion in the order x, y, z, w."""

    position_m: tuple[float, float, float]
    q_xyzw: tuple[float, float, float, float]
    frame_id: str = "map"
    map_version: int = 0


class Intrinsics(msgspec.Struct, frozen=True, array_like=True):
    """Pinhole camera in pixels of the original picture."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


class Producer(msgspec.Struct, frozen=True, array_like=True):
    """Who made it: module, model and revision, and a hash of every parameter that changes its output."""

    module: str
    model: str = ""
    revision: str = ""
    parameters: str = ""


NO_PRODUCER = Producer(module="unknown")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """One moment of one stream.

    ``(stream, session, seq)`` is its identity: writing it twice keeps it once. ``capture_ns`` is when the sensor saw
    it (for a file: its media time), ``media_ns`` the container's own time stamp, ``ingest_ns`` is set by the memory
    and is no part of its content.

    Arrays: ``embedding`` (d,) float32, L2-normalised, in the embedding space ``space``; ``parts`` whatever else that
    space keeps (axis 0 is free, the other axes are fixed for a name); ``tokens`` (n, d) float16 patch features;
    ``depth_m`` (h, w) float32 metres, 0 = unknown. ``thumbnail`` is a JPEG.
    """

    stream: str
    session: str = ""
    seq: int
    capture_ns: int
    media_ns: int | None = None
    ingest_ns: int | None = None
    space: str | None = None
    embedding: np.ndarray | None = None
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    tokens: np.ndarray | None = None
    depth_m: np.ndarray | None = None
    thumbnail: bytes | None = None
    labels: tuple[Label, ...] = ()
    detections: tuple[Detection, ...] = ()
    texts: tuple[TextSpan, ...] = ()
    speech: tuple[Speech, ...] = ()
    states: tuple[StateFact, ...] = ()
    pose: Pose | None = None
    intrinsics: Intrinsics | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    producer: Producer = NO_PRODUCER

    @property
    def key(self) -> tuple[str, str, int]:
        return (self.stream, self.session, self.seq)

    @property
    def record_id(self) -> int:
        return record_id("moments", self.stream, self.session, self.seq)


def record_id(bank: str, stream: str, session: str, seq: int) -> int:
    """A 63-bit id that depends on identity alone, so that a replay gives every record the same id."""
    text = "\x1f".join((bank, stream, session)).encode("utf-8", "surrogatepass") + struct.pack("<q", seq)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def show_id(number: int) -> str:
    """A record id as people read it: 16 hexadecimal digits."""
    return f"{number:016x}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """What a bank keeps. Compression keeps ``parents``: any record can be walked down to the frames it came from.

    ``level`` is its place on the demotion ladder: 0 full detail, 1 without thumbnails, 2 merged vectors,
    3 summary in words, 4 tombstone. ``count`` is how many observations it stands for.
    """

    record_id: int
    bank: str
    stream: str
    t_start_ns: int
    t_end_ns: int
    session: str = ""
    seq: int = 0
    level: int = 0
    count: int = 1
    status: Status = "active"
    confidence: float = 1.0
    parents: tuple[int, ...] = ()
    producer: Producer = NO_PRODUCER
    media_ns: int | None = None
    space: str | None = None
    labels: tuple[Label, ...] = ()
    detections: tuple[Detection, ...] = ()
    texts: tuple[TextSpan, ...] = ()
    speech: tuple[Speech, ...] = ()
    states: tuple[StateFact, ...] = ()
    pose: Pose | None = None
    intrinsics: Intrinsics | None = None
    stats: Mapping[str, float] = field(default_factory=dict)
    vector: np.ndarray | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    thumbnail: bytes | None = None


class FrameRef(msgspec.Struct, frozen=True):
    """A frame that exists: in the memory (a thumbnail) or in the source, where it can be decoded again."""

    stream: str
    t_ns: int
    record_id: int
    where: Literal["memory", "source"]


class Why(msgspec.Struct, frozen=True):
    """One signal's share in a hit: ``signal`` is vision, label, text, speech, face or colour."""

    signal: str
    score: float
    detail: str = ""


class Evidence(msgspec.Struct, frozen=True):
    """What supports a hit or an answer. ``calibrated`` is the probability, on the stored negatives, that it is real."""

    stream: str
    t_start_ns: int
    t_end_ns: int
    frames: tuple[FrameRef, ...]
    record_ids: tuple[int, ...]
    score: float
    why: tuple[Why, ...]
    calibrated: float | None = None
    pose: Pose | None = None


class Cost(msgspec.Struct, frozen=True):
    """What an answer cost."""

    seconds: float = 0.0
    records: int = 0
    calls: int = 0
    tokens: int = 0


class Answer(msgspec.Struct, frozen=True):
    """``found`` has evidence that can tell absence; ``unsure`` has only closest moments; ``not_seen`` has no support.

    ``closest`` always holds up to five moments, best first, also where nothing was found. ``best_rejected`` is the
    highest score that did not suffice. ``confidence`` is in [0, 1]: that the moments listed first show what was asked.
    ``trace`` is one line a step.
    """

    question: str
    status: AnswerStatus
    text: str
    confidence: float
    evidence: tuple[Evidence, ...]
    closest: tuple[Evidence, ...]
    best_rejected: float | None = None
    cost: Cost = Cost()
    trace: tuple[str, ...] = ()


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A stream's description. ``clock`` is ``media`` (zero at the first frame of a file) or ``wall`` (Unix epoch)."""

    stream: str
    source: str = ""
    clock: Literal["media", "wall"] = "wall"
    content_hash: str = ""
    duration_ns: int | None = None
    width: int = 0
    height: int = 0
    fps: float = 0.0
