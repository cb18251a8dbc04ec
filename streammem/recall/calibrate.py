"""From scores to trust: which signals can say that a thing was really there.

A calibration is measured on questions about things that are certainly absent (``tools/calibrate.py``) and stored with
the embedding space. ``threshold`` is the lowest score that at most ``risk`` of the absent questions reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from streammem.recall.search import Found, Hit
from streammem.spaces import Calibration, EmbeddingSpace, SignalCalibration


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one calibrated signal says of one moment. ``precision`` is the share of right answers among development
    questions that scored at least as high, None where that was not measured."""

    entry: SignalCalibration
    score: float

    @property
    def signal(self) -> str:
        return self.entry.signal

    @property
    def passes(self) -> bool:
        """Absent things pass with a probability of at most ``entry.risk``."""
        return self.entry.threshold is not None and self.score >= self.entry.threshold

    @property
    def supports(self) -> bool:
        """The moment resembles what was asked."""
        level = self.entry.supports if self.entry.supports is not None else self.entry.threshold
        return level is not None and self.score >= level

    @property
    def precision(self) -> float | None:
        if not self.entry.scores:
            return None
        return float(np.interp(self.score, self.entry.scores, self.entry.precision))


def features(hit: Hit) -> dict[str, float]:
    """The highest score of each signal inside a moment: what its thresholds are compared with.

    ``text``/``speech``: share of the asked words that stand there. ``evidence``, ``vision``: the space's own."""
    rows = slice(hit.moment.lo, hit.moment.hi + 1)
    inside = {name: column[rows] for name, column in hit.signals.scores.items()}
    return {name: float(np.fmax.reduce(values)) for name, values in inside.items() if np.isfinite(values).any()}


WORDS = Calibration(
    space="",
    version="",
    source="words of the development questions against words read or heard in other recordings; tools/calibrate.py",
    signals=(SignalCalibration("text", 0.6, 0.03, 593), SignalCalibration("speech", 0.6, 0.03, 1150)),
)
"""Words that stand in the scene need no picture model: this holds whatever the space, and where there is none."""


def calibration_of(space: EmbeddingSpace | None) -> Calibration:
    """A space's own calibration, with that of words where it has none."""
    own = space.calibration() if space is not None else None
    if own is None:
        return WORDS
    known = {entry.signal for entry in own.signals}
    return msgspec.structs.replace(own, signals=own.signals + tuple(e for e in WORDS.signals if e.signal not in known))


def verdicts(hit: Hit, calibration: Calibration) -> list[Verdict]:
    """One verdict a calibrated signal, the most trusted first."""
    values = features(hit)
    out = [Verdict(entry, values[entry.signal]) for entry in calibration.signals if entry.signal in values]
    return sorted(out, key=lambda v: (not v.passes, -(v.precision or 0.0), v.signal))


def best_rejected(found: Found, calibration: Calibration) -> float | None:
    """The highest score of a signal that could have decided and didn't, over all hits."""
    every = [v for hit in found.hits for v in verdicts(hit, calibration) if not v.passes]
    return max((v.score for v in every if v.entry.threshold is not None), default=None)
