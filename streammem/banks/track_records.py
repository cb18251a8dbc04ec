"""What the bank of tracks holds and tells: its answers, and the state of one track and of one stream."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np

from streammem.model import Box

PATH = 64
"""Points of a path; above it every second one goes."""
INTERVALS = 32
"""Stretches of a track; above it the two with the shortest gap become one."""


class Interval(msgspec.Struct, array_like=True):
    """A stretch of being seen, both ends included; ``frames`` times, best score ``score``."""

    t_start_ns: int
    t_end_ns: int
    frames: int
    score: float


class KeptFrame(msgspec.Struct, frozen=True):
    """A frame kept of an object: the moment ``record_id`` at ``t_ns``, the object in ``box``."""

    record_id: int
    t_ns: int
    box: Box | None
    role: str
    score: float


class TrackInfo(msgspec.Struct, frozen=True):
    """One object. ``intervals`` oldest first (close ones were merged where there were too many); ``bytes`` is RAM."""

    stream: str
    track: str
    label: str
    frames: int
    first_ns: int
    last_ns: int
    last_box: Box
    intervals: tuple[Interval, ...]
    kept: tuple[KeptFrame, ...]
    bytes: int
    path: tuple[tuple[int, float, float, float, float], ...] = ()
    open: bool = False


class AuditLine(msgspec.Struct, frozen=True):
    """What became of a frame of an object, and why."""

    t_ns: int
    record_id: int
    action: str
    role: str
    reason: str


class TracksSize(msgspec.Struct, frozen=True):
    """RAM of the tracks of a stream. ``most_bytes`` is the largest object's, ``dropped`` objects pushed out."""

    stream: str
    objects: int
    bytes: int
    most_bytes: int
    dropped: int
    late: int


class Track(msgspec.Struct, omit_defaults=True):
    name: str
    session: str
    memory: bytes = b""
    n: int = 0
    last_ns: int = 0
    box: Box = (0.0, 0.0, 0.0, 0.0)
    labels: dict[str, int] = {}
    intervals: list[Interval] = []
    path: list[tuple[int, float, float, float, float]] = []
    step: int = 1
    open: bool = True
    moments: dict[int, tuple[int, int]] = {}
    """Frame number -> (record id, capture time) of the frames that are kept or in the audit."""


class Stream(msgspec.Struct):
    tracks: dict[str, Track] = {}
    now_ns: int = -(2**63)
    seq: int = 0
    dropped: int = 0
    late: int = 0


def label_of(track: Track) -> str:
    return max(sorted(track.labels), key=lambda label: track.labels[label], default="")


def merge_closest(intervals: list[Interval]) -> None:
    """Over the cap the two neighbours with the shortest gap become one: when it was seen blurs, that it was stays."""
    if len(intervals) <= INTERVALS:
        return
    gaps = [later.t_start_ns - earlier.t_end_ns for earlier, later in itertools.pairwise(intervals)]
    at = int(np.argmin(gaps[:-1]))  # the newest stays apart: it is being written
    first, second = intervals[at], intervals.pop(at + 1)
    first.t_end_ns = second.t_end_ns
    first.frames += second.frames
    first.score = max(first.score, second.score)


def lengthen(track: Track, t_ns: int, box: Box) -> None:
    """One point every ``step`` frames; when there are too many, every second one goes and the step doubles."""
    if (track.n - 1) % track.step == 0:
        track.path.append((t_ns, *box))
    if len(track.path) > PATH:
        track.path = track.path[::2]
        track.step *= 2
