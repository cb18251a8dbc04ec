"""Class scores of crops as they are kept: the 50 best of 1,000 classes, and the statistics that make them comparable.

A crop's row is ``classes`` (50,) uint16 and ``scores`` (50,) float16, log-probabilities, best first: 200 bytes, where
1,000 dense float16 would be 2,000. The *activation* of a class is its log-probability above the row's last one;
classes that aren't listed have 0. That makes sums over a stream additive and sparse, and nothing has to be imputed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOP = 50
CLASSES = 1000
ROWS = 3
"""Of the statistics array: number of crops, sum of activations, sum of squared activations; each (1000,) float64."""


def pack(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 1000) float32 -> ``classes`` (n, 50) uint16 and ``scores`` (n, 50) float16, best first."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    order = np.argsort(-logp, axis=1, kind="stable")[:, :TOP]
    scores = np.take_along_axis(logp, order, axis=1).astype(np.float16)
    return order.astype(np.uint16), scores


def activations(scores: np.ndarray) -> np.ndarray:
    """``scores`` (m, 50) float16 -> activations (m, 50) float32, at least 0."""
    values = scores.astype(np.float32)
    return values - values[:, -1:]


def summarise(classes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Sufficient statistics of m crops: (3, 1000) float64. The sum over disjoint sets is that of their union."""
    a = activations(scores).astype(np.float64).ravel()
    index = classes.astype(np.int64).ravel()
    out = np.empty((ROWS, CLASSES))
    out[0] = len(classes)
    out[1] = np.bincount(index, weights=a, minlength=CLASSES)[:CLASSES]
    out[2] = np.bincount(index, weights=a * a, minlength=CLASSES)[:CLASSES]
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """What is usual: mean and deviation of each class's activation, (1000,) float64 each."""

    mean: np.ndarray
    deviation: np.ndarray

    @staticmethod
    def of(statistics: np.ndarray | None, prior: np.ndarray, prior_crops: float, floor: float) -> Background:
        """``prior`` (3, 1000) counts as ``prior_crops`` crops beside the stream's own; ``floor`` is the least
        deviation, without which a class that the stream never shows would explode at its first faint sign."""
        total = prior * (prior_crops / max(prior[0, 0], 1.0))
        if statistics is not None:
            total = total + statistics
        mean = total[1] / total[0]
        variance = np.maximum(total[2] / total[0] - mean * mean, 0.0)
        return Background(mean, np.sqrt(variance + floor * floor))


def weighted(classes: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over a crop's listed classes of ``values`` (m, 50) times ``weights`` (1000,): (m,) float32."""
    return np.einsum("mk,mk->m", values, weights.astype(np.float32)[classes])


def best_of(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The highest of each row's values, (n,) float32; -inf for a row without any."""
    out = np.full(len(offsets) - 1, -np.inf, dtype=np.float32)
    filled = np.flatnonzero(np.diff(offsets) > 0)
    if len(filled):
        # Empty rows hold no values, so the starts of the filled ones cut the array without gaps.
        out[filled] = np.maximum.reduceat(values, offsets[:-1][filled])
    return out
