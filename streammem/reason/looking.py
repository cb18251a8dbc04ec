"""How a question is searched for inside a plan, and what a search says of the time grid: for agents and strategies."""

from __future__ import annotations

import numpy as np

from streammem.banks.timeline import scope_at_least, scopes_for
from streammem.clock import StreamClock
from streammem.model import Evidence
from streammem.reason.base import Period, Purse, Task
from streammem.recall.answer import CLOSEST
from streammem.recall.calibrate import Verdict, calibration_of, verdicts
from streammem.recall.fuse import score_fusion
from streammem.recall.plan import Plan
from streammem.recall.search import Found, Hit, find
from streammem.recall.timeline import Between, Timeline, View
from streammem.recall.when import Range

LEAF_NS = 10_000_000_000
"""The grid of periods: the timeline's leaf (``timeline.leaf_seconds``)."""
CONFIRMED = 2
"""Looks that have to show a thing which the first pass didn't."""


def judge(view: View, hit: Hit) -> list[Verdict]:
    """The calibrated verdicts on one hit."""
    space = view.space(hit.signals.timeline.space) if hit.signals.timeline.space else None
    return verdicts(hit, calibration_of(space))


def top_score(found: Found) -> float:
    """The best moment's score, -inf where there is none."""
    return max((hit.moment.score for hit in found.hits), default=-np.inf)


def confirmed(view: View, hit: Hit) -> bool:
    """Whether a second look's finding stands on two looks, or on words. The more frames are looked at, the higher the
    best score of an absent thing; a thing that is there shows in more than one of frames a quarter second apart."""
    rows = slice(hit.moment.lo, hit.moment.hi + 1)
    for verdict in judge(view, hit):
        if not verdict.passes or verdict.entry.threshold is None:
            continue
        values = hit.signals.scores[verdict.signal][rows]
        if verdict.signal in ("text", "speech") or int((values >= verdict.entry.threshold).sum()) >= CONFIRMED:
            return True
    return False


def bounds_of(view: View, task: Task) -> tuple[int, int] | None:
    """First and last instant of the task's streams and time; None where nothing of them is remembered."""
    lo, hi = task.between or (None, None)
    spans = [
        (int(block.t_start_ns[0]), int(np.asarray(block.t_end_ns).max()))
        for block in view.blocks("moments", task.streams, task.between)
        if len(block)
    ]
    if not spans:
        return None
    first, last = min(s for s, _ in spans), max(e for _, e in spans)
    # A file goes on after its last look: up to its end, or as far as the looks are apart.
    for info in view.streams():
        if (
            info.duration_ns is not None
            and info.clock == "media"
            and (task.streams is None or info.stream in task.streams)
        ):
            last = max(last, info.duration_ns - 1)
    return max(first, first if lo is None else lo), min(last, last if hi is None else hi)


def fine_scope(view: View, task: Task, bounds: tuple[int, int]) -> int:
    """The scope of the timeline's fine level, never below the usual distance of the looks, in ns."""
    rows = sum(len(block) for block in view.blocks("moments", task.streams, task.between))
    least = scope_at_least((bounds[1] - bounds[0]) // max(rows, 1), LEAF_NS)
    return max(scopes_for(*bounds, LEAF_NS)[1], least)


def overlap(between: Between | None, span: Range) -> tuple[int, int] | None:
    """What a hard range leaves of one that was read from the question; None where that is nothing."""
    lo, hi = between or (None, None)
    start = span.t_start_ns if lo is None else max(lo, span.t_start_ns)
    end = span.t_end_ns if hi is None else min(hi, span.t_end_ns)
    return (start, end) if start <= end else None


def search_plan(view: View, phrase: str, task: Task, plan: Plan, purse: Purse) -> Found:
    """Search inside the asked time first, and with a fifth of the hits outside it."""
    k = max(CLOSEST, task.k)
    spans = [cut for span in plan.ranges if (cut := overlap(task.between, span)) is not None]
    if not spans:
        found = find(view, phrase, k=k, between=task.between, streams=task.streams)
        purse.pay(records=found.rows)
        return found
    parts = [find(view, phrase, k=k, between=span, streams=task.streams) for span in spans]
    whole = find(view, phrase, k=k, between=task.between, streams=task.streams)
    purse.pay(records=whole.rows)
    inside = [hit for part in parts for hit in part.hits]
    inside.sort(key=lambda hit: -hit.moment.score)
    outside = [h for h in whole.hits if not plan.inside(h.evidence.t_start_ns, h.evidence.t_end_ns)]
    share = max(1, round(plan.soft * k))
    hits = inside[: k - share] + outside[:share]
    rows = sum(part.rows for part in parts) + whole.rows
    return Found(whole.query, tuple(hits), rows, whole.spaces, whole.notes)


def in_order(view: View, found: Found, ordinal: int | None) -> Found:
    """Where "the second time" is asked for, the moments that pass, in the order of time, begin with that one."""
    if ordinal is None:
        return found
    passing = [hit for hit in found.hits if any(v.passes for v in judge(view, hit))]
    passing.sort(key=lambda hit: hit.evidence.t_start_ns, reverse=ordinal < 0)
    at = abs(ordinal) - 1
    first = passing[at : at + 1]
    rest = [hit for hit in (*passing, *found.hits) if hit not in first]
    hits = list(dict.fromkeys([*first, *rest]))
    return Found(found.query, tuple(hits), found.rows, found.spaces, found.notes)


def row_scores(found: Found) -> list[tuple[Timeline, np.ndarray]]:
    """``(timeline, fused scores (n,))`` of every group of rows that a search scored and had a hit in."""
    groups = list({id(hit.signals): hit.signals for hit in found.hits}.values())
    return [(g.timeline, s) for g, s in zip(groups, score_fusion(found.query, groups), strict=True)]


def grid_period(stream: str, index: int, scope: int, bounds: tuple[int, int]) -> Period:
    """One clip of the grid, cut to what is remembered: the last clip may be short."""
    return Period(stream, max(index * scope, bounds[0]), min((index + 1) * scope - 1, bounds[1]))


def clock_of(view: View, item: Evidence) -> StreamClock:
    return next((info.clock for info in view.streams() if info.stream == item.stream), "media")
