"""Captions: what a stretch of a stream was like, in words. The protocol, how a captioner is found, and the default.

The default needs no model: it folds moments into a :class:`Scene` (labels, words read, words heard, tracks, colours,
motion) and composes one sentence from that. A scene of scenes is a scene, so the same code captions a second and a day.
Others are entry points ``streammem.captioners``: ``model`` is a vision-language model (``reason/captioner.py``). Only
readers ask those, on demand; what is written depends on no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Protocol

import msgspec
import numpy as np

from streammem.colours import TERMS
from streammem.errors import ConfigError
from streammem.model import Record
from streammem.printable import printable

ENTRY_POINTS = "streammem.captioners"

LABELS = 16
"""Kept by mean and again by peak: a mean alone hides what was there for a moment (HCAM's mean keys do)."""
TEXTS, SPEECH, TRACKS = 8, 16, 24
NAMED, SURE = 8, 250
"""Labels of a caption: at most so many, and only those that reached a quarter once. On the film, whose animals are none
of ImageNet's, what scores less is noise."""
LONGEST = 160
"""Characters of one text or utterance that a summary keeps. The whole is in the moments."""


LEVELS = ("coarse", "fine", "ultra-fine")
FACT_WORDS: Mapping[str, int] = {"coarse": 80, "fine": 40, "ultra-fine": 40}
"""Length of a composed caption by level, in words."""


class Captioner(Protocol):
    """``id`` names model, revision and prompt: with content and sampling it is the identity of a cached caption.

    An entry point of ``streammem.captioners`` is a callable that gives one; it gets those of ``endpoint`` and
    ``model`` (texts) that a person named, as keywords."""

    @property
    def id(self) -> str: ...

    @property
    def frames(self) -> int:
        """Pictures that it wants of one stretch; 0 for one that works from what is remembered."""
        ...

    def caption(
        self,
        scene: Scene,
        pictures: Sequence[np.ndarray],
        *,
        level: str = "fine",
        instruction: str = "",
        words: int = 60,
    ) -> str:
        """One stretch in about ``words`` words. ``pictures`` (h, w, 3) uint8 RGB in time order; ``level`` is one of
        ``LEVELS``; ``instruction`` says what is missing. Raises ModelUnavailable, ServiceError, BudgetSpent."""
        ...


class Heard(msgspec.Struct, frozen=True, array_like=True):
    """Words and when they began."""

    text: str
    t_start_ns: int


class Scene(msgspec.Struct, array_like=True):
    """Sufficient statistics of a stretch: bounded, foldable, plain. Times in ns, both ends included.

    ``labels`` and ``colours``: name -> (sum, peak) of scores over ``looks``; ``texts``: text -> times read; ``tracks``:
    label -> ids; ``motion``: (sum, peak) of the picture's change in gray levels. Scores are whole thousandths: three
    bytes instead of nine, and sums that don't depend on the order."""

    t_start_ns: int = 0
    t_end_ns: int = 0
    looks: int = 0
    labels: dict[str, tuple[int, int]] = {}
    texts: dict[str, int] = {}
    speech: list[Heard] = []
    tracks: dict[str, list[str]] = {}
    colours: dict[str, tuple[int, int]] = {}
    motion: tuple[int, int] = (0, 0)
    cuts: int = 0

    def add(self, record: Record) -> None:
        """Fold one moment in."""
        weight = max(record.count, 1)
        for label in record.labels:
            self.labels[label.name] = _plus(self.labels.get(label.name), weight, label.score)
        for detection in record.detections:
            if detection.label not in {label.name for label in record.labels}:
                self.labels[detection.label] = _plus(self.labels.get(detection.label), weight, detection.score)
            if detection.track is not None:
                ids = self.tracks.setdefault(detection.label, [])
                if detection.track not in ids and len(ids) < TRACKS:
                    ids.append(detection.track)
        for span in record.texts:
            text = printable(span.text, LONGEST)
            self.texts[text] = self.texts.get(text, 0) + weight
        self.speech += [Heard(printable(said.text, LONGEST), said.t_start_ns) for said in record.speech]
        for name, share in _colours(record).items():
            self.colours[name] = _plus(self.colours.get(name), weight, share)
        change = float(record.stats.get("change", 0.0))
        if change < NOTHING_BEFORE:
            self.motion = _plus(self.motion, weight, change)
            self.cuts += int(change > CUT)
        self._extend(record.t_start_ns, max([record.t_end_ns, *(said.t_end_ns for said in record.speech)]))
        # A record of words alone is no look at a picture.
        self.looks += weight if record.vector is not None or not record.speech else 0
        self._bound()

    def merge(self, other: Scene) -> None:
        """Fold a later stretch in."""
        for name, (total, peak) in other.labels.items():
            self.labels[name] = _merged(self.labels.get(name), total, peak)
        for text, count in other.texts.items():
            self.texts[text] = self.texts.get(text, 0) + count
        self.speech += other.speech
        for label, ids in other.tracks.items():
            mine = self.tracks.setdefault(label, [])
            mine += [one for one in ids if one not in mine][: max(0, TRACKS - len(mine))]
        for name, (total, peak) in other.colours.items():
            self.colours[name] = _merged(self.colours.get(name), total, peak)
        self.motion = _merged(self.motion, *other.motion)
        self.cuts += other.cuts
        if other.looks or other.speech:
            self._extend(other.t_start_ns, other.t_end_ns)
        self.looks += other.looks
        self._bound()

    def _extend(self, t_start_ns: int, t_end_ns: int) -> None:
        empty = not self.looks and self.t_end_ns <= self.t_start_ns
        self.t_start_ns = t_start_ns if empty else min(self.t_start_ns, t_start_ns)
        self.t_end_ns = t_end_ns if empty else max(self.t_end_ns, t_end_ns)

    def _bound(self) -> None:
        if len(self.labels) > 4 * LABELS:
            by_sum = sorted(self.labels, key=lambda n: (-self.labels[n][0], n))[: 2 * LABELS]
            by_peak = sorted(self.labels, key=lambda n: (-self.labels[n][1], n))[: 2 * LABELS]
            keep = {*by_sum, *by_peak}
            self.labels = {name: value for name, value in self.labels.items() if name in keep}
        if len(self.texts) > 4 * TEXTS:
            best = sorted(self.texts, key=lambda t: (-self.texts[t], t))[: 2 * TEXTS]
            self.texts = {text: self.texts[text] for text in best}
        if len(self.speech) > 2 * SPEECH:
            self.speech = _even(self.speech, SPEECH)
        if len(self.tracks) > TRACKS:
            self.tracks = {label: self.tracks[label] for label in sorted(self.tracks)[:TRACKS]}

    def best_labels(self, count: int = LABELS) -> list[tuple[str, float]]:
        """Names with a score in [0, 1], best first: half by mean (what was there throughout), half by peak."""
        looks = max(self.looks, 1)
        mean = sorted(self.labels, key=lambda n: (-self.labels[n][0], n))
        peak = sorted(self.labels, key=lambda n: (-self.labels[n][1], n))
        chosen = dict.fromkeys([*mean[: (count + 1) // 2], *peak])
        return [(name, self.labels[name][0] / looks / 1000) for name in list(chosen)[:count]]

    def compact(self) -> Scene:
        """What is kept for good: fewer labels, texts and utterances than a growing scene holds."""
        kept = Scene(self.t_start_ns, self.t_end_ns, self.looks, motion=self.motion, cuts=self.cuts)
        kept.labels = {name: self.labels[name] for name, _ in self.best_labels()}
        kept.texts = {t: self.texts[t] for t in sorted(self.texts, key=lambda t: (-self.texts[t], t))[:TEXTS]}
        kept.speech = _even(self.speech, SPEECH)
        kept.tracks = {label: ids[:TRACKS] for label, ids in self.tracks.items()}
        # A colour below a twentieth of the picture is never named.
        kept.colours = {n: v for n, v in self.colours.items() if v[0] >= 50 * max(self.looks, 1)}
        return kept


CUT = 40.0
"""Gray levels of mean change that separate cuts (``perception.sampling``)."""
NOTHING_BEFORE = 255.0
"""The first picture of a stream differs from nothing: that is no motion and no cut."""


def _even(heard: list[Heard], count: int) -> list[Heard]:
    """An even choice over time, so that a long talk keeps its end as well as its beginning."""
    if len(heard) <= count:
        return list(heard)
    return [heard[i * (len(heard) - 1) // (count - 1)] for i in range(count)]


def _plus(have: tuple[int, int] | None, weight: int, value: float) -> tuple[int, int]:
    number = round(1000 * value)
    return _merged(have, weight * number, number)


def _merged(have: tuple[int, int] | None, total: int, peak: int) -> tuple[int, int]:
    old_sum, old_peak = have or (0, 0)
    return (old_sum + total, max(old_peak, peak))


def _colours(record: Record) -> Mapping[str, float]:
    """Share of the whole picture that has each basic colour term, where perception measured it."""
    shares = record.arrays.get("colours")
    if shares is None or not len(shares) or shares.shape[-1] != len(TERMS):
        return {}
    return {name: float(share) for name, share in zip(TERMS, np.asarray(shares[0], np.float64), strict=True)}


def scene_of(records: Iterable[Record]) -> Scene:
    """Moments in time order as one scene."""
    scene = Scene()
    for record in records:
        scene.add(record)
    return scene


class ComposedCaptioner:
    """A sentence from what is remembered: no model, the same for the same scene."""

    id = "composed@1"
    frames = 0

    def caption(
        self,
        scene: Scene,
        pictures: Sequence[np.ndarray],
        *,
        level: str = "fine",
        instruction: str = "",
        words: int = 60,
    ) -> str:
        if not scene.looks and not scene.speech:
            return "nothing was looked at"
        parts = []
        names = [name for name, _ in scene.best_labels(max(2, min(NAMED, words // 8))) if scene.labels[name][1] >= SURE]
        if names:
            parts.append("seen: " + ", ".join(printable(name, 60) for name in names))
        followed = [f"{len(ids)} {label}" for label, ids in sorted(scene.tracks.items())]
        if followed:
            parts.append("followed: " + ", ".join(followed[:6]))
        texts = sorted(scene.texts, key=lambda t: (-scene.texts[t], t))[: max(1, words // 15)]
        if texts:
            parts.append("text: " + ", ".join(f"“{text}”" for text in texts))
        if scene.speech:
            heard = " … ".join(said.text for said in scene.speech)
            parts.append(f"speech: “{printable(heard, 6 * words)}”")
        looks = max(scene.looks, 1)
        colours = sorted(scene.colours, key=lambda n: (-scene.colours[n][0], n))
        colours = [name for name in colours if scene.colours[name][0] >= 150 * looks][:3]
        if colours:
            parts.append("mostly " + " and ".join(colours))
        parts.append(_motion(scene))
        return "; ".join(parts)


def _motion(scene: Scene) -> str:
    mean = scene.motion[0] / 1000 / max(scene.looks, 1)
    pace = "still" if mean < 1.0 else "little motion" if mean < 5.0 else "motion" if mean < 15.0 else "much motion"
    cuts = f", {scene.cuts} cut{'s' if scene.cuts > 1 else ''}" if scene.cuts else ""
    return pace + cuts


def available_captioners() -> list[str]:
    """Names of the installed captioners, sorted."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)} | {"composed"})


def open_captioner(name: str = "composed", **options: object) -> Captioner:
    """The captioner called ``name``. Raises ConfigError for an unknown one, ModelUnavailable without its weights."""
    if name == "composed":
        return ComposedCaptioner()
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == name:
            return point.load()(**options)
    raise ConfigError(f"no captioner is called {name!r}", hint=f"installed: {', '.join(available_captioners())}")
