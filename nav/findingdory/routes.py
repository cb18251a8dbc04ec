"""Paths: their lengths, shortest tours over several goals, SPL, and dynamic time warping between two paths.

SPL: Anderson et al. 2018 (arXiv 1807.06757). nDTW: Ilharco et al. 2019 (arXiv 1907.05446).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, permutations

import numpy as np

from streammem.errors import InputError

Distance = Callable[[int, int], float]
"""Geodesic metres between stations; station 0 is the start, goals are 1 ... n."""

BRUTE_FORCE = 6
"""Goals up to which the benchmark tries every order: 720 tours."""


def spl(success: bool, shortest_m: float, path_m: float) -> float:
    """Success weighted by path length. Both zero: the success itself; an unreachable goal: 0."""
    if not success or not np.isfinite(shortest_m):
        return 0.0
    longest = max(shortest_m, path_m)
    return shortest_m / longest if longest > 0 else 1.0


def spl_zero_is_failure(success: bool, shortest_m: float, path_m: float) -> float:
    """SPL as navigation benchmarks count it where the start is the goal: 1 only if nothing was walked."""
    if shortest_m == 0:
        return float(success and path_m == 0)
    return spl(success, shortest_m, path_m)


def path_length(points: np.ndarray) -> float:
    """Metres along (n, d) positions."""
    steps = np.diff(_points(points), axis=0)
    return float(np.linalg.norm(steps, axis=1).sum())


def ordered_length(distance: Distance, goals: int) -> float:
    """Start -> goal 1 -> ... -> goal n."""
    return float(sum(distance(i, i + 1) for i in range(goals)))


def open_tour(distance: Distance, goals: int) -> float:
    """The shortest path from the start over all goals, ending at any: exact by dynamic programming (Held & Karp 1962)
    up to 12 goals, beyond that nearest neighbour improved by 2-opt: never shorter than the optimum."""
    if goals == 0:
        return 0.0
    if goals > 12:
        return _improved_tour(distance, goals)
    best = {(1 << i, i): distance(0, i + 1) for i in range(goals)}
    for _ in range(goals - 1):
        longer: dict[tuple[int, int], float] = {}
        for (done, last), length in best.items():
            for i in range(goals):
                if not done >> i & 1:
                    key = (done | 1 << i, i)
                    longer[key] = min(longer.get(key, np.inf), length + distance(last + 1, i + 1))
        best = longer
    return float(min(best.values()))


def open_tour_official(distance: Distance, goals: int) -> float:
    """As the benchmark: every order up to 6 goals; beyond, a spanning-tree approximation of the tour whose start is
    not anchored (quirk ``tour_unanchored``): it may begin at any station, so the length can be below the true one."""
    if goals <= BRUTE_FORCE:
        orders = permutations(range(1, goals + 1))
        return float(min((sum(distance(a, b) for a, b in pairwise((0, *order))) for order in orders), default=0.0))
    import networkx as nx

    graph = nx.Graph()
    for a in range(goals + 1):
        for b in range(a):
            graph.add_edge(a, b, weight=distance(b, a))
    tour = nx.approximation.traveling_salesman_problem(graph, cycle=False, method=nx.approximation.christofides)
    return float(sum(graph[a][b]["weight"] for a, b in pairwise(tour)))


def _improved_tour(distance: Distance, goals: int) -> float:
    order, left = [0], set(range(1, goals + 1))
    while left:
        nearest = min(left, key=lambda i: (distance(order[-1], i), i))
        order.append(nearest)
        left.remove(nearest)
    length = sum(distance(a, b) for a, b in pairwise(order))
    improved = True
    while improved:
        improved = False
        for i in range(1, goals):
            for j in range(i + 1, goals + 1):
                other = order[:i] + order[i : j + 1][::-1] + order[j + 1 :]
                new = sum(distance(a, b) for a, b in pairwise(other))
                if new < length - 1e-9:
                    order, length, improved = other, new, True
    return float(length)


def dtw(path: np.ndarray, expert: np.ndarray) -> float:
    """Dynamic time warping distance of (n, d) and (m, d) positions, Euclidean, in metres."""
    a, b = _points(path), _points(expert)
    if not len(a) or not len(b):
        raise InputError("a path without positions can't be compared", hint="give at least the start")
    cost = np.linalg.norm(a[:, None] - b[None], axis=2)
    total = np.full((len(a) + 1, len(b) + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(len(a)):
        for j in range(len(b)):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return float(total[-1, -1])


def ndtw_standard(path: np.ndarray, expert: np.ndarray, threshold_m: float = 3.0) -> float:
    """exp(-DTW / (|R| d_th)): |R| positions of the expert's path, success threshold ``d_th``."""
    return float(np.exp(-dtw(path, expert) / (len(expert) * threshold_m)))


def ndtw_mem4nav(path: np.ndarray, expert: np.ndarray) -> float:
    """exp(-DTW / L) with L the expert's length in metres: what one released code calls nDTW. Not comparable with
    :func:`ndtw_standard`. Raises InputError for an expert who stands still."""
    length = path_length(expert)
    if length == 0:
        raise InputError("the expert's path has no length", hint="use ndtw_standard")
    return float(np.exp(-dtw(path, expert) / length))


def _points(points: np.ndarray) -> np.ndarray:
    array = np.asarray(points, float)
    if array.ndim != 2:
        raise InputError(f"a path has shape {array.shape}", hint="use (n, 2) or (n, 3) metres")
    return array
