"""Where to split a run of frames in two: modularity and conductance of their similarity graph. Not a bank.

The graph of EM-LLM's refinement (Fountas et al. 2025, section 3.2): frames are nodes, the cosines of their embeddings
the weights, negative ones cut to 0, no loops. Both measures here are the textbook ones: modularity after Newman and
Girvan 2004, conductance as cut / min(volume of one side, volume of the other). (EM-LLM's code divides modularity by
twice as much, which moves no maximum, and has volumes of its own in the conductance.)
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Measure = Literal["modularity", "conductance"]


def similarity_graph(vectors: np.ndarray) -> np.ndarray:
    """(n, d) unit vectors -> (n, n) float64 weights >= 0, symmetric, 0 on the diagonal."""
    values = vectors.astype(np.float32)
    weights = np.maximum((values @ values.T).astype(np.float64), 0.0)
    weights = (weights + weights.T) / 2
    np.fill_diagonal(weights, 0.0)
    return weights


def split_scores(weights: np.ndarray, measure: Measure) -> np.ndarray:
    """(n, n) weights -> (n + 1,) float64: the score of splitting before node i, higher is better (conductance comes
    negated). The ends, which split nothing, are -inf, and so is everything in a graph without weights."""
    n = len(weights)
    scores = np.full(n + 1, -np.inf)
    total = float(weights.sum())
    if n < 2 or total <= 0.0:
        return scores
    corner = np.zeros((n + 1, n + 1))
    corner[1:, 1:] = weights.cumsum(axis=0).cumsum(axis=1)
    at = np.arange(1, n)
    left = corner[at, at]  # twice the weight inside [0, i)
    left_volume = corner[at, n]
    right_volume = total - left_volume
    between = left_volume - left
    if measure == "modularity":
        right = right_volume - between
        scores[1:n] = (left + right) / total - (left_volume**2 + right_volume**2) / total**2
    else:
        smaller = np.minimum(left_volume, right_volume)
        scores[1:n] = np.where(smaller > 0, -between / np.where(smaller > 0, smaller, 1.0), -np.inf)
    return scores


def best_split(vectors: np.ndarray, first: int, last: int, measure: Measure) -> int:
    """The best place in [first, last] to split (n, d) unit vectors in two; ``last``, where the surprise was, if none is
    better by more than rounding."""
    scores = split_scores(similarity_graph(vectors), measure)[first : last + 1]
    best = int(np.argmax(scores))
    return first + best if scores[best] > scores[-1] + 1e-9 else last
