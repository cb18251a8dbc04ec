"""The roles of the loop, and the agents that need no language model.

VideoLucy has a captioning, a localisation, an instruction and an answering agent, all of them models. Here they are one
protocol. The *embedded* agents localise by the memory's calibrated scores, deepen by watching the source again more
densely, and answer extractively: the verdict is always that of ``recall/answer.py``, so looking more can add evidence
and never lowers the bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec
import numpy as np

from streammem.banks.timeline import moments_of, scope_at_least, scope_for
from streammem.captions import ComposedCaptioner, scene_of
from streammem.clock import StreamClock, format_range
from streammem.model import Answer, AnswerStatus, Cost, Evidence
from streammem.reason.base import Context, Hypothesis, Period, Purse, Spent, State, Task
from streammem.reason.checks import sources_of, weighed
from streammem.reason.likelihood import OPTION, choose
from streammem.reason.looking import (
    LEAF_NS,
    bounds_of,
    clock_of,
    confirmed,
    grid_period,
    in_order,
    judge,
    overlap,
    row_scores,
    search_plan,
    top_score,
)
from streammem.recall import facts
from streammem.recall.answer import CLOSEST, answer_of
from streammem.recall.plan import Plan, plan_question, resolve
from streammem.recall.query import content_words, parse_query
from streammem.recall.search import Found, find
from streammem.recall.timeline import View

BEST = 3
"""Periods of the first localisation; each brings its two neighbours (VideoLucy, sec. 2.2)."""
FRAMES = 32
"""Frames of one deeper look, at most: about three seconds of encoding on two cores."""
TRIED = 4
"""Frames of the first deeper look where time is limited."""
DENSER = 4.0
"""How much denser a deeper look is than the memory, at most."""
FASTEST = 8.0
"""Frames a second, at most: consecutive frames of a 25 fps video show the same things."""
SURE = 0.5
"""A multiple choice is settled where its best option has this share and its evidence passes the bar."""

_RANK = {"not_seen": 0, "unsure": 1, "found": 2}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a deeper look is for: the question's instruction, a stretch inside the period, and how densely. A ``limit``
    of 0 says that there is no time for a frame."""

    period: Period
    why: str
    fps: float = 0.0
    limit: int = FRAMES


@dataclass(frozen=True, slots=True)
class Done:
    """What a deeper look brought: new records, or why there were none."""

    evidence: tuple[int, ...] = ()
    outcome: str = ""
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to answer. ``enough`` ends the loop; ``looked`` is false where there was nothing to look at."""

    answer: Answer
    enough: bool
    looked: bool = True
    evidence: tuple[int, ...] = ()
    hypotheses: tuple[Hypothesis, ...] = ()
    option: int | None = None
    option_scores: tuple[float, ...] = ()
    why: str = ""
    short: str = ""
    """What of the budget ended the attempt before it had looked at everything."""

    @property
    def rank(self) -> tuple[int, float, float]:
        """Attempts are compared by status, then by how sure they are."""
        top = max((e.score for e in (*self.answer.evidence, *self.answer.closest)), default=0.0)
        share = max(self.option_scores, default=0.0)
        return (_RANK[self.answer.status], max(self.answer.confidence, share), top)


class Agents(Protocol):
    """What the loop asks for. Every method pays for what it does out of ``purse`` and only reads."""

    def plan(self, task: Task, context: Context) -> Plan: ...
    def look_over(self, task: Task, plan: Plan, context: Context, purse: Purse) -> Attempt: ...
    def localise(self, task: Task, plan: Plan, context: Context, purse: Purse, state: State) -> Sequence[Period]:
        """Several periods on the grid, best first, neighbours included."""
        ...

    def instruct(self, task: Task, period: Period, state: State, context: Context, purse: Purse) -> Wish: ...
    def deepen(self, task: Task, period: Period, wish: Wish, context: Context, purse: Purse) -> Done: ...
    def attempt(self, task: Task, plan: Plan, context: Context, purse: Purse, state: State) -> Attempt: ...
    def force(self, task: Task, plan: Plan, context: Context, purse: Purse, state: State) -> Attempt: ...
    def nothing(self, task: Task, why: str) -> Answer: ...
    def finish(self, answer: Answer, spent: Spent) -> Answer: ...


@dataclass(slots=True)
class EmbeddedAgents:
    """No model. ``captioner`` describes a stretch where a question asks what happened, not for a thing."""

    captioner: ComposedCaptioner = field(default_factory=ComposedCaptioner)
    frame_s: float = 0.0
    """What watching one frame took the last time, in seconds; 0 before the first."""

    # -- plan

    def plan(self, task: Task, context: Context) -> Plan:
        view = context.view
        bounds = bounds_of(view, task)
        clocks = {info.stream: info.clock for info in view.streams()}
        names = task.streams if task.streams is not None else sorted(clocks)
        clock: StreamClock = clocks.get(names[0], "wall") if names else "media"
        lo, hi = bounds or (None, None)
        plan = plan_question(task.question, clock=clock, now_ns=task.now_ns, t_min_ns=lo, t_max_ns=hi)
        if plan.anchor is None:
            return plan
        spans = [self._event(view, task, event) for event in (plan.anchor.event, plan.anchor.until) if event]
        found = resolve(plan.anchor, spans[0], spans[1] if len(spans) > 1 else None)
        if found is None:
            # The event isn't there to be anchored at: the whole question is asked instead.
            return replace(plan, phrase=plan.question, notes=(*plan.notes, f"“{plan.anchor.event}” wasn't found"))
        return replace(plan, ranges=(found,), notes=(*plan.notes, f"“{plan.anchor.event}” was placed"))

    @staticmethod
    def _event(view: View, task: Task, event: str) -> tuple[int, int] | None:
        found = find(view, event, k=1, between=task.between, streams=task.streams)
        for hit in found.hits:
            if any(verdict.supports for verdict in judge(view, hit)):
                return hit.evidence.t_start_ns, hit.evidence.t_end_ns
        return None

    # -- answering

    def look_over(self, task: Task, plan: Plan, context: Context, purse: Purse) -> Attempt:
        return self._attempt(task, plan, context.view, purse)

    def attempt(self, task: Task, plan: Plan, context: Context, purse: Purse, state: State) -> Attempt:
        view = context.deepener.view if context.deepener is not None else context.view
        return self._attempt(task, plan, view, purse, confirm=True)

    def force(self, task: Task, plan: Plan, context: Context, purse: Purse, state: State) -> Attempt:
        """The same bar as before: what can't be shown isn't found because the rounds are over."""
        return self.attempt(task, plan, context, purse, state)

    def _attempt(self, task: Task, plan: Plan, view: View, purse: Purse, confirm: bool = False) -> Attempt:
        if task.options:
            return self._choice(task, plan, view, purse)
        told = facts.consult(view, plan, task.streams, task.between)
        if told is not None:
            return self._known(task, told, view, purse)
        if plan.ranges and not content_words(plan.phrase):
            return self._described(task, plan, view, purse)
        found = search_plan(view, plan.phrase, task, plan, purse)
        found = in_order(view, found, plan.ordinal)
        made = self.judged(task, view, found, plan)
        if confirm and made.enough and not any(confirmed(view, hit) for hit in found.hits):
            answer = msgspec.structs.replace(
                made.answer, status="unsure", evidence=(), text=f"One look alone shows it. {made.answer.text}"
            )
            return replace(made, answer=answer, enough=False, why=f"{made.why}, one look alone")
        return made

    def _known(self, task: Task, told: facts.Told, view: View, purse: Purse) -> Attempt:
        """What the structured banks know, beside the moments of the thing itself: the same answer as without a
        reasoner. Only what the pictures contradict, or what isn't quite what was asked, is looked at again."""
        about = facts.looked_for(task.question, told)
        found = find(view, about, k=max(CLOSEST, task.k), between=task.between, streams=task.streams)
        purse.pay(records=found.rows)
        answer = facts.with_moments(view, task.question, told, found, answer_of(view, found))
        banks = ", ".join(dict.fromkeys(proof.bank for proof in told.proofs)) or "no bank"
        made = _attempt_of(answer, looked=found.rows > 0, why=f"{facts.SAID} {banks}")
        return replace(made, enough=facts.settled(told, answer))

    def judged(self, task: Task, view: View, found: Found, plan: Plan | None = None) -> Attempt:
        """The trunk's verdict on what was found, with the asked time of ``plan`` in force."""
        answer = msgspec.structs.replace(answer_of(view, found), question=task.question)
        if answer.status == "found" and not (found.query.asks_words or found.query.quoted):
            # Where sources contradict each other it isn't found yet, and the loop looks there again.
            hit = next(hit for hit in found.hits if hit.evidence.record_ids == answer.evidence[0].record_ids)
            said = sources_of(view, found.query.phrase, answer.evidence[0], judge(view, hit))
            answer = weighed(answer, said)
        if plan is None:
            return _attempt_of(answer, looked=found.rows > 0)
        inside = [e for e in answer.evidence if plan.inside(e.t_start_ns, e.t_end_ns)]
        if answer.status == "found" and inside:
            answer = msgspec.structs.replace(answer, evidence=tuple(inside))
        elif answer.status == "found":
            seen = answer.evidence[0]
            when = format_range(seen.t_start_ns, seen.t_end_ns, clock_of(view, seen))
            answer = msgspec.structs.replace(
                answer, status="unsure", evidence=(), text=f"Not in the time that is asked about; it is seen at {when}."
            )
        why = f"best moment {answer.closest[0].score:.2f}" if answer.closest else "no moment"
        return _attempt_of(answer, looked=found.rows > 0, why=why)

    def _described(self, task: Task, plan: Plan, view: View, purse: Purse) -> Attempt:
        """The stretch's own caption, for "what happens between 2:10 and 3:00?": it proves nothing about a thing."""
        span = plan.ranges[0]
        between = overlap(task.between, span)
        records = [
            record
            for info in view.streams()
            if between is not None and (task.streams is None or info.stream in task.streams)
            for record in moments_of(view, info.stream, between)  # type: ignore[arg-type]
        ]
        purse.pay(records=len(records))
        if not records:
            return _attempt_of(self.nothing(task, "nothing is remembered of that time"), looked=False)
        first = records[0]
        text = self.captioner.caption(scene_of(records), ())
        shown = [records[0], records[len(records) // 2], records[-1]]
        moment = Evidence(
            first.stream,
            first.t_start_ns,
            max(record.t_end_ns for record in records),
            tuple(view.frame_refs(first.stream, shown)),
            tuple(record.record_id for record in records[:64]),
            0.0,
            (),
        )
        answer = Answer(task.question, "unsure", f"What was seen and heard then: {text}", 0.0, (), (moment,))
        return replace(_attempt_of(answer, why="a description of the stretch"), enough=True)

    def _choice(self, task: Task, plan: Plan, view: View, purse: Purse) -> Attempt:
        """The option under which the memory's best moment is the most likely."""
        results: list[Found] = []
        scores: list[float] = []
        for option in task.options:
            if results and purse.exhausted("seconds", "records"):
                break
            phrase = option if not content_words(plan.phrase) else f"{plan.phrase} {option}"
            found = search_plan(view, phrase, task, plan, purse)
            results.append(found)
            alone = found if phrase == option else search_plan(view, option, task, plan, purse)
            scores.append(top_score(found) + OPTION * top_score(alone))
        chosen, shares = choose(scores)
        seen = sum(found.rows for found in results) > 0
        unread = len(task.options) - len(scores)
        note = f"; {unread} options weren't looked at" if unread else ""
        best = results[chosen]
        answer = answer_of(view, best)
        # The chosen option's own words have to pass too: a choice is forced, a finding isn't.
        text = f"{task.options[chosen]} (option {chosen + 1} of {len(task.options)}, {shares[chosen]:.0%}{note})"
        status = answer.status if shares[chosen] >= SURE and answer.status == "found" else "unsure"
        answer = msgspec.structs.replace(
            answer,
            question=task.question,
            text=text if seen else "Nothing is remembered there: no option can be told from another.",
            status=status if seen else "not_seen",
            evidence=answer.evidence if status == "found" else (),
        )
        padded = tuple(shares) + (0.0,) * unread
        made = _attempt_of(answer, looked=seen, why=f"share {shares[chosen]:.2f}{note}")
        short = purse.exhausted("seconds", "records") if unread else ""
        return replace(made, option=chosen if seen else None, option_scores=padded, short=short)

    # -- where to look

    def localise(self, task: Task, plan: Plan, context: Context, purse: Purse, state: State) -> Sequence[Period]:
        """The best periods of the coarse grid by their best row, then the neighbours of each."""
        view = context.deepener.view if context.deepener is not None else context.view
        bounds = bounds_of(view, task)
        if bounds is None or context.deepener is None:
            return []
        phrase = " ".join([plan.phrase, *task.options]) if 0 < len(task.options) <= 8 else plan.phrase
        found = find(view, phrase, k=4 * CLOSEST, between=task.between, streams=task.streams)
        purse.pay(records=found.rows)
        # A period of fewer than four rows says nothing that its neighbours don't.
        least = max((2 * group.step_ns for group, _ in row_scores(found)), default=0)
        scope = max(scope_for(*bounds, LEAF_NS), scope_at_least(least, LEAF_NS))
        best: dict[Period, float] = {}
        for group, score in row_scores(found):
            starts = group.t_start_ns
            for index in np.unique(starts // scope).tolist():
                rows = (starts // scope == index) & np.isfinite(score)
                if rows.any():
                    best[grid_period(group.stream, index, scope, bounds)] = float(score[rows].max())
        seen = state.visited
        order = sorted(best, key=lambda p: (-best[p], p.stream, p.t_start_ns))
        order = [p for p in order if not any(p.overlaps(one) for one in seen)]
        inside = [p for p in order if plan.inside(p.t_start_ns, p.t_end_ns)]
        named = inside[:BEST] + [p for p in order if p not in inside][: BEST if not inside else 1]
        near = [
            other
            for period in named
            for other in order
            if other not in named
            and other.stream == period.stream
            and (other.t_end_ns + 1 == period.t_start_ns or period.t_end_ns + 1 == other.t_start_ns)
        ]
        return list(dict.fromkeys([*named, *near]))

    def instruct(self, task: Task, period: Period, state: State, context: Context, purse: Purse) -> Wish:
        """Four times as dense as the memory is there, around its best row where the whole period would be too much."""
        length = (period.t_end_ns - period.t_start_ns + 1) / 1e9
        have = max(density(context.view, period), 1 / length)
        fps = min(FASTEST, DENSER * have, float(context.options.get("fps", FASTEST)))
        limit = int(min(FRAMES, purse.left("frames")))
        left = purse.left("seconds")
        if left < float("inf"):
            # Half of what is left is for answering; how long a frame takes here is tried out on a few.
            limit = min(limit, int(left / 2 / self.frame_s) if self.frame_s else TRIED)
        inside = period
        if length * fps > limit:
            # Half as long at twice the density sees more of a short event than the whole at the memory's own rate.
            wanted = max(limit / fps, 1.0)
            middle = self._peak(task, period, context, purse)
            start = int(max(period.t_start_ns, min(middle - wanted * 5e8, period.t_end_ns - wanted * 1e9)))
            inside = Period(period.stream, start, min(period.t_end_ns, start + int(wanted * 1e9)))
        return Wish(
            inside, f"look for “{parse_query(task.question).phrase[:80]}” at {fps:.2g} frames a second", fps, limit
        )

    @staticmethod
    def _peak(task: Task, period: Period, context: Context, purse: Purse) -> int:
        span = (period.t_start_ns, period.t_end_ns)
        found = find(context.view, task.question, k=1, between=span, streams=[period.stream])
        purse.pay(records=found.rows)
        if not found.hits:
            return (span[0] + span[1]) // 2
        hit = found.hits[0]
        return int(hit.signals.timeline.t_start_ns[hit.moment.peak])

    def deepen(self, task: Task, period: Period, wish: Wish, context: Context, purse: Purse) -> Done:
        if context.deepener is None:
            return Done((), "nothing here can look again", gone=True)
        begun = purse.tick().seconds
        deeper = context.deepener.deepen(wish.period, wish.fps, limit=wish.limit)
        purse.pay(frames=deeper.decoded)
        if deeper.decoded:
            self.frame_s = (purse.tick().seconds - begun) / deeper.decoded
        if deeper.gone:
            return Done((), f"gone: {deeper.gone}", gone=True)
        return Done(deeper.evidence, f"{deeper.decoded} frames watched, {deeper.reused} known from before")

    # -- the rest

    def nothing(self, task: Task, why: str) -> Answer:
        """An answer without looking."""
        status: AnswerStatus = "not_seen" if "future" in why or "remembered" in why else "unsure"
        return Answer(task.question, status, f"{why[:1].upper()}{why[1:]}.", 0.0, (), ())

    def finish(self, answer: Answer, spent: Spent) -> Answer:
        cost = Cost(round(spent.seconds, 4), spent.records, spent.calls, spent.tokens)
        return msgspec.structs.replace(answer, cost=cost)


def density(view: View, period: Period) -> float:
    """Looks a second in a period, by the usual distance of its looks and of those next to it: a period of three looks
    may hold two or four by where it begins, and a rate beside the looks' own grid looks twice at the same."""
    around = period.t_end_ns - period.t_start_ns + 1
    span = (period.t_start_ns - around, period.t_end_ns + around)
    starts = [record.t_start_ns for record in moments_of(view, period.stream, span)]  # type: ignore[arg-type]
    gaps = np.diff(np.array(starts, np.int64))
    gaps = gaps[gaps > 0]
    return 1e9 / float(np.median(gaps)) if len(gaps) else len(starts) * 1e9 / (3 * around)


def _attempt_of(answer: Answer, *, looked: bool = True, why: str = "") -> Attempt:
    shown = answer.evidence or answer.closest[:BEST]
    ids = tuple(dict.fromkeys(number for item in shown for number in item.record_ids[:8]))
    claims = tuple(
        Hypothesis(f"{answer.status} {item.stream} {item.t_start_ns}", item.record_ids[:8], item.score)
        for item in shown
    )
    return Attempt(answer, answer.status == "found", looked, ids, claims, why=why)
