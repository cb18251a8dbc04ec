"""Cells that ask cells: nearest neighbours by likeness, with a price on distance where the question is local.

One exact search (faiss, inner product) over all keys at once. The price is part of the inner product: a query cell at
p and a key cell at q carry four more numbers each, so that their product is ``cos - price * |p - q|^2``, and a global
key carries zeros. A hard window would need one search a cell; this is a soft one, and needs none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from streammem.banks.policies.base import Summary

if TYPE_CHECKING:
    import onnxruntime

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
NEAR_STEP, FAR_STEP = 2, 3
"""Lattice of the keys away from the object's border, in frames that are asked nearby and everywhere."""
UNSURE = 0.2
"""Difference of the soft labels of neighbours above which the cells between them ask too."""
BLOCK = 128
"""Queries a product: its likenesses (5 MB at 10,000 keys) stay in the cache."""

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


@dataclass(frozen=True, slots=True)
class _Bank:
    """``keys`` (n, d + 4) float32, ``labels`` (n,), ``frames`` (n,) positions in ``times``."""

    keys: np.ndarray
    labels: np.ndarray
    frames: np.ndarray
    times: tuple[int, ...]


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
        last: np.ndarray | None = None,
        lost: bool = False,
        summary: Summary | None = None,
    ) -> Answer:
        """Ask for the cells in ``window``, or for the whole grid where it is None. Every second row and column asks;
        in a window the cells between them do where their neighbours disagree or the border of ``last`` (rows,
        columns) was, and take the mean of their neighbours elsewhere. ``lost``: the object may be anywhere or nowhere,
        so that frames that are asked everywhere answer with more of their background."""
        bank = self._bank(keys, shape, window, NEAR_STEP if lost else FAR_STEP)
        rows, columns = _lattice(shape, window)
        soft, likeness, mass = self._vote(cells, shape, rows, columns, bank, summary)
        if window is None:
            return Answer(_coarse(soft, shape), _coarse(likeness, shape), mass)
        size = (window[1] - window[0], window[3] - window[2])
        answers = _between(soft, size), _between(likeness, size)
        open_rows, open_columns = np.nonzero(_unsure(answers[0], last, window))
        if len(open_rows):
            rows, columns = open_rows + window[0], open_columns + window[2]
            fine, alike, _ = self._vote(cells, shape, rows, columns, bank, summary)
            answers[0][open_rows, open_columns], answers[1][open_rows, open_columns] = fine, alike
        return Answer(_inside(answers[0], shape, window), _inside(answers[1], shape, window), mass)

    def _vote(
        self,
        cells: np.ndarray,
        shape: tuple[int, int],
        rows: np.ndarray,
        columns: np.ndarray,
        bank: _Bank,
        summary: Summary | None,
    ) -> tuple[np.ndarray, np.ndarray, dict[int, float]]:
        """Of each cell that asks: its soft label, the likeness of its best answer; and every frame's share."""
        queries = cells[rows * shape[1] + columns].astype(np.float32)
        place = self._places(rows, columns)
        far = -PRICE * (place**2).sum(axis=1, keepdims=True)
        extended = np.concatenate([queries, math.sqrt(2 * PRICE) * place, np.ones((len(place), 1), np.float32), far], 1)
        scores, index = nearest(extended, bank.keys, self.top)
        likeness = scores.max(axis=1)
        weights = np.exp((scores - likeness[:, None]) / self.temperature)
        weights /= weights.sum(axis=1, keepdims=True)
        soft = (weights * bank.labels[index]).sum(axis=1)
        if summary is not None and summary.around is not None:
            lean = queries @ summary.inside - queries @ summary.around
            soft = (1 - TOKEN_SHARE) * soft + TOKEN_SHARE / (1 + np.exp(-lean / 0.1))
        return soft, likeness, _mass(weights, bank.frames[index], soft, bank.times)

    def _places(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return (np.stack([rows, columns], axis=1) / self.radius).astype(np.float32)

    def _bank(self, keys: Sequence[Keys], shape: tuple[int, int], window: Window | None, far_step: int) -> _Bank:
        """All keys as one matrix."""
        matrices, labels, frames = [], [], []
        for at, key in enumerate(keys):
            near = window if key.near else None
            rows, columns = _worth_asking(key.label, shape, near, NEAR_STEP if key.near else far_step)
            where = rows * shape[1] + columns
            extra = np.zeros((len(where), 4), np.float32)
            if key.near:
                place = self._places(rows, columns)
                extra[:, :2] = math.sqrt(2 * PRICE) * place
                extra[:, 2] = -PRICE * (place**2).sum(axis=1)
                extra[:, 3] = 1
            matrices.append(np.concatenate([key.cells[where].astype(np.float32), extra], axis=1))
            labels.append(key.label[where])
            frames.append(np.full(len(where), at))
        times = tuple(key.t for key in keys)
        return _Bank(np.concatenate(matrices), np.concatenate(labels), np.concatenate(frames), times)

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
        at_rows, at_columns = _every(window, 1)
        where = at_rows * columns + at_columns
        scores, index = nearest(then[asked].astype(np.float32), now[where].astype(np.float32), 5)
        weights = np.exp((scores - scores.max(axis=1, keepdims=True)) / self.temperature)
        found = (weights * label.ravel()[where][index]).sum(axis=1) / weights.sum(axis=1)
        truth = then_label[asked]
        return float(np.minimum(found, truth).sum() / max(float(np.maximum(found, truth).sum()), 1e-6))


def nearest(queries: np.ndarray, keys: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact: the ``top`` largest inner products (n, k) float32 of each query and their rows (n, k), unsorted."""
    search = _search()
    keys = np.ascontiguousarray(keys.T, np.float32)
    count = np.array([min(top, keys.shape[1])], np.int64)
    found = [
        search.run(
            None, {"queries": np.ascontiguousarray(queries[at : at + BLOCK], np.float32), "keys": keys, "top": count}
        )
        for at in range(0, len(queries), BLOCK)
    ]
    return np.concatenate([scores for scores, _ in found]), np.concatenate([index for _, index in found])


@cache
def _search() -> onnxruntime.InferenceSession:
    """Product and largest entries as a graph of two nodes."""
    from onnx import TensorProto, helper

    from perception.encoders import runtime

    def value(name: str, kind: int, *shape: str) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    nodes = [
        helper.make_node("MatMul", ["queries", "keys"], ["likeness"]),
        helper.make_node("TopK", ["likeness", "top"], ["scores", "index"], sorted=0),
    ]
    given = [value("queries", TensorProto.FLOAT, "n", "d"), value("keys", TensorProto.FLOAT, "d", "m")]
    graph = helper.make_graph(
        nodes,
        "nearest",
        [*given, value("top", TensorProto.INT64, "one")],
        [value("scores", TensorProto.FLOAT, "n", "k"), value("index", TensorProto.INT64, "n", "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    import onnxruntime as ort

    return ort.InferenceSession(model.SerializeToString(), runtime.options(), providers=["CPUExecutionProvider"])


def _every(window: Window, step: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[window[0] : window[1] : step, window[2] : window[3] : step]
    return rows.ravel(), columns.ravel()


def _lattice(shape: tuple[int, int], window: Window | None) -> tuple[np.ndarray, np.ndarray]:
    return _every(window or (0, shape[0], 0, shape[1]), 2)


def _worth_asking(
    label: np.ndarray, shape: tuple[int, int], window: Window | None, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the keys that answer for a frame: those within 3 cells of the object's border, and of what
    is inside and outside of it a lattice: its cells are alike, and one of them is answer enough."""
    grid = label.reshape(shape)
    r0, r1, c0, c1 = window or (0, shape[0], 0, shape[1])
    grid = grid[r0:r1, c0:c1]
    kernel = np.ones((7, 7), np.uint8)
    keep = cv2.dilate((grid > 0.1).astype(np.uint8), kernel)
    keep[cv2.erode((grid > 0.9).astype(np.uint8), kernel) > 0] = 0
    keep[::step, ::step] = 1
    rows, columns = np.nonzero(keep)
    return rows + r0, columns + c0


def _unsure(soft: np.ndarray, last: np.ndarray | None, window: Window) -> np.ndarray:
    """(rows, columns) bool of a window: cells off the lattice whose neighbourhood isn't of one mind."""
    kernel = np.ones((3, 3), np.uint8)
    unsure = cv2.dilate(soft, kernel) - cv2.erode(soft, kernel) > UNSURE
    if last is not None:
        part = last[window[0] : window[1], window[2] : window[3]]
        border = ((part > 0.1) & (part < 0.9)).astype(np.uint8)
        unsure |= cv2.dilate(border, kernel) > 0
    unsure[::2, ::2] = False
    return unsure


def _between(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values of the lattice on all cells (rows, columns) float32, the ones between as means of their neighbours."""
    lattice = values.reshape((size[0] + 1) // 2, (size[1] + 1) // 2).astype(np.float32)
    grid = np.empty(size, np.float32)
    grid[::2, ::2] = lattice
    down = np.concatenate([lattice, lattice[-1:]])[1:]
    grid[1::2, ::2] = (0.5 * (lattice + down))[: size[0] // 2]
    right = np.concatenate([grid[:, ::2], grid[:, ::2][:, -1:]], axis=1)[:, 1:]
    grid[:, 1::2] = (0.5 * (grid[:, ::2] + right))[:, : size[1] // 2]
    return grid


def _inside(values: np.ndarray, shape: tuple[int, int], window: Window) -> np.ndarray:
    grid = np.zeros(shape, np.float32)
    grid[window[0] : window[1], window[2] : window[3]] = values
    return grid


def _coarse(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Values of every second row and column of the grid, on all of it (rows, columns) float32."""
    coarse = values.reshape((shape[0] + 1) // 2, (shape[1] + 1) // 2).astype(np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _mass(weights: np.ndarray, frames: np.ndarray, soft: np.ndarray, times: tuple[int, ...]) -> dict[int, float]:
    """Each frame's share of the attention of the cells that are the object."""
    mine = soft > 0.5
    if not mine.any():
        return {}
    shares = np.bincount(frames[mine].ravel(), weights[mine].ravel(), len(times)) / mine.sum()
    return {t: float(share) for t, share in zip(times, shares, strict=True)}


def _thin(index: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of them, evenly spread."""
    return index if len(index) <= most else index[np.linspace(0, len(index) - 1, most).round().astype(int)]
