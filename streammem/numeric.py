"""``np.median`` and ``np.unique`` as a question needs them. NumPy's own import ``numpy.ma`` at their first call, which
costs a fresh process 15 to 40 ms: more than everything that a question computes with NumPy together."""

from __future__ import annotations

import numpy as np


def median(values: np.ndarray) -> float:
    """``float(np.median(values))``, to the bit, of (n,) numbers without NaN, n >= 1."""
    ordered = np.sort(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[middle])
    return float((ordered[middle - 1] + ordered[middle]) / 2)


def distinct(values: np.ndarray) -> np.ndarray:
    """``np.unique(values)`` of (n,) integers: sorted, each once."""
    ordered = np.sort(values)
    keep = np.ones(len(ordered), dtype=bool)
    keep[1:] = ordered[1:] != ordered[:-1]
    return ordered[keep]
