"""The ``llm`` reasoner: VideoLucy's agents spoken by a chat model, kept to evidence.

The model reads numbered entries of the timeline, says which to look at more closely, describes frames where it can see,
and answers citing entries. It never decides alone that a thing is there: ``found`` needs the memory's own calibrated
signal in a cited stretch, or, from a model that sees, a check with a control: asked whether the claim is visible it
must say yes to the cited frames and no to frames from elsewhere. What fails in the model falls back to the embedded
agents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from typing import Any

import msgspec

from streammem.errors import ConfigError, StreammemError
from streammem.model import Answer, AnswerStatus, Evidence, Why
from streammem.printable import printable
from streammem.reason import prompts
from streammem.reason.agents import BEST, Attempt, Done, EmbeddedAgents, Wish
from streammem.reason.backtrack import backtrack
from streammem.reason.base import (
    Budget,
    ChatModel,
    Context,
    Hypothesis,
    Image,
    Period,
    Purse,
    Reasoned,
    Spent,
    State,
    Task,
)
from streammem.reason.caption_store import CaptionStore
from streammem.reason.captioner import ModelCaptioner
from streammem.reason.captioning import SLOWEST, Captions, clip_of
from streammem.reason.listing import (
    Entry,
    coarse_entries,
    deepest,
    far_from,
    finer_entries,
    ids_in,
    render,
    with_known,
)
from streammem.reason.looking import bounds_of, fine_scope, judge
from streammem.reason.talk import Talk
from streammem.recall import facts
from streammem.recall.plan import Plan
from streammem.recall.search import find

FRAMES_CHECKED = 3


class Llm:
    """Backtracking with a chat model. Raises ConfigError without one, and what the model's first call raises."""

    name = "llm"

    def reason(self, task: Task, context: Context, budget: Budget, state: bytes | None = None) -> Reasoned:
        model = context.model
        if model is None:
            raise ConfigError("the llm reasoner needs a model", hint="--endpoint URL --model NAME, or --model FOLDER")
        if context.captions is None:
            own = Captions(ModelCaptioner(model), CaptionStore(None), context.view, context.revisit)
            context = replaced(context, captions=own)
        agents = ModelAgents(model, Talk(model))
        found = backtrack(self.name, agents, task, context, budget, state)
        if agents.talk.failure is not None:
            why = "; ".join(filter(None, [found.why, f"the model failed: {agents.talk.failure}"]))
            return msgspec.structs.replace(found, partial=True, why=why)
        return found


@dataclass(slots=True)
class ModelAgents:
    """See the module. One question at a time."""

    model: ChatModel
    talk: Talk
    embedded: EmbeddedAgents = field(default_factory=EmbeddedAgents)
    _entries: list[Entry] = field(default_factory=list)
    _missing: str = ""

    def plan(self, task: Task, context: Context) -> Plan:
        return self.embedded.plan(task, context)

    # -- answering

    def look_over(self, task: Task, plan: Plan, context: Context, purse: Purse) -> Attempt:
        base = self.embedded.look_over(task, plan, context, purse)
        if not base.looked or (base.enough and base.why.startswith(facts.SAID)):
            return base  # what the banks know for sure needs no model, and no tokens
        if context.captions is not None:
            context.captions.pay_from(purse)
        self._entries = with_known(coarse_entries(task, context), task, context)
        return self._answer(task, plan, base, context, purse, forced=False)

    def attempt(self, task: Task, plan: Plan, context: Context, purse: Purse, state: State) -> Attempt:
        base = self.embedded.attempt(task, plan, context, purse, state)
        return self._answer(task, plan, base, context, purse, forced=False)

    def force(self, task: Task, plan: Plan, context: Context, purse: Purse, state: State) -> Attempt:
        base = self.embedded.force(task, plan, context, purse, state)
        return self._answer(task, plan, base, context, purse, forced=True)

    def _answer(
        self, task: Task, plan: Plan, base: Attempt, context: Context, purse: Purse, *, forced: bool
    ) -> Attempt:
        shown = self._with_closest(base, context)
        text = render(shown, context)
        told = prompts.answer(task.question, task.options, text, forced=forced)
        said = self.talk.ask(prompts.ANSWER, [told], purse)
        if said is None:
            return base
        self._missing = printable(said["missing"], 300)
        cited = [shown[number - 1] for number in dict.fromkeys(said["entries"]) if 1 <= number <= len(shown)]
        return self._checked(task, plan, base, said, cited, context, purse)

    def _with_closest(self, base: Attempt, context: Context) -> list[Entry]:
        """The list, and the moments that search thinks closest: a coarse caption hides what was there for a moment."""
        near = []
        for item in (*base.answer.evidence, *base.answer.closest)[:BEST]:
            why = "; ".join(f"{w.signal} {w.detail or round(w.score, 2)}" for w in item.why[:4])
            period = Period(item.stream, item.t_start_ns, item.t_end_ns)
            near.append(Entry(period, f"close to the question by search: {why}", item.record_ids[:16], 2))
        order = {(e.period, e.text): e for e in (*self._entries, *near)}
        return sorted(order.values(), key=lambda e: (e.period.stream, e.period.t_start_ns, e.depth))

    def _checked(
        self,
        task: Task,
        plan: Plan,
        base: Attempt,
        said: Mapping[str, Any],
        cited: Sequence[Entry],
        context: Context,
        purse: Purse,
    ) -> Attempt:
        """The model's answer with the status that the evidence allows, never its own word for it."""
        option = said["option"]
        chosen = option - 1 if isinstance(option, int) and 1 <= option <= len(task.options) else None
        text = printable(said["answer"], 1000)
        evidence = self._evidence(cited, context)
        signals: tuple[Why, ...] = ()
        # Evidence or silence: what has no frames that exist supports nothing.
        if said["confident"] and said["present"] and evidence:
            claim = f"{plan.phrase} {task.options[chosen]}" if chosen is not None else plan.phrase
            signals = self._support(claim, text, task, cited, context, purse)
        agrees = base.answer.status == "found"
        if signals:
            status: AnswerStatus = "found"
            confidence = max([base.answer.confidence] + [w.score for w in signals if w.signal != "model"])
            self.talk.notes.append("supported by " + ", ".join(w.signal for w in signals))
        elif agrees and said["present"]:
            # The memory's own signal says found by itself; the model's words describe it.
            status, confidence, evidence = "found", base.answer.confidence, list(base.answer.evidence)
        elif agrees or (said["present"] and said["confident"]) or base.answer.status == "unsure":
            # Sources disagree, or nothing that can say no has spoken.
            status, confidence = "unsure", min(base.answer.confidence, 0.5)
            if agrees:
                self.talk.notes.append(
                    "the model sees it nowhere, the memory's signal does: a second look decides nothing"
                )
        else:
            status, confidence = base.answer.status, base.answer.confidence
        items = [msgspec.structs.replace(item, why=(*item.why, *signals)) for item in evidence]
        answer = msgspec.structs.replace(
            base.answer,
            question=task.question,
            status=status,
            text=text or base.answer.text,
            confidence=confidence if status == "found" else min(confidence, 0.5),
            evidence=tuple(items) if status == "found" else (),
            closest=base.answer.closest or tuple(items[:BEST]),
            trace=(*base.answer.trace, *self.talk.notes[-8:]),
        )
        ids = tuple(dict.fromkeys(number for entry in cited for number in entry.evidence))[:32]
        claims = (Hypothesis(printable(text, 200), ids or base.evidence, float(said["confident"]), chosen),)
        enough = status == "found" or bool(task.options and chosen is not None and said["confident"] and cited)
        made = Attempt(answer, enough, base.looked, ids or base.evidence, claims, why=answer_note(said))
        if not task.options:
            return made
        if chosen is None:
            return replaced(made, option=base.option, option_scores=base.option_scores)
        share = 0.8 if said["confident"] else 0.5
        rest = (1 - share) / max(1, len(task.options) - 1)
        shares = tuple(share if index == chosen else rest for index in range(len(task.options)))
        return replaced(made, option=chosen, option_scores=shares)

    def _evidence(self, cited: Sequence[Entry], context: Context) -> list[Evidence]:
        """Cited entries with the frames that exist; one without frames is none."""
        out = []
        for entry in cited[:BEST]:
            records = [r for r in (_record(context, number) for number in entry.evidence[:16]) if r is not None]
            frames = tuple(deepest(context).frame_refs(entry.period.stream, records))
            if frames:
                span = (min(r.t_start_ns for r in records), max(r.t_end_ns for r in records))
                ids = tuple(record.record_id for record in records)
                out.append(Evidence(entry.period.stream, *span, frames, ids, 1.0, ()))
        return out

    def _support(
        self, claim: str, text: str, task: Task, cited: Sequence[Entry], context: Context, purse: Purse
    ) -> tuple[Why, ...]:
        """What says, besides the model's answer, that the cited stretches show it; empty where nothing does."""
        view = deepest(context)
        for entry in cited[:BEST]:
            span = (entry.period.t_start_ns, entry.period.t_end_ns)
            found = find(view, claim, k=1, between=span, streams=[entry.period.stream])
            purse.pay(records=found.rows)
            for verdict in (v for hit in found.hits for v in judge(view, hit) if v.passes):
                return (Why(verdict.signal, float(verdict.precision or 0.0), "in the cited stretch"),)
        if self.model.limits.images and context.revisit is not None:
            return self._seen_with_control(text, task, cited[0], context, purse)
        return ()

    def _seen_with_control(
        self, text: str, task: Task, entry: Entry, context: Context, purse: Purse
    ) -> tuple[Why, ...]:
        """Yes to the cited frames and no to as many from far away: a model that always says yes proves nothing."""
        there = self._frames(entry.period, context, purse, FRAMES_CHECKED)
        elsewhere = self._frames(far_from(entry.period, task, context), context, purse, FRAMES_CHECKED)
        if not there or not elsewhere:
            return ()
        claim = printable(text, 300)
        seen = self.talk.ask(prompts.VISIBLE, [prompts.visible(claim), *there], purse)
        control = self.talk.ask(prompts.VISIBLE, [prompts.visible(claim), *elsewhere], purse) if seen else None
        if not seen or not control:
            return ()
        self.talk.notes.append(f"visible in the cited frames: {seen['visible']}; in the control: {control['visible']}")
        if seen["visible"] and not control["visible"]:
            return (Why("model", 1.0, f"{self.model.id}: visible here, not in a control; not calibrated"),)
        return ()

    # -- where and how to look

    def localise(self, task: Task, plan: Plan, context: Context, purse: Purse, state: State) -> Sequence[Period]:
        own = self.embedded.localise(task, plan, context, purse, state)
        coarse = [e for e in self._entries if e.depth == 0]
        if context.deepener is None or not coarse:
            return own
        told = prompts.localise(task.question, task.options, render(coarse, context), BEST)
        said = self.talk.ask(prompts.LOCALISE, [told], purse)
        if said is None:
            return own
        numbers = [n for n in dict.fromkeys(said["entries"]) if 1 <= n <= len(coarse)][:BEST]
        beside = [(n, m) for n in numbers for m in (n - 1, n + 1) if 1 <= m <= len(coarse) and m not in numbers]
        near = [m for n, m in beside if coarse[m - 1].period.stream == coarse[n - 1].period.stream]
        named = [coarse[number - 1].period for number in dict.fromkeys([*numbers, *near])]
        fresh = [p for p in named if not any(p.overlaps(seen) for seen in state.visited)]
        return list(dict.fromkeys([*fresh, *(p for p in own if not any(p.overlaps(q) for q in fresh))]))

    def instruct(self, task: Task, period: Period, state: State, context: Context, purse: Purse) -> Wish:
        """The embedded wish for where and how densely, with what the last answer missed."""
        wish = self.embedded.instruct(task, period, state, context, purse)
        return replaced(wish, why=f"{wish.why}; missing: {self._missing}") if self._missing else wish

    def deepen(self, task: Task, period: Period, wish: Wish, context: Context, purse: Purse) -> Done:
        done = self.embedded.deepen(task, period, wish, context, purse)
        ids = done.evidence or ids_in(wish.period, context)
        told = self._described(task, wish, ids, context, purse) if ids else []
        if told:
            self._entries += [e for e in told if e not in self._entries]
            return replaced(done, evidence=ids, outcome=f"{done.outcome}; described in {len(told)} captions")
        self._entries += [e for e in finer_entries(wish.period, context) if e not in self._entries]
        return done

    def _described(self, task: Task, wish: Wish, ids: tuple[int, ...], context: Context, purse: Purse) -> list[Entry]:
        """The stretch in the words of a model that sees: with this question in mind (VideoLucy's instruction), and the
        grid's clip in it once for everybody (its sub-clip). Both are kept: neither is paid for twice."""
        captions, bounds = context.captions, bounds_of(context.view, task)
        if captions is None or not captions.captioner.frames or context.revisit is None or bounds is None:
            return []
        middle = (wish.period.t_start_ns + wish.period.t_end_ns) // 2
        clip = clip_of(wish.period.stream, middle, fine_scope(context.view, task, bounds), task.between)
        about = f"what matters for the question “{task.question}”. {self._missing}".strip()
        told: list[Entry] = []
        for period, instruction in ((wish.period, about), (clip, "")):
            kept = captions.find(period, "fine", instruction)
            try:
                # The last call is for the answer; what later questions will use comes after what this one needs.
                if kept is None and purse.left("calls") >= 2:
                    kept = captions.make(period, "fine", instruction)
            except StreammemError as error:
                self.talk.notes.append(f"no description: {error.message}")
            if kept is not None:
                told.append(Entry(period, kept.text, ids, 1))
        return told

    def _frames(self, period: Period, context: Context, purse: Purse, limit: int) -> list[Image]:
        if context.revisit is None:
            return []
        limit = int(min(limit, self.model.limits.images, purse.left("frames")))
        if limit < 1:
            return []
        seconds = max((period.t_end_ns - period.t_start_ns) / 1e9, 0.1)
        look = context.revisit.look_again(
            period.stream, period.t_start_ns, period.t_end_ns, max(limit / seconds, SLOWEST), limit=limit
        )
        purse.pay(frames=len(look.frames))
        return [Image(pixels=frame.image) for frame in look.frames[:limit]]

    # -- the rest

    def nothing(self, task: Task, why: str) -> Answer:
        return self.embedded.nothing(task, why)

    def finish(self, answer: Answer, spent: Spent) -> Answer:
        return self.embedded.finish(answer, spent)


def answer_note(said: Mapping[str, Any]) -> str:
    sure = "confident" if said["confident"] else "not confident"
    return f"the model is {sure}, cites {len(said['entries'])} entries"


def _record(context: Context, number: int) -> Any:
    view = deepest(context)
    read = getattr(view, "record", None) or getattr(context.view, "record", None)
    return read(number) if read is not None else None
