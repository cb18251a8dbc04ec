"""The mini benchmark: procedural homes, the 60 task types, agents compared; resumable, one file for each episode.

Its numbers are never a FindingDory score: other houses, other pictures, our wording of the instructions.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from nav.env import AgentPose
from nav.findingdory import metrics
from nav.findingdory.agents import Agent, Asked, LastVisible, Oracle, RandomFrame
from nav.findingdory.goals import Profile
from nav.findingdory.memory_agents import MEMORY_AGENTS, MemoryAgent, memory_agent
from nav.findingdory.metered import Metered
from nav.findingdory.report import EpisodeResult, keep, load, markdown, save, summary
from nav.findingdory.tasks import Question
from nav.findingdory.worlds import HomeWorld, World, said_to
from streammem.errors import ConfigError, InputError

Make = Callable[[World, dict[int, Question]], Agent]
AGENTS: dict[str, Make] = {
    "oracle": lambda world, asked: Oracle(world.truth, asked),
    "random": lambda world, asked: RandomFrame(),
    "last_visible": lambda world, asked: LastVisible(),
    **{name: partial(memory_agent, name) for name in MEMORY_AGENTS},
    "pixels": lambda world, asked: pixel_agent(),
    "llm": lambda world, asked: model_agent(),
}
"""By name. To add one: a line here. Only the oracle may touch ``world.truth``."""
NOTE = "mini benchmark on procedural homes; not a FindingDory score"


def pixel_agent() -> MemoryAgent:
    """Imported when asked for: it opens encoders."""
    from nav.findingdory.pixel_agent import PixelAgent

    return PixelAgent()


def model_agent(model: Callable[[], Metered] | None = None) -> MemoryAgent:
    """``model`` gives the chat model and its purse; None: the configured one (``reason.endpoint`` and
    ``reason.model``, from the environment as ``STREAMMEM__REASON__ENDPOINT``). Raises ConfigError where there is
    none."""
    from nav.findingdory.model_agent import ModelAgent

    return ModelAgent((model or configured_model)())


def configured_model() -> Metered:
    """Raises ConfigError where none is configured."""
    from streammem.reason.local import LocalModel
    from streammem.reason.models import Endpoint
    from streammem.settings import load_settings

    settings = load_settings().config.reason
    if settings.endpoint:
        return Metered(Endpoint(settings.endpoint, settings.model, timeout_s=settings.timeout_seconds))
    if settings.model:
        return Metered(LocalModel(settings.model))
    raise ConfigError("the agent llm needs a model", hint="--endpoint URL --model NAME, or --model FOLDER")


@dataclass(frozen=True, slots=True)
class Setting:
    """What decides an episode's numbers. ``interactions`` 0: by the seed. ``data`` names published files, ``model`` the
    chat model of the agent llm: of another one, results are not taken over."""

    draw: str = "gl"
    profile: Profile = "strict"
    interactions: int = 0
    size: str = "120x160"
    drive: bool = False
    data: str = ""
    model: str = ""

    def scene(self, seed: int) -> str:
        return f"{seed}?interactions={self.interactions}&size={self.size}&labels=1&draw={self.draw}"


def run_episode(seed: int, names: Sequence[str], setting: Setting) -> list[EpisodeResult]:
    """Every agent on one procedural home."""
    return run_world(HomeWorld(seed, setting.scene(seed)), names, setting)


def run_world(
    world: World, names: Sequence[str], setting: Setting, agents: Mapping[str, Make] | None = None
) -> list[EpisodeResult]:
    """Every agent on one experience; it is drawn once for all that look. Raises InputError, SourceError."""
    known = {**AGENTS, **(agents or {})}
    check_agents(names, known)
    asked = {one.task: one for one in world.questions(setting.profile)}
    made = [known[name](world, asked) for name in names]
    results = []
    for agent in made:
        agent.reset(_seed_of(world.name))
        result = EpisodeResult(world.name, agent.name, asdict(setting), world.truth.frames, world.interactions)
        results.append(result)
    _watch(world, made, results)
    for agent, result in zip(made, results, strict=True):
        for question in asked.values():
            result.rows[str(question.task)] = _ask(agent, question, world, setting, result)
        result.memory_bytes = agent.disk_bytes() if isinstance(agent, MemoryAgent) else 0
        result.model = dict(getattr(agent, "costs", dict)())
        if isinstance(agent, MemoryAgent):
            agent.close()
    return results


def check_agents(names: Sequence[str], known: Mapping[str, Make] = AGENTS) -> None:
    """Raises InputError for a name that no agent has."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"no agent is called {unknown[0]!r}", hint=f"known are {', '.join(known)}")


def _seed_of(name: str) -> int:
    return int(name) if name.isdigit() else zlib.crc32(name.encode())


def _watch(world: World, agents: Sequence[Agent], results: Sequence[EpisodeResult]) -> None:
    """Show every frame to the agents that look; each one's own seconds are counted, and those of drawing."""
    watching = [(agent, result) for agent, result in zip(agents, results, strict=True) if agent.pictures]
    if not watching:
        return
    drawn_s, before = 0.0, time.perf_counter()
    for frame in world.watch():
        now = time.perf_counter()
        drawn_s += now - before
        for agent, result in watching:
            began = time.perf_counter()
            agent.see(frame)
            result.watch_s += time.perf_counter() - began
        before = time.perf_counter()
    for result in results:
        result.draw_s = drawn_s


def _ask(agent: Agent, question: Question, world: World, setting: Setting, result: EpisodeResult) -> dict[str, Any]:
    truth = world.truth
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
        # Quirk counts_unsolvable: what no frame solves is a failure.
        "counts": solvable or setting.profile == "official",
        "goals": list(question.goal.entities),
        **(_driven(agent, said or [], question, world, setting) if setting.drive and _drives(agent) else {}),
    }


def _drives(agent: Agent) -> TypeGuard[MemoryAgent]:
    return isinstance(agent, MemoryAgent) and agent.drives


def _driven(agent: MemoryAgent, said: list[int], question: Question, world: World, setting: Setting) -> dict[str, Any]:
    truth = world.truth

    def seen(pose: AgentPose) -> dict[str, metrics.Reading]:
        return {name: truth.reading_at(name, pose) for name in question.goal.entities}

    trace = agent.drive(world.body(), said, seen)
    judged = metrics.low_level(question.goal, trace, truth, profile=setting.profile)
    return {"ll_success": judged.success, "ll_spl": judged.spl, "ll_failure": judged.failure}


def run(
    seeds: Iterable[int],
    names: Sequence[str],
    setting: Setting,
    out: Path,
    *,
    told: Callable[[str, float], None] | None = None,
    pictures: bool = True,
    agents: Mapping[str, Make] | None = None,
) -> dict[str, Any]:
    """Procedural homes by their seeds, as :func:`run_worlds`."""
    opened = {str(seed): partial(HomeWorld, seed, setting.scene(seed)) for seed in seeds}
    return run_worlds(opened, names, setting, out, NOTE, told=told, pictures=pictures, agents=agents)


def run_worlds(
    worlds: Mapping[str, Callable[[], World]],
    names: Sequence[str],
    setting: Setting,
    out: Path,
    note: str,
    *,
    told: Callable[[str, float], None] | None = None,
    pictures: bool = True,
    agents: Mapping[str, Make] | None = None,
) -> dict[str, Any]:
    """All episodes into ``out``; what is there already with the same setting is not run again. ``worlds``: how each is
    opened, by name; ``agents``: more of them, or other ones for a name. Returns the report, also written as
    ``report.json`` and ``report.md``."""
    check_agents(names, {**AGENTS, **(agents or {})})
    out.mkdir(parents=True, exist_ok=True)
    results: list[EpisodeResult] = []
    for episode, opened in worlds.items():
        began = time.perf_counter()
        kept = {name: load(out, episode, name, asdict(setting)) for name in names}
        missing = [name for name in names if kept[name] is None]
        if missing:
            world = opened()
            try:
                for result in run_world(world, missing, setting, agents):
                    kept[result.agent] = result
                    keep(out, result)
                if pictures:
                    last = [one for one in kept.values() if one is not None][-1]
                    goals, said = said_to(last.rows, "56", last.frames)
                    world.picture(out / "pictures" / f"{episode}.png", goals, said)
            finally:
                world.close()
        results += [one for one in kept.values() if one is not None]
        if told is not None:
            told(episode, time.perf_counter() - began)
    report = summary(results, asdict(setting), note)
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
