"""The octree against loops over all leaves (mechanism page, acceptance 1 and 2), and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammem.banks.spatial import morton
from streammem.banks.spatial.leaves import COLUMNS
from streammem.banks.spatial.octree import Octree
from streammem.errors import ObservationError, QueryError

SECOND = 10**9


def loop_code(x: int, y: int, z: int) -> int:
    return sum(((x >> bit & 1) | (y >> bit & 1) << 1 | (z >> bit & 1) << 2) << 3 * bit for bit in range(21))


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ((1, 0, 0), 1),
        ((0, 1, 0), 2),
        ((0, 0, 1), 4),
        ((3, 5, 7), 431),
        ((6553, 13107, 19660), 18945431124755),
        ((2**21 - 1,) * 3, 2**63 - 1),
    ],
)
def test_1_golden_codes(cell: tuple[int, int, int], code: int) -> None:
    assert morton.encode(np.array([cell])).tolist() == [code]


@given(st.lists(st.tuples(*[st.integers(0, 2**21 - 1)] * 3), min_size=1, max_size=50))
def test_1_codes_equal_the_loop_and_come_back(cells: list[tuple[int, int, int]]) -> None:
    codes = morton.encode(np.array(cells))
    assert codes.tolist() == [loop_code(*cell) for cell in cells]
    assert morton.decode(codes).tolist() == [list(cell) for cell in cells]


def test_1_every_cell_of_a_cube_has_its_own_code() -> None:
    cells = np.stack(np.meshgrid(*[np.arange(32)] * 3), axis=-1).reshape(-1, 3)
    assert len(np.unique(morton.encode(cells))) == 32**3


def grown_tree(seed: int, n: int = 400, spread: float = 3.0) -> tuple[Octree, np.ndarray]:
    rng = np.random.default_rng(seed)
    points = rng.normal(scale=spread, size=(n, 3))
    tree = Octree(0.25, (0.0, 0.0, 0.0), 4)
    for at in range(0, n, 100):
        tree.insert(points[at : at + 100], at * SECOND, at + 1, rng.integers(0, 256, (100, 3)).astype(np.uint8))
    return tree, points


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.floats(-6, 6)] * 3), st.floats(0.05, 8))
def test_2_queries_equal_loops(seed: int, centre: tuple[float, float, float], radius: float) -> None:
    tree, points = grown_tree(seed)
    centres = tree.centres()
    assert np.abs(points - tree.centres(tree.find(points))).max() <= 0.125 + 1e-9
    away = np.sqrt(((centres - centre) ** 2).sum(axis=1))
    near = away**2 <= radius**2
    assert tree.radius(np.array(centre), radius).tolist() == np.flatnonzero(near).tolist()
    rows, metres = tree.nearest(np.array(centre), 5)
    assert np.allclose(metres, np.sort(away)[:5]) and np.allclose(away[rows], metres)
    low, high = np.array(centre) - radius, np.array(centre) + radius / 2
    inside = ((centres >= low) & (centres <= high)).all(axis=1)
    assert tree.box(low, high).tolist() == np.flatnonzero(inside).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda d: max(map(abs, d)) > 0.1))
def test_2_a_ray_meets_what_small_steps_meet(seed: int, direction: tuple[float, float, float]) -> None:
    tree, _ = grown_tree(seed, spread=1.5)
    start = np.array([0.11, -0.07, 0.13])
    toward = np.array(direction) / np.linalg.norm(direction)
    steps = np.arange(0, 6, 0.001)
    rows = tree.find(start + steps[:, None] * toward)
    first = next((int(at) for at in np.flatnonzero(rows >= 0)), None)
    hit = tree.ray(start, toward, 6.0)
    if first is None:
        # A corner that is cut by less than a step.
        assert hit is None or hit.row not in rows
    else:
        assert hit is not None and hit.distance_m <= steps[first] + 1e-9
        assert hit.row == rows[first] or hit.distance_m < steps[first]


def test_a_ray_along_a_face_and_one_from_inside() -> None:
    tree = Octree(1.0, (0.0, 0.0, 0.0), 3)
    tree.insert(np.array([[4.5, 0.5, 0.5]]), 0)
    assert tree.ray(np.array([0.0, 0.0, 0.0]), np.array([1.0, 0, 0]), 9.0).distance_m == 4.0  # type: ignore[union-attr]
    assert tree.ray(np.array([4.2, 0.2, 0.2]), np.array([0, 0, 1.0]), 9.0).distance_m == 0.0  # type: ignore[union-attr]
    assert tree.ray(np.array([0.0, 0.5, 0.5]), np.array([1.0, 0, 0]), 3.9) is None
    with pytest.raises(QueryError, match="needs a direction"):
        tree.ray(np.zeros(3), np.zeros(3), 1.0)


def test_2_leaves_of_random_points_and_ancestors() -> None:
    rng = np.random.default_rng(0)
    tree = Octree(0.25, (0.0, 0.0, 0.0), 8)
    points = rng.uniform(0, 64, (1000, 3))
    tree.insert(points, 0)
    assert len(tree) > 950 and tree.depth == 8
    codes = tree.code_of(points)
    cells = np.floor(points / 0.25).astype(int)
    assert morton.ancestor(codes, 3).tolist() == morton.encode(cells >> 3).tolist()


def test_2_outside_grows_or_is_an_error() -> None:
    strict = Octree(0.5, (0.0, 0.0, 0.0), 4, outside="error")
    with pytest.raises(ObservationError, match=r"\(-0.1, 0.0, 0.0\) lies outside the octree of 8 m"):
        strict.insert(np.array([[-0.1, 0.0, 0.0]]), 0)
    assert len(strict) == 0
    tree = Octree(0.5, (0.0, 0.0, 0.0), 2)
    tree.insert(np.array([[0.6, 1.1, 1.6]]), 0)
    before = tree.centres().tolist()
    tree.insert(np.array([[-30.0, 5.0, 100.0]]), 1)
    assert tree.centres()[:1].tolist() == before, "growing moves no leaf"
    assert np.abs(tree.centres()[1] - [-30.0, 5.0, 100.0]).max() <= 0.25
    with pytest.raises(ObservationError, match="use larger voxels"):
        Octree(0.001, (0.0, 0.0, 0.0), 21).insert(np.array([[1e7, 0, 0]]), 0)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 59))
def test_two_trees_joined_are_one(seed: int, cut: int) -> None:
    """Hits and looks in any order: what was split over two trees and folded together is what one tree has."""
    rng = np.random.default_rng(seed)
    seen: list[np.ndarray] = []
    whole, first, second = (Octree(1.0, (0.0, 0.0, 0.0), 3) for _ in range(3))
    for number in range(60):
        points = rng.uniform(0, 2, (3, 3))
        seen.append(points)
        part = first if number < cut else second
        for tree in (whole, part):
            if number % 3:
                tree.look_at(points, number)
            else:
                tree.insert(points, number, number + 1)
    belief: dict[int, int] = {}
    for number, points in enumerate(seen):
        # OctoMap in a loop: add, clamp; once a frame and voxel.
        for code in np.unique(whole.code_of(points)).tolist():
            belief[code] = int(np.clip(belief.get(code, 0) + (-8 if number % 3 else 17), -40, 70))
    assert dict(zip(whole.codes.tolist(), np.rint(whole.log_odds * 20).astype(int).tolist(), strict=True)) == belief
    first.add(second)
    order, other = np.argsort(whole.codes), np.argsort(first.codes)
    assert whole.codes[order].tolist() == first.codes[other].tolist()
    assert whole.log_odds[order].tolist() == first.log_odds[other].tolist()
    for name in ("points", "first_ns", "last_ns", "looked_ns", "record"):
        assert whole.column(name)[order].tolist() == first.column(name)[other].tolist(), name
    assert np.allclose(whole.surface(order), first.surface(other))


def test_free_space_decay_and_difference() -> None:
    tree = Octree(0.1, (0.0, 0.0, 0.0), 6)
    cup, wall = np.array([[1.05, 1.05, 1.05]]), np.array([[3.05, 1.05, 1.05]])
    for second in range(5):
        tree.insert(np.concatenate((cup, wall)), second * SECOND, second)
    before = tree.snapshot()
    for second in range(5, 15):
        tree.look_through(tree.find(cup), second * SECOND)
    tree.insert(np.array([[5.05, 1.05, 1.05]]), 15 * SECOND, 99)
    changed = before.difference(tree)
    assert np.allclose(changed.gone_m, cup) and np.allclose(changed.appeared_m, [[5.05, 1.05, 1.05]])
    assert not tree.occupied[tree.find(cup)[0]] and tree.occupied[tree.find(wall)[0]]
    assert tree.column("looked_ns")[tree.find(cup)[0]] == 14 * SECOND
    tree.insert(cup, 16 * SECOND, 100)
    tree.insert(cup, 17 * SECOND, 101)
    tree.insert(cup, 18 * SECOND, 101)
    assert tree.occupied[tree.find(cup)[0]], "it is back: log odds are clamped, so that a belief can change"
    tree.decay(10_000 * SECOND, 60 * SECOND)
    assert not tree.occupied.any() and len(tree) == 3
    with pytest.raises(QueryError, match="coarsen"):
        tree.difference(Octree(0.2))


def test_coarse_leaves_keep_sums_labels_and_times() -> None:
    tree, _ = grown_tree(3)
    tree.labels.add(np.arange(10), "mug", 0.5)
    tree.labels.add(np.arange(5), "cup", 2.0)
    coarse = tree.coarsened(2)
    assert coarse.voxel_m == 1.0 and len(coarse) < len(tree)
    assert coarse.column("points").sum() == tree.column("points").sum()
    assert coarse.column("rgb").sum() == tree.column("rgb").sum()
    for name, weight in (("mug", 5.0), ("cup", 10.0)):
        assert float(coarse.labels.rows(name)[1].sum()) == pytest.approx(weight)
    row = int(coarse.labels.rows("cup")[0][0])
    assert list(coarse.labels.of(row)) == ["cup", "mug"]
    parents = morton.ancestor(tree.codes, 2)
    for row, code in enumerate(coarse.codes.tolist()):
        children = parents == code
        assert coarse.column("last_ns")[row] == tree.column("last_ns")[children].max()
        assert coarse.column("first_ns")[row] == tree.column("first_ns")[children].min()


def test_points_that_are_no_numbers_and_none_at_all() -> None:
    tree = Octree(0.1)
    assert len(tree.insert(np.array([[np.nan, 0, 0], [0, np.inf, 0]]), 0)) == 0
    assert len(tree.insert(np.empty((0, 3)), 0)) == 0
    given = np.array([[0.5, 0.5, 0.5]])
    Octree(0.1).insert(given, 0)
    assert given.tolist() == [[0.5, 0.5, 0.5]], "what was given is not written to"
    rows = tree.insert(np.array([[np.nan, 0, 0], [0.0, 0, 0]]), 0, 7, np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    assert tree.colours(rows).tolist() == [[4, 5, 6]] and len(tree) == 1
    assert tree.radius(np.zeros(3), 1.0).tolist() == [0] and len(Octree(0.1).nearest(np.zeros(3), 3)[0]) == 0
    assert len(tree.coarsened(1)) == 1 and set(COLUMNS) >= {"points", "record"}


@pytest.mark.slow
def test_ten_million_points() -> None:
    rng = np.random.default_rng(1)
    tree = Octree(0.25)
    cells = np.empty(0, np.int64)
    for number in range(100):
        points = rng.normal(scale=3.0, size=(100_000, 3))
        tree.insert(points, number, number)
        shifted = np.floor(points / 0.25).astype(np.int64) + 2**20
        cells = np.union1d(cells, (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2])
    assert len(tree) == len(cells) and int(tree.column("points").sum(dtype=np.int64)) == 10**7
