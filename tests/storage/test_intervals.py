"""Interval sets against Python's sets."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streammem.storage.intervals import IntervalSet


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 6)), max_size=60))
def test_like_a_set(steps: list[tuple[bool, int, int]]) -> None:
    real: set[int] = set()
    ours = IntervalSet()
    for adding, start, length in steps:
        if adding:
            ours.add(start, start + length)
            real |= set(range(start, start + length + 1))
        else:
            ours.discard(start)
            real.discard(start)
        assert {value for value in range(60) if value in ours} == real
        assert ours.count == len(real)
        assert ours.last == max(real, default=None)
        spans = list(ours)
        assert all(a[1] + 1 < b[0] for a, b in pairwise(spans)), "touching intervals are one"
        assert list(IntervalSet(spans)) == spans


def test_a_stream_without_gaps_is_one_interval() -> None:
    ours = IntervalSet()
    for seq in range(10_000):
        ours.add(seq)
    assert len(ours) == 1
    assert ours.count == 10_000
