"""Plan: from the words of a question to where in time, and in which banks, to look. Pure functions, no model.

A question's time expression is taken out of it ("ten minutes ago", "between 2:10 and 3:00", "last Tuesday", "before the
man sits down", "the second time") and turned into ranges on the stream's clock. Ranges read from a question are wrong
now and then, so they prune softly: a fifth of the budget stays outside (LongMemEval, arXiv 2410.10813, prunes hard; its
authors report that weak models infer wrong ranges). What the caller sets (``--between``) is hard and not this module's.

The gate says how much memory a question needs (SCM; LD-Agent): the ``current`` look, the ``short_term`` ring, or a
``long_term`` search.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import Literal

from streammem.clock import NS, StreamClock
from streammem.recall.asking import BANKS, Asked, read_asked
from streammem.recall.query import clean, tokens
from streammem.recall.when import Anchor, Range, WhenReader

SOFT_SHARE = 0.2
"""Share of the budget that stays outside an inferred range."""
AROUND_NS = 120 * NS
"""How far before or after an event "before" and "after" mean, where nothing else is said."""
SHORT_TERM_NS = 60 * NS

Gate = Literal["current", "short_term", "long_term"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``phrase`` is the question without its time expression; ``ordinal`` 1 is the first time, -1 the last, None any.

    ``future``: everything asked for lies after ``now_ns``; ``empty``: it lies where nothing was recorded. ``notes`` say
    what was understood, and what wasn't."""

    question: str
    phrase: str
    gate: Gate
    ranges: tuple[Range, ...] = ()
    anchor: Anchor | None = None
    ordinal: int | None = None
    places: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    banks: tuple[str, ...] = ("moments",)
    soft: float = SOFT_SHARE
    future: bool = False
    empty: bool = False
    notes: tuple[str, ...] = ()
    asked: Asked | None = None
    """What is asked of the structured banks, where the question has such a shape (``facts.py``)."""
    t_min_ns: int | None = None
    t_max_ns: int | None = None
    """First and last instant of what is remembered."""

    def inside(self, t_start_ns: int, t_end_ns: int) -> bool:
        """Whether a stretch touches what the question names; true where it names nothing."""
        return not self.ranges or any(t_start_ns <= r.t_end_ns and r.t_start_ns <= t_end_ns for r in self.ranges)


def plan_question(
    question: str,
    *,
    clock: StreamClock = "media",
    now_ns: int | None = None,
    t_min_ns: int | None = None,
    t_max_ns: int | None = None,
    zone: tzinfo = UTC,
    known_places: Sequence[str] = (),
    known_entities: Sequence[str] = (),
) -> Plan:
    """What a question asks for, and when. ``t_min_ns`` to ``t_max_ns`` is what is remembered, ``now_ns`` the present on
    the streams' clock (for a file: its end), ``zone`` where "yesterday" is meant.

    A stream that was restarted has gaps, nothing more: all times are capture times, never counts of frames."""
    text = clean(question)
    now = now_ns if now_ns is not None else t_max_ns
    reader = WhenReader(text, clock, now, t_min_ns, t_max_ns, zone)
    reader.read()
    phrase = re.sub(r"\s+([?.!,])", r"\1", " ".join(reader.rest.split())).strip(" ,")
    phrase = phrase if tokens(phrase) else text
    ranges = tuple(reader.ranges)
    future = bool(ranges) and now is not None and all(r.t_start_ns > now for r in ranges)
    outside = bool(ranges) and t_min_ns is not None and t_max_ns is not None
    empty = outside and all(r.t_end_ns < (t_min_ns or 0) or r.t_start_ns > (t_max_ns or 0) for r in ranges)
    places = _named(text, known_places)
    entities = _named(text, known_entities)
    plan = Plan(
        question=text,
        phrase=phrase,
        gate=gate_of(text, ranges, reader.anchor, now),
        ranges=ranges,
        anchor=reader.anchor,
        ordinal=reader.ordinal,
        places=places,
        entities=entities,
        future=future,
        empty=empty and not future,
        notes=tuple(reader.notes),
        asked=read_asked(text),
        t_min_ns=t_min_ns,
        t_max_ns=t_max_ns,
    )
    return replace(plan, banks=banks_for(plan))


# -- the gate and the banks

_NOW = re.compile(r"\b(?:right now|at the moment|currently|now|at present)\b", re.IGNORECASE)
_JUST = re.compile(r"\b(?:just now|a moment ago|a second ago|(?:a few|few) seconds ago|just)\b", re.IGNORECASE)
_PAST = re.compile(r"\b(?:was|were|did|had|ever|ago|before|after|last|first|yesterday|earlier)\b", re.IGNORECASE)


def gate_of(text: str, ranges: Sequence[Range], anchor: Anchor | None, now_ns: int | None) -> Gate:
    """``current`` where only the newest look is asked for, ``short_term`` where the last minute holds it all."""
    if anchor is not None:
        return "long_term"
    if ranges and now_ns is not None:
        oldest = min(r.t_start_ns for r in ranges)
        return "short_term" if 0 <= now_ns - oldest <= SHORT_TERM_NS else "long_term"
    if _JUST.search(text):
        return "short_term"
    return "current" if _NOW.search(text) and not _PAST.search(text) else "long_term"


_WHERE_LAST = re.compile(
    r"\b(?:where (?:is|are|was|were|did)|last (?:see|saw|seen|time)|when did .* last|whereabouts)\b", re.IGNORECASE
)
_FOLLOWED = re.compile(r"\b(?:how many|how long|track|follow(?:ed|s)?|count|same)\b", re.IGNORECASE)
_SPACE = re.compile(
    r"\b(?:near|nearby|close to|next to|room|route|way to|how (?:do|can) .* get|path|far|metres?|meters?)\b",
    re.IGNORECASE,
)
_OVERVIEW = re.compile(
    r"\b(?:summar\w+|overview|what happen(?:s|ed)|describe|going on|in order|story|about)\b", re.IGNORECASE
)


def banks_for(plan: Plan) -> tuple[str, ...]:
    """Which banks can know, most specific first; the moments are always asked. The caller skips absent ones."""
    banks = list(BANKS[plan.asked.shape]) if plan.asked is not None else []
    if plan.entities or _WHERE_LAST.search(plan.question):
        banks.append("entities")
    if _FOLLOWED.search(plan.question):
        banks.append("tracks")
    if plan.places or _SPACE.search(plan.question):
        banks.append("spatial")
    if plan.anchor is not None or plan.ordinal is not None or _OVERVIEW.search(plan.question):
        banks += ["events", "timeline"]
    if plan.gate != "long_term":
        banks.append("short_term")
    return tuple(dict.fromkeys([*banks, "moments"]))


def _named(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Known names whose words stand in the question next to each other, longest first."""
    have = f" {' '.join(tokens(text))} "
    found = [name for name in known if tokens(name) and f" {' '.join(tokens(name))} " in have]
    return tuple(sorted(dict.fromkeys(found), key=lambda name: (-len(name), name)))


# -- soft pruning and anchors


def split_budget(total: int, plan: Plan) -> tuple[int, int]:
    """(inside, outside) of the question's range: a fifth stays outside, at least one of two or more."""
    if not plan.ranges:
        return total, 0
    outside = min(total - 1, max(1, round(total * plan.soft))) if total > 1 else 0
    return total - outside, outside


def resolve(anchor: Anchor, first: tuple[int, int] | None, second: tuple[int, int] | None = None) -> Range | None:
    """The range that an anchor means once its event was found at ``first`` (closed, ns); None where it wasn't."""
    if first is None:
        return None
    if anchor.relation == "before":
        return Range(first[0] - AROUND_NS, first[0] - 1, f"before {anchor.event}")
    if anchor.relation == "after":
        return Range(first[1] + 1, first[1] + AROUND_NS, f"after {anchor.event}")
    if anchor.relation == "while":
        return Range(first[0], first[1], f"while {anchor.event}")
    if second is None:
        return None
    lo, hi = sorted((first, second))
    return Range(lo[1], max(lo[1], hi[0]), f"between {anchor.event} and {anchor.until}")
