"""Where the base fits: an occupancy grid with shortest ways, the stand-in for a navigation mesh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from streammem.errors import InputError

CELL_M = 0.05
# Eight neighbours and the knight's moves: a way is at most 2.8 % longer than the straight line (8 alone: 8.2 %).
_MOVES = [(dx, dy) for dx in range(-2, 3) for dy in range(-2, 3) if math.gcd(dx, dy) == 1]
_SNAP_M = 2.0


class FloorMap:
    """``free`` (rows, cols) bool: cells on which the middle of the base may stand. Row = y, col = x, both rising;
    ``origin`` (x, y) is the outer corner of cell [0, 0]. Distance fields are kept: 0.2 MB each."""

    def __init__(self, free: np.ndarray, origin: tuple[float, float], cell_m: float = CELL_M) -> None:
        if free.ndim != 2 or not free.size:
            raise InputError(f"a floor map has shape {free.shape}", hint="use (rows, cols) bool")
        self.free = np.asarray(free, bool)
        self.origin, self.cell_m = origin, cell_m
        self._fields: dict[tuple[int, int], np.ndarray] = {}
        self._snapped: dict[tuple[float, float], tuple[float, float] | None] = {}

    def cell(self, point: Sequence[float]) -> tuple[int, int]:
        """(row, col); may be outside."""
        return (
            math.floor((point[1] - self.origin[1]) / self.cell_m + 1e-9),
            math.floor((point[0] - self.origin[0]) / self.cell_m + 1e-9),
        )

    def middle(self, cell: tuple[int, int]) -> tuple[float, float]:
        """(x, y) of a cell's middle."""
        return (
            float(self.origin[0] + (cell[1] + 0.5) * self.cell_m),
            float(self.origin[1] + (cell[0] + 0.5) * self.cell_m),
        )

    def is_free(self, point: Sequence[float]) -> bool:
        row, col = self.cell(point)
        return 0 <= row < self.free.shape[0] and 0 <= col < self.free.shape[1] and bool(self.free[row, col])

    def line_is_free(self, a: Sequence[float], b: Sequence[float]) -> bool:
        """Whether the straight way stays on free cells, sampled every half cell."""
        return bool(self.lines_are_free(a, np.array([b[:2]], float))[0])

    def lines_are_free(self, a: Sequence[float], ends: np.ndarray) -> np.ndarray:
        """(n,) bool for the straight ways from ``a`` to each of (n, 2) ends."""
        start = np.array(a[:2], float)
        longest = float(np.hypot(*(ends - start).T).max())
        along = np.linspace(0, 1, max(2, math.ceil(longest / (self.cell_m / 2) - 1e-6) + 1))
        points = start + along[None, :, None] * (ends - start)[:, None]
        return np.asarray(self._free_at(points).all(axis=1))

    def to_go(self, points: np.ndarray, goal: Sequence[float]) -> np.ndarray:
        """(n,) metres from (n, 2) places to ``goal``: straight within 0.5 m where nothing is in the way, else along
        the distance field. inf where there is no way."""
        col, row = self._cells_at(points)
        inside = (row >= 0) & (col >= 0) & (row < self.free.shape[0]) & (col < self.free.shape[1])
        left = np.full(len(points), np.inf)
        left[inside] = self.field(self.cell(goal))[row[inside], col[inside]]
        away = np.hypot(points[:, 0] - goal[0], points[:, 1] - goal[1])
        near = away < 0.5
        if near.any():
            near[near] = self.lines_are_free(goal, points[near])
        return np.where(near, away, np.maximum(left, away))

    def _cells_at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows of (..., 2) points; may be outside."""
        cells = np.floor((points - np.array(self.origin)) / self.cell_m + 1e-9).astype(int)
        return cells[..., 0], cells[..., 1]

    def _free_at(self, points: np.ndarray) -> np.ndarray:
        col, row = self._cells_at(points)
        rows, cols = self.free.shape
        inside = (row >= 0) & (col >= 0) & (row < rows) & (col < cols)
        return inside & self.free[np.clip(row, 0, rows - 1), np.clip(col, 0, cols - 1)]

    def snap(self, point: Sequence[float], within_m: float = _SNAP_M) -> tuple[float, float] | None:
        """The nearest free place: the point itself if it is one, else the middle of the nearest free cell."""
        if self.is_free(point):
            return (float(point[0]), float(point[1]))
        key = (float(point[0]), float(point[1]))
        if key not in self._snapped:
            if len(self._snapped) >= 4096:
                self._snapped.clear()
            self._snapped[key] = self._nearest(key)
        found = self._snapped[key]
        return found if found is not None and math.dist(found, key) <= within_m else None

    def _nearest(self, point: tuple[float, float]) -> tuple[float, float] | None:
        cells = self._free_cells
        if not len(cells):
            return None
        middles = np.array(self.origin)[::-1] + (cells + 0.5) * self.cell_m
        best = int(np.hypot(middles[:, 0] - point[1], middles[:, 1] - point[0]).argmin())
        return float(middles[best, 1]), float(middles[best, 0])

    def field(self, cell: tuple[int, int]) -> np.ndarray:
        """(rows, cols) float32 metres to ``cell`` from everywhere; inf where there is no way."""
        if cell not in self._fields:
            from scipy.sparse.csgraph import dijkstra

            number = np.full(self.free.shape, -1)
            number[self.free] = np.arange(len(self._free_cells))
            field = np.full(self.free.shape, np.inf, np.float32)
            if self.free[cell]:
                field[self.free] = dijkstra(self._graph, directed=False, indices=int(number[cell]))
            if len(self._fields) >= 256:
                self._fields.pop(next(iter(self._fields)))
            self._fields[cell] = field
        return self._fields[cell]

    def distance(self, a: Sequence[float], b: Sequence[float]) -> float:
        """Metres of the shortest way between two places, both snapped first; the straight line where nothing is in the
        way. ``inf`` where there is no way."""
        a, b = self.snap(a) or (), self.snap(b) or ()
        if not a or not b:
            return math.inf
        straight = math.dist(a, b)
        if self.line_is_free(a, b):
            return straight
        along = float(self.field(self.cell(b))[self.cell(a)])
        return max(straight, along)

    def path(self, a: Sequence[float], b: Sequence[float]) -> list[tuple[float, float]]:
        """Way points from a to b, shortened where the line is free; empty where there is no way."""
        a, b = self.snap(a) or (), self.snap(b) or ()
        if not a or not b or not math.isfinite(self.distance(a, b)):
            return []
        field, here = self.field(self.cell(b)), self.cell(a)
        cells = [here]
        while here != self.cell(b):
            here = min(self._around(here), key=lambda c: (field[c] + self.cell_m * math.dist(c, here), c))
            cells.append(here)
        points: list[tuple[float, float]] = [(a[0], a[1]), *(self.middle(c) for c in cells[1:-1]), (b[0], b[1])]
        kept = [points[0]]
        for i in range(1, len(points) - 1):
            if not self.line_is_free(kept[-1], points[i + 1]):
                kept.append(points[i])
        return [*kept, points[-1]]

    @cached_property
    def islands(self) -> np.ndarray:
        """(rows, cols) int32: number of the connected part that a cell belongs to, from 1; 0 where it isn't free."""
        from scipy.ndimage import label

        return np.asarray(label(self.free, structure=np.ones((3, 3)))[0], np.int32)

    def _around(self, cell: tuple[int, int]) -> list[tuple[int, int]]:
        rows, cols = self.free.shape
        found = []
        for dx, dy in _MOVES:
            row, col = cell[0] + dy, cell[1] + dx
            if 0 <= row < rows and 0 <= col < cols and self.free[row, col] and self._passes(cell, dx, dy):
                found.append((row, col))
        return found

    def _passes(self, cell: tuple[int, int], dx: int, dy: int) -> bool:
        return all(self.free[cell[0] + oy, cell[1] + ox] for ox, oy in _between(dx, dy))

    @cached_property
    def _free_cells(self) -> np.ndarray:
        return np.argwhere(self.free)

    @cached_property
    def _graph(self) -> object:
        from scipy.sparse import coo_matrix

        rows, cols = self.free.shape
        padded = np.zeros((rows + 4, cols + 4), bool)
        padded[2:-2, 2:-2] = self.free
        number = np.full(padded.shape, -1)
        number[padded] = np.arange(int(self.free.sum()))

        def shifted(array: np.ndarray, ox: int, oy: int) -> np.ndarray:
            return array[2 + oy : 2 + oy + rows, 2 + ox : 2 + ox + cols]

        starts, ends, weights = [], [], []
        for dx, dy in _MOVES:
            if (dx, dy) < (0, 0):
                continue  # its mirror is there
            good = self.free & shifted(padded, dx, dy)
            for ox, oy in _between(dx, dy):
                good &= shifted(padded, ox, oy)
            starts.append(shifted(number, 0, 0)[good])
            ends.append(shifted(number, dx, dy)[good])
            weights.append(np.full(int(good.sum()), self.cell_m * math.hypot(dx, dy)))
        count = len(self._free_cells)
        parts = [np.concatenate(one) for one in (weights, starts, ends)]
        return coo_matrix((parts[0], (parts[1], parts[2])), shape=(count, count)).tocsr()


def _between(dx: int, dy: int) -> list[tuple[int, int]]:
    """Cells that a move passes over, itself left out: corners aren't cut."""
    if abs(dx) + abs(dy) == 1:
        return []
    if abs(dx) == abs(dy) == 1:
        return [(dx, 0), (0, dy)]
    sx, sy = (dx > 0) - (dx < 0), (dy > 0) - (dy < 0)
    return [(sx, 0), (sx, sy)] if abs(dx) == 2 else [(0, sy), (sx, sy)]
