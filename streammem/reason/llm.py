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

from streammem.errors import ConfigError, ServiceBusy, StreammemError
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
    Message,
    Period,
    Purse,
    Reasoned,
    Reply,
    Spent,
    State,
    Task,
)
from streammem.reason.listing import Entry, coarse_entries, deepest, far_from, finer_entries, ids_in, render, when_of
from streammem.reason.looking import judge
from streammem.reason.replies import problems, read_object
from streammem.recall.plan import Plan
from streammem.recall.search import find

LEAST_REPLY = 48
"""Tokens that any of our objects needs."""
MOST_REPLY = 512
CHARACTERS_A_TOKEN = 3
"""Of UTF-8, to estimate before sending: English has four, so that the budget is kept rather than reached."""
FRAMES_CHECKED = 3
CALL_S = 120.0


class Llm:
    """Backtracking with a chat model. Raises ConfigError without one, and what the model's first call raises."""

    name = "llm"

    def reason(self, task: Task, context: Context, budget: Budget, state: bytes | None = None) -> Reasoned:
        if context.model is None:
            raise ConfigError("the llm reasoner needs a model", hint="--endpoint URL --model NAME, or --model FOLDER")
        agents = ModelAgents(context.model)
        found = backtrack(self.name, agents, task, context, budget, state)
        if agents.failure is not None:
            why = "; ".join(filter(None, [found.why, f"the model failed: {agents.failure}"]))
            return msgspec.structs.replace(found, partial=True, why=why)
        return found


@dataclass(slots=True)
class ModelAgents:
    """See the module. One question at a time."""

    model: ChatModel
    embedded: EmbeddedAgents = field(default_factory=EmbeddedAgents)
    failure: StreammemError | None = None
    """The fault that ended the model's part; the rest was done without it."""
    _spoke: bool = False
    _entries: list[Entry] = field(default_factory=list)
    _missing: str = ""
    _trace: list[str] = field(default_factory=list)

    def plan(self, task: Task, context: Context) -> Plan:
        return self.embedded.plan(task, context)

    # -- answering

    def look_over(self, task: Task, plan: Plan, context: Context, purse: Purse) -> Attempt:
        base = self.embedded.look_over(task, plan, context, purse)
        if not base.looked:
            return base
        self._entries = coarse_entries(task, context)
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
        said = self._ask(prompts.ANSWER, [told], purse)
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
            self._trace.append("supported by " + ", ".join(w.signal for w in signals))
        elif agrees and said["present"]:
            # The memory's own signal says found by itself; the model's words describe it.
            status, confidence, evidence = "found", base.answer.confidence, list(base.answer.evidence)
        elif agrees or (said["present"] and said["confident"]) or base.answer.status == "unsure":
            # Sources disagree, or nothing that can say no has spoken.
            status, confidence = "unsure", min(base.answer.confidence, 0.5)
            if agrees:
                self._trace.append("the model sees it nowhere, the memory's signal does: a second look decides nothing")
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
            trace=(*base.answer.trace, *self._trace[-8:]),
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
        seen = self._ask(prompts.VISIBLE, [prompts.visible(claim), *there], purse)
        control = self._ask(prompts.VISIBLE, [prompts.visible(claim), *elsewhere], purse) if seen else None
        if not seen or not control:
            return ()
        self._trace.append(f"visible in the cited frames: {seen['visible']}; in the control: {control['visible']}")
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
        said = self._ask(prompts.LOCALISE, [told], purse)
        if said is None:
            return own
        numbers = [n for n in dict.fromkeys(said["entries"]) if 1 <= n <= len(coarse)][:BEST]
        near = [m for n in numbers for m in (n - 1, n + 1) if 1 <= m <= len(coarse) and m not in numbers]
        named = [coarse[number - 1].period for number in dict.fromkeys([*numbers, *near])]
        fresh = [p for p in named if not any(p.overlaps(seen) for seen in state.visited)]
        return list(dict.fromkeys([*fresh, *(p for p in own if not any(p.overlaps(q) for q in fresh))]))

    def instruct(self, task: Task, period: Period, state: State, context: Context, purse: Purse) -> Wish:
        """The embedded wish for where and how densely, with what the last answer missed."""
        wish = self.embedded.instruct(task, period, state, context, purse)
        return replaced(wish, why=f"{wish.why}; missing: {self._missing}") if self._missing else wish

    def deepen(self, task: Task, period: Period, wish: Wish, context: Context, purse: Purse) -> Done:
        done = self.embedded.deepen(task, period, wish, context, purse)
        if self.model.limits.images and context.revisit is not None:
            pictures = self._frames(wish.period, context, purse, self.model.limits.images)
            if pictures:
                told = prompts.describe(task.question, self._missing, when_of(wish.period, context))
                said = self._ask(prompts.DESCRIBE, [told, *pictures], purse)
                ids = done.evidence or ids_in(wish.period, context)
                if said is not None and ids:
                    self._entries.append(Entry(wish.period, printable(said["description"], 1200), ids, 1))
                    return replaced(
                        done, evidence=ids, outcome=f"{done.outcome}; described from {len(pictures)} frames"
                    )
        self._entries += [e for e in finer_entries(wish.period, context) if e not in self._entries]
        return done

    def _frames(self, period: Period, context: Context, purse: Purse, limit: int) -> list[Image]:
        if context.revisit is None:
            return []
        limit = int(min(limit, self.model.limits.images, purse.left("frames")))
        if limit < 1:
            return []
        seconds = max((period.t_end_ns - period.t_start_ns) / 1e9, 0.1)
        look = context.revisit.look_again(
            period.stream, period.t_start_ns, period.t_end_ns, max(limit / seconds, 0.01), limit=limit
        )
        purse.pay(frames=len(look.frames))
        return [Image(pixels=frame.image) for frame in look.frames[:limit]]

    # -- the model

    def _ask(self, schema: Mapping[str, Any], content: Sequence[str | Image], purse: Purse) -> dict[str, Any] | None:
        """One object of the schema, repaired once; None where the model, the budget or its words don't give one."""
        if self.failure is not None:
            return None
        messages = [Message("system", (prompts.SYSTEM,)), Message("user", tuple(content))]
        for attempt in range(2):
            reply = self._turn(messages, schema, purse)
            if reply is None:
                return None
            data = reply.data if reply.data is not None else read_object(reply.text, schema)
            if data is not None:
                return dict(data)
            if attempt == 0:
                free = read_object(reply.text)
                wrong = problems(free, schema)[:3] if free is not None else ["it holds no JSON object"]
                again = f"That can't be read: {'; '.join(wrong)}. Reply with the JSON object alone."
                heard = printable(reply.text, 2000) or "(nothing)"
                messages = [*messages, Message("assistant", (heard,)), Message("user", (again,))]
        purse.pay(parse_failures=1)
        self._trace.append("a reply of the model couldn't be read, twice")
        return None

    def _turn(self, messages: Sequence[Message], schema: Mapping[str, Any], purse: Purse) -> Reply | None:
        asked = estimate(messages)
        room = min(self.model.limits.context_tokens, purse.left("tokens")) - asked
        if purse.exhausted("calls", "seconds") or room < LEAST_REPLY:
            self._trace.append("no budget for another call to the model")
            return None
        try:
            reply = self.model.chat(
                messages,
                schema=schema,
                max_tokens=int(min(MOST_REPLY, room)),
                timeout_s=min(CALL_S, purse.left("seconds")),
            )
        except StreammemError as error:
            purse.pay(calls=1)
            if not self._spoke and not isinstance(error, ServiceBusy):
                raise  # nothing was got from it: a person must hear why
            self.failure = error
            self._trace.append(f"the model failed: {error.message}; the rest was done without it")
            return None
        self._spoke = True
        purse.pay(calls=1, tokens=reply.tokens_in + reply.tokens_out)
        return reply

    # -- the rest

    def nothing(self, task: Task, why: str) -> Answer:
        return self.embedded.nothing(task, why)

    def finish(self, answer: Answer, spent: Spent) -> Answer:
        return self.embedded.finish(answer, spent)


def estimate(messages: Sequence[Message]) -> int:
    """Tokens of a prompt, rather too many: a picture counts 800 (1,024 x 768 in common vision models)."""
    pieces = [piece for message in messages for piece in message.content]
    text = sum(len(piece.encode("utf-8", "replace")) for piece in pieces if isinstance(piece, str))
    return text // CHARACTERS_A_TOKEN + 800 * sum(isinstance(piece, Image) for piece in pieces) + 8 * len(messages)


def answer_note(said: Mapping[str, Any]) -> str:
    sure = "confident" if said["confident"] else "not confident"
    return f"the model is {sure}, cites {len(said['entries'])} entries"


def _record(context: Context, number: int) -> Any:
    view = deepest(context)
    read = getattr(view, "record", None) or getattr(context.view, "record", None)
    return read(number) if read is not None else None
