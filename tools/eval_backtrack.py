"""Temporal recall of evidence: backtracking against one look at equal cost, on the development questions.

    streammem watch FILM --memory DIR --set perception.sampling=fixed
    python tools/eval_backtrack.py --memory bbb=DIR [--memory outdoors=DIR2 ...] [--every 8] [--json out.json]

A memory holds one frame a second, all in full. A *base* that looked at every ``--every``-th of them is what a question
starts from; backtracking reveals more frames of the periods that it chooses, and each of them is paid for. One look at
equal cost has as many frames as the base and the second look together, at even distances. Nothing is encoded twice, so
all see the same vectors. A question is right at rank r where the best frame of one of the first r moments lies in one
of its spans, widened by half a second; ``covered`` is the share of questions of which a frame inside the truth was
looked at at all. Every answer's seconds, calls and frames are held against ``--budget``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
for folder in (REPOSITORY, REPOSITORY / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from queries import Question, load_queries  # noqa: E402
from streammem.cli.deepen import evenly_chosen  # noqa: E402
from streammem.config import Config  # noqa: E402
from streammem.memory import Memory  # noqa: E402
from streammem.memory import open as open_memory  # noqa: E402
from streammem.model import Answer  # noqa: E402
from streammem.reason.base import Budget, Context, Deeper, Period, Spent, Task  # noqa: E402
from streammem.reason.strategies import open_reasoner, uniform_view  # noqa: E402
from streammem.recall.layers import Thinned  # noqa: E402
from streammem.storage.blocks import Block  # noqa: E402

SLACK_S = 0.5
STEP_NS = 1_000_000_000


class Reveal:
    """A deepener over a memory that has it all: a second look shows frames that the base left out."""

    def __init__(self, memory: Memory, every: int) -> None:
        self.memory, self.every = memory, every
        self.shown: set[int] = set()

    def rows(self, block: Block) -> np.ndarray:
        seconds = np.asarray(block.t_start_ns) // STEP_NS
        keep = (seconds % self.every == 0) | np.isin(np.asarray(block.record_ids), np.array(sorted(self.shown)))
        return np.flatnonzero(keep)

    @property
    def view(self) -> Any:
        return Thinned(self.memory, self.rows)

    def deepen(self, period: Period, fps: float, *, limit: int = 64) -> Deeper:
        found: list[tuple[int, int]] = []
        for block in self.memory.blocks("moments", [period.stream], (period.t_start_ns, period.t_end_ns)):
            found += zip(np.asarray(block.t_start_ns).tolist(), np.asarray(block.record_ids).tolist(), strict=True)
        # The frames that a source would give at this rate (``perception.sampling.FixedRate``), less those known.
        grid = {int(t * fps // STEP_NS): number for t, number in sorted(found, reverse=True)}
        seen = {number for t, number in found if (t // STEP_NS) % self.every == 0} | self.shown
        inside = {number for t, number in found if period.t_start_ns <= t <= period.t_end_ns}
        fresh = evenly_chosen([n for _, n in sorted(grid.items()) if n in inside and n not in seen], limit)
        self.shown |= set(fresh)
        return Deeper(period, tuple(fresh), len(fresh), 0)


def rank_of(answer: Answer, question: Question) -> float:
    """Rank of the first moment that touches the truth, inf where none does."""
    moments = list(answer.evidence) + [m for m in answer.closest if m not in answer.evidence]
    for rank, moment in enumerate(moments, 1):
        if moment.frames and question.hit(moment.frames[0].t_ns / 1e9, SLACK_S):
            return rank
    return float("inf")


def frame_times(view: Any) -> np.ndarray:
    return np.concatenate([np.asarray(block.t_start_ns) for block in view.blocks()]) / 1e9


def covered(times: np.ndarray, question: Question) -> bool:
    return any(((times >= start - SLACK_S) & (times <= end + SLACK_S)).any() for start, end in question.spans)


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, 100 * share, method="higher")) if values else 0.0


def over(spent: Spent, budget: Budget) -> list[str]:
    """What of the budget an answer went beyond."""
    limits = {name: getattr(budget, name) for name in ("calls", "seconds", "tokens", "frames", "rounds")}
    return [name for name, limit in limits.items() if limit is not None and getattr(spent, name) > limit]


@dataclass
class Tally:
    """What is counted over all questions."""

    budget: Budget
    every: int
    rows: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    false_found: Counter[str] = field(default_factory=Counter)
    absent: int = 0
    spent: list[Spent] = field(default_factory=list)
    partial: int = 0

    def ask(self, memory: Memory, question: Question) -> None:
        reveal, first = Reveal(memory, self.every), Thinned(memory, Reveal(memory, self.every).rows)
        base = len(frame_times(first))
        task = Task(question=question.query)
        # The memory itself doesn't change while it is asked: only the deepener's view does.
        context = Context(view=first, deepener=reveal)
        result = open_reasoner("embedded").reason(task, context, self.budget)
        self.spent.append(result.spent)
        self.partial += result.partial
        total = len(frame_times(reveal.view))
        one = uniform_view(memory, task, total)
        looked: dict[str, tuple[Any, Answer | None, int]] = {
            "base": (first, None, base),
            "backtracking": (reveal.view, result.answer, total),
            "one look, equal cost": (one, None, total),
            "all": (memory, None, len(frame_times(memory))),
        }
        self.absent += not question.spans
        for name, (view, answer, frames) in looked.items():
            if answer is None:
                answer = open_reasoner("embedded").reason(task, Context(view=view), Budget(rounds=0)).answer
            if not question.spans:
                self.false_found[name] += answer.status == "found"
                continue
            rank = rank_of(answer, question)
            self.rows.setdefault(name, []).append(
                {
                    "R@1": float(rank <= 1),
                    "R@5": float(rank <= 5),
                    "covered": float(covered(frame_times(view), question)),
                    "found": float(answer.status == "found"),
                    "found and right": float(answer.status == "found" and rank <= 1),
                    "frames": float(frames),
                }
            )

    def better_worse(self) -> tuple[int, int]:
        """Questions that backtracking alone has first, and that one look alone has first: the rest are the same."""
        pairs = zip(self.rows["backtracking"], self.rows["one look, equal cost"], strict=True)
        sides = [(mine["R@1"], other["R@1"]) for mine, other in pairs]
        return sides.count((1.0, 0.0)), sides.count((0.0, 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", action="append", required=True, metavar="SOURCE=DIR")
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--budget", default="rounds=5")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    queries = load_queries()
    tally = Tally(Budget.parse(args.budget), args.every)
    for pair in args.memory:
        source, _, place = pair.partition("=")
        with open_memory(Path(place), config=Config(), mode="read") as memory:
            for question in (*queries.present, *queries.absent):
                if question.source.name == source:
                    tally.ask(memory, question)
    present = len(tally.rows.get("base", []))
    report = {
        name: {key: float(np.mean([row[key] for row in some])) for key in some[0]} for name, some in tally.rows.items()
    }
    print(f"{present} questions on what is there, {tally.absent} on what is absent; base 1/{args.every} fps")
    print(f"{'':22}{'frames':>8}{'covered':>9}{'R@1':>7}{'R@5':>7}{'found':>7}{'right':>7}{'false found':>13}")
    for name, values in report.items():
        print(
            f"{name:22}{values['frames']:8.1f}{values['covered']:9.3f}{values['R@1']:7.3f}{values['R@5']:7.3f}"
            f"{values['found']:7.3f}{values['found and right']:7.3f}{tally.false_found[name]:8d}/{tally.absent}"
        )
        values["false found"] = tally.false_found[name]
    more, less = tally.better_worse()
    print(f"first by backtracking alone: {more}; by one look alone: {less}")
    costs = {name: [float(getattr(s, name)) for s in tally.spent] for name in ("seconds", "calls", "frames", "records")}
    for name, values_of in costs.items():
        print(f"{name:8} an answer: p50 {percentile(values_of, 0.5):.3g}, p99 {percentile(values_of, 0.99):.3g}")
    broken = [why for spent in tally.spent for why in over(spent, tally.budget)]
    print(f"over the budget {args.budget}: {len(broken)} of {len(tally.spent)} {dict(Counter(broken)) or ''}".rstrip())
    print(f"partial because of it: {tally.partial}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
