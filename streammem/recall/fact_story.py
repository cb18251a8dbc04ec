"""What happened: a stretch of time in the timeline's own words.

Nothing in particular is asked for, so nothing can be found: the answer is a description, ``unsure`` like any caption,
and a reasoner goes on from it.
"""

from __future__ import annotations

from streammem.clock import NS, format_range
from streammem.recall.asking import Asked
from streammem.recall.fact_sources import Banks
from streammem.recall.facts import Proof, Say, Told
from streammem.recall.plan import Plan

MOST = 5
"""Parts in which a stretch is told, about; a sentence isn't a list of forty."""
RECENT_NS = 60 * NS
"""What "now" and "just now" reach back over."""
CAPTION = 160


def happened(asked: Asked, plan: Plan, banks: Banks, say: Say) -> Told | None:
    """None where an event that first has to be found bounds the time ("before the rabbit wakes up")."""
    if plan.anchor is not None or plan.ordinal is not None:
        return None
    lo, hi = banks.between or (None, None)
    if plan.ranges:
        named = plan.ranges[0]
        lo = named.t_start_ns if lo is None else max(lo, named.t_start_ns)
        hi = named.t_end_ns if hi is None else min(hi, named.t_end_ns)
    elif plan.gate != "long_term" and plan.t_max_ns is not None:
        lo = plan.t_max_ns - RECENT_NS if lo is None else max(lo, plan.t_max_ns - RECENT_NS)
    entries = banks.ask("timeline", "timeline", t_start_ns=lo, t_end_ns=hi) or []
    if len(entries) > MOST:
        length = max(e["t_end_ns"] for e in entries) - min(e["t_start_ns"] for e in entries)
        streams = len({e["stream"] for e in entries})
        scope_s = max(1.0, length * streams / MOST / NS)
        entries = banks.ask("timeline", "timeline", t_start_ns=lo, t_end_ns=hi, scope_s=scope_s) or []
    if not entries:
        return None
    shown = entries[: 2 * MOST]
    proofs = [Proof("timeline", e["stream"], e["t_start_ns"], e["t_end_ns"], 0.0, e["caption"]) for e in shown]
    many = len({e["stream"] for e in shown}) > 1
    parts = []
    for entry in shown:
        where = f"{say.name(entry['stream'])} " if many else ""
        when = format_range(entry["t_start_ns"], entry["t_end_ns"], say.clock(entry["stream"]))
        parts.append(f"{where}{when} {say.name(entry['caption'], CAPTION)}")
    more = f" And {len(entries) - len(shown)} stretches more." if len(entries) > len(shown) else ""
    return Told(f"What was seen and heard [timeline]: {'. '.join(parts)}.{more}", "unsure", 0.0, proofs, hedged=True)
