"""Temporal recall of evidence: backtracking against one look at equal cost, on the film's questions.

    streammem watch FILM --memory DIR --set perception.sampling=fixed
    python tools/eval_backtrack.py --memory DIR [--every 8] [--json out.json]

The memory holds one frame a second, all in full. A *base* that looked at every ``--every``-th of them is what a
question starts from; backtracking reveals more frames of the periods that it chooses, and each of them is paid for. One
look at equal cost has as many frames as the base and the second look together, at even distances. Nothing is encoded
twice, so all see the same vectors. A question is right at rank r where the best frame of one of the first r moments
lies in one of its spans, widened by half a second; ``covered`` is the share of questions of which a frame inside the
truth was looked at at all.
"""

from __future__ import annotations

import argparse
import json
import sys
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
from streammem.reason.base import Budget, Context, Deeper, Period, Task  # noqa: E402
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
        new: list[int] = []
        for block in self.memory.blocks("moments", [period.stream], (period.t_start_ns, period.t_end_ns)):
            times = np.asarray(block.t_start_ns)
            inside = (times >= period.t_start_ns) & (times <= period.t_end_ns)
            new += [int(number) for number in np.asarray(block.record_ids)[inside]]
        wanted = min(limit, max(1, round((period.t_end_ns - period.t_start_ns) / 1e9 * fps)))
        fresh = [number for number in evenly_chosen(new, wanted) if number not in self.shown]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", type=Path, required=True)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--source", default="bbb")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    queries = load_queries()
    present = [q for q in queries.present if q.source.name == args.source]
    absent = [q for q in queries.absent if q.source.name == args.source]
    rows: dict[str, list[dict[str, float]]] = {"base": [], "backtracking": [], "one look, equal cost": [], "all": []}
    false_found = dict.fromkeys(rows, 0)
    with open_memory(args.memory, config=Config(), mode="read") as memory:
        for question in (*present, *absent):
            reveal = Reveal(memory, args.every)
            base = len(frame_times(reveal.view))
            task = Task(question=question.query)
            context = Context(view=reveal.view, deepener=reveal)
            result = open_reasoner("embedded").reason(task, context, Budget(rounds=args.rounds))
            total = len(frame_times(reveal.view))
            one = uniform_view(memory, task, total)
            looked = {
                "base": (Thinned(memory, Reveal(memory, args.every).rows), None, base),
                "backtracking": (reveal.view, result.answer, total),
                "one look, equal cost": (one, None, total),
                "all": (memory, None, len(frame_times(memory))),
            }
            for name, (view, answer, frames) in looked.items():
                if answer is None:
                    answer = open_reasoner("embedded").reason(task, Context(view=view), Budget(rounds=0)).answer
                if not question.spans:
                    false_found[name] += answer.status == "found"
                    continue
                rank = rank_of(answer, question)
                rows[name].append(
                    {
                        "R@1": float(rank <= 1),
                        "R@5": float(rank <= 5),
                        "covered": float(covered(frame_times(view), question)),
                        "found": float(answer.status == "found"),
                        "found and right": float(answer.status == "found" and rank <= 1),
                        "frames": float(frames),
                    }
                )
    report = {name: {key: float(np.mean([r[key] for r in some])) for key in some[0]} for name, some in rows.items()}
    print(f"{len(present)} questions on what is there, {len(absent)} on what is absent; base 1/{args.every} fps")
    print(f"{'':22}{'frames':>8}{'covered':>9}{'R@1':>7}{'R@5':>7}{'found':>7}{'right':>7}{'false found':>13}")
    for name, values in report.items():
        print(
            f"{name:22}{values['frames']:8.1f}{values['covered']:9.3f}{values['R@1']:7.3f}{values['R@5']:7.3f}"
            f"{values['found']:7.3f}{values['found and right']:7.3f}{false_found[name]:8d}/{len(absent)}"
        )
        values["false found"] = false_found[name]
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
