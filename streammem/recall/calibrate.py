"""From scores to trust: which signals can say that a thing was really there.

A calibration is measured on questions about things that are certainly absent (``tools/calibrate.py``) and stored with
the embedding space. ``threshold`` is the lowest score that at most ``risk`` of the absent questions reached.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streammem.recall.query import Query
from streammem.recall.search import Found, Hit
from streammem.spaces import Calibration, SignalCalibration


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


def features(query: Query, hit: Hit) -> dict[str, float]:
    """What the calibrated signals are computed from, for the best moment. The same function is used to calibrate and
    to answer, so that the two can't drift apart.

    ``text``/``speech``: share of the asked words that stand there. ``evidence``: what the space can say. ``margin``:
    how far the vision score is above the stream's own background, in its deviations."""
    scores = hit.signals.scores
    rows = slice(hit.moment.lo, hit.moment.hi + 1)
    out: dict[str, float] = {}
    for name, column in scores.items():
        inside = column[rows]
        if np.isfinite(inside).any():
            out[name] = float(np.nanmax(inside))
    vision = scores.get("vision")
    if vision is not None and "vision" in out:
        known = vision[np.isfinite(vision)]
        middle = float(np.median(known))
        spread = 1.4826 * float(np.median(np.abs(known - middle)))
        out["margin"] = (out["vision"] - middle) / max(spread, 1e-3)
    return out


def verdicts(query: Query, hit: Hit, calibration: Calibration | None) -> list[Verdict]:
    """One verdict a calibrated signal, the most trusted first. Without a calibration nothing can be trusted."""
    if calibration is None:
        return []
    values = features(query, hit)
    out = [Verdict(entry, values[entry.signal]) for entry in calibration.signals if entry.signal in values]
    return sorted(out, key=lambda v: (not v.passes, -(v.precision or 0.0), v.signal))


def best_rejected(found: Found, calibration: Calibration | None) -> float | None:
    """The highest score of a signal that could have decided and didn't, over all hits."""
    every = [v for hit in found.hits for v in verdicts(found.query, hit, calibration) if not v.passes]
    return max((v.score for v in every if v.entry.threshold is not None), default=None)
