"""Moments from scores, against a brute-force reading of the rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammem.recall.moments import pick_moments

S = 1_000_000_000


def test_a_peak_is_as_wide_as_half_its_height() -> None:
    t = np.arange(10) * S
    score = np.array([0, 0, 0, 6, 10, 5, 4, 0, 0, 0], float)
    (first,) = pick_moments(t, score, k=1, merge_ns=0, step_ns=S)
    assert (first.lo, first.hi, first.peak) == (3, 5, 4)


def test_a_static_shot_does_not_fill_the_list() -> None:
    t = np.arange(100) * S
    score = np.ones(100)
    score[80] = 0.9
    moments = pick_moments(t, score, k=5, merge_ns=5 * S, step_ns=S, longest_ns=30 * S)
    assert len(moments) <= 4
    for a in moments:
        for b in moments:
            if a is not b:
                assert abs(t[a.peak] - t[b.peak]) > 5 * S


def test_a_gap_in_time_ends_a_moment() -> None:
    t = np.array([0, 1, 2, 60, 61]) * S
    moments = pick_moments(t, np.array([0, 5, 5, 5, 0.0]), k=1, merge_ns=0, step_ns=S)
    assert (moments[0].lo, moments[0].hi) == (1, 2)


@pytest.mark.parametrize("score", [[], [-np.inf, -np.inf]])
def test_nothing_known_gives_nothing(score: list[float]) -> None:
    t = np.arange(len(score)) * S
    assert pick_moments(t, np.array(score, float), k=5, merge_ns=0, step_ns=S) == []


@given(
    st.lists(st.floats(-10, 10, allow_nan=False), min_size=1, max_size=60),
    st.integers(0, 8),
    st.integers(1, 6),
)
def test_rules_hold_for_any_scores(values: list[float], merge_s: int, k: int) -> None:
    score = np.array(values)
    t = np.arange(len(values)) * S
    moments = pick_moments(t, score, k=k, merge_ns=merge_s * S, step_ns=S)
    assert 1 <= len(moments) <= k
    assert moments[0].score == score.max()
    assert [m.score for m in moments] == sorted((m.score for m in moments), reverse=True)
    taken: set[int] = set()
    for m in moments:
        assert m.lo <= m.peak <= m.hi
        assert t[m.hi] - t[m.lo] <= 30 * S
        rows = set(range(m.lo, m.hi + 1))
        assert not rows & taken
        taken |= rows
    peaks = sorted(int(t[m.peak]) for m in moments)
    assert all(b - a > merge_s * S for a, b in itertools.pairwise(peaks))
