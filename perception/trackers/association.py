"""Detections to tracks: motion, appearance from each track's diverse memory, and finding again after an absence.

Frame by frame, in this order (SORT and ByteTrack's stages, plus two of our own):

1. sure detections with the tracks seen lately, by overlap with the expected box, how they look, and the score;
2. what is left of those tracks with unsure detections, by overlap alone (ByteTrack, Zhang et al. 2022, section 3);
3. sure detections that are left with tracks that were lost for longer: by where motion puts them, or by looks, with a
   score and the evidence for it (:class:`Refound`);
4. what is left starts new tracks, which count once they were seen twice.

A lost track is a belief that the thing is still there. Looking at its place without seeing it lowers the belief
quickly; a place that is covered by another track or out of the picture can't be looked at and lowers it slowly. Below
``GONE`` it is no longer expected anywhere: only its looks can bring it back.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from perception.trackers.box_metrics import overlaps
from perception.trackers.box_motion import BoxMotion
from perception.trackers.boxes import Boxes, Drops, clean
from streammem.banks.policies import FrameMemory, FrameRecord
from streammem.banks.policies.composite import Composite
from streammem.banks.policies.smart import NonRedundant
from streammem.errors import InputError

SHORT_GAP = 5
"""Frames without a sighting after which looks must agree, whatever the overlap."""
GONE = 0.05
"""Belief below which a lost track is expected nowhere."""
LOOKED = "looked there since and did not see it"


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
class _Track:
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


@dataclass(slots=True)
class _Scene:
    """One frame while it is worked on."""

    t: int
    found: Boxes
    free: list[int]
    left: list[int]
    pairs: list[tuple[int, int]] = field(default_factory=list)
    """Row of a track, row of a detection."""
    refound: list[Refound] = field(default_factory=list)


class AssociationTracker:
    """Tracks of one stream. Frames come in order through :meth:`step`. Not for several threads at once."""

    def __init__(self, settings: AssociationSettings | None = None, *, prefix: str = "") -> None:
        self.settings = settings or AssociationSettings()
        self._prefix = prefix
        self._tracks: list[_Track] = []
        self._motion = BoxMotion()
        self._made = 0
        self._size: tuple[int, int] | None = None
        self.last: int | None = None
        self.dropped: Counter[str] = Counter()
        """Frames and boxes that weren't taken in, by reason."""

    @property
    def tracks(self) -> list[str]:
        """Tracks that count and haven't ended, seen now or lost."""
        return [one.name for one in self._tracks if one.confirmed]

    def memory(self, track: str) -> FrameMemory:
        """The diverse memory of a track. Raises InputError for one that isn't followed (any more)."""
        for one in self._tracks:
            if one.name == track:
                return one.memory
        raise InputError(f"there is no track {track!r} now", hint=f"now: {', '.join(self.tracks[:20]) or 'none'}")

    def ram_bytes(self) -> int:
        """RAM of all memories and of the motion filters."""
        views = sum(one.views.nbytes for one in self._tracks if one.views is not None)
        return views + sum(one.memory.ram_bytes for one in self._tracks) + self._motion.nbytes

    def step(self, found: Boxes, *, t: int, size: tuple[int, int], t_ns: int = 0) -> Followed:
        """Take in the detections of frame ``t`` in a picture of ``size`` (height, width).

        Boxes that can't be used are dropped and counted. A frame that isn't newer than the last is refused and
        counted; after a change of the picture's size positions are scaled to the new one."""
        if self.last is not None and t <= self.last:
            reason = "duplicate frame" if t == self.last else "out of order"
            self.dropped[reason] += 1
            return Followed(t, found.take([]), refused=reason)
        drops = Drops(Counter())
        usable = clean(found, size, drops)
        self.dropped.update(drops.counts)
        rows = _rows(found, usable, size)
        if self._size is not None and size != self._size:
            self._motion.scale(size[1] / self._size[1], size[0] / self._size[0])
            self.dropped["picture of another size (positions scaled)"] += 1
        gap = 1 if self.last is None else t - self.last
        self.last, self._size = t, size
        self._motion.ahead(gap)
        scene = _Scene(t, usable, list(range(len(self._tracks))), list(range(len(usable))))
        self._match_recent(scene)
        self._match_unsure(scene)
        self._match_lost(scene)
        retired = self._settle(scene, gap, t_ns)
        return self._answer(scene, rows, retired)

    # stages

    def _match_recent(self, scene: _Scene) -> None:
        chosen = self.settings
        tracks = [at for at in scene.free if scene.t - self._tracks[at].last <= chosen.recent]
        sure = [at for at in scene.left if scene.found.scores[at] >= chosen.sure]
        if not tracks or not sure:
            return
        near = self._near(tracks, sure, scene)
        score = near * (0.5 + 0.5 * scene.found.scores[sure][None])
        alike = self._alike(tracks, sure, scene)
        good = near >= chosen.near
        if alike is not None:
            # From one frame to the next a box may be covered and look like another; after a gap it may be another.
            gone = np.array([scene.t - self._tracks[at].last > SHORT_GAP for at in tracks])[:, None]
            good &= ~(gone & (np.nan_to_num(alike, nan=1.0) < chosen.unlike))
            score = np.where(np.isnan(alike), score, (1 - chosen.looks) * score + chosen.looks * np.nan_to_num(alike))
        # A track that was seen twice has a motion; one that was seen once may only have been noise.
        firm = np.array([0.02 if self._tracks[at].confirmed else 0.0 for at in tracks])[:, None]
        self._take(scene, tracks, sure, score + firm, good)

    def _match_unsure(self, scene: _Scene) -> None:
        chosen = self.settings
        tracks = [at for at in scene.free if scene.t - self._tracks[at].last <= chosen.recent]
        unsure = [at for at in scene.left if chosen.unsure <= scene.found.scores[at] < chosen.sure]
        if tracks and unsure:
            near = self._near(tracks, unsure, scene)
            self._take(scene, tracks, unsure, near, near >= chosen.near_unsure)

    def _match_lost(self, scene: _Scene) -> None:
        """Tracks that stages 1 and 2 didn't find: by looks wherever they are, or by motion while they are believed."""
        chosen = self.settings
        tracks = [at for at in scene.free if self._tracks[at].confirmed]
        sure = [at for at in scene.left if scene.found.scores[at] >= chosen.sure]
        if not tracks or not sure:
            return
        offset = self._offset(tracks, sure, scene)
        alike = self._alike(tracks, sure, scene)
        absent = np.array([scene.t - self._tracks[at].last for at in tracks])
        belief = np.array([self._tracks[at].belief for at in tracks])
        # Where it may be by now: a box's height at once, more with the square root of time (a random walk of speed).
        reach = chosen.reach * (0.5 + 0.15 * np.sqrt(absent))
        by_motion = np.clip(1 - offset / reach[:, None], 0, 1) * (belief > GONE)[:, None]
        by_motion *= self._same_label(tracks, sure, scene)
        score, good = by_motion, by_motion > 0
        if alike is not None:
            known = ~np.isnan(alike)
            sees = np.nan_to_num(alike)
            by_looks = np.clip((sees - chosen.alike) / (1 - chosen.alike), 0, 1)
            # Where looks are known they decide: motion alone would hand a track to whoever stands there now.
            good = np.where(known, (by_looks > 0) | (good & (sees >= chosen.unlike)), good)
            score = np.where(known, 0.5 * by_motion + 0.5 * np.maximum(by_looks, 0.1), score)
        before = len(scene.pairs)
        self._take(scene, tracks, sure, score, good)
        for row, column in scene.pairs[before:]:
            at, to = tracks.index(row), sure.index(column)
            self._note(scene, row, at, to, score, alike, offset)

    def _note(
        self,
        scene: _Scene,
        row: int,
        at: int,
        to: int,
        score: np.ndarray,
        alike: np.ndarray | None,
        offset: np.ndarray,
    ) -> None:
        one = self._tracks[row]
        seen = like_t = other = None
        if alike is not None and not np.isnan(alike[at, to]) and one.views is not None:
            vectors = scene.found.vectors
            assert vectors is not None
            seen = float(alike[at, to])
            column = int(np.flatnonzero((vectors @ one.views.T).max(axis=1) >= seen - 1e-6)[0])
            like_t = one.views_t[int(np.argmax(one.views @ vectors[column]))]
            rest = np.delete(alike[:, to], at)
            other = float(np.nanmax(rest)) if rest.size and not np.isnan(rest).all() else None
        absent = scene.t - one.last
        looks = seen is not None and seen >= self.settings.alike
        value, away = float(score[at, to]), float(offset[at, to])
        scene.refound.append(
            Refound(one.name, scene.t, absent, value, "looks" if looks else "motion", seen, like_t, other, away)
        )

    def _take(self, scene: _Scene, tracks: list[int], found: list[int], score: np.ndarray, good: np.ndarray) -> None:
        """The best assignment among the pairs that are ``good``."""
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(np.where(good, score + 1.0, 0.0), maximize=True)
        for row, column in zip(rows, columns, strict=True):
            if good[row, column]:
                scene.pairs.append((tracks[row], found[column]))
                scene.free.remove(tracks[row])
                scene.left.remove(found[column])

    # what pairs are compared by

    def _near(self, tracks: list[int], found: list[int], scene: _Scene) -> np.ndarray:
        near = overlaps(self._motion.boxes()[tracks], scene.found.xyxy[found].astype(np.float64))
        return near * self._same_label(tracks, found, scene)

    def _same_label(self, tracks: list[int], found: list[int], scene: _Scene) -> np.ndarray:
        a = np.array([self._tracks[at].label for at in tracks], object)
        b = np.array([scene.found.labels[at] for at in found], object)
        return np.asarray(a[:, None] == b[None], float)

    def _alike(self, tracks: list[int], found: list[int], scene: _Scene) -> np.ndarray | None:
        """The best cosine of each detection with what each track keeps; NaN where a track keeps no vector."""
        if scene.found.vectors is None:
            return None
        vectors = scene.found.vectors[found]
        alike = np.full((len(tracks), len(found)), np.nan)
        for row, at in enumerate(tracks):
            views = self._tracks[at].views
            if views is not None and views.shape[1] == vectors.shape[1]:
                alike[row] = (views @ vectors.T).max(axis=0)
        same = self._same_label(tracks, found, scene)
        return np.where(same > 0, alike, np.minimum(alike, 0))

    def _offset(self, tracks: list[int], found: list[int], scene: _Scene) -> np.ndarray:
        """Distance between centres, in heights of the larger box, plus the change of height."""
        a, b = self._motion.boxes()[tracks], scene.found.xyxy[found].astype(np.float64)
        heights = np.maximum(a[:, None, 3] - a[:, None, 1], b[None, :, 3] - b[None, :, 1])
        centres = np.hypot(
            (a[:, None, 0] + a[:, None, 2] - b[None, :, 0] - b[None, :, 2]) / 2,
            (a[:, None, 1] + a[:, None, 3] - b[None, :, 1] - b[None, :, 3]) / 2,
        )
        sizes = np.abs(np.log((a[:, None, 3] - a[:, None, 1]) / (b[None, :, 3] - b[None, :, 1])))
        distance: np.ndarray = centres / np.maximum(heights, 1e-6) + sizes
        return distance

    # after the stages

    def _settle(self, scene: _Scene, gap: int, t_ns: int) -> list[tuple[str, str]]:
        chosen = self.settings
        for row, column in scene.pairs:
            one = self._tracks[row]
            self._motion.update(row, scene.found.xyxy[column], float(scene.found.scores[column]))
            one.last, one.hits, one.belief = scene.t, one.hits + 1, 1.0
            one.confirmed = one.confirmed or one.hits >= chosen.confirm
            self._remember(one, scene, column, t_ns)
        retired = self._age(scene, gap)
        for column in scene.left:
            if scene.found.scores[column] >= chosen.start:
                self._begin(scene, column, t_ns)
        while len(self._tracks) > chosen.most_tracks:
            oldest = min(range(len(self._tracks)), key=lambda at: (self._tracks[at].last, at))
            retired.append((self._tracks[oldest].name, "more tracks than may be kept"))
            self._end([oldest], scene)
        return retired

    def _begin(self, scene: _Scene, column: int, t_ns: int) -> None:
        self._made += 1
        name = f"{self._prefix}{self._made}"
        long = NonRedundant(keeps=self.settings.keeps, duplicate=self.settings.duplicate)
        memory = FrameMemory(Composite(long=long, name="association"), obj=name, audit=32)
        one = _Track(name, scene.found.labels[column], scene.t, scene.t, memory)
        one.confirmed = self.settings.confirm <= 1
        self._tracks.append(one)
        self._motion.add(scene.found.xyxy[column])
        self._remember(one, scene, column, t_ns)
        scene.pairs.append((len(self._tracks) - 1, column))

    def _remember(self, one: _Track, scene: _Scene, column: int, t_ns: int) -> None:
        vectors = scene.found.vectors
        if vectors is None or not np.isfinite(vectors[column]).all() or self._size is None:
            return
        height, width = self._size
        x0, y0, x1, y1 = (float(value) for value in scene.found.xyxy[column])
        box = (x0 / width, y0 / height, x1 / width, y1 / height)
        record = FrameRecord(
            obj=one.name,
            t=scene.t,
            t_ns=t_ns,
            presence_logit=1.0,
            is_prompt=not one.memory.started,
            # A box that another one covers shows two things: it isn't taken as a view.
            pred_iou=float(scene.found.scores[column]) * (1 - self._covered(scene, column)),
            box=box,
            area=(x1 - x0) * (y1 - y0) / (width * height),
            desc_obj=np.asarray(vectors[column], np.float32),
        )
        changes = one.memory.observe(record) if one.memory.started else one.memory.start(record)
        if any(change.action in ("add", "drop") for change in changes):
            held = [(t, kept.desc_obj) for t, (_, kept) in sorted(one.memory.held().items())]
            views = [(t, vector) for t, vector in held if vector is not None]
            one.views = np.stack([vector for _, vector in views]) if views else None
            one.views_t = tuple(t for t, _ in views)

    def _covered(self, scene: _Scene, column: int) -> float:
        if len(scene.found) < 2:
            return 0.0
        return float(np.delete(overlaps(scene.found.xyxy[column][None], scene.found.xyxy)[0], column).max())

    def _age(self, scene: _Scene, gap: int) -> list[tuple[str, str]]:
        """Beliefs of tracks that weren't seen; those that end, with the reason."""
        chosen = self.settings
        ended: dict[int, str] = {}
        places = self._motion.boxes()
        for at in scene.free:
            one = self._tracks[at]
            hidden = self._hidden(places[at], scene)
            one.belief *= (chosen.hidden if hidden else chosen.looked) ** gap
            absent = scene.t - one.last
            if not one.confirmed:
                ended[at] = "seen once only"
            elif absent > chosen.forget:
                ended[at] = f"not seen for {chosen.forget} frames"
            elif one.belief <= GONE and one.views is None:
                ended[at] = LOOKED
        retired = [(self._tracks[at].name, why) for at, why in ended.items() if self._tracks[at].confirmed]
        self._end(list(ended), scene)
        return retired

    def _hidden(self, place: np.ndarray, scene: _Scene) -> bool:
        """Whether the place can't be looked at: mostly outside of the picture, or behind something that was seen."""
        assert self._size is not None
        height, width = self._size
        x0, y0, x1, y1 = place
        area = max((x1 - x0) * (y1 - y0), 1e-6)
        inside = max(min(x1, width) - max(x0, 0), 0) * max(min(y1, height) - max(y0, 0), 0)
        if inside < 0.5 * area:
            return True
        boxes = scene.found.xyxy
        both = np.clip(np.minimum(boxes[:, 2], x1) - np.maximum(boxes[:, 0], x0), 0, None)
        both = both * np.clip(np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0), 0, None)
        return bool((both > 0.4 * area).any())

    def _end(self, rows: list[int], scene: _Scene) -> None:
        stay = [at for at in range(len(self._tracks)) if at not in set(rows)]
        moved = {at: to for to, at in enumerate(stay)}
        scene.pairs = [(moved[row], column) for row, column in scene.pairs if row in moved]
        self._tracks = [self._tracks[at] for at in stay]
        self._motion.drop(rows)

    def _answer(self, scene: _Scene, rows: np.ndarray, retired: list[tuple[str, str]]) -> Followed:
        told = sorted((column, row) for row, column in scene.pairs if self._tracks[row].confirmed)
        return Followed(
            scene.t,
            scene.found.take([column for column, _ in told]),
            tuple(self._tracks[row].name for _, row in told),
            tuple(int(rows[column]) for column, _ in told),
            tuple(scene.refound),
            tuple(retired),
        )


def _rows(found: Boxes, usable: Boxes, size: tuple[int, int]) -> np.ndarray:
    """Row in ``found`` of each row of ``usable``."""
    if len(found) == len(usable):
        return np.arange(len(found))
    numbered = Boxes(found.xyxy, found.scores, tuple(str(at) for at in range(len(found))))
    return np.array([int(label) for label in clean(numbered, size, Drops()).labels], np.int64)
