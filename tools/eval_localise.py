"""Does the best-scoring period hold the truth more often than chance? What backtracking can gain depends on it.

    streammem watch FILM --memory DIR --set perception.sampling=fixed
    python tools/eval_localise.py --memory bbb=DIR [--memory outdoors=DIR2 ...]

For every phase of a base that looked at every n-th second: the recording in periods, ordered by the best score of the
base's rows in each. Is a period with the truth among the first three, and how often would it be by chance? Counted
apart: questions whose truth the base has *missed* are those that only a second look can answer.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
for folder in (REPOSITORY, REPOSITORY / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from queries import Question, load_queries  # noqa: E402
from streammem.config import Config  # noqa: E402
from streammem.memory import open as open_memory  # noqa: E402
from streammem.reason.looking import row_scores  # noqa: E402
from streammem.recall.search import find  # noqa: E402

SLACK_S = 0.5
FIRST = 3
SETTINGS = ((4, 10), (8, 20), (16, 40))
"""Seconds between the base's looks, and of a period (the ladder's first with at least two looks)."""


def by_chance(periods: int, true: int) -> float:
    """The probability that at least one of ``true`` periods is among the first three of a random order."""
    return 1.0 - math.comb(periods - true, FIRST) / math.comb(periods, FIRST)


def judged(
    question: Question, t_s: np.ndarray, score: np.ndarray, every: int, scope: int, phase: int
) -> tuple[bool, bool, float] | None:
    """(missed by the base, among the first three, by chance); None where every period holds the truth, or there are
    fewer than three."""
    rows = np.flatnonzero(np.floor(t_s).astype(int) % every == phase)
    place = (t_s[rows] // scope).astype(int)
    best = {int(number): float(score[rows][place == number].max()) for number in np.unique(place)}
    true = {n for n in best for start, end in question.spans if start < (n + 1) * scope and end > n * scope}
    if not true or len(best) < FIRST or len(true) == len(best):
        return None
    seen = any(((t_s[rows] >= start - SLACK_S) & (t_s[rows] <= end + SLACK_S)).any() for start, end in question.spans)
    order = sorted(best, key=lambda number: (-best[number], number))
    return not seen, bool(true & set(order[:FIRST])), by_chance(len(best), len(true))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", action="append", required=True, metavar="SOURCE=DIR")
    args = parser.parse_args()
    counted: dict[tuple[int, int, bool], list[tuple[bool, float]]] = defaultdict(list)
    for pair in args.memory:
        source, _, place = pair.partition("=")
        with open_memory(Path(place), config=Config(), mode="read") as memory:
            for question in (q for q in load_queries().present if q.source.name == source):
                for group, score in row_scores(find(memory, question.query, k=20)):
                    usable = np.where(np.isfinite(score), score, -1e9)
                    for every, scope in SETTINGS:
                        for phase in range(every):
                            found = judged(question, group.t_start_ns / 1e9, usable, every, scope, phase)
                            if found is not None:
                                counted[every, scope, found[0]].append(found[1:])
    print(f"{'base':>8}{'period':>8}  {'truth':10}{'cases':>7}{'in first three':>16}{'by chance':>11}")
    for (every, scope, missed), cases in sorted(counted.items()):
        hit, chance = np.mean(np.array(cases, float), axis=0)
        name = "missed" if missed else "looked at"
        print(f"{f'1/{every}':>8}{f'{scope} s':>8}  {name:10}{len(cases):7}{hit:16.3f}{chance:11.3f}")


if __name__ == "__main__":
    main()
