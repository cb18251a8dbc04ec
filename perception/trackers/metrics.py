"""How good masks are: region similarity J and boundary accuracy F (Perazzi et al. 2016, the DAVIS benchmark)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from perception.trackers.picture_ops import mask_iou
from streammem.errors import InputError

BOUND = 0.008
"""Tolerance of F as a share of the picture's diagonal (8 pixels at 480p)."""


def jaccard(found: np.ndarray, truth: np.ndarray) -> float:
    """J: intersection over union of two masks (h, w) bool; 1 where both are empty."""
    _same(found, truth)
    return mask_iou(found.astype(bool), truth.astype(bool))


def boundary(mask: np.ndarray) -> np.ndarray:
    """The border of a mask (h, w) bool: pixels that differ from the one to the right, below, or diagonally below
    (as the benchmark's seg2bmap, so that a border is one pixel wide)."""
    m = mask.astype(bool)
    padded = np.pad(m, ((0, 1), (0, 1)), mode="edge")
    return (m ^ padded[:-1, 1:]) | (m ^ padded[1:, :-1]) | (m ^ padded[1:, 1:])


def f_measure(found: np.ndarray, truth: np.ndarray, *, bound: float = BOUND) -> float:
    """F: harmonic mean of precision and recall of the borders, matched within a disc of ``bound`` times the
    diagonal. 1 where both are empty, 0 where only one is."""
    _same(found, truth)
    radius = bound if bound >= 1 else math.ceil(bound * math.hypot(*found.shape))
    a, b = boundary(found), boundary(truth)
    in_a, in_b = int(a.sum()), int(b.sum())
    if in_a == 0 or in_b == 0:
        return float(in_a == in_b)
    precision = int(np.count_nonzero(_distance(b)[a] <= radius)) / in_a
    recall = int(np.count_nonzero(_distance(a)[b] <= radius)) / in_b
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def j_and_f(found: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> tuple[float, float]:
    """Means over frames. DAVIS leaves out the first frame, which is given, and the last: the caller does.

    Raises InputError where the lengths differ or are zero."""
    if len(found) != len(truth) or not found:
        raise InputError(f"{len(found)} masks for {len(truth)} true ones", hint="give one for each frame")
    pairs = list(zip(found, truth, strict=True))
    return (
        float(np.mean([jaccard(a, b) for a, b in pairs])),
        float(np.mean([f_measure(a, b) for a, b in pairs])),
    )


def _same(found: np.ndarray, truth: np.ndarray) -> None:
    if found.shape != truth.shape or found.ndim != 2:
        raise InputError(f"masks of {found.shape} and {truth.shape}", hint="both are (h, w) of one size")


def _distance(border: np.ndarray) -> np.ndarray:
    """(h, w) float32: each pixel's distance to the nearest border pixel. Ten times faster than dilating by a disc."""
    return np.asarray(cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE))
