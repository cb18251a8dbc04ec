"""What stands for many moments: a mean, medoids, the best labels, every text once. Not a bank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streammem.model import Label, TextSpan

MOST_LABELS = 32
LEAST_APART = 0.02
"""Cosine distance below which a further medoid says nothing new; float16 alone makes 0.001."""


def unit_mean(vectors: np.ndarray) -> np.ndarray:
    """(n, d) -> (d,) float32, L2-normalised; where the vectors cancel, the medoid."""
    mean = vectors.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return (mean / length if length > 1e-3 else vectors[medoids(vectors, 1)[0]]).astype(np.float32)


def medoids(vectors: np.ndarray, most: int) -> list[int]:
    """Rows of (n, d) unit vectors that stand for all: the most central one, then always the one that is furthest from
    those chosen (Gonzalez 1985), at most ``most``. Furthest first, because what was there only briefly is far away.
    Ends where nothing is further than ``LEAST_APART``; ties go to the earlier row."""
    near = vectors @ vectors.T
    chosen = [int(np.argmax(near.sum(axis=1)))]
    best = near[chosen[0]].copy()
    while len(chosen) < min(most, len(vectors)):
        at = int(np.argmin(best))
        if 1.0 - float(best[at]) < LEAST_APART:
            break
        chosen.append(at)
        best = np.maximum(best, near[at])
    return chosen


def merged_labels(groups: Sequence[Sequence[Label]]) -> tuple[Label, ...]:
    """Every name once with its best score, those first that were there in most moments; at most ``MOST_LABELS``."""
    best: dict[str, float] = {}
    count: dict[str, int] = {}
    for labels in groups:
        for label in labels:
            best[label.name] = max(label.score, best.get(label.name, 0.0))
        for name in {label.name for label in labels}:
            count[name] = count.get(name, 0) + 1
    ordered = sorted(best, key=lambda name: (-count[name], -best[name], name))
    return tuple(Label(name, best[name]) for name in ordered[:MOST_LABELS])


def merged_texts(groups: Sequence[Sequence[TextSpan]], most: int) -> tuple[TextSpan, ...]:
    """Every text once, where it was read best, in the order of its first sight."""
    best: dict[str, TextSpan] = {}
    for texts in groups:
        for span in texts:
            if span.text not in best or span.score > best[span.text].score:
                best[span.text] = span
    return tuple(best.values())[:most]
