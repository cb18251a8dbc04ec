"""A set of integers as closed intervals: which ``seq`` of a session were seen. A stream without gaps costs 16 bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class IntervalSet:
    """Add, look up in O(log intervals); appending behind the last interval is O(1)."""

    __slots__ = ("_ends", "_starts", "count")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.count = 0
        for start, end in intervals:
            self.add(start, end)

    def __contains__(self, value: int) -> bool:
        at = bisect_right(self._starts, value) - 1
        return at >= 0 and value <= self._ends[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        """Number of intervals, not of integers (that is ``count``)."""
        return len(self._starts)

    @property
    def last(self) -> int | None:
        return self._ends[-1] if self._ends else None

    def add(self, start: int, end: int | None = None) -> None:
        """Add the closed interval; what it touches melts into one."""
        end = start if end is None else end
        if self._ends and start == self._ends[-1] + 1:
            self._ends[-1] = end
            self.count += end - start + 1
            return
        first = bisect_right(self._starts, start)
        if first > 0 and self._ends[first - 1] >= start - 1:
            first -= 1
        last = first
        while last < len(self._starts) and self._starts[last] <= end + 1:
            start = min(start, self._starts[last])
            end = max(end, self._ends[last])
            self.count -= self._ends[last] - self._starts[last] + 1
            last += 1
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        self.count += end - start + 1

    def discard(self, value: int) -> None:
        """Remove one integer, if it is there."""
        at = bisect_right(self._starts, value) - 1
        if at < 0 or value > self._ends[at]:
            return
        start, end = self._starts[at], self._ends[at]
        kept = [(a, b) for a, b in ((start, value - 1), (value + 1, end)) if a <= b]
        self._starts[at : at + 1] = [a for a, _ in kept]
        self._ends[at : at + 1] = [b for _, b in kept]
        self.count -= 1
