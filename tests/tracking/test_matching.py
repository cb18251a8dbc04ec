"""Cells that ask cells, against the formula written out; the occlusion suite that can be stopped; 8-bit features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.trackers import matching, occlusion
from perception.trackers.evaluate import COPY
from perception.trackers.evaluate_occlusion import interval, read_outcomes, run_suite, summarise
from perception.trackers.features import ColourGradients, Lite0Maps, Projection
from perception.trackers.matching import Keys, Matcher, nearest, window_around
from streammem.errors import SourceError

SHAPE = (16, 24)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 300), m=st.integers(1, 60), top=st.integers(1, 12), seed=st.integers(0, 1000))
def test_nearest_is_what_sorting_finds(n: int, m: int, top: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, keys = rng.normal(size=(n, 5)).astype(np.float32), rng.normal(size=(m, 5)).astype(np.float32)
    scores, index = nearest(queries, keys, top)
    products = queries @ keys.T
    expected = -np.sort(-products, axis=1)[:, :top]
    assert scores.shape == index.shape == (n, min(top, m))
    assert np.allclose(-np.sort(-scores, axis=1), expected, atol=1e-5)
    assert np.allclose(np.take_along_axis(products, index, axis=1), scores, atol=1e-5)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, list[Keys]]:
    """Cells of a picture with a square thing in it, and two frames that show it elsewhere."""
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(2, 12)) * 2

    def frame(row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        label = np.zeros(SHAPE, np.float32)
        label[row : row + 6, column : column + 7] = 1
        cells = looks[label.astype(int).ravel()] + rng.normal(size=(label.size, 12))
        return (cells / np.linalg.norm(cells, axis=1, keepdims=True)).astype(np.float16), label

    now, truth = frame(5, 9)
    keys = []
    for t, (row, column, near) in enumerate([(2, 3, False), (5, 8, True)]):
        cells, label = frame(row, column)
        keys.append(Keys(t, cells, label.ravel(), near))
    return now, truth, keys


def written_out(now: np.ndarray, keys: list[Keys], window: matching.Window, matcher: Matcher) -> np.ndarray:
    """Every cell of the window asks every cell (of near frames those in the window), one by one."""
    soft = np.zeros(SHAPE, np.float32)
    r0, r1, c0, c1 = window
    for row in range(r0, r1):
        for column in range(c0, c1):
            votes = []
            for key in keys:
                for at in range(len(key.label)):
                    y, x = divmod(at, SHAPE[1])
                    if key.near and not (r0 <= y < r1 and c0 <= x < c1):
                        continue
                    price = matching.PRICE * ((y - row) ** 2 + (x - column) ** 2) / matcher.radius**2 * key.near
                    likeness = float(now[row * SHAPE[1] + column].astype(np.float32) @ key.cells[at].astype(np.float32))
                    votes.append((likeness - price, key.label[at]))
            best = sorted(votes, reverse=True)[: matcher.top]
            weights = np.exp((np.array([score for score, _ in best]) - best[0][0]) / matcher.temperature)
            soft[row, column] = float((weights * [label for _, label in best]).sum() / weights.sum())
    return soft


def test_a_cell_takes_the_labels_of_its_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    now, truth, keys = scene(0)
    matcher = Matcher(radius=4)
    window = window_around(truth, 4)
    assert window is not None
    slow = written_out(now, keys, window, matcher)
    quick = matcher.ask(now, SHAPE, keys, window, last=truth)
    assert ((quick.soft > 0.5) == (slow > 0.5)).mean() > 0.99
    assert abs(sum(quick.mass.values()) - 1) < 1e-5
    for name, value in (("NEAR_STEP", 1), ("FAR_STEP", 1), ("UNSURE", -1.0)):
        monkeypatch.setattr(matching, name, value)
    # With nothing left out it is the formula itself.
    whole = matcher.ask(now, SHAPE, keys, window, last=truth)
    assert np.abs(whole.soft - slow).max() < 1e-3


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 99))
def test_between_the_lattice_are_means(rows: int, columns: int, seed: int) -> None:
    lattice = np.random.default_rng(seed).random(((rows + 1) // 2, (columns + 1) // 2)).astype(np.float32)
    grid = matching._between(lattice.ravel(), (rows, columns))
    assert grid.shape == (rows, columns) and np.array_equal(grid[::2, ::2], lattice)
    for row in range(rows):
        for column in range(columns):
            down, right = (
                min(row // 2 + row % 2, lattice.shape[0] - 1),
                min(column // 2 + column % 2, lattice.shape[1] - 1),
            )
            around = lattice[[row // 2, row // 2, down, down], [column // 2, right, column // 2, right]]
            assert grid[row, column] == pytest.approx(around.mean(), abs=1e-6)


def test_projection_is_the_same_group_by_group_as_at_once() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 8, 12, 30)).astype(np.float32) * rng.uniform(0.1, 9, 30)
    run = Projection((10,), 12)
    run.cells(first)
    mean, scale, basis = run.arrays()
    flat = (second.reshape(-1, 30) - mean) * scale
    parts = [flat[:, :10], flat[:, 10:27], 0.3 * flat[:, 27:]]
    parts[:2] = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts[:2]]
    expected = np.concatenate(parts, axis=1) @ basis
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs(run.cells(second) - expected).max() < 1e-4


def test_8_bit_maps_are_like_the_32_bit_ones() -> None:
    image = next(occlusion.clip("smooth", 1)).image
    exact, quick = Lite0Maps("float32").grid(image), Lite0Maps().grid(image)
    assert exact.shape == quick.shape and np.array_equal(exact[:, :, -3:], quick[:, :, -3:])
    for part in (slice(0, 40), slice(40, 152)):
        a, b = exact[:, :, part].reshape(-1), quick[:, :, part].reshape(-1)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.98


def test_the_suite_goes_on_where_it_stopped(tmp_path: Path) -> None:
    keep, played = tmp_path / "suite.jsonl", list[tuple[str, int]]()

    def run(seeds: int) -> list:
        played.clear()
        return run_suite(
            [COPY],
            kinds=("exit",),
            seeds=seeds,
            features=ColourGradients(long_side=occlusion.WIDTH),
            keep=keep,
            progress=lambda kind, seed, found: played.append((kind, seed)),
        )

    whole = run(2)
    assert played == [("exit", 0), ("exit", 1)]
    keep.write_bytes(keep.read_bytes()[:-20])  # killed within the last line
    assert run(2) == whole and played == [("exit", 1)]
    assert run(1) == whole[:1] and not played
    assert list(read_outcomes(keep)) == whole
    (score,) = summarise(whole)
    assert score.low <= score.after <= score.high and score.seeds == 2 and score.false_area <= score.false_most
    assert score.false_area > 0.02, "a mask that stays where it was claims what isn't there"
    keep.write_text('{"kind": 3}\n')
    with pytest.raises(SourceError, match="line 1: not an outcome"):
        run(1)


def test_intervals() -> None:
    assert interval([0.5] * 10) == (0.5, 0.5)
    low, high = interval([0.0, 1.0] * 50)
    assert (low, high) == (pytest.approx(0.4, abs=0.02), pytest.approx(0.6, abs=0.02))  # 1.96 * 0.5 / sqrt(100)
