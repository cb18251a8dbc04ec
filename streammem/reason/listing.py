"""The numbered list that a model reads: stretches of the recording, coarse ones and those that were looked at closely.

Numbers stand for periods and record ids, so that a model can only point at what it was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from streammem.banks.timeline import MOST, moments_of, scope_for
from streammem.captions import ComposedCaptioner, scene_of
from streammem.clock import StreamClock, format_range
from streammem.errors import QueryError
from streammem.printable import printable
from streammem.reason.base import Context, Period, Task
from streammem.reason.captioning import clip_of
from streammem.reason.looking import LEAF_NS, bounds_of
from streammem.reason.tools import fence
from streammem.recall.timeline import View

ENTRY = 400
"""Characters of one entry at most; less where the list is long."""
LIST = 11_000
"""Characters of a rendered list: what one fence holds."""
FINER = 12
"""Lines of a stretch that was looked at closely."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list that the model reads."""

    period: Period
    text: str
    evidence: tuple[int, ...]
    depth: int = 0
    scope_ns: int = 0
    """Of a clip on the grid; 0 for what isn't one."""


def coarse_entries(task: Task, context: Context) -> list[Entry]:
    """The timeline's coarse list; where a memory keeps none, one composed from its moments on the same grid."""
    bounds = bounds_of(context.view, task)
    if bounds is None:
        return []
    return _timeline(context, task.streams, *bounds) or _composed(context.view, task.streams, *bounds)


def with_known(entries: Sequence[Entry], task: Task, context: Context) -> list[Entry]:
    """The coarse list with the model's captions where they were made before, in place of the embedded ones, and what
    earlier questions had it describe more closely. Nothing is asked of the model here."""
    captions = context.captions
    if captions is None:
        return list(entries)
    lo, hi = task.between or (None, None)
    whole = (-(2**62) if lo is None else lo, 2**62 if hi is None else hi)
    out = []
    for entry in entries:
        clip = clip_of(entry.period.stream, entry.period.t_start_ns, max(entry.scope_ns, 1), task.between)
        kept = captions.find(clip, "coarse") if entry.scope_ns else None
        out.append(entry if kept is None else replace(entry, text=kept.text))
    for period, kept in captions.known(task.streams, whole, "fine", FINER):
        ids = ids_in(period, context)
        out += [Entry(period, kept.text, ids, 1)] if ids else []
    return sorted(out, key=lambda e: (e.period.stream, e.period.t_start_ns, e.depth))


def finer_entries(period: Period, context: Context) -> list[Entry]:
    """What is known of a stretch, what a deeper look brought included, in at most ``FINER`` entries."""
    span = (period.t_start_ns, period.t_end_ns)
    return [replace(entry, depth=1) for entry in _composed(deepest(context), (period.stream,), *span, FINER)]


def deepest(context: Context) -> View:
    """The memory together with what was looked at more closely."""
    return context.deepener.view if context.deepener is not None else context.view


def _timeline(context: Context, streams: Sequence[str] | None, lo: int, hi: int) -> list[Entry]:
    ask = getattr(context.view, "query", None)
    if ask is None:
        return []
    try:
        rows = ask("timeline", "timeline", streams=streams, t_start_ns=lo, t_end_ns=hi)
    except QueryError:
        return []  # the timeline is switched off in this memory
    found = []
    for row in rows:
        # The whole cell of the grid: what was looked at in it may be a single instant.
        start = row["t_start_ns"] // row["scope_ns"] * row["scope_ns"]
        period = Period(row["stream"], max(lo, start), min(hi, start + row["scope_ns"] - 1))
        found.append(Entry(period, row["caption"], tuple(row.get("evidence", ())), scope_ns=row["scope_ns"]))
    return found


def _composed(view: View, streams: Sequence[str] | None, lo: int, hi: int, most: int = MOST) -> list[Entry]:
    captioner, scope = ComposedCaptioner(), scope_for(lo, hi, LEAF_NS, most)
    out = []
    for info in view.streams():
        if streams is not None and info.stream not in streams:
            continue
        groups: dict[int, list[Any]] = {}
        for record in moments_of(view, info.stream, (lo, hi)):  # type: ignore[arg-type]
            groups.setdefault(record.t_start_ns // scope, []).append(record)
        for index, records in sorted(groups.items()):
            period = Period(info.stream, max(lo, index * scope), min(hi, (index + 1) * scope - 1))
            ids = tuple(record.record_id for record in records[:16])
            out.append(Entry(period, captioner.caption(scene_of(records), ()), ids, scope_ns=scope))
    return out


def render(entries: Sequence[Entry], context: Context) -> str:
    """The numbered list inside a fence, every entry cut to its share of the room."""
    most = max(60, min(ENTRY, LIST // max(len(entries), 1) - 40))
    lines = [
        f"[{number}] {'  ' * entry.depth}{when_of(entry.period, context)} {printable(entry.text, most)}"
        for number, entry in enumerate(entries, 1)
    ]
    return fence("\n".join(lines) or "nothing is remembered", "memory")


def far_from(period: Period, task: Task, context: Context) -> Period:
    """As long a stretch of the same stream as far from ``period`` as there is."""
    bounds = bounds_of(context.view, replace(task, streams=(period.stream,))) or (period.t_start_ns, period.t_end_ns)
    length = period.t_end_ns - period.t_start_ns
    first = Period(period.stream, bounds[0], min(bounds[0] + length, bounds[1]))
    last = Period(period.stream, max(bounds[1] - length, bounds[0]), bounds[1])
    return max((first, last), key=lambda p: abs(p.t_start_ns - period.t_start_ns))


def ids_in(period: Period, context: Context) -> tuple[int, ...]:
    span = (period.t_start_ns, period.t_end_ns)
    return tuple(r.record_id for r in moments_of(deepest(context), period.stream, span))[:32]  # type: ignore[arg-type]


def when_of(period: Period, context: Context) -> str:
    clock: StreamClock = next((i.clock for i in context.view.streams() if i.stream == period.stream), "media")
    return f"{printable(period.stream, 40)} {format_range(period.t_start_ns, period.t_end_ns, clock)}"
