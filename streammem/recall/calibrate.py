"""From scores to trust: which signals can say that a thing was really there.

A calibration is measured on questions about things that are certainly absent (``tools/calibrate.py``) and stored with
the embedding space. ``threshold`` is the lowest score that at most ``risk`` of the absent questions reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streammem.recall.query import Query
from streammem.recall.search import Found, Hit
from streammem.spaces import Calibration, SignalCalibration


@dataclass(frozen=True, slots=True)
class Verdict:
    """``signal`` decided with ``score`` against ``threshold``; ``precision`` is the share of right answers among
    development questions that scored at least as high, None where that was not measured."""

    signal: str
    score: float
    threshold: float
    precision: float | None

    @property
    def passes(self) -> bool:
        return self.score >= self.threshold


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
    table: Mapping[str, SignalCalibration] = {s.signal: s for s in calibration.signals}
    out = [
        Verdict(name, values[name], entry.threshold, precision_at(entry, values[name]))
        for name, entry in table.items()
        if name in values
    ]
    return sorted(out, key=lambda v: (not v.passes, -(v.precision or 0.0), v.signal))


def precision_at(entry: SignalCalibration, score: float) -> float | None:
    """Interpolated share of right answers at this score; None where no curve is stored."""
    if not entry.scores:
        return None
    return float(np.interp(score, entry.scores, entry.precision))


def best_rejected(found: Found, calibration: Calibration | None) -> float | None:
    """The highest calibrated precision (or plain label score) that did not suffice, over all hits."""
    every = [v for hit in found.hits for v in verdicts(found.query, hit, calibration) if not v.passes]
    if not every:
        return max((h.evidence.score for h in found.hits), default=None)
    return max(v.precision if v.precision is not None else v.score for v in every)
