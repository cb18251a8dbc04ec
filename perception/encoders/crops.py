"""The 15 crops in which a keyframe is looked at: the whole picture, 5 at 60 % and 9 at 40 % of its sides.

A thing that fills a tenth of a picture is lost in one look at 224 x 224; in a 40 % crop it fills half. Measured on the
development questions: 1 crop finds .41 of the moments first, 6 crops .53, 15 crops .58.
"""

from __future__ import annotations

import numpy as np

from perception.encoders.lite0 import SIZE
from streammem.model import Box


def _boxes() -> tuple[Box, ...]:
    full = [(0.0, 0.0, 1.0, 1.0)]
    large = [(x, y, x + 0.6, y + 0.6) for x, y in ((0.0, 0.0), (0.4, 0.0), (0.2, 0.2), (0.0, 0.4), (0.4, 0.4))]
    small = [(x, y, x + 0.4, y + 0.4) for y in (0.0, 0.3, 0.6) for x in (0.0, 0.3, 0.6)]
    return tuple(full + large + small)


BOXES = _boxes()
"""In fractions of the picture, in the order of axis 0 of every crop array."""
LONGEST = 960
"""Larger pictures are shrunk once before many crops are cut: a 40 % crop of 960 pixels still has more than the 224 that
are looked at, and 14 crops of 1280 x 720 cost 17 ms instead of 25. A single crop is cheaper without."""


def cut(image: np.ndarray, boxes: tuple[Box, ...] = BOXES) -> np.ndarray:
    """``image`` (h, w, 3) uint8 RGB -> (n, 224, 224, 3) uint8. Sides are stretched: nothing is cut off."""
    import cv2

    height, width = image.shape[:2]
    shrink = LONGEST / max(height, width)
    if shrink < 1 and len(boxes) > 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        height, width = image.shape[:2]
    out = np.empty((len(boxes), SIZE, SIZE, 3), dtype=np.uint8)
    for row, (x0, y0, x1, y1) in enumerate(boxes):
        left, top = min(int(x0 * width), width - 1), min(int(y0 * height), height - 1)
        piece = image[top : max(round(y1 * height), top + 1), left : max(round(x1 * width), left + 1)]
        # INTER_AREA averages when it shrinks and is nearest-neighbour-like when it enlarges: pick by direction.
        smaller = piece.shape[0] >= SIZE and piece.shape[1] >= SIZE
        out[row] = cv2.resize(piece, (SIZE, SIZE), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return out
