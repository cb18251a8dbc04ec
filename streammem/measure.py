"""Running measures in bounded memory: durations as quantiles and a histogram, and rates. Times are passed in."""

from __future__ import annotations

import math
from collections import Counter

NS = 1_000_000_000
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper ends of the histogram that Prometheus gets, in seconds."""


class Lags:
    """Durations in bounded memory: quantiles over the last one to two minutes within 5 %, and a histogram since the
    start. About 3 KB at most.

    Values fall into buckets whose ends grow by 10 % each, from 10 us to over a day: 241 of them."""

    _BASE_S = 1e-5
    _GROWTH = math.log(1.1)
    _LAST = 240

    def __init__(self, window_ns: int = 60 * NS) -> None:
        self._window_ns = window_ns
        self._started_ns = 0
        self._now: Counter[int] = Counter()
        self._before: Counter[int] = Counter()
        self.total = [0] * (len(BUCKETS_S) + 1)
        self.count = 0
        self.sum_s = 0.0

    def add(self, seconds: float, now_ns: int) -> None:
        """One duration (a negative one counts as 0) at a monotonic time."""
        self._turn(now_ns)
        seconds = max(0.0, seconds)
        self._now[self._bucket(seconds)] += 1
        self.total[next((i for i, end in enumerate(BUCKETS_S) if seconds <= end), len(BUCKETS_S))] += 1
        self.count += 1
        self.sum_s += seconds

    def quantiles(self, now_ns: int, *shares: float) -> tuple[float | None, ...]:
        """The durations below which these shares (0 to 1) lie; None for each where there is nothing recent."""
        self._turn(now_ns)
        both = sorted((self._now + self._before).items())
        count = sum(n for _, n in both)
        found: list[float | None] = []
        for share in shares:
            rank, seen = max(1, math.ceil(share * count)), 0
            value: float | None = None
            for bucket, n in both:
                seen += n
                if seen >= rank:
                    value = self._value(bucket)
                    break
            found.append(value)
        return tuple(found)

    def _turn(self, now_ns: int) -> None:
        passed = now_ns - self._started_ns
        if passed >= self._window_ns:
            self._before = self._now if passed < 2 * self._window_ns else Counter()
            self._now = Counter()
            self._started_ns = now_ns

    def _bucket(self, seconds: float) -> int:
        if seconds <= self._BASE_S:
            return 0
        return min(self._LAST, math.ceil(math.log(seconds / self._BASE_S) / self._GROWTH))

    def _value(self, bucket: int) -> float:
        # The middle of the bucket on the log scale: within 4.9 % of whatever fell into it.
        return float(self._BASE_S * math.exp((bucket - 0.5) * self._GROWTH)) if bucket else 0.0


class Rate:
    """How many a second over the last ``seconds``, in as many counters."""

    def __init__(self, seconds: int = 10) -> None:
        self._seconds = seconds
        self._counts = [0.0] * seconds
        self._at = 0
        self._first_ns: int | None = None

    def add(self, amount: float, now_ns: int) -> None:
        self._turn(now_ns)
        if self._first_ns is None:
            self._first_ns = now_ns
        self._counts[self._at % self._seconds] += amount

    def per_second(self, now_ns: int) -> float:
        self._turn(now_ns)
        if self._first_ns is None:
            return 0.0
        # A stream that began 2 s ago is divided by 2, not by 10.
        span = min(self._seconds - 1 + (now_ns % NS) / NS, max(1.0, (now_ns - self._first_ns) / NS))
        return sum(self._counts) / max(1.0, span)

    def _turn(self, now_ns: int) -> None:
        second = now_ns // NS
        for passed in range(self._at + 1, min(second, self._at + self._seconds) + 1):
            self._counts[passed % self._seconds] = 0.0
        if second > self._at + self._seconds:
            self._counts = [0.0] * self._seconds
        self._at = max(self._at, second)
