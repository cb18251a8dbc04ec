"""Cells that ask cells: nearest neighbours by likeness, with a price on distance where the question is local.

One exact search (faiss, inner product) over all keys at once. The price is part of the inner product: a query cell at
p and a key cell at q carry four more numbers each, so that their product is ``cos - price * |p - q|^2``, and a global
key carries zeros. A hard window would need one search a cell; this is a soft one, and needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from streammem.banks.policies.base import Summary

TOP = 10
"""Keys that answer for a cell (CRW, VFS: 10)."""
TEMPERATURE = 0.05
"""CRW's; 0.07 and 0.1 are published too."""
PRICE = 0.15
"""Cosine that a distance of one radius costs."""
TOKEN_SHARE = 0.2
"""Weight of a summary's vote beside the frames'."""
BACK = 300
"""Cells that are asked on the way back."""

Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Keys:
    """One frame that is read: ``cells`` (n, d) float16, ``label`` (n,) float32; ``near``: asked nearby only."""

    t: int
    cells: np.ndarray
    label: np.ndarray
    near: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """``soft`` (rows, columns) float32. ``sureness``: mean probability times mean likeness of the winners, in [0, 1].
    ``mass``: each frame's share of the attention. ``others``: look-alike pieces (rows, columns) bool."""

    soft: np.ndarray
    likeness: np.ndarray
    mass: dict[int, float] = field(default_factory=dict)
    others: list[np.ndarray] = field(default_factory=list)

    @property
    def found(self) -> bool:
        return bool((self.soft > 0.5).any())

    @property
    def sureness(self) -> float:
        mine = self.soft > 0.5
        if not mine.any():
            return 0.0
        return float(self.soft[mine].mean() * np.clip(self.likeness[mine], 0.0, 1.0).mean())

    def taking(self, mine: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> Answer:
        """Only these pieces, with the soft border around them."""
        if not others:
            return self
        keep = cv2.dilate(np.any(list(mine), axis=0).astype(np.uint8), np.ones((5, 5), np.uint8))
        for piece in others:
            keep[piece] = 0
        return replace(self, soft=self.soft * keep, others=list(others))

    def without(self) -> Answer:
        return replace(self, soft=np.zeros_like(self.soft))


def window_around(label: np.ndarray, margin: int) -> Window | None:
    """(row0, row1, column0, column1) of what is above 0.3 and ``margin`` cells around it; None: nothing is."""
    rows, columns = np.flatnonzero((label > 0.3).any(axis=1)), np.flatnonzero((label > 0.3).any(axis=0))
    if not len(rows):
        return None
    height, width = label.shape
    return (
        max(0, int(rows[0]) - margin),
        min(height, int(rows[-1]) + margin + 1),
        max(0, int(columns[0]) - margin),
        min(width, int(columns[-1]) + margin + 1),
    )


class Matcher:
    """``radius`` in cells: the distance that costs ``PRICE``."""

    def __init__(self, *, radius: int, top: int = TOP, temperature: float = TEMPERATURE) -> None:
        self.radius = radius
        self.top = top
        self.temperature = temperature

    def ask(
        self,
        cells: np.ndarray,
        shape: tuple[int, int],
        keys: Sequence[Keys],
        window: Window | None,
        *,
        summary: Summary | None = None,
    ) -> Answer:
        """Ask for every cell in ``window``, or for every second row and column of the whole grid where it is None."""
        rows, columns = _cells_of(shape, window)
        where = rows * shape[1] + columns
        queries = cells[where].astype(np.float32)
        place = self._places(rows, columns)
        found, labels, frames, times = self._gather(keys, shape, window)
        far = -PRICE * (place**2).sum(axis=1, keepdims=True)
        extended = np.concatenate([queries, np.sqrt(2 * PRICE) * place, np.ones((len(place), 1)), far], axis=1)
        scores, index = _nearest(extended, found, self.top)
        likeness = scores.max(axis=1)
        weights = np.exp((scores - likeness[:, None]) / self.temperature)
        weights /= weights.sum(axis=1, keepdims=True)
        soft = (weights * labels[index]).sum(axis=1)
        if summary is not None and summary.around is not None:
            lean = queries @ summary.inside - queries @ summary.around
            soft = (1 - TOKEN_SHARE) * soft + TOKEN_SHARE / (1 + np.exp(-lean / 0.1))
        mass = self._mass(weights, frames[index], soft, times, keys)
        return Answer(_spread(soft, shape, window, 0.0), _spread(likeness, shape, window, 0.0), mass)

    def _places(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return (np.stack([rows, columns], axis=1) / self.radius).astype(np.float32)

    def _gather(
        self, keys: Sequence[Keys], shape: tuple[int, int], window: Window | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
        """All keys as one matrix; ``frames`` is the position in ``keys`` of each row's frame."""
        matrices, labels, frames, times = [], [], [], [key.t for key in keys]
        for at, key in enumerate(keys):
            if key.near:
                rows, columns = _cells_of(shape, window) if window is not None else _all(shape)
                where = rows * shape[1] + columns
                place = self._places(rows, columns)
                far = -PRICE * (place**2).sum(axis=1, keepdims=True)
                extra = np.concatenate([np.sqrt(2 * PRICE) * place, far, np.ones((len(where), 1))], axis=1)
            else:
                where = _worth_asking(key.label, shape)
                extra = np.zeros((len(where), 4))
            matrices.append(np.concatenate([key.cells[where].astype(np.float32), extra], axis=1))
            labels.append(key.label[where])
            frames.append(np.full(len(where), at))
        return np.concatenate(matrices), np.concatenate(labels), np.concatenate(frames), times

    def _mass(
        self, weights: np.ndarray, frames: np.ndarray, soft: np.ndarray, times: list[int], keys: Sequence[Keys]
    ) -> dict[int, float]:
        mine = soft > 0.5
        if not mine.any():
            return {}
        shares = np.bincount(frames[mine].ravel(), weights[mine].ravel(), len(keys)) / mine.sum()
        return {t: float(share) for t, share in zip(times, shares, strict=True)}

    def way_back(self, now: np.ndarray, label: np.ndarray, then: np.ndarray, then_label: np.ndarray) -> float:
        """Forward-backward consistency: soft IoU between the labels of an earlier frame and those that its cells find
        when they ask this frame. 1 where they agree."""
        mine = np.flatnonzero(then_label > 0.5)
        rows, columns = label.shape
        edge = cv2.dilate((then_label.reshape(rows, columns) > 0.5).astype(np.uint8), np.ones((5, 5), np.uint8)).ravel()
        border = np.flatnonzero((edge > 0) & (then_label <= 0.5))
        asked = np.concatenate([_thin(mine, BACK), _thin(border, BACK)])
        window = window_around(label, self.radius)
        if not len(mine) or window is None:
            return 0.0
        at_rows, at_columns = _cells_of((rows, columns), window)
        where = at_rows * columns + at_columns
        scores, index = _nearest(then[asked].astype(np.float32), now[where].astype(np.float32), 5)
        weights = np.exp((scores - scores.max(axis=1, keepdims=True)) / self.temperature)
        found = (weights * label.ravel()[where][index]).sum(axis=1) / weights.sum(axis=1)
        truth = then_label[asked]
        return float(np.minimum(found, truth).sum() / max(float(np.maximum(found, truth).sum()), 1e-6))


def _nearest(queries: np.ndarray, keys: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact: scores (n, k) float32 and indices (n, k), best first."""
    import faiss

    top = min(top, len(keys))
    scores, index = faiss.knn(
        np.ascontiguousarray(queries, np.float32),
        np.ascontiguousarray(keys, np.float32),
        top,
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    return scores, index


def _all(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return rows.ravel(), columns.ravel()


def _cells_of(shape: tuple[int, int], window: Window | None) -> tuple[np.ndarray, np.ndarray]:
    if window is None:
        rows, columns = np.mgrid[0 : shape[0] : 2, 0 : shape[1] : 2]
    else:
        rows, columns = np.mgrid[window[0] : window[1], window[2] : window[3]]
    return rows.ravel(), columns.ravel()


def _worth_asking(label: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Of a frame that is asked everywhere: the object, 3 cells around it, and every second row and column."""
    near = cv2.dilate((label.reshape(shape) > 0.1).astype(np.uint8), np.ones((7, 7), np.uint8))
    near[::2, ::2] = 1
    return np.flatnonzero(near.ravel())


def _spread(values: np.ndarray, shape: tuple[int, int], window: Window | None, outside: float) -> np.ndarray:
    """Values of the asked cells on the whole grid (rows, columns) float32."""
    if window is None:
        coarse = values.reshape((shape[0] + 1) // 2, (shape[1] + 1) // 2).astype(np.float32)
        return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    grid = np.full(shape, outside, np.float32)
    grid[window[0] : window[1], window[2] : window[3]] = values.reshape(window[1] - window[0], window[3] - window[2])
    return grid


def _thin(index: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of them, evenly spread."""
    return index if len(index) <= most else index[np.linspace(0, len(index) - 1, most).round().astype(int)]
