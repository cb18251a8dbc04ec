"""Made-up clips with exact masks, in which an object hides and comes back. Every pixel follows from a seed.

A target that changes (three looks that fade into one another) moves over a cluttered background:

* ``smooth``: passes behind a pillar and comes out on the other side
* ``displaced``: passes behind the pillar, and appears elsewhere, with the look that it had in the middle of its path
* ``lookalike``: as smooth, while another object of the same shape stays in sight
* ``exit``: leaves the picture and comes in again at another side
* ``cut``: the camera cuts to another background, the target elsewhere
* ``scale``: comes back half as large again
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

KINDS = ("smooth", "displaced", "lookalike", "exit", "cut", "scale")
HEIGHT, WIDTH = 240, 416
SEEN, HIDDEN, AFTER = 24, 12, 16
"""Frames before, during and after the absence."""


@dataclass(frozen=True, slots=True)
class Frame:
    """``image`` (240, 416, 3) uint8 RGB, ``mask`` (240, 416) bool of the target's visible pixels."""

    image: np.ndarray
    mask: np.ndarray
    phase: str


@dataclass(frozen=True, slots=True)
class _Thing:
    outline: np.ndarray
    looks: tuple[np.ndarray, ...]


def clip(kind: str, seed: int) -> Iterator[Frame]:
    """The frames of one clip; ``phase`` is ``before``, ``absent``, ``after`` or ``partly`` (a piece is covered)."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    background, other_background = _clutter(rng), _clutter(rng)
    target, twin = _thing(rng), _thing(rng)
    pillar = _fabric(rng, 240, 110)
    row = float(rng.uniform(80, 160))
    direction = 1 if rng.random() < 0.5 else -1
    for t in range(SEEN + HIDDEN + AFTER):
        x, y, look, size, covered = _where(kind, t, row, rng_row=float((row + 90) % 140 + 50))
        canvas = (other_background if kind == "cut" and t >= SEEN else background).copy()
        hidden = SEEN <= t < SEEN + HIDDEN
        mask = np.zeros((HEIGHT, WIDTH), bool)
        if kind == "lookalike":
            _paint(canvas, twin, 330 - 1.5 * t, (row + 70) % 180 + 30, 0.0, 1.0)
        if not (hidden and kind in ("displaced", "exit", "cut")):
            mask = _paint(canvas, target, x, y, look, size)
        if kind not in ("exit", "cut") and covered:
            canvas[:, 153:263] = pillar
            mask[:, 153:263] = False
        noise = rng.normal(0, 2.0, canvas.shape)
        image = np.clip(canvas.astype(np.float32) + noise, 0, 255).astype(np.uint8)
        if direction < 0:
            image, mask = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
        yield Frame(image, mask, _phase(t, mask))


def _phase(t: int, mask: np.ndarray) -> str:
    if not mask.any():
        return "absent"
    return "before" if t < SEEN else "after" if t >= SEEN + HIDDEN else "partly"


def _where(kind: str, t: int, row: float, *, rng_row: float) -> tuple[float, float, float, float, bool]:
    """Centre, look in [0, 2], size, and whether the pillar stands there."""
    look = min(2.0, 2.0 * t / SEEN)
    y = row + 10 * np.sin(t / 5)
    if t < SEEN + HIDDEN:
        if kind == "exit":
            return 60 - 8.0 * max(0, t - 12), y, look, 1.0, False
        # 50 to 140 before, through the pillar (153 to 263) during the absence.
        x = 50 + 70 * t / SEEN if t < SEEN else 190 + 30 * (t - SEEN) / HIDDEN
        return x, y, look, 1.0, True
    after = t - SEEN - HIDDEN
    if kind == "smooth" or kind == "lookalike":
        return 300 + 3.0 * after, y, 2.0, 1.0, True
    if kind == "scale":
        return 310 + 2.0 * after, y, 2.0, 1.5, True
    return (340.0 - 2.0 * after if kind != "displaced" else 330.0 - after, rng_row, 1.0, 1.0, kind == "displaced")


def _clutter(rng: np.random.Generator) -> np.ndarray:
    """(240, 416, 3) uint8: broad shades, then shapes of many sizes."""
    coarse = rng.uniform(60, 190, (6, 10, 3)).astype(np.float32)
    picture = np.ascontiguousarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    for _ in range(60):
        colour = tuple(float(value) for value in rng.uniform(30, 220, 3))
        x, y = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
        w, h = (int(value) for value in rng.integers(6, 46, 2))
        if rng.random() < 0.5:
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.ellipse(picture, (x, y), (w // 2, h // 2), float(rng.uniform(0, 180)), 0, 360, colour, -1)
    return np.clip(cv2.GaussianBlur(picture, (3, 3), 0), 0, 255).astype(np.uint8)


def _fabric(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A texture: stripes or dots of two colours."""
    first, second = rng.uniform(20, 235, (2, 3))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(7, 18)
    along, across = columns * np.cos(angle) + rows * np.sin(angle), rows * np.cos(angle) - columns * np.sin(angle)
    wave = np.sin(2 * np.pi * along / period)
    if rng.random() < 0.5:
        wave = wave * np.sin(2 * np.pi * across / period)
    share = (0.5 + 0.5 * np.clip(3 * wave, -1, 1))[:, :, None]
    return (first * share + second * (1 - share)).astype(np.uint8)


def _thing(rng: np.random.Generator) -> _Thing:
    corners = int(rng.integers(5, 9))
    angles = (
        np.sort(rng.uniform(0, 2 * np.pi, corners)) * 0.3 + np.linspace(0, 2 * np.pi, corners, endpoint=False) * 0.7
    )
    radii = rng.uniform(30, 42, corners)
    outline = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    return _Thing(outline, tuple(_fabric(rng, 120, 120) for _ in range(3)))


def _paint(canvas: np.ndarray, thing: _Thing, x: float, y: float, look: float, size: float) -> np.ndarray:
    """Paint a thing and return its pixels (h, w) bool. Between its looks 0, 1 and 2 it fades: a change that
    can be followed from frame to frame, and not in one step."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    points = np.round(thing.outline * size + [x, y]).astype(np.int32)
    cv2.fillPoly(mask, [points], 1)
    inside = mask.astype(bool)
    side = min(int(look), 1)
    part = look - side
    rows, columns = np.nonzero(inside)
    u = np.clip((columns - x) / size + 60, 0, 119).astype(int)
    v = np.clip((rows - y) / size + 60, 0, 119).astype(int)
    old, new = thing.looks[side][v, u].astype(np.float32), thing.looks[side + 1][v, u].astype(np.float32)
    canvas[rows, columns] = ((1 - part) * old + part * new).astype(np.uint8)
    return inside
