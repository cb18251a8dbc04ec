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

import msgspec
import numpy as np

from perception.trackers import pairing
from perception.trackers.association_types import (
    AssociationSettings,
    Followed,
    Refound,
    Scene,
    Track,
    new_memory,
)
from perception.trackers.box_motion import BoxMotion
from perception.trackers.boxes import Boxes, Drops, clean
from streammem.banks.policies import FrameMemory, FrameRecord
from streammem.errors import CorruptData, InputError

SHORT_GAP = 5
"""Frames without a sighting after which looks must agree, whatever the overlap."""
GONE = 0.05
"""Belief below which a lost track is expected nowhere."""
LOOKED = "looked there since and did not see it"


class AssociationTracker:
    """Tracks of one stream. Frames come in order through :meth:`step`. Not for several threads at once.

    Tracks are named by numbers after ``made``, so that a later session of a stream doesn't give a name twice
    (``numbers.py``); ``state()`` and ``load()`` go on in the middle of a session."""

    def __init__(self, settings: AssociationSettings | None = None, *, prefix: str = "", made: int = 0) -> None:
        self.settings = settings or AssociationSettings()
        self._prefix = prefix
        self.made = made
        """The number of the newest track."""
        self._tracks: list[Track] = []
        self._motion = BoxMotion()
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
        scene = Scene(t, usable, list(range(len(self._tracks))), list(range(len(usable))))
        self._match_recent(scene)
        self._match_unsure(scene)
        self._match_lost(scene)
        retired = self._settle(scene, gap, t_ns)
        return self._answer(scene, rows, retired)

    # saving

    def state(self) -> bytes:
        """Everything needed to go on after the newest frame: looks of people are in it, as in the tracks' memories."""
        mean, covariance = self._motion.arrays()
        return msgspec.msgpack.encode(
            _Saved(
                repr(self.settings),
                self.made,
                self.last,
                self._size,
                dict(self.dropped),
                [_SavedTrack.of(one) for one in self._tracks],
                mean.tobytes(),
                covariance.tobytes(),
            )
        )

    def load(self, state: bytes) -> None:
        """Go on from a saved state. Raises CorruptData, also for a state of other settings; nothing is changed then."""
        try:
            saved = msgspec.msgpack.decode(state, type=_Saved)
            n = len(saved.tracks)
            mean = np.frombuffer(saved.mean).reshape(n, 4, 2).copy()
            covariance = np.frombuffer(saved.covariance).reshape(n, 4, 2, 2).copy()
        except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
            raise CorruptData(f"the saved tracks can't be read: {error}", hint="start with new tracks") from error
        if saved.settings != repr(self.settings):
            raise CorruptData("the saved tracks were made with other settings", hint="load them with the same ones")
        self._tracks = [one.track(self.settings) for one in saved.tracks]
        self._motion.load(mean, covariance)
        self.made, self.last, self._size = saved.made, saved.last, saved.size
        self.dropped = Counter(saved.dropped)

    # stages

    def _match_recent(self, scene: Scene) -> None:
        chosen = self.settings
        tracks = [at for at in scene.free if scene.t - self._tracks[at].last <= chosen.recent]
        sure = [at for at in scene.left if scene.found.scores[at] >= chosen.sure]
        if not tracks or not sure:
            return
        followed, found = self._pair(tracks, sure, scene)
        near = pairing.near(followed, self._motion.boxes()[tracks], found)
        score = near * (0.5 + 0.5 * scene.found.scores[sure][None])
        alike = pairing.alike(followed, found)
        good = near >= chosen.near
        if alike is not None:
            # From one frame to the next a box may be covered and look like another; after a gap it may be another.
            gone = np.array([scene.t - self._tracks[at].last > SHORT_GAP for at in tracks])[:, None]
            good &= ~(gone & (np.nan_to_num(alike, nan=1.0) < chosen.unlike))
            score = np.where(np.isnan(alike), score, (1 - chosen.looks) * score + chosen.looks * np.nan_to_num(alike))
        # A track that was seen twice has a motion; one that was seen once may only have been noise.
        firm = np.array([0.02 if self._tracks[at].confirmed else 0.0 for at in tracks])[:, None]
        self._take(scene, tracks, sure, score + firm, good)

    def _match_unsure(self, scene: Scene) -> None:
        chosen = self.settings
        tracks = [at for at in scene.free if scene.t - self._tracks[at].last <= chosen.recent]
        unsure = [at for at in scene.left if chosen.unsure <= scene.found.scores[at] < chosen.sure]
        if tracks and unsure:
            followed, found = self._pair(tracks, unsure, scene)
            near = pairing.near(followed, self._motion.boxes()[tracks], found)
            self._take(scene, tracks, unsure, near, near >= chosen.near_unsure)

    def _match_lost(self, scene: Scene) -> None:
        """Tracks that stages 1 and 2 didn't find: by looks wherever they are, or by motion while they are believed."""
        chosen = self.settings
        tracks = [at for at in scene.free if self._tracks[at].confirmed]
        sure = [at for at in scene.left if scene.found.scores[at] >= chosen.sure]
        if not tracks or not sure:
            return
        followed, found = self._pair(tracks, sure, scene)
        offset = pairing.offset(self._motion.boxes()[tracks], found)
        alike = pairing.alike(followed, found)
        absent = np.array([scene.t - self._tracks[at].last for at in tracks])
        belief = np.array([self._tracks[at].belief for at in tracks])
        # Where it may be by now: a box's height at once, more with the square root of time (a random walk of speed).
        reach = chosen.reach * (0.5 + 0.15 * np.sqrt(absent))
        by_motion = np.clip(1 - offset / reach[:, None], 0, 1) * (belief > GONE)[:, None]
        by_motion *= pairing.same_label(followed, found)
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

    def _pair(self, tracks: list[int], found: list[int], scene: Scene) -> tuple[list[Track], Boxes]:
        return [self._tracks[at] for at in tracks], scene.found.take(found)

    def _note(
        self,
        scene: Scene,
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

    def _take(self, scene: Scene, tracks: list[int], found: list[int], score: np.ndarray, good: np.ndarray) -> None:
        """The best assignment among the pairs that are ``good``."""
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(np.where(good, score + 1.0, 0.0), maximize=True)
        for row, column in zip(rows, columns, strict=True):
            if good[row, column]:
                scene.pairs.append((tracks[row], found[column]))
                scene.free.remove(tracks[row])
                scene.left.remove(found[column])

    # after the stages

    def _settle(self, scene: Scene, gap: int, t_ns: int) -> list[tuple[str, str]]:
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

    def _begin(self, scene: Scene, column: int, t_ns: int) -> None:
        self.made += 1
        name = f"{self._prefix}{self.made}"
        one = Track(name, scene.found.labels[column], scene.t, scene.t, new_memory(name, self.settings))
        one.confirmed = self.settings.confirm <= 1
        self._tracks.append(one)
        self._motion.add(scene.found.xyxy[column])
        self._remember(one, scene, column, t_ns)
        scene.pairs.append((len(self._tracks) - 1, column))

    def _remember(self, one: Track, scene: Scene, column: int, t_ns: int) -> None:
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
            pred_iou=float(scene.found.scores[column]) * (1 - pairing.covered(scene.found, column)),
            box=box,
            area=(x1 - x0) * (y1 - y0) / (width * height),
            desc_obj=np.asarray(vectors[column], np.float32),
        )
        changes = one.memory.observe(record) if one.memory.started else one.memory.start(record)
        if any(change.action in ("add", "drop") for change in changes):
            one.take_views()

    def _age(self, scene: Scene, gap: int) -> list[tuple[str, str]]:
        """Beliefs of tracks that weren't seen; those that end, with the reason."""
        chosen = self.settings
        ended: dict[int, str] = {}
        places = self._motion.boxes()
        for at in scene.free:
            one = self._tracks[at]
            assert self._size is not None
            hidden = pairing.hidden(places[at], scene.found, self._size)
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

    def _end(self, rows: list[int], scene: Scene) -> None:
        stay = [at for at in range(len(self._tracks)) if at not in set(rows)]
        moved = {at: to for to, at in enumerate(stay)}
        scene.pairs = [(moved[row], column) for row, column in scene.pairs if row in moved]
        self._tracks = [self._tracks[at] for at in stay]
        self._motion.drop(rows)

    def _answer(self, scene: Scene, rows: np.ndarray, retired: list[tuple[str, str]]) -> Followed:
        told = sorted((column, row) for row, column in scene.pairs if self._tracks[row].confirmed)
        return Followed(
            scene.t,
            scene.found.take([column for column, _ in told]),
            tuple(self._tracks[row].name for _, row in told),
            tuple(int(rows[column]) for column, _ in told),
            tuple(scene.refound),
            tuple(retired),
        )


class _SavedTrack(msgspec.Struct):
    name: str
    label: str
    first: int
    last: int
    hits: int
    belief: float
    confirmed: bool
    memory: bytes

    @classmethod
    def of(cls, one: Track) -> _SavedTrack:
        memory = one.memory.state()
        return cls(one.name, one.label, one.first, one.last, one.hits, one.belief, one.confirmed, memory)

    def track(self, settings: AssociationSettings) -> Track:
        memory = new_memory(self.name, settings)
        memory.load(self.memory)
        one = Track(self.name, self.label, self.first, self.last, memory, self.hits, self.belief, self.confirmed)
        one.take_views()
        return one


class _Saved(msgspec.Struct):
    settings: str
    made: int
    last: int | None
    size: tuple[int, int] | None
    dropped: dict[str, int]
    tracks: list[_SavedTrack]
    mean: bytes
    covariance: bytes


def _rows(found: Boxes, usable: Boxes, size: tuple[int, int]) -> np.ndarray:
    """Row in ``found`` of each row of ``usable``."""
    if len(found) == len(usable):
        return np.arange(len(found))
    numbered = Boxes(found.xyxy, found.scores, tuple(str(at) for at in range(len(found))))
    return np.array([int(label) for label in clean(numbered, size, Drops()).labels], np.int64)


__all__ = ["GONE", "LOOKED", "AssociationSettings", "AssociationTracker", "Followed", "Refound"]
