"""Fusing signals on time.

Two ways, measured beside each other by ``tools/eval_recall.py``:

* ``score_fusion`` (the default): the space's vision score, which is on one absolute scale (deviations of the stream's
  own background), plus bonuses of the other signals in the same unit;
* ``rank_fusion``: weighted reciprocal ranks (Cormack, Clarke and Buettcher, SIGIR 2009), which needs no common scale
  and says nothing about how good the best hit is.

On the development questions they differ by less than the noise (R@1 .343 and .353, R@5 .608 and .627 of 102): score
fusion is the default because its scores mean something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from streammem.recall.query import Query
from streammem.recall.signals import Signals

# In the vision score's unit, which rarely exceeds 2.5: a whole matched phrase outranks any picture. A third of a
# phrase doesn't.
WEIGHTS: Mapping[str, float] = {"text": 4.0, "speech": 4.0, "face": 0.0, "colour": 0.0}
"""Faces and colours alone move no development question up on balance (0.3 each: R@1 -.01); the default space reads
colours inside its own evidence. They stay signals for spaces without that, and reasons to show."""
# What is surely there ranks above what resembles; -2 is where evidence begins to mean something. R@1, R@5 and MRR on
# development: .363, .569, .444 without, .363, .569, .449 with it, .392, .569, .462 where a detector adds people.
EVIDENCE_WEIGHT, EVIDENCE_FLOOR, EVIDENCE_MOST = 0.5, -2.0, 9.0
# Below this share of the asked words a partial match is noise ("the", "of", one short word in five).
WORDS_FLOOR = 0.34
RANK_CONSTANT = 20.0
"""60 in the paper, for lists of 1,000; lists of frames are shorter (5 to 60 differ by .02 in R@1)."""

_WORDS = ("text", "speech")


def score_fusion(query: Query, groups: Sequence[Signals]) -> list[np.ndarray]:
    """One fused score a row and timeline, (n,) float32, comparable over the timelines given; -inf where no signal
    knows anything."""
    fused = []
    for group in groups:
        vision = group.scores.get("vision")
        total = np.full(len(group.timeline), -np.inf, np.float32)
        if vision is not None:
            total = np.where(np.isfinite(vision), vision, -np.inf).astype(np.float32)
        for name, weight in _weights(query).items():
            if weight and name in group.scores:
                total = _add(total, group.scores[name], weight, floor=WORDS_FLOOR if name in _WORDS else 0.0)
        evidence = group.scores.get("named", group.scores.get("evidence"))
        if evidence is not None:
            above = np.clip(np.nan_to_num(evidence, nan=EVIDENCE_FLOOR) - EVIDENCE_FLOOR, 0.0, EVIDENCE_MOST)
            total += np.float32(EVIDENCE_WEIGHT) * above.astype(np.float32)
        fused.append(total)
    return fused


def rank_fusion(query: Query, groups: Sequence[Signals]) -> list[np.ndarray]:
    """Weighted reciprocal rank fusion over all timelines given; the same result shape as :func:`score_fusion`."""
    lengths = [len(g.timeline) for g in groups]
    if not lengths:
        return []
    total = np.full(sum(lengths), -np.inf, np.float32)
    weights = {"vision": 1.0, **{name: 0.5 * weight for name, weight in _weights(query).items()}}
    for name, weight in weights.items():
        column = np.concatenate(
            [g.scores.get(name, np.full(n, np.nan, np.float32)) for g, n in zip(groups, lengths, strict=True)]
        )
        usable = np.isfinite(column) & (column > WORDS_FLOOR if name in _WORDS else True)
        order = np.flatnonzero(usable)[np.argsort(-column[usable], kind="stable")]
        share = np.zeros(len(column), np.float32)
        share[order] = weight / (RANK_CONSTANT + 1.0 + np.arange(len(order)))
        total = np.where(usable, np.where(np.isfinite(total), total, 0.0) + share, total).astype(np.float32)
    return np.split(total, np.cumsum(lengths)[:-1])


def _weights(query: Query) -> dict[str, float]:
    asked = {"text": query.wants_text and not query.wants_speech, "speech": query.wants_speech}
    return {name: weight * (1.5 if asked.get(name) else 1.0) for name, weight in WEIGHTS.items()}


def _add(total: np.ndarray, score: np.ndarray, weight: float, *, floor: float) -> np.ndarray:
    supports = np.isfinite(score) & (score > floor)
    base = np.where(np.isfinite(total), total, 0.0)
    return np.where(supports, base + weight * np.nan_to_num(score), total).astype(np.float32)
