"""A sparse octree of the space that a camera saw: only touched leaves exist, keyed by Morton code.

Cell of a point: ``floor((p - origin) / voxel)`` an axis; the cube has ``2**depth`` cells a side. What lies outside
makes the cube grow (twice the side, towards the point: one OR on every code) or is an error, as the owner chose.

Occupancy is the clamped log odds of OctoMap (Hornung et al. 2013, section 3.2: +0.85 for a hit, -0.4 for a look
through the voxel, clamped to [-2, 3.5]), in integer steps of 0.05. A run of clamped additions is itself
``clip(value + shift, low, high)``, so a leaf keeps these three: then two octrees of successive times are joined
exactly, as if every frame had been put into one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from streammem.banks.spatial import descent, morton
from streammem.banks.spatial.key_index import KeyIndex
from streammem.banks.spatial.leaves import (
    COLUMNS,
    HIGHEST,
    HIT,
    LEAF_BYTES,
    LOWEST,
    MISS,
    NEVER,
    REACH,
    cell_keys,
    empty_columns,
    grouped,
    grown,
    melted,
)
from streammem.banks.spatial.voxel_labels import VoxelLabels
from streammem.errors import ObservationError, QueryError


class Hit(NamedTuple):
    """Where a ray meets a leaf: row, and metres from its start."""

    row: int
    distance_m: float


class Octree:
    """Leaves by row, in the order in which they were touched. Positions are metres in the frame of the map."""

    def __init__(
        self,
        voxel_m: float,
        origin_m: tuple[float, float, float] = (-32.0, -32.0, -32.0),
        depth: int = 11,
        *,
        outside: Literal["grow", "error"] = "grow",
    ) -> None:
        """``depth`` levels: the cube's side is ``voxel_m * 2**depth`` (51.2 m for 0.05 m and 10). Raises QueryError for
        a size that no code holds."""
        if not (voxel_m > 0 and 1 <= depth <= morton.BITS):
            raise QueryError(
                f"an octree can't have voxels of {voxel_m} m and {depth} levels", hint="voxel > 0, levels 1 to 21"
            )
        self.voxel_m = float(voxel_m)
        self.origin_m = np.array(origin_m, np.float64)
        self.depth = depth
        self.outside = outside
        self._index = KeyIndex()
        self._count = 0
        self._codes = np.empty(256, np.int64)
        self._columns = empty_columns(256)
        self.labels = VoxelLabels()

    # -- what is there

    def __len__(self) -> int:
        return self._count

    @property
    def side_m(self) -> float:
        return self.voxel_m * 2.0**self.depth

    @property
    def codes(self) -> np.ndarray:
        """(n,) int64, by row."""
        return self._codes[: self._count]

    def column(self, name: str) -> np.ndarray:
        """One of :data:`COLUMNS` by row; a view."""
        return self._columns[name][: self._count]

    @property
    def log_odds(self) -> np.ndarray:
        """(n,) float32 of being occupied; 0 is unknown."""
        steps = np.clip(self.column("shift"), self.column("low"), self.column("high"))
        return steps.astype(np.float32) * np.float32(0.05)

    @property
    def occupied(self) -> np.ndarray:
        """(n,) bool: hit at least once, and not looked through more often since."""
        return (self.log_odds > 0) & (self.column("points") > 0)

    def cells(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        return morton.decode(self.codes[rows])

    def centres(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(n, 3) float64 metres."""
        return (self.cells(rows) + 0.5) * self.voxel_m + self.origin_m

    def surface(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(n, 3) mean of the points of each leaf: nearer to the surface than its centre."""
        points = np.maximum(self.column("points")[rows], 1)[:, None]
        inside = np.where(self.column("points")[rows][:, None] > 0, self.column("inside")[rows] / points, 0.5)
        return (self.cells(rows) + inside) * self.voxel_m + self.origin_m

    def colours(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(n, 3) uint8 mean colour; 128 where no colour is known."""
        shades = self.column("shades")[rows][:, None]
        mean = self.column("rgb")[rows] / np.maximum(shades, 1)
        return np.where(shades > 0, np.rint(mean), 128).astype(np.uint8)

    @property
    def nbytes(self) -> int:
        return self._count * (LEAF_BYTES + 16) + self.labels.nbytes

    # -- writing

    def code_of(self, points_m: np.ndarray) -> np.ndarray:
        """Codes of points inside the cube; -1 for those outside."""
        cells = np.floor((np.atleast_2d(points_m) - self.origin_m) / self.voxel_m)
        inside = ((cells >= 0) & (cells < 2**self.depth)).all(axis=1)
        codes = np.full(len(cells), -1, np.int64)
        codes[inside] = morton.encode(cells[inside].astype(np.int64))
        return codes

    def find(self, points_m: np.ndarray) -> np.ndarray:
        """Rows of the leaves that hold the points, -1 where there is none."""
        codes = self.code_of(points_m)
        rows = self._index.find(codes)
        rows[codes < 0] = -1
        return rows

    def insert(self, points_m: np.ndarray, t_ns: int, record: int = 0, colours: np.ndarray | None = None) -> np.ndarray:
        """One frame's points (n, 3) and their colours (n, 3) uint8. Points that aren't finite are left out.

        Returns the rows touched, each once. Raises ObservationError for points outside the cube where it may not
        grow, or outside of what it can grow to."""
        # Axis by axis: reductions over rows of three numbers are ten times as slow.
        axes = np.array(np.asarray(points_m).T, np.float64, order="C")  # a copy: it is written to below
        good = np.isfinite(axes.sum(axis=0))
        if not good.all():
            axes, colours = axes[:, good], None if colours is None else np.asarray(colours)[good]
        if not axes.shape[1]:
            return np.empty(0, np.int64)
        self._admit(axes.min(axis=1), axes.max(axis=1))
        axes -= self.origin_m[:, None]
        axes /= self.voxel_m
        floor = np.floor(axes)
        cells = floor.astype(np.int64)
        keys = cell_keys(cells)
        # Neighbours in a depth map mostly share a voxel: runs of them are added up first, where they lie.
        runs = np.append(0, np.flatnonzero(keys[1:] != keys[:-1]) + 1)
        order, starts = grouped(keys[runs])
        # Places in 1/256 of a voxel: sums of them are exact, so that no order of addition shows in a digest.
        axes -= floor
        axes *= 256.0
        inside = axes.astype(np.uint8)

        def total(values: np.ndarray) -> np.ndarray:
            return np.add.reduceat(np.add.reduceat(values, runs, axis=1, dtype=np.uint32)[:, order], starts, axis=1).T

        counts = np.add.reduceat(np.diff(np.append(runs, len(keys)))[order], starts)
        codes = morton.encode(cells[:, runs[order[starts]]].T)
        changes: dict[str, np.ndarray] = {
            "points": counts,
            "inside": (total(inside) + 0.5 * counts[:, None]) / 256.0,
            "shift": np.full(len(codes), HIT, np.int16),
        }
        if colours is not None:
            changes["rgb"] = total(np.ascontiguousarray(np.asarray(colours).T))
            changes["shades"] = counts
        return self._merge(codes, changes, t_ns, t_ns, t_ns, record, record)

    def look_through(self, rows: np.ndarray, t_ns: int) -> None:
        """Free-space evidence: these leaves were looked at and nothing was there. ``rows`` each once."""
        self._apply(rows, np.int16(MISS), np.int8(LOWEST), np.int8(HIGHEST))
        looked = self.column("looked_ns")
        looked[rows] = np.maximum(looked[rows], t_ns)

    def look_at(self, points_m: np.ndarray, t_ns: int, looks: int = 1) -> None:
        """As ``look_through`` for places (n, 3) that may not be leaves yet: they become leaves without a hit. ``looks``
        is how many frames this one stands for."""
        if not len(points_m):
            return
        self._admit(points_m.min(axis=0), points_m.max(axis=0))
        codes = np.unique(self.code_of(points_m))
        self._merge(codes, {"shift": np.full(len(codes), MISS * looks, np.int16)}, NEVER, NEVER, t_ns, 0, 0)

    def decay(self, now_ns: int, half_life_ns: int) -> None:
        """Let what wasn't looked at be believed less: log odds halve every ``half_life_ns`` since the last look."""
        age = np.maximum(now_ns - self.column("looked_ns"), 0) / half_life_ns
        steps = np.clip(self.column("shift"), self.column("low"), self.column("high"))
        faded = np.trunc(steps * 0.5**age).astype(np.int16)
        self.column("shift")[:] = faded
        self.column("low")[:] = LOWEST
        self.column("high")[:] = HIGHEST

    def fold(self, leaves: Mapping[str, np.ndarray], codes: np.ndarray) -> np.ndarray:
        """Put later leaves (columns as in :data:`COLUMNS`, of this octree's grid, each code once) on top of these."""
        return self._merge(
            codes,
            leaves,
            leaves["first_ns"],
            leaves["last_ns"],
            leaves["looked_ns"],
            leaves["first_record"],
            leaves["record"],
        )

    def add(self, later: Octree, transform: np.ndarray | None = None) -> None:
        """Put the leaves of another octree on top of these: on this grid, and where a rigid 4 x 4 correction moved
        them. A leaf goes where the mean of its points goes; several in one cell become one.

        Raises ObservationError where they lie outside and this octree may not grow."""
        if not len(later):
            return
        points = later.surface()
        if transform is not None:
            points = points @ transform[:3, :3].T + transform[:3, 3]
        self._admit(points.min(axis=0), points.max(axis=0))
        scaled = (points - self.origin_m) / self.voxel_m
        cells = np.floor(scaled)
        codes = morton.encode(cells.astype(np.int64))
        leaves = {name: later.column(name) for name in COLUMNS}
        leaves["inside"] = (scaled - cells) * later.column("points")[:, None]
        order = np.argsort(codes, kind="stable")
        starts = np.append(0, np.flatnonzero(np.diff(codes[order])) + 1)
        if len(starts) == len(codes):
            row_of = self.fold(leaves, codes)
        else:
            row_of = np.empty(len(codes), np.int64)
            rows = self.fold(melted(leaves, order, starts), codes[order][starts])
            row_of[order] = np.repeat(rows, np.diff(np.append(starts, len(codes))))
        fine, numbers, weights = later.labels.pairs()
        for number, name in enumerate(later.labels.names):
            chosen = numbers == number
            at, into = np.unique(row_of[fine[chosen]], return_inverse=True)
            self.labels.add(at, name, np.bincount(into, weights=weights[chosen], minlength=len(at)))

    def _merge(
        self,
        codes: np.ndarray,
        changes: Mapping[str, np.ndarray],
        first_ns: np.ndarray | int,
        last_ns: np.ndarray | int,
        looked_ns: np.ndarray | int,
        first_record: np.ndarray | int,
        record: np.ndarray | int,
    ) -> np.ndarray:
        rows = self._index.find(codes)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            rows[missing] = self._append(codes[missing])
        columns = {name: self.column(name) for name in COLUMNS}
        for name in ("points", "rgb", "shades", "inside"):
            if name in changes:
                columns[name][rows] += changes[name].astype(columns[name].dtype)
        low, high = changes.get("low", np.int8(LOWEST)), changes.get("high", np.int8(HIGHEST))
        self._apply(rows, changes["shift"], low, high)
        for name, times, ids, better in (
            ("first", first_ns, first_record, np.less),
            ("last", last_ns, record, np.greater_equal),
        ):
            times = np.broadcast_to(np.asarray(times, np.int64), rows.shape)
            known = columns[f"{name}_ns"][rows]
            # A leaf that was only looked through has no first and no last hit.
            chosen = (times != NEVER) & (better(times, known) | (known == NEVER))
            columns[f"{name}_ns"][rows[chosen]] = times[chosen]
            ids = np.broadcast_to(np.asarray(ids, np.uint64), rows.shape)
            columns["record" if name == "last" else "first_record"][rows[chosen]] = ids[chosen]
        columns["looked_ns"][rows] = np.maximum(columns["looked_ns"][rows], looked_ns)
        return rows

    def _apply(
        self, rows: np.ndarray, shift: np.ndarray | np.int16, low: np.ndarray | np.int8, high: np.ndarray | np.int8
    ) -> None:
        """``clip(clip(v + s0, l0, h0) + s, l, h) = clip(v + s0 + s, clip(l0 + s, l, h), clip(h0 + s, l, h))``."""
        columns = {name: self.column(name) for name in ("shift", "low", "high")}
        step = np.asarray(shift, np.int16)
        lo, hi = np.asarray(low, np.int16), np.asarray(high, np.int16)
        columns["shift"][rows] = np.clip(columns["shift"][rows] + step, -REACH, REACH)
        columns["low"][rows] = np.clip(columns["low"][rows].astype(np.int16) + step, lo, hi)
        columns["high"][rows] = np.clip(columns["high"][rows].astype(np.int16) + step, lo, hi)

    def _append(self, codes: np.ndarray) -> np.ndarray:
        start, end = self._count, self._count + len(codes)
        if end > len(self._codes):
            self._codes = grown(self._codes, end)
            self._columns = {name: grown(column, end) for name, column in self._columns.items()}
        self._count = end
        rows = np.arange(start, end)
        self._codes[start:end] = codes
        for name, column in self._columns.items():
            column[start:end] = NEVER if name.endswith("_ns") else 0
        self._columns["low"][start:end] = LOWEST
        self._columns["high"][start:end] = HIGHEST
        self._index.add(codes, rows)
        return rows

    def _admit(self, lowest_m: np.ndarray, highest_m: np.ndarray) -> None:
        """Grow until both corners are inside."""
        while True:
            below = lowest_m < self.origin_m
            above = np.floor((highest_m - self.origin_m) / self.voxel_m) >= 2**self.depth
            if not (below.any() or above.any()):
                return
            if self.outside == "error" or self.depth == morton.BITS:
                corner = lowest_m if below.any() else highest_m
                raise ObservationError(
                    f"the point {tuple(round(float(v), 3) for v in corner)} lies outside the octree"
                    f" of {self.side_m:g} m from {tuple(self.origin_m.tolist())}",
                    field="depth_m",
                    hint="give a larger cube, or outside='grow'" if self.outside == "error" else "use larger voxels",
                )
            self._grow(below)

    def _grow(self, below: np.ndarray) -> None:
        """Twice the side. The origin moves down on the axes in ``below``: there every cell number grows by half of the
        new side, which is the new top bit of its code."""
        top = sum(1 << axis for axis in range(3) if below[axis]) << (3 * self.depth)
        keys, rows = self._index.sorted()
        self.origin_m = self.origin_m - np.where(below, self.side_m, 0.0)
        self.depth += 1
        self._codes[: self._count] |= top
        self._index = KeyIndex()
        self._index.add(keys | top, rows)

    # -- asking

    def box(self, low_m: np.ndarray, high_m: np.ndarray) -> np.ndarray:
        """Rows, ascending, of the leaves whose centres lie in the closed box."""
        low, high = np.asarray(low_m, np.float64), np.asarray(high_m, np.float64)

        def classify(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
            return np.asarray(((lower <= high) & (upper >= low)).all(axis=1))

        rows = self._candidates(classify)
        centres = self.centres(rows)
        return np.sort(rows[((centres >= low) & (centres <= high)).all(axis=1)])

    def radius(self, centre_m: np.ndarray, radius_m: float) -> np.ndarray:
        """Rows, ascending, of the leaves whose centres are at most so far away."""
        centre = np.asarray(centre_m, np.float64)

        def classify(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
            gap = np.maximum(np.maximum(lower - centre, centre - upper), 0.0)
            return (gap * gap).sum(axis=1) <= radius_m * radius_m

        rows = self._candidates(classify)
        away = ((self.centres(rows) - centre) ** 2).sum(axis=1)
        return np.sort(rows[away <= radius_m * radius_m])

    def nearest(self, centre_m: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Rows and metres of the k leaves with the nearest centres, nearest first, ties by code."""
        centre = np.asarray(centre_m, np.float64)
        k = min(k, len(self))
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        gap = np.maximum(np.maximum(self.origin_m - centre, centre - self.origin_m - self.side_m), 0.0)
        reach = float(np.sqrt((gap * gap).sum())) + 2 * self.voxel_m
        rows = self.radius(centre, reach)
        while len(rows) < k:
            reach *= 2
            rows = self.radius(centre, reach)
        away = np.sqrt(((self.centres(rows) - centre) ** 2).sum(axis=1))
        order = np.lexsort((self.codes[rows], away))[:k]
        return rows[order], away[order]

    def ray(self, start_m: np.ndarray, direction: np.ndarray, longest_m: float) -> Hit | None:
        """The first occupied leaf on the way, or None. ``direction`` needn't be of length 1. Raises QueryError for a
        direction of length 0."""
        start, toward = np.asarray(start_m, np.float64), np.asarray(direction, np.float64)
        length = float(np.linalg.norm(toward))
        if not length > 0:
            raise QueryError("a ray needs a direction", hint="three numbers that aren't all zero")
        slabs = descent.slabs(start, toward / length, longest_m)
        rows = self._candidates(lambda lower, upper: slabs(lower, upper)[0])
        rows = rows[self.occupied[rows]]
        if not len(rows):
            return None
        lower = self.cells(rows) * self.voxel_m + self.origin_m
        met, enter = slabs(lower, lower + self.voxel_m)
        if not met.any():
            return None
        enter = np.where(met, np.maximum(enter, 0.0), np.inf)
        best = int(np.lexsort((self.codes[rows], enter))[0])
        return Hit(int(rows[best]), float(enter[best]))

    def _candidates(self, classify: descent.Classify) -> np.ndarray:
        keys, rows = self._index.sorted()
        return rows[descent.candidates(keys, self.depth, self.voxel_m, self.origin_m, classify)]

    # -- copies and differences

    def snapshot(self) -> Octree:
        """A copy that later writes don't touch."""
        copy = Octree(self.voxel_m, tuple(self.origin_m.tolist()), self.depth, outside=self.outside)
        copy._append(self.codes)
        for name in COLUMNS:
            copy.column(name)[:] = self.column(name)
        rows, numbers, weights = self.labels.pairs()
        for number, name in enumerate(self.labels.names):
            chosen = numbers == number
            copy.labels.add(rows[chosen], name, weights[chosen])
        return copy

    def coarsened(self, levels: int) -> Octree:
        """The same space in voxels of ``2**levels`` times the side; labels and sums stay."""
        coarse = Octree(
            self.voxel_m * 2**levels, tuple(self.origin_m.tolist()), max(self.depth - levels, 1), outside=self.outside
        )
        coarse.add(self)
        return coarse

    def difference(self, later: Octree) -> Difference:
        """What became occupied and what became free between this octree and a later one of the same grid.

        Raises QueryError where the voxels differ in size: coarsen the finer one first."""
        if not np.isclose(self.voxel_m, later.voxel_m):
            raise QueryError(
                f"octrees of {self.voxel_m:g} m and {later.voxel_m:g} m voxels can't be compared",
                hint="coarsen the finer one",
            )
        here, there = self.centres(np.flatnonzero(self.occupied)), later.centres(np.flatnonzero(later.occupied))
        at_there, at_here = self.find(there), later.find(here)
        appeared = ~np.append(self.occupied, False)[at_there]
        # Gone only where somebody looked since: a leaf that the later one doesn't know was just not seen again.
        gone = ~np.append(later.occupied, True)[at_here]
        return Difference(there[appeared], here[gone])


class Difference(NamedTuple):
    """Centres (n, 3) in metres of the leaves that appeared, and of those that are gone."""

    appeared_m: np.ndarray
    gone_m: np.ndarray
