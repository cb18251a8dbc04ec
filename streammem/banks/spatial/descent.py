"""Down the octree from its root: which leaves may a query meet?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streammem.banks.spatial import morton

Classify = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``classify(lower, upper)`` of boxes (n, 3), in metres -> (n,) bool: may be met."""
SMALL = 32
"""A node with so few leaves is taken whole."""


def candidates(keys: np.ndarray, depth: int, voxel_m: float, origin_m: np.ndarray, classify: Classify) -> np.ndarray:
    """Places in the sorted ``keys`` of leaves that may be met, a level at a time: nodes that the query can't meet and
    empty ones are left out (the leaves below a node are one slice of the sorted codes)."""
    nodes = np.zeros(1, np.int64)
    found: list[np.ndarray] = []
    for level in range(depth, -1, -1):
        first = np.searchsorted(keys, nodes << (3 * level))
        # The end of the root's slice would be 2**63 at 21 levels.
        last = np.searchsorted(keys, (nodes + 1) << (3 * level)) if level < depth else np.array([len(keys)])
        side = voxel_m * 2.0**level
        lower = morton.decode(nodes) * side + origin_m
        kept = (last > first) & classify(lower, lower + side)
        nodes, first, last = nodes[kept], first[kept], last[kept]
        done = (last - first <= SMALL) | (level == 0)
        counts = last[done] - first[done]
        found.append(np.repeat(first[done] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum()))
        nodes = ((nodes[~done] << 3)[:, None] + np.arange(8)).ravel()
        if not len(nodes):
            break
    return np.concatenate(found)


def slabs(
    start_m: np.ndarray, toward: np.ndarray, longest_m: float
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The slab test of a ray (``toward`` of length 1): boxes -> which are met within ``longest_m``, and the metres to
    where each is entered (Kay and Kajiya 1986)."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = 1.0 / toward

    def test(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(invalid="ignore"):
            near, far = (lower - start_m) * inverse, (upper - start_m) * inverse
        # A ray inside the plane of a face: 0 * inf. It meets that slab everywhere.
        low, high = np.fmin(near, far), np.fmax(near, far)
        enter = np.where(np.isnan(near) | np.isnan(far), -np.inf, low).max(axis=1)
        leave = np.where(np.isnan(near) | np.isnan(far), np.inf, high).min(axis=1)
        return (enter <= leave) & (leave >= 0) & (enter <= longest_m), enter

    return test
