"""Waypoints: on the graph of places, and on the grid of the map from above.

The graph knows what was walked; the grid knows what is free. A robot takes the graph's way for the long part and the
grid's for the last metres. Works on the answers of the spatial memory's questions ``map`` and ``places``, in this
process or from a service.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streammem.errors import QueryError

FREE, OCCUPIED = 1, 2
_STEPS = [(r, c, math.hypot(r, c)) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)]


@dataclass(frozen=True, slots=True)
class Plan:
    """``waypoints_m``: (row of) points in the frame of the map, start and goal included; empty where there is no way,
    and then ``why`` says so. ``length_m`` along them, infinite without a way."""

    waypoints_m: tuple[tuple[float, ...], ...]
    length_m: float
    why: str = ""

    @property
    def found(self) -> bool:
        return bool(self.waypoints_m)


class GridPlanner:
    """A* on squares: eight neighbours, no cutting of corners, obstacles grown by the robot's radius."""

    def __init__(
        self,
        cells: np.ndarray,
        resolution_m: float,
        origin_m: tuple[float, float] = (0.0, 0.0),
        *,
        radius_m: float = 0.2,
        unknown: str = "blocked",
    ) -> None:
        """``cells`` (h, w) uint8: 0 unknown, 1 free, 2 occupied; square (row, column) begins at ``origin_m +
        (column, row) * resolution_m``. ``unknown``: "blocked", or "free" for exploring. Raises QueryError."""
        if cells.ndim != 2 or resolution_m <= 0 or radius_m < 0 or unknown not in ("blocked", "free"):
            raise QueryError(
                f"no grid to plan on: cells {cells.shape}, squares of {resolution_m} m", hint="(h, w) uint8, metres > 0"
            )
        self.resolution_m, self.origin_m = float(resolution_m), origin_m
        self.free = grown_free(cells, radius_m / resolution_m, unknown == "free")

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], *, radius_m: float = 0.2, unknown: str = "blocked") -> GridPlanner:
        """From what ``query("spatial", "map")`` returns for one stream."""
        import base64

        data = answer["cells"]
        raw = base64.b64decode(data) if isinstance(data, str) else data
        cells = np.frombuffer(raw, np.uint8).reshape(answer["height"], answer["width"])
        x, y = answer["origin_m"]
        return cls(cells, answer["resolution_m"], (x, y), radius_m=radius_m, unknown=unknown)

    def square(self, point_m: Sequence[float]) -> tuple[int, int]:
        """(row, column) of a point (across, down). Raises QueryError outside the grid."""
        column = math.floor((point_m[0] - self.origin_m[0]) / self.resolution_m)
        row = math.floor((point_m[1] - self.origin_m[1]) / self.resolution_m)
        if not (0 <= row < self.free.shape[0] and 0 <= column < self.free.shape[1]):
            raise QueryError(f"the point {tuple(point_m)} lies outside the map", hint="positions are (across, down)")
        return row, column

    def centre(self, square: tuple[int, int]) -> tuple[float, float]:
        return (
            self.origin_m[0] + (square[1] + 0.5) * self.resolution_m,
            self.origin_m[1] + (square[0] + 0.5) * self.resolution_m,
        )

    def nearest_free(self, square: tuple[int, int], within_m: float = 1.0) -> tuple[int, int] | None:
        """The free square whose centre is nearest, ties by row and column; None within that distance."""
        rows, columns = np.nonzero(self.free)
        if not len(rows):
            return None
        away = (rows - square[0]) ** 2 + (columns - square[1]) ** 2
        best = int(np.argmin(away))
        return None if away[best] > (within_m / self.resolution_m) ** 2 else (int(rows[best]), int(columns[best]))

    def plan(self, start_m: Sequence[float], goal_m: Sequence[float], *, snap_m: float = 0.5) -> Plan:
        """Shortest way over squares, thinned to the points where it turns. Ends on occupied squares move to the nearest
        free one within ``snap_m``: a goal is often on a table."""
        start = self.nearest_free(self.square(start_m), snap_m)
        goal = self.nearest_free(self.square(goal_m), snap_m)
        if start is None or goal is None:
            return Plan((), math.inf, f"the {'start' if start is None else 'goal'} isn't near free space")
        squares, cost = self.shortest(start, goal)
        if not squares:
            return Plan((), math.inf, "no free squares lead there")
        return Plan(tuple(self.centre(each) for each in corners(squares)), cost * self.resolution_m)

    def shortest(self, start: tuple[int, int], goal: tuple[int, int]) -> tuple[list[tuple[int, int]], float]:
        """Squares from start to goal and the cost in squares; ``([], inf)`` without a way. A* with the octile distance,
        which never overestimates: the result is as short as Dijkstra's."""
        if not (self.free[start] and self.free[goal]):
            return [], math.inf
        best = {start: 0.0}
        came: dict[tuple[int, int], tuple[int, int]] = {}
        queue = [(octile(start, goal), start)]
        done: set[tuple[int, int]] = set()
        height, width = self.free.shape
        while queue:
            _, here = heapq.heappop(queue)
            if here == goal:
                way = [goal]
                while way[-1] != start:
                    way.append(came[way[-1]])
                return way[::-1], best[goal]
            if here in done:
                continue
            done.add(here)
            for row, column, cost in _STEPS:
                there = (here[0] + row, here[1] + column)
                if not (0 <= there[0] < height and 0 <= there[1] < width) or not self.free[there]:
                    continue
                # Diagonally only where both squares beside are free: a robot isn't a point.
                if row and column and not (self.free[here[0], there[1]] and self.free[there[0], here[1]]):
                    continue
                total = best[here] + cost
                if total < best.get(there, math.inf) - 1e-12:
                    best[there], came[there] = total, here
                    heapq.heappush(queue, (total + octile(there, goal), there))
        return [], math.inf


def grown_free(cells: np.ndarray, radius: float, unknown_is_free: bool) -> np.ndarray:
    """(h, w) bool: squares whose centre is further than ``radius`` squares from every occupied one, and free."""
    import cv2

    free = (cells == FREE) | ((cells == 0) & unknown_is_free)
    if radius > 0 and (cells == OCCUPIED).any():
        away = cv2.distanceTransform((cells != OCCUPIED).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        free &= away > radius
    return free & (cells != OCCUPIED)


def octile(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Length of the shortest way over eight neighbours on an empty grid."""
    rows, columns = abs(a[0] - b[0]), abs(a[1] - b[1])
    return max(rows, columns) + (math.sqrt(2) - 1) * min(rows, columns)


def corners(squares: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ends and the squares where the direction changes."""
    if len(squares) < 3:
        return list(squares)
    kept = [squares[0]]
    for before, here, after in zip(squares[:-2], squares[1:-1], squares[2:], strict=True):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            kept.append(here)
    return [*kept, squares[-1]]


def graph_plan(places: Sequence[Mapping[str, Any]], start: int, goal: int) -> Plan:
    """Dijkstra over what ``query("spatial", "places")`` returns: its ways, walked either way round.

    Raises QueryError for a place that isn't there."""
    known = {place["place"]: place for place in places}
    for end in (start, goal):
        if end not in known:
            raise QueryError(f"there is no place {end}", hint=f"there are {len(known)}")
    ways: dict[int, dict[int, float]] = {number: {} for number in known}
    for number, place in known.items():
        for other, length, _ in place["ways"]:
            if other in known:
                length = min(length, ways[number].get(other, math.inf))
                ways[number][other] = ways[other][number] = min(length, ways[other].get(number, math.inf))
    best, came, queue = {start: 0.0}, {start: start}, [(0.0, start)]
    while queue:
        cost, here = heapq.heappop(queue)
        if here == goal:
            way = [goal]
            while way[-1] != start:
                way.append(came[way[-1]])
            return Plan(tuple(tuple(known[each]["position_m"]) for each in reversed(way)), cost)
        if cost > best[here]:
            continue
        for other, length in ways[here].items():
            if cost + length < best.get(other, math.inf):
                best[other], came[other] = cost + length, here
                heapq.heappush(queue, (cost + length, other))
    return Plan((), math.inf, "no way is known between these places")


def next_waypoint(plan: Plan, here_m: Sequence[float], *, reached_m: float = 0.5) -> tuple[float, ...] | None:
    """The waypoint after the one nearest to ``here_m``, or that one where it isn't reached yet; None at the goal."""
    if not plan.found:
        return None
    away = [math.dist(here_m, point) for point in plan.waypoints_m]
    nearest = min(range(len(away)), key=lambda number: (away[number], -number))
    if away[nearest] > reached_m:
        return plan.waypoints_m[nearest]
    return plan.waypoints_m[nearest + 1] if nearest + 1 < len(away) else None
