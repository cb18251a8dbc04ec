"""Who loses detail next, when room is needed. A policy is a function from candidates to one of them.

    graded      age rank / 4^level: the older, the less detail (MemoryBank's curve without recalls)
    fifo        the oldest goes down the whole ladder before the next one is touched
    uniform     every second one goes, then every second of the rest: evenly spaced ones keep full detail (the baseline)
    decay       MemoryBank: what was cited fades slower
    recurrence  LazyEviction: what comes back at its own pace is kept for that pace
    diversity   of many alike the oldest go first; what is like nothing else stays (the default)

Everything is measured in stream time or in order of sealing; there is no clock and no chance, so that a replay demotes
the same. Pinned segments are never candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

DAY_NS = 86_400 * 10**9
FACTOR = 4.0
"""A level further down the ladder lasts four times as long: MemoryBank's layers (a day, a week, three months) are
apart by 7 and 13, the ladder's steps save four to eight times the bytes."""
ALIKE = 0.9
"""Cosine of two segments' centred mean vectors above which one recalls the other."""
SAME = 0.995
"""... or of the mean vectors as they are."""
GRACE = 8
"""The newest segments that a policy leaves alone while others are left: LazyEviction's window W."""


class Candidate(NamedTuple):
    """A segment that may be demoted. ``order`` counts sealings of all candidates, 0 is the oldest; times are of its own
    stream, ``now_ns`` is that stream's newest. ``signature`` (d,) float32 is the normalised mean of its vectors, None
    where there are none. ``recalls`` counts citations, ``recalled_ns`` is the last one's stream time, ``gap_ns`` the
    longest time between two."""

    order: int
    stream: str
    t_min_ns: int
    t_max_ns: int
    now_ns: int
    level: int
    signature: np.ndarray | None = None
    space: str | None = None
    recalls: int = 0
    recalled_ns: int = 0
    gap_ns: int = 0


Policy = Callable[[Sequence[Candidate]], Candidate]


def retained(dt_ns: float, strength: float, tau_ns: float) -> float:
    """MemoryBank's retention exp(-t / S) with t in units of ``tau_ns`` (Zhong et al. 2023, section 3.3): 0.37 at t = 1
    and S = 1, 0.87 at S = 7. (Its released code computes exp(-t/5 * S), in which what is strong fades faster.)"""
    return math.exp(-max(0.0, dt_ns) / (strength * tau_ns))


def strength(recalls: int) -> float:
    """1 for what was never recalled; it grows with the logarithm, so that one favourite doesn't starve the rest."""
    return 1.0 + math.log2(1 + recalls)


def recurring(t: float, last: float, longest_gap: float) -> float:
    """LazyEviction's H1 = 2 sigmoid(-(t - TS) / MRI) (Zhang et al. 2025): 1 right after use, 0.54 one interval later.
    What was never used again (MRI 0) is worth nothing."""
    if longest_gap <= 0:
        return 0.0
    return 2.0 / (1.0 + math.exp(min(700.0, max(0.0, t - last) / longest_gap)))


def _most(candidates: Sequence[Candidate], weight: Callable[[Candidate], float]) -> Candidate:
    """The heaviest; of equal ones the oldest."""
    return max(candidates, key=lambda candidate: (weight(candidate), -candidate.order))


def _ages(candidates: Sequence[Candidate]) -> dict[int, int]:
    return {candidate.order: len(candidates) - at for at, candidate in enumerate(candidates)}


def graded(candidates: Sequence[Candidate]) -> Candidate:
    """Ages are ranks of sealing, not times: streams with different clocks (a file from zero, a camera in Unix time)
    compare. Old segments are on higher levels than new ones, each level about four times as far back."""
    ages = _ages(candidates)
    return _most(candidates, lambda each: ages[each.order] / FACTOR**each.level)


def fifo(candidates: Sequence[Candidate]) -> Candidate:
    return candidates[0]


def uniform(candidates: Sequence[Candidate]) -> Candidate:
    """By the trailing zeros of the order: odd ones first, then those divisible by 2 only, and so on. One that has begun
    to go down goes on, so that the others keep full detail."""

    def kept_for(order: int) -> int:
        return (order & -order).bit_length() if order else 64

    begun = [each for each in candidates if each.level]
    least = min(kept_for(each.order) for each in candidates)
    group = [each for each in begun if kept_for(each.order) == least] or [
        each for each in candidates if kept_for(each.order) == least
    ]
    return group[0]


def decay(candidates: Sequence[Candidate]) -> Candidate:
    """The one that is retained least: dt / (S tau) is monotone in it and doesn't underflow after years."""

    def faded(each: Candidate) -> float:
        since = max(each.t_max_ns, each.recalled_ns)
        dt = max(0, each.now_ns - since)
        return dt / (strength(each.recalls) * DAY_NS * FACTOR**each.level)

    return _most(candidates, faded)


def recurrence(candidates: Sequence[Candidate]) -> Candidate:
    """Activated is a segment when a later one of the same space is like it, and when an answer cites it. By
    (1 - H1) and age; the newest few are left alone as long as there are others."""
    ages = _ages(candidates)
    alike = _alike(candidates)
    worth = {each.order: _activity(at, candidates, alike) for at, each in enumerate(candidates)}
    older = [each for each in candidates if ages[each.order] > GRACE] or list(candidates)
    return _most(older, lambda each: (1.0 - 0.9 * worth[each.order]) * ages[each.order] / FACTOR**each.level)


def _activity(at: int, candidates: Sequence[Candidate], alike: np.ndarray) -> float:
    each = candidates[at]
    last, gap, since = each.t_max_ns, each.gap_ns, each.t_max_ns
    for later in (np.flatnonzero(alike[at, at + 1 :]) + at + 1).tolist():
        other = candidates[later]
        if other.stream == each.stream:
            gap, since = max(gap, other.t_min_ns - since), max(since, other.t_max_ns)
    if each.recalls:
        last = max(last, each.recalled_ns)
        gap = gap or max(0, each.recalled_ns - each.t_max_ns)
    return recurring(each.now_ns, max(last, since), gap)


def diversity(candidates: Sequence[Candidate]) -> Candidate:
    """Leader clustering from the newest back: whoever is like a leader stands behind it. Weight is the place in that
    row times the square root of the age: what is like nothing else stays long, and the newest keep their pictures.
    What has no vectors counts as alone."""
    alike = _alike(candidates)
    total = len(candidates)
    leaders: list[int] = []
    behind = np.ones(total)
    sizes: dict[int, int] = {}
    for at in range(total - 1, -1, -1):
        known = np.flatnonzero(alike[at, leaders]) if leaders else leaders
        leader = leaders[int(known[0])] if len(known) else at
        if leader == at:
            leaders.append(at)
        sizes[leader] = sizes.get(leader, 0) + 1
        behind[at] = sizes[leader]
    ages = np.arange(total, 0, -1)
    weights = behind * np.sqrt(ages) / FACTOR ** np.array([each.level for each in candidates])
    return candidates[int(np.argmax(weights))]


def _alike(candidates: Sequence[Candidate]) -> np.ndarray:
    """(n, n) bool: pairs of one embedding space whose mean vectors are nearly equal, or point the same way once the
    mean of all is taken away (all pictures of a space share a large part: without this everything is alike)."""
    result = np.zeros((len(candidates), len(candidates)), bool)
    for space in {each.space for each in candidates if each.signature is not None}:
        members = [at for at, each in enumerate(candidates) if each.space == space and each.signature is not None]
        plain = np.array([candidates[at].signature for at in members], np.float32)
        centred = plain - plain.mean(axis=0)
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        centred = np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-3)
        result[np.ix_(members, members)] = (plain @ plain.T >= SAME) | (centred @ centred.T >= ALIKE)
    return result


POLICIES: dict[str, Policy] = {
    "graded": graded,
    "fifo": fifo,
    "uniform": uniform,
    "decay": decay,
    "recurrence": recurrence,
    "diversity": diversity,
}
NEED_VECTORS = (recurrence, diversity)
"""Policies that look at signatures."""
REINFORCED = (decay, recurrence)
"""Policies that look at citations; for the others none are kept."""
