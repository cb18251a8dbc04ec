"""How many episodes a second: rendered, and evaluated, by phases. Run it on a machine that does nothing else.

    python -m nav.findingdory.rate --episodes 0-7 --workers 2

An episode is a procedural home with a day in it. *Rendered*: home and day are made, and each frame is drawn with
depth, instances and labels. *Evaluated*: that, and an agent watches it, reads its memory, answers every question, and
the judge finds out what was right. Workers are processes that share nothing; their start isn't counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

from streammem.errors import InputError, StreammemError

T = TypeVar("T")
PHASES = ("make", "draw", "watch", "read", "answer", "judge")
"""Home, day and questions; pictures, depth, instances, labels; what the agent does with each frame; reading its memory
once; all answers; view points, rays and predicates of all of them."""


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(PHASES, 0.0)

    def run(self, phase: str, act: Callable[..., T], *arguments: Any) -> T:
        began = time.perf_counter()
        try:
            return act(*arguments)
        finally:
            self.spent[phase] += time.perf_counter() - began


def episode(seed: int, agent: str, draw: str, size: str) -> dict[str, Any]:
    """One episode in this process: its frames and questions, and seconds by phase. ``agent`` empty: only drawn."""
    from nav.findingdory import metrics
    from nav.findingdory.agents import Asked
    from nav.findingdory.lives import make_agent
    from nav.findingdory.memory_agents import MemoryAgent
    from nav.findingdory.tasks import questions
    from nav.source import HomeSource

    clock = Clock()
    scene = f"{seed}?size={size}&labels=1&draw={draw}"
    source = clock.run("make", partial(HomeSource, scene, fps=1000.0))
    told: dict[str, Any] = {"seed": seed, "frames": len(source.experience.frames), "questions": 0, "right": 0}
    made = make_agent(agent) if agent else None
    if made is not None:
        made.reset(seed)
    frames = source.frames()
    while (frame := clock.run("draw", next, frames, None)) is not None:
        if made is not None and made.pictures:
            clock.run("watch", made.see, frame)
    if made is not None:
        truth = source.experience.truth
        log = clock.run("judge", lambda: source.experience.log)
        asked = clock.run("make", partial(questions, log, seed=seed))
        if isinstance(made, MemoryAgent):
            clock.run("watch", made.rest)
            clock.run("read", made.recollect)
        for one in asked:
            words = Asked(one.task, one.text, truth.frames)
            said = clock.run("answer", made.answer, words)
            right = clock.run("judge", metrics.high_level, one.goal, said, truth)
            told["right"] += right.success
        told["questions"] = len(asked)
        if isinstance(made, MemoryAgent):
            made.close()
    return {**told, "seconds": clock.spent}


def _ready() -> bool:
    """Imports that every worker does once."""
    import nav.findingdory.lives
    import nav.source  # noqa: F401

    return True


def measure(seeds: Sequence[int], workers: int, agent: str, draw: str, size: str) -> dict[str, Any]:
    """All episodes on ``workers`` processes, drawn and evaluated one after the other. Raises InputError."""
    if not seeds or not 1 <= workers <= 256:
        raise InputError(f"{len(seeds)} episodes on {workers} workers", hint="at least one of each")
    report: dict[str, Any] = {"episodes": list(seeds), "workers": workers, "agent": agent, "draw": draw, "size": size}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for ready in [pool.submit(_ready) for _ in range(workers)]:
            ready.result()
        for name, who in (("rendered", ""), ("evaluated", agent)):
            began = time.perf_counter()
            told = [one.result() for one in [pool.submit(episode, seed, who, draw, size) for seed in seeds]]
            wall = time.perf_counter() - began
            report[name] = {
                "episodes_a_second": round(len(seeds) / wall, 4),
                "frames_a_second": round(sum(one["frames"] for one in told) / wall, 1),
                "wall_s": round(wall, 2),
                "frames": sum(one["frames"] for one in told),
                "questions": sum(one["questions"] for one in told),
                "right": sum(one["right"] for one in told),
                "seconds_an_episode": {
                    phase: round(sum(one["seconds"][phase] for one in told) / len(told), 3) for phase in PHASES
                },
            }
    return report


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    head = f"{len(report['episodes'])} episodes of {report['size']}, {report['workers']} workers, {report['draw']}, "
    titles = ["", "episodes/s", "frames/s", *(f"{phase}, s an episode" for phase in PHASES)]
    lines = [head + f"agent {report['agent']}", "", "| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for name in ("rendered", "evaluated"):
        one = report[name]
        cells = " | ".join(f"{one['seconds_an_episode'][phase]:.2f}" for phase in PHASES)
        lines.append(f"| {name} | {one['episodes_a_second']:.3f} | {one['frames_a_second']:.0f} | {cells} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m nav.findingdory.rate``."""
    from nav.findingdory.run import parse_seeds

    parser = argparse.ArgumentParser(prog="python -m nav.findingdory.rate", description=__doc__)
    parser.add_argument("--episodes", default="0-7", help="seeds: 0-7 or 3,5")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--agent", default="memory")
    parser.add_argument("--draw", default="gl", choices=("gl", "rays"))
    parser.add_argument("--size", default="120x160")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    try:
        report = measure(parse_seeds(given.episodes), given.workers, given.agent, given.draw, given.size)
    except StreammemError as error:
        print(f"{error.message} ({error.hint})", file=sys.stderr)
        return 2
    print(json.dumps(report) if given.json else markdown(report), end="" if not given.json else "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
