"""What the bank of tracks holds and tells: its answers, and the state of one track and of one stream."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np

from streammem.colours import TERMS
from streammem.model import Box

PATH = 64
"""Points of a path; above it every second one goes."""
INTERVALS = 32
"""Stretches of a track; above it the two with the shortest gap become one."""


class Interval(msgspec.Struct, array_like=True):
    """A stretch of being seen, both ends included; ``frames`` times, best score ``score``.

    Where the tracker found it again at its start: ``back`` is the score of that in [0, 1], ``alike`` the cosine to a
    frame that was kept of it, None where it went by motion alone."""

    t_start_ns: int
    t_end_ns: int
    frames: int
    score: float
    back: float | None = None
    alike: float | None = None


class KeptFrame(msgspec.Struct, frozen=True):
    """A frame kept of an object: the moment ``record_id`` at ``t_ns``, the object in ``box``."""

    record_id: int
    t_ns: int
    box: Box | None
    role: str
    score: float


class TrackInfo(msgspec.Struct, frozen=True):
    """One object. ``intervals`` oldest first (close ones were merged where there were too many); ``bytes`` is RAM.

    ``colours``: mean share of each basic colour term on it, above 1 %; empty where the tracker sends none.
    ``watched_ns``: until when its stream was watched. ``gone_ns``: when the tracker had looked where it must be, had
    not seen it, and gave it up."""

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
    colours: dict[str, float] = {}
    watched_ns: int = 0
    gone_ns: int | None = None


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
    colours: list[float] = []
    """Sum over ``coloured`` frames of the shares of the colour terms."""
    coloured: int = 0
    gone_ns: int | None = None


class Stream(msgspec.Struct):
    tracks: dict[str, Track] = {}
    now_ns: int = -(2**63)
    seq: int = 0
    dropped: int = 0
    late: int = 0


def label_of(track: Track) -> str:
    return max(sorted(track.labels), key=lambda label: track.labels[label], default="")


def colours_of(track: Track) -> dict[str, float]:
    """Mean shares by term, the largest first; below 1 % is noise."""
    means = [(total / track.coloured, term) for total, term in zip(track.colours, TERMS, strict=False)]
    return {term: round(share, 3) for share, term in sorted(means, key=lambda each: -each[0]) if share >= 0.01}


def add_colours(track: Track, shares: np.ndarray) -> None:
    """Take in the shares (11,) of one frame."""
    if len(shares) != len(TERMS) or not np.isfinite(shares).all():
        return
    before = track.colours or [0.0] * len(TERMS)
    track.colours = [have + float(share) for have, share in zip(before, shares.tolist(), strict=True)]
    track.coloured += 1


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
