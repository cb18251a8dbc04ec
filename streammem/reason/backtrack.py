"""The loop: look over everything coarsely, answer if that suffices, else look more closely, one period a round.

VideoLucy's backtracking (arXiv 2510.12422, Alg. 1) with its released code's defects left out: periods lie on a grid
and are clamped to it, visited ones are removed and never offered again, the stop is a verdict that can be checked, the
cap on rounds and the budget hold, the last answer isn't allowed to lower the bar, and every round ends in a state that
another process can go on from. *How* to look, to choose and to answer is the agents' (``agents.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from streammem.model import Answer
from streammem.reason.agents import Agents, Attempt
from streammem.reason.base import (
    Budget,
    Context,
    Period,
    Purse,
    Reasoned,
    Spent,
    Stage,
    State,
    Step,
    Task,
    join_periods,
)
from streammem.recall.plan import Plan, split_budget

FIRST = 3
"""Periods that the first localisation names; with their neighbours 3 to 9 (VideoLucy, sec. 2.2)."""


@dataclass(slots=True)
class _Log:
    """Steps, and what each of them cost."""

    context: Context
    purse: Purse
    steps: list[Step]
    last: Spent

    def add(
        self,
        action: str,
        why: str = "",
        periods: Sequence[Period] = (),
        evidence: Sequence[int] = (),
        outcome: str = "",
    ) -> None:
        now = self.purse.tick()
        cost = Spent(**{name: getattr(now, name) - getattr(self.last, name) for name in Spent.__struct_fields__})
        self.last = Spent(**{name: getattr(now, name) for name in Spent.__struct_fields__})
        step = Step(action, why, tuple(periods), tuple(evidence[:32]), outcome, cost)
        self.steps.append(step)
        if self.context.progress is not None:
            self.context.progress(step)


def backtrack(
    name: str, agents: Agents, task: Task, context: Context, budget: Budget, state: bytes | None = None
) -> Reasoned:
    """Answer ``task``. ``state`` goes on where an earlier run stopped: what it had visited stays visited, what it had
    spent stays spent. Raises QueryError."""
    kept = State.decode(state) if state else State(task.question)
    if kept.question != task.question:
        kept = State(task.question)
    purse = Purse(budget, kept.spent, context.clock)
    log = _Log(context, purse, [], Spent(**{n: getattr(kept.spent, n) for n in Spent.__struct_fields__}))
    run = _Run(name, agents, task, context, purse, kept, log)
    return run.go()


class _Run:
    def __init__(
        self, name: str, agents: Agents, task: Task, context: Context, purse: Purse, state: State, log: _Log
    ) -> None:
        self.name, self.agents, self.task, self.context = name, agents, task, context
        self.purse, self.state, self.log = purse, state, log
        self.best: Attempt | None = None
        self._attempt_s = 0.0
        """The longest attempt to answer so far: what a further one has to be expected to take."""

    def go(self) -> Reasoned:
        task, log = self.task, self.log
        plan = self.agents.plan(task, self.context)
        understood = ", ".join([*(r.why for r in plan.ranges), *plan.notes]) or "no time is named"
        log.add("plan", f"{plan.gate}; banks {', '.join(plan.banks)}; {understood}")
        if plan.future or plan.empty:
            what = "lies in the future" if plan.future else "lies where nothing is remembered"
            return self._end(self.agents.nothing(task, f"the time that is asked about {what}"), "gate")
        if short := self.purse.exhausted("seconds", "records"):
            return self._end(self.agents.nothing(task, f"the budget allows no {short}"), "budget", short)
        first = self._timed(self.agents.look_over, task, plan, self.context, self.purse)
        self.best = first
        log.add("coarse", "the whole memory, as it is", (), first.evidence, self._say(first))
        self._remember(first)
        if first.enough or not first.looked:
            return self._end(first.answer, "coarse" if first.looked else "empty")
        if not self.state.candidates:
            self.state.candidates = self._localise(plan)
        stage = self._rounds(plan)
        if stage == "loop":
            return self._end(self.best.answer, "loop")
        short = self.purse.exhausted("seconds", "records", "calls", "tokens", "frames") or self._late()
        if not short:
            last = self._timed(self.agents.force, task, plan, self.context, self.purse, self.state)
            log.add("force", "nothing convinced", (), last.evidence, self._say(last))
            self._take(last)
        cut = bool(short) and bool(self.state.candidates)
        return self._end(self.best.answer, "budget" if cut else "forced", short if cut else "")

    def _rounds(self, plan: Plan) -> Stage:
        state, purse = self.state, self.purse
        names = ("rounds", "seconds", "records", "calls", "tokens", "frames")
        while state.candidates and not purse.exhausted(*names) and not self._late():
            period = state.candidates.pop(0)
            if any(period.overlaps(seen) for seen in state.visited):
                continue  # visited periods are really removed
            wish = self.agents.instruct(self.task, period, state, self.context, self.purse)
            if wish.limit < 1:
                state.candidates.insert(0, period)
                self._attempt_s = float("inf")  # nothing more fits into the time
                break
            done = self.agents.deepen(self.task, period, wish, self.context, self.purse)
            state.visited.append(period)
            state.round += 1
            purse.pay(rounds=1)
            self.log.add("deepen", wish.why, (period,), done.evidence, done.outcome)
            if done.evidence or not done.gone:
                attempt = self._timed(self.agents.attempt, self.task, plan, self.context, purse, state)
                self._take(attempt)
                self.log.add("answer", f"after round {state.round}", (), attempt.evidence, self._say(attempt))
            self._save()
            if self.best is not None and self.best.enough:
                return "loop"
            if not state.candidates and not purse.exhausted("rounds"):
                state.candidates = self._localise(plan)
        return "forced"

    def _timed(self, attempt: Callable[..., Attempt], *arguments: Any) -> Attempt:
        begun = self.purse.tick().seconds
        made = attempt(*arguments)
        self._attempt_s = max(self._attempt_s, self.purse.tick().seconds - begun)
        return made

    def _late(self) -> str:
        """``seconds`` where less is left than two attempts took: a round begun now would end beyond the budget."""
        return "seconds" if self.purse.left("seconds") < 2 * self._attempt_s else ""

    def _localise(self, plan: Plan) -> list[Period]:
        """Several periods with their neighbours, visited ones removed, a fifth of them outside the asked range."""
        chosen = self.agents.localise(self.task, plan, self.context, self.purse, self.state)
        fresh = [p for p in chosen if not any(p.overlaps(seen) for seen in self.state.visited)]
        inside = [p for p in fresh if plan.inside(p.t_start_ns, p.t_end_ns)]
        outside = [p for p in fresh if not plan.inside(p.t_start_ns, p.t_end_ns)]
        rounds = self.purse.left("rounds")
        wanted = len(fresh) if rounds == float("inf") else min(len(fresh), int(rounds))
        first, second = split_budget(wanted, plan)
        candidates = inside[: max(first, wanted - len(outside))] + outside[: max(second, wanted - len(inside))]
        self.log.add("localise", f"{len(fresh)} periods to look at", candidates, (), f"{len(inside)} in the asked time")
        return candidates

    def _take(self, attempt: Attempt) -> None:
        """Keep the better of two attempts: more looking never turns a found answer into a lesser one."""
        self._remember(attempt)
        if self.best is None or attempt.rank >= self.best.rank:
            self.best = attempt

    def _remember(self, attempt: Attempt) -> None:
        self.state.hypotheses += attempt.hypotheses
        self.state.bound()

    def _save(self) -> None:
        self.state.spent = self.purse.tick()
        self.state.bound()
        if self.context.save is not None:
            self.context.save(self.state.encode())

    @staticmethod
    def _say(attempt: Attempt) -> str:
        chosen = "" if attempt.option is None else f", option {attempt.option + 1}"
        return f"{attempt.answer.status}{chosen}: {attempt.why}" if attempt.why else f"{attempt.answer.status}{chosen}"

    def _end(self, answer: Answer, stage: Stage, short: str = "") -> Reasoned:
        best = self.best
        short = short or (best.short if best is not None else "")
        self.log.add("stop", f"{stage}{f': {short} spent' if short else ''}", join_periods(self.state.visited))
        self._save()
        return Reasoned(
            answer=self.agents.finish(answer, self.purse.spent),
            reasoner=self.name,
            stage=stage,
            option=best.option if best is not None else None,
            option_scores=best.option_scores if best is not None else (),
            partial=bool(short),
            why=f"the budget of {short} is spent" if short else "",
            spent=self.purse.spent,
            steps=tuple(self.log.steps),
            state=self.state.encode(),
        )
