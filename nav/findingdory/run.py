"""The mini benchmark: procedural homes, the 60 task types, agents compared; resumable, one file for each episode.

Its numbers are never a FindingDory score: other houses, other pictures, our wording of the instructions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from nav.env import AgentPose
from nav.findingdory import metrics
from nav.findingdory.agents import Agent, Asked, LastVisible, Oracle, RandomFrame
from nav.findingdory.goals import Profile
from nav.findingdory.memory_agents import MEMORY_AGENTS, MemoryAgent, memory_agent
from nav.findingdory.report import EpisodeResult, keep, load, markdown, save, summary
from nav.findingdory.tasks import Question, questions
from nav.homes.simulation import HomeSimulation
from nav.source import HomeSource
from streammem.config import Config
from streammem.errors import ConfigError, InputError

Make = Callable[[HomeSource, dict[int, Question]], Agent]
AGENTS: dict[str, Make] = {
    "oracle": lambda source, asked: Oracle(source.experience, asked),
    "random": lambda source, asked: RandomFrame(),
    "last_visible": lambda source, asked: LastVisible(),
    **{name: partial(memory_agent, name) for name in MEMORY_AGENTS},
    "pixels": lambda source, asked: pixel_agent(),
    "llm": lambda source, asked: model_agent(),
}
"""By name. To add one: a line here. Only the oracle may touch ``source.experience``."""
NOTE = "mini benchmark on procedural homes; not a FindingDory score"


def pixel_agent() -> MemoryAgent:
    """Imported when asked for: it opens encoders."""
    from nav.findingdory.pixel_agent import PixelAgent

    return PixelAgent()


def model_agent(config: Config | None = None) -> MemoryAgent:
    """The configured chat model (``reason.endpoint`` and ``reason.model``; None: from the environment, as
    ``STREAMMEM__REASON__ENDPOINT``). Raises ConfigError where there is none."""
    from nav.findingdory.model_agent import ModelAgent
    from streammem.reason.local import LocalModel
    from streammem.reason.models import Endpoint
    from streammem.settings import load_settings

    settings = (config or load_settings().config).reason
    if settings.endpoint:
        return ModelAgent(Endpoint(settings.endpoint, settings.model, timeout_s=settings.timeout_seconds))
    if settings.model:
        return ModelAgent(LocalModel(settings.model))
    raise ConfigError(
        "the agent llm needs a model", hint="set STREAMMEM__REASON__ENDPOINT and STREAMMEM__REASON__MODEL"
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """What decides an episode's numbers. ``interactions`` 0: by the seed."""

    draw: str = "gl"
    profile: Profile = "strict"
    interactions: int = 0
    size: str = "120x160"
    drive: bool = False

    def scene(self, seed: int) -> str:
        return f"{seed}?interactions={self.interactions}&size={self.size}&labels=1&draw={self.draw}"


def run_episode(seed: int, names: Sequence[str], setting: Setting) -> list[EpisodeResult]:
    """Every agent on one experience; it is drawn once for all that look. Raises InputError, SourceError."""
    unknown = [name for name in names if name not in AGENTS]
    if unknown:
        raise InputError(f"no agent is called {unknown[0]!r}", hint=f"known are {', '.join(AGENTS)}")
    source = HomeSource(setting.scene(seed), fps=1000.0)
    experience = source.experience
    asked = {one.task: one for one in questions(experience.log, seed=seed, profile=setting.profile)}
    made = [AGENTS[name](source, asked) for name in names]
    results = []
    for agent in made:
        agent.reset(seed)
        results.append(
            EpisodeResult(str(seed), agent.name, asdict(setting), len(experience.frames), len(experience.interactions))
        )
    _watch(source, made, results)
    for agent, result in zip(made, results, strict=True):
        for question in asked.values():
            result.rows[str(question.task)] = _ask(agent, question, source, setting, result)
        result.memory_bytes = agent.disk_bytes() if isinstance(agent, MemoryAgent) else 0
    return results


def _watch(source: HomeSource, agents: Sequence[Agent], results: Sequence[EpisodeResult]) -> None:
    """Show every frame to the agents that look; each one's own seconds are counted, and those of drawing."""
    watching = [(agent, result) for agent, result in zip(agents, results, strict=True) if agent.pictures]
    if not watching:
        return
    drawn_s, before = 0.0, time.perf_counter()
    for frame in source.frames():
        now = time.perf_counter()
        drawn_s += now - before
        for agent, result in watching:
            began = time.perf_counter()
            agent.see(frame)
            result.watch_s += time.perf_counter() - began
        before = time.perf_counter()
    for result in results:
        result.draw_s = drawn_s


def _ask(
    agent: Agent, question: Question, source: HomeSource, setting: Setting, result: EpisodeResult
) -> dict[str, Any]:
    truth = source.experience.truth
    began = time.perf_counter()
    said = agent.answer(Asked(question.task, question.text, truth.frames))
    result.answer_s += time.perf_counter() - began
    solvable = truth.answer(question) != [[-1]]
    judged = metrics.high_level(question.goal, said, truth, profile=setting.profile)
    return {
        "question": question.text,
        "said": said,
        "success": judged.success,
        "dtg": judged.dtg,
        "sc": judged.sc,
        "spl": judged.spl,
        "failure": judged.failure,
        "solvable": solvable,
        "goals": list(question.goal.entities),
        **(_driven(agent, said or [], question, source, setting) if setting.drive and _drives(agent) else {}),
    }


def _drives(agent: Agent) -> TypeGuard[MemoryAgent]:
    return isinstance(agent, MemoryAgent) and agent.drives


def _driven(
    agent: MemoryAgent, said: list[int], question: Question, source: HomeSource, setting: Setting
) -> dict[str, Any]:
    """Today's robot, in the house as yesterday left it, at the place where yesterday ended."""
    experience = source.experience
    body = HomeSimulation(experience.home, clock=experience.clock)
    body.arrange(experience.placements()[0])
    body.pose = experience.final_pose
    truth = experience.truth

    def seen(pose: AgentPose) -> dict[str, metrics.Reading]:
        return {name: truth.reading_at(name, pose) for name in question.goal.entities}

    judged = metrics.low_level(question.goal, agent.drive(body, said, seen), truth, profile=setting.profile)
    return {"ll_success": judged.success, "ll_spl": judged.spl, "ll_failure": judged.failure}


def run(
    seeds: Iterable[int],
    names: Sequence[str],
    setting: Setting,
    out: Path,
    *,
    told: Callable[[int, float], None] | None = None,
    pictures: bool = True,
) -> dict[str, Any]:
    """All episodes into ``out``; what is there already with the same setting is not run again. Returns the report, also
    written as ``report.json`` and ``report.md``."""
    out.mkdir(parents=True, exist_ok=True)
    results: list[EpisodeResult] = []
    for seed in seeds:
        began = time.perf_counter()
        kept = {name: load(out, str(seed), name, asdict(setting)) for name in names}
        missing = [name for name in names if kept[name] is None]
        for result in run_episode(seed, missing, setting) if missing else []:
            kept[result.agent] = result
            keep(out, result)
        results += [one for one in kept.values() if one is not None]
        if pictures and missing:
            _picture(out, seed, setting, [one for one in kept.values() if one is not None])
        if told is not None:
            told(seed, time.perf_counter() - began)
    report = summary(results, asdict(setting), NOTE)
    save(out / "report.json", json.dumps(report, indent=1))
    save(out / "report.md", markdown(report))
    return report


def parse_seeds(text: str) -> list[int]:
    """``0-19`` or ``3,5,8`` or both. Raises InputError."""
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise InputError(f"the episodes {text!r} can't be read", hint="use 0-19 or 3,5,8")
        last = int(high) if dash else int(low)
        if not int(low) <= last <= int(low) + 100_000:
            raise InputError(f"the episodes {part!r} go backwards or are too many", hint="use 0-19")
        found += range(int(low), last + 1)
    return list(dict.fromkeys(found))


def _picture(out: Path, seed: int, setting: Setting, results: Sequence[EpisodeResult]) -> None:
    """From above, with the goals of task 56 and what the last agent said to it."""
    from nav.homes.picture import from_above, save

    experience = HomeSource(setting.scene(seed)).experience
    row = results[-1].rows.get("56", {})
    said = [frame for frame in row.get("said") or [] if 0 <= frame < len(experience.frames)]
    save(out / "pictures" / f"{seed}.png", from_above(experience, goals=row.get("goals", []), answers=said))
