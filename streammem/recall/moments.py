"""From a score a row to moments: peaks, grown while the score holds, none closer than the merge distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streammem.numeric import median

# A moment ends where the score has fallen halfway from its peak to the stream's own background (its median):
# the half-maximum rule for the width of a peak.
HALF = 0.5
# Nobody scrubs through more than this to find a moment; a longer plateau is cut around its peak.
LONGEST_NS = 30_000_000_000


@dataclass(frozen=True, slots=True)
class Moment:
    """Rows [lo, hi] of a timeline, the best of them, and its score."""

    lo: int
    hi: int
    peak: int
    score: float


def pick_moments(
    t_ns: np.ndarray, score: np.ndarray, *, k: int, merge_ns: int, step_ns: int, longest_ns: int = LONGEST_NS
) -> list[Moment]:
    """At most ``k`` moments, best first; ties go to the earlier one. Rows with -inf are never part of a moment.

    ``t_ns`` (n,) sorted, ``score`` (n,). Two moments are at least ``merge_ns`` apart: without it one static shot fills
    the list."""
    n = len(score)
    usable = np.isfinite(score)
    if not n or not usable.any() or k <= 0:
        return []
    background = median(score[usable])
    free = usable.copy()
    order = np.lexsort((np.arange(n), -np.where(usable, score, -np.inf)))
    # Rows further apart than this aren't one continuous sight.
    reach = max(2 * step_ns, 1)
    moments: list[Moment] = []
    for peak in order:
        if len(moments) == k or not usable[peak]:
            break
        if not free[peak]:
            continue
        floor = background + HALF * (float(score[peak]) - background)
        lo = hi = int(peak)
        while lo > 0 and _joins(t_ns, score, free, lo, lo - 1, floor, reach) and t_ns[hi] - t_ns[lo - 1] <= longest_ns:
            lo -= 1
        while (
            hi + 1 < n and _joins(t_ns, score, free, hi, hi + 1, floor, reach) and t_ns[hi + 1] - t_ns[lo] <= longest_ns
        ):
            hi += 1
        moments.append(Moment(lo, hi, int(peak), float(score[peak])))
        first = np.searchsorted(t_ns, t_ns[lo] - merge_ns, side="left")
        last = np.searchsorted(t_ns, t_ns[hi] + merge_ns, side="right")
        free[first:last] = False
    return moments


def _joins(
    t_ns: np.ndarray, score: np.ndarray, free: np.ndarray, here: int, there: int, floor: float, reach: int
) -> bool:
    """Whether the neighbour ``there`` belongs to the moment that has reached ``here``."""
    close = abs(int(t_ns[there]) - int(t_ns[here])) <= reach
    return bool(close and free[there] and score[there] >= floor)
