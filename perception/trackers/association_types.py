"""What association speaks of: its settings, a track, a frame while it is worked on, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from perception.trackers.boxes import Boxes
from streammem.banks.policies import FrameMemory
from streammem.banks.policies.composite import Composite
from streammem.banks.policies.smart import NonRedundant


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationSettings:
    """Scores are the detector's, overlaps are IoU, times are frames.

    ``sure`` and ``unsure`` split the detections, ``start`` begins a track. ``near`` and ``near_unsure`` are the least
    overlaps of stages 1 and 2. ``alike`` is the least cosine that finds a track again by its looks; below ``unlike``
    motion doesn't either; ``looks`` is the weight of looks beside overlap. ``confirm`` sightings make a track;
    ``recent`` frames without one make it lost; ``forget`` frames end it. ``looked`` and ``hidden`` are what a frame
    without a sighting multiplies the belief by. ``reach`` scales how far motion may put a lost track. ``keeps`` views
    a track, ``duplicate`` the cosine from which two are one. The numbers were chosen on the shared MOT clips
    (docs/association.md)."""

    sure: float = 0.6
    unsure: float = 0.1
    start: float = 0.75
    near: float = 0.25
    near_unsure: float = 0.5
    alike: float = 0.85
    unlike: float = 0.45
    looks: float = 0.6
    confirm: int = 2
    recent: int = 30
    forget: int = 900
    looked: float = 0.87
    hidden: float = 0.99
    reach: float = 0.6
    keeps: int = 8
    duplicate: float = 0.9
    most_tracks: int = 1000


@dataclass(frozen=True, slots=True)
class Refound:
    """A track that came back. ``score`` in [0, 1]; ``by`` is "looks" or "motion". Evidence: ``alike`` is the cosine to
    the frame ``like_t`` that the track kept, ``next_alike`` that of the best other track; ``offset`` the distance from
    where motion expected it, in heights of the box."""

    track: str
    t: int
    absent: int
    score: float
    by: str
    alike: float | None
    like_t: int | None
    next_alike: float | None
    offset: float


@dataclass(frozen=True, slots=True)
class Followed:
    """One frame. ``tracks`` names the track of each of ``boxes`` (those that count); ``index`` is each box's row in
    the detections that came in. ``retired`` are tracks that ended, with the reason; ``refused`` says why the whole
    frame wasn't taken in, else empty."""

    t: int
    boxes: Boxes
    tracks: tuple[str, ...] = ()
    index: tuple[int, ...] = ()
    refound: tuple[Refound, ...] = ()
    retired: tuple[tuple[str, str], ...] = ()
    refused: str = ""


@dataclass(slots=True)
class Track:
    """A thing that is followed; ``belief`` is how sure it is still where motion expects it, in [0, 1]."""

    name: str
    label: str
    first: int
    last: int
    memory: FrameMemory
    hits: int = 1
    belief: float = 1.0
    confirmed: bool = False
    views: np.ndarray | None = None
    """The vectors that are kept (k, d), and the frame of each."""
    views_t: tuple[int, ...] = ()

    def take_views(self) -> None:
        """Bring ``views`` up to date with what the memory holds."""
        held = [(t, kept.desc_obj) for t, (_, kept) in sorted(self.memory.held().items())]
        views = [(t, vector) for t, vector in held if vector is not None]
        self.views = np.stack([vector for _, vector in views]) if views else None
        self.views_t = tuple(t for t, _ in views)


@dataclass(slots=True)
class Scene:
    """One frame while it is worked on."""

    t: int
    found: Boxes
    free: list[int]
    left: list[int]
    pairs: list[tuple[int, int]] = field(default_factory=list)
    """Row of a track, row of a detection."""
    refound: list[Refound] = field(default_factory=list)


def new_memory(name: str, settings: AssociationSettings) -> FrameMemory:
    """What a track keeps of its looks: its first view and the views that add something."""
    long = NonRedundant(keeps=settings.keeps, duplicate=settings.duplicate)
    return FrameMemory(Composite(long=long, name="association"), obj=name, audit=32)
