"""Fusing signals on time.

Two ways, measured beside each other by ``tools/eval_retrieval.py``:

* ``rank_fusion``: weighted reciprocal ranks (Cormack et al. 2009), which needs no common scale;
* ``score_fusion`` (the default): the vision score standardised over what is searched, plus bonuses of the other signals
  in the same unit (one standard deviation). It wins because a word that is *there* is worth more than its rank says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from streammem.recall.query import Query
from streammem.recall.signals import Signals

# In standard deviations of the vision score. A whole matched phrase outranks any label (labels reach about 4).
TEXT_WEIGHT = 6.0
SPEECH_WEIGHT = 6.0
FACE_WEIGHT = 1.0
COLOUR_WEIGHT = 1.0
# Below this share of the asked words a partial match is noise ("the", "of", one short word in five).
WORDS_FLOOR = 0.34
# Share of the neighbours' score in a row's own: one frame is noisier than three.
SMOOTHING = 0.25
RANK_CONSTANT = 60.0


def score_fusion(query: Query, groups: Sequence[Signals]) -> list[np.ndarray]:
    """One fused score a row and timeline, (n,) float32, comparable over the timelines given; -inf where no signal
    knows anything."""
    labels = [smooth(g.scores["vision"], g) for g in groups if "vision" in g.scores]
    known = np.concatenate(labels) if labels else np.empty(0, np.float32)
    known = known[np.isfinite(known)]
    mean = float(known.mean()) if len(known) else 0.0
    deviation = float(known.std()) if len(known) else 0.0
    fused = []
    for group in groups:
        total = np.full(len(group.timeline), -np.inf, np.float32)
        if "vision" in group.scores:
            label = smooth(group.scores["vision"], group)
            total = np.where(np.isfinite(label), (label - mean) / max(deviation, 1e-6), -np.inf).astype(np.float32)
        for name, weight in _weights(query).items():
            if name in group.scores:
                total = _add(
                    total, group.scores[name], weight, floor=WORDS_FLOOR if name in ("text", "speech") else 0.0
                )
        fused.append(total)
    return fused


def rank_fusion(query: Query, groups: Sequence[Signals]) -> list[np.ndarray]:
    """Weighted reciprocal rank fusion over all timelines given; the same result shape as :func:`score_fusion`."""
    lengths = [len(g.timeline) for g in groups]
    total = np.full(sum(lengths), -np.inf, np.float32)
    weights: Mapping[str, float] = {"vision": 1.0, **{k: v / 4.0 for k, v in _weights(query).items()}}
    for name, weight in weights.items():
        column = np.concatenate(
            [g.scores.get(name, np.full(n, np.nan, np.float32)) for g, n in zip(groups, lengths, strict=True)]
        )
        usable = np.isfinite(column) & (column > WORDS_FLOOR if name in ("text", "speech") else True)
        order = np.flatnonzero(usable)[np.argsort(-column[usable], kind="stable")]
        share = np.zeros(len(column), np.float32)
        share[order] = weight / (RANK_CONSTANT + 1.0 + np.arange(len(order)))
        total = np.where(usable, np.where(np.isfinite(total), total, 0.0) + share, total).astype(np.float32)
    return np.split(total, np.cumsum(lengths)[:-1])


def _weights(query: Query) -> dict[str, float]:
    asked_text = 1.5 if query.wants_text and not query.wants_speech else 1.0
    asked_speech = 1.5 if query.wants_speech else 1.0
    return {
        "text": TEXT_WEIGHT * asked_text,
        "speech": SPEECH_WEIGHT * asked_speech,
        "face": FACE_WEIGHT,
        "colour": COLOUR_WEIGHT,
    }


def _add(total: np.ndarray, score: np.ndarray, weight: float, *, floor: float) -> np.ndarray:
    supports = np.isfinite(score) & (score > floor)
    base = np.where(np.isfinite(total), total, 0.0)
    return np.where(supports, base + weight * np.nan_to_num(score), total).astype(np.float32)


def smooth(label: np.ndarray, group: Signals) -> np.ndarray:
    """Mix each row with its neighbours in time, no further than two steps away; NaN stays NaN."""
    t_ns = group.timeline.t_start_ns
    n = len(label)
    if n < 3:
        return label
    reach = 2 * group.timeline.step_ns
    out = label.astype(np.float32).copy()
    weight = np.ones(n, np.float32)
    for shift in (-1, 1):
        neighbour = np.roll(label, shift)
        near = np.abs(np.roll(t_ns, shift) - t_ns) <= reach
        near[0 if shift == 1 else -1] = False
        near &= np.isfinite(neighbour) & np.isfinite(label)
        out += np.where(near, SMOOTHING * np.nan_to_num(neighbour), 0.0)
        weight += np.where(near, SMOOTHING, 0.0)
    return out / weight
