"""Ways to answer, by name: the backtracking loop and the baselines that it is measured against.

``embedded`` backtracks without a model; ``flat`` scores one flat list of captions, ``uniform`` looks at frames at even
distances, ``blind`` doesn't look at all. In one replication of VideoLucy a flat dump of all captions beat every tree
(dossier 1.10), so each of them is a strategy of its own, with the same bar for ``found``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import msgspec
import numpy as np

from streammem.banks.timeline import scope_for
from streammem.errors import ConfigError, QueryError
from streammem.model import Answer
from streammem.reason.agents import Attempt, EmbeddedAgents
from streammem.reason.backtrack import backtrack
from streammem.reason.base import Budget, Context, Purse, Reasoned, Reasoner, Stage, Step, Task
from streammem.reason.likelihood import choose, option_scores
from streammem.reason.looking import LEAF_NS, bounds_of
from streammem.recall.layers import Thinned, evenly
from streammem.recall.plan import Plan
from streammem.recall.search import Found, Hit, find
from streammem.recall.timeline import View
from streammem.spaces import EmbeddingSpace
from streammem.storage.blocks import Block

STRATEGIES: dict[str, str] = {
    "embedded": "streammem.reason.strategies:Embedded",
    "flat": "streammem.reason.strategies:Flat",
    "uniform": "streammem.reason.strategies:Uniform",
    "blind": "streammem.reason.strategies:Blind",
    "llm": "streammem.reason.llm:Llm",
}
"""Name -> where it is; imported when it is opened."""

UNIFORM_FRAMES = 32
FLAT_ENTRIES = 80
"""Captions of a flat list, at most: a coarse list has 20 to 40, this is one step finer. Each costs one sentence vector:
5 ms on an idle core."""


def open_reasoner(name: str) -> Reasoner:
    """The strategy called ``name``. Raises ConfigError for an unknown one."""
    where = STRATEGIES.get(name)
    if where is None:
        raise ConfigError(f"no reasoner is called {name!r}", hint=f"one of {', '.join(STRATEGIES)}")
    module, _, attribute = where.partition(":")
    return getattr(import_module(module), attribute)()


class Embedded:
    """Backtracking with the embedded agents."""

    name = "embedded"

    def reason(self, task: Task, context: Context, budget: Budget, state: bytes | None = None) -> Reasoned:
        return backtrack(self.name, EmbeddedAgents(), task, context, budget, state)


class _OneShot:
    """A baseline: one look, no loop. ``look`` is what it sees of the memory."""

    name = ""
    stage: Stage = "forced"

    def reason(self, task: Task, context: Context, budget: Budget, state: bytes | None = None) -> Reasoned:
        purse = Purse(budget, None, context.clock)
        agents = EmbeddedAgents()
        if short := purse.exhausted("seconds", "records"):
            answer = agents.nothing(task, f"the budget allows no {short}")
            return self._reasoned(answer, None, purse, short, Step("stop", f"budget: {short} spent"))
        plan = agents.plan(task, context)
        if plan.future or plan.empty:
            what = "lies in the future" if plan.future else "lies where nothing is remembered"
            answer = agents.nothing(task, f"the time that is asked about {what}")
            return self._reasoned(answer, None, purse, "", Step("plan", what))
        attempt, step = self.look(agents, task, plan, context, purse)
        if context.progress is not None:
            context.progress(step)
        return self._reasoned(agents.finish(attempt.answer, purse.tick()), attempt, purse, attempt.short, step)

    def _reasoned(self, answer: Answer, attempt: Attempt | None, purse: Purse, short: str, step: Step) -> Reasoned:
        looked = attempt is not None and attempt.looked
        return Reasoned(
            answer=answer,
            reasoner=self.name,
            stage="budget" if short else self.stage if looked else "gate" if attempt is None else "empty",
            option=attempt.option if attempt is not None else None,
            option_scores=attempt.option_scores if attempt is not None else (),
            partial=bool(short),
            why=f"the budget of {short} is spent" if short else "",
            spent=purse.tick(),
            steps=(step,),
        )

    def look(
        self, agents: EmbeddedAgents, task: Task, plan: Plan, context: Context, purse: Purse
    ) -> tuple[Attempt, Step]:
        raise TypeError(f"{type(self).__name__} has no way to look")


class Uniform(_OneShot):
    """Rows at even distances, as many as the budget has frames (32 where it says nothing)."""

    name = "uniform"

    def look(
        self, agents: EmbeddedAgents, task: Task, plan: Plan, context: Context, purse: Purse
    ) -> tuple[Attempt, Step]:
        limit = purse.left("frames")
        count = UNIFORM_FRAMES if limit == float("inf") else int(limit)
        count = int(min(count, purse.left("records")))
        view = uniform_view(context.view, task, count)
        attempt = agents.look_over(task, plan, Context(view), purse)
        purse.pay(frames=count)
        return attempt, Step("coarse", f"{count} looks at even distances", (), attempt.evidence, attempt.why)


def uniform_view(view: View, task: Task, count: int) -> Thinned:
    """A view of the ``count`` rows nearest to evenly spaced instants of what is remembered."""
    bounds = bounds_of(view, task) or (0, 0)
    # The middles of equal parts: the ends of a recording are its least telling frames.
    times = bounds[0] + (2 * np.arange(count) + 1) * (bounds[1] - bounds[0]) // max(2 * count, 1)

    def rows(block: Block) -> np.ndarray:
        starts = np.asarray(block.t_start_ns)
        near = times[(times >= starts[0] - NEAR_NS) & (times <= starts[-1] + NEAR_NS)] if len(starts) else times[:0]
        return evenly(starts, near) if len(near) else np.zeros(0, np.int64)

    return Thinned(view, rows)


NEAR_NS = 1_000_000_000
"""An instant between two blocks belongs to both, if it is this near: a frame too many, never one too few."""


class Flat(_OneShot):
    """One list of captions of everything, finest first that fits; the question against each of them by its words."""

    name = "flat"

    def look(
        self, agents: EmbeddedAgents, task: Task, plan: Plan, context: Context, purse: Purse
    ) -> tuple[Attempt, Step]:
        found = flat_search(context.view, task, plan, purse)
        if found is None:
            attempt = agents.look_over(task, plan, context, purse)
            return attempt, Step("coarse", "no captions here: searched", (), attempt.evidence, attempt.why)
        captions, vectors, spans, space = found
        purse.pay(records=len(captions))
        texts = [f"{plan.phrase} {option}" for option in task.options] or [plan.phrase]
        asked = np.asarray(space.embed_text(texts), np.float32)
        if task.options:
            scores = option_scores(asked, vectors)
            chosen, shares = choose(scores.tolist(), FLAT_TEMPERATURE)
            best = np.argsort(-(vectors @ asked[chosen]), kind="stable")[: task.k]
        else:
            best = np.argsort(-(vectors @ asked[0]), kind="stable")[: task.k]
        phrase = texts[chosen] if task.options else plan.phrase
        parts = [find(context.view, phrase, k=1, between=spans[i][1:], streams=[spans[i][0]]) for i in best]
        hits: list[Hit] = [hit for part in parts for hit in part.hits]
        purse.pay(records=sum(part.rows for part in parts))
        merged = Found(parts[0].query, tuple(hits), len(captions), parts[0].spaces, parts[0].notes)
        attempt = agents.judged(task, context.view, merged)
        if task.options:
            status = attempt.answer.status if attempt.answer.status == "found" else "unsure"
            answer = msgspec.structs.replace(attempt.answer, text=task.options[chosen], status=status)
            ids, enough = attempt.evidence, attempt.enough
            attempt = Attempt(answer, enough, True, ids, option=chosen, option_scores=tuple(shares))
        return attempt, Step("coarse", f"{len(captions)} captions in one list", (), attempt.evidence, attempt.why)


FLAT_TEMPERATURE = 0.05
"""In cosines of sentence embeddings, where options differ by a few hundredths."""


def flat_search(
    view: View, task: Task, plan: Plan, purse: Purse
) -> tuple[list[str], np.ndarray, list[tuple[str, int, int]], EmbeddingSpace] | None:
    """Captions of everything with their vectors (n, d) float32 and stretches; None without a timeline or a space."""
    ask: Callable[..., list[dict[str, object]]] | None = getattr(view, "query", None)
    bounds = bounds_of(view, task)
    if ask is None or bounds is None:
        return None
    names = sorted({b.space for b in view.blocks("moments", task.streams, task.between) if b.space})
    space = next((s for name in names if (s := view.space(name)) is not None), None)
    if space is None:
        return None
    scope = scope_for(*bounds, LEAF_NS, FLAT_ENTRIES)
    lo, hi = task.between or (None, None)
    try:
        rows = ask("timeline", "timeline", streams=task.streams, t_start_ns=lo, t_end_ns=hi, scope_s=scope / 1e9)
    except QueryError:
        return None  # the timeline is switched off in this memory
    captions = [str(row["caption"]) for row in rows]
    if not captions:
        return None
    spans = [(str(r["stream"]), int(str(r["t_start_ns"])), int(str(r["t_end_ns"]))) for r in rows]
    return captions, np.asarray(space.embed_text(captions), np.float32), spans, space


class Blind(_OneShot):
    """No look at the memory: what the words of the question and of the options say alone."""

    name = "blind"
    stage: Stage = "blind"

    def look(
        self, agents: EmbeddedAgents, task: Task, plan: Plan, context: Context, purse: Purse
    ) -> tuple[Attempt, Step]:
        names = sorted({b.space for b in context.view.blocks("moments", task.streams, None) if b.space})
        space = next((s for name in names if (s := context.view.space(name)) is not None), None)
        if not task.options or space is None:
            answer = Answer(task.question, "unsure", "Without looking there is no answer.", 0.0, (), ())
            return Attempt(answer, False), Step("answer", "blind")
        vectors = np.asarray(space.embed_text([task.question, *task.options]), np.float32)
        chosen, shares = choose((vectors[1:] @ vectors[0]).tolist(), FLAT_TEMPERATURE)
        text = f"{task.options[chosen]} (a guess from the words alone)"
        answer = Answer(task.question, "unsure", text, 0.0, (), ())
        made = Attempt(answer, False, option=chosen, option_scores=tuple(shares), why="a guess")
        return made, Step("answer", "blind", outcome=f"option {chosen + 1}")
