"""Colour words: what share of each crop has which of the 11 basic colours (Berlin and Kay 1969).

One table from RGB (32 levels a channel) to a term is made at first use from rules on hue, saturation and value; a
picture of 128 pixels is then looked up and summed. A record keeps (15, 11) float16, row for row with the crops of the
vision space, so that "a red car" can ask for red where the car is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from perception.encoders.crops import BOXES
from streammem.colours import TERMS

_ALIASES = {
    "grey": "gray", "silver": "gray", "violet": "purple", "lilac": "purple", "magenta": "pink", "golden": "yellow",
    "gold": "yellow", "crimson": "red", "scarlet": "red", "turquoise": "blue", "cyan": "blue", "navy": "blue",
    "beige": "brown", "tan": "brown", "lime": "green", "cream": "white",
}  # fmt: skip
_LEVELS = 32
_WIDTH = 128


@cache
def _table() -> np.ndarray:
    """(32, 32, 32) uint8: the term of every quantised RGB colour."""
    import cv2

    steps = (np.arange(_LEVELS) * 8 + 4).astype(np.uint8)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV).reshape(-1, 3).astype(np.float32)
    hue, saturation, value = hsv[:, 0] * 2, hsv[:, 1] / 255, hsv[:, 2] / 255
    out = np.full(len(hue), TERMS.index("gray"), dtype=np.uint8)

    def put(term: str, where: np.ndarray) -> None:
        out[where] = TERMS.index(term)

    chroma = saturation * value
    vivid = (saturation >= 0.25) & (chroma >= 0.14)
    red = (hue < 15) | (hue >= 345)
    put("white", ~vivid & (value >= 0.78))
    put("black", value < 0.2)
    lit = vivid & (value >= 0.2)
    put("red", lit & red)
    put("orange", lit & (hue >= 15) & (hue < 42))
    put("yellow", lit & (hue >= 42) & (hue < 68))
    put("green", lit & (hue >= 68) & (hue < 170))
    put("blue", lit & (hue >= 170) & (hue < 255))
    put("purple", lit & (hue >= 255) & (hue < 300))
    put("pink", lit & (hue >= 300) & (hue < 345))
    # Pale red is pink; dark or dull orange is brown; wood and skin in shade fall there too.
    put("pink", lit & red & (saturation < 0.5) & (value >= 0.65))
    put("brown", lit & (hue >= 8) & (hue < 48) & ((value < 0.6) | (saturation < 0.45)))
    put("green", lit & (hue >= 55) & (hue < 68) & (value < 0.5))
    return out.reshape(_LEVELS, _LEVELS, _LEVELS)


def shares(image: np.ndarray) -> np.ndarray:
    """``image`` (h, w, 3) uint8 RGB -> (15, 11) float16 in [0, 1]: each crop's share of each term."""
    import cv2

    height, width = image.shape[:2]
    size = (_WIDTH, max(8, round(height * _WIDTH / width)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if width > _WIDTH else cv2.INTER_LINEAR)
    level = np.asarray(small, dtype=np.uint8) >> 3
    terms = _table()[level[..., 0], level[..., 1], level[..., 2]]
    # Summed-area tables: every crop costs four look-ups a term.
    planes = np.stack([terms == i for i in range(len(TERMS))], axis=-1)
    sums = np.zeros((size[1] + 1, size[0] + 1, len(TERMS)), dtype=np.int64)
    sums[1:, 1:] = planes.cumsum(axis=0).cumsum(axis=1)
    out = np.empty((len(BOXES), len(TERMS)), dtype=np.float16)
    for row, (x0, y0, x1, y1) in enumerate(BOXES):
        left, top = int(x0 * size[0]), int(y0 * size[1])
        right, bottom = max(round(x1 * size[0]), left + 1), max(round(y1 * size[1]), top + 1)
        count = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        out[row] = count / ((right - left) * (bottom - top))
    return out


INNER = (0.2, 0.12, 0.8, 0.65)
"""Of a box: where the thing is rather than what is beside it; of a person chest and hips, not face and feet."""


def box_shares(image: np.ndarray, boxes: np.ndarray, masks: Sequence[np.ndarray | None] = ()) -> np.ndarray:
    """``image`` (h, w, 3) uint8 RGB, ``boxes`` (n, 4) in pixels, ``masks`` (h, w) bool where known -> (n, 11) float16:
    the share of each term on the thing: on its mask, else in the inner part of its box. 20 to 60 us a box."""
    height, width = image.shape[:2]
    out = np.zeros((len(boxes), len(TERMS)), np.float16)
    for row, (x0, y0, x1, y1) in enumerate(np.asarray(boxes, float).tolist()):
        mask = masks[row] if row < len(masks) else None
        if mask is None:
            w, h = x1 - x0, y1 - y0
            x0, y0, x1, y1 = x0 + INNER[0] * w, y0 + INNER[1] * h, x0 + INNER[2] * w, y0 + INNER[3] * h
        left, top = min(max(int(x0), 0), width - 1), min(max(int(y0), 0), height - 1)
        right, bottom = max(min(round(x1), width), left + 1), max(min(round(y1), height), top + 1)
        # A thousand pixels or so tell a share to a percent.
        step = max(1, math.isqrt((right - left) * (bottom - top) // 1024))
        pixels = image[top:bottom:step, left:right:step]
        if mask is not None and mask[top:bottom:step, left:right:step].any():
            pixels = pixels[mask[top:bottom:step, left:right:step]]
        level = pixels.reshape(-1, 3) >> 3
        counts = np.bincount(_table()[level[:, 0], level[:, 1], level[:, 2]], minlength=len(TERMS))
        out[row] = counts / max(1, len(level))
    return out


def asked(text: str) -> tuple[int, ...]:
    """Numbers of the colour terms that a question names, in order, each once."""
    words = re.findall(r"[a-z]+", text.lower())
    terms = [_ALIASES.get(word, word) for word in words]
    return tuple(dict.fromkeys(TERMS.index(term) for term in terms if term in TERMS))
