"""The mini benchmark: procedural homes, the 60 task types, agents compared; resumable, one file for each episode.

Its numbers are never a FindingDory score: other houses, other pictures, our wording of the instructions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from nav.env import AgentPose
from nav.findingdory import metrics
from nav.findingdory.agents import Agent, Asked, LastVisible, Oracle, RandomFrame
from nav.findingdory.goals import Profile
from nav.findingdory.memory_agents import MEMORY_AGENTS, MemoryAgent, memory_agent
from nav.findingdory.tasks import CATEGORIES, GROUPS, Question, questions, task
from nav.homes.simulation import HomeSimulation
from nav.source import HomeSource
from streammem.config import Config
from streammem.errors import ConfigError, InputError, SourceError

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
_VERSION = 1


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


@dataclass(slots=True)
class EpisodeResult:
    """One agent on one episode. ``rows``: task -> what became of the answer."""

    seed: int
    agent: str
    setting: dict[str, Any]
    frames: int
    interactions: int
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    watch_s: float = 0.0
    answer_s: float = 0.0
    version: int = _VERSION


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
            EpisodeResult(seed, agent.name, asdict(setting), len(experience.frames), len(experience.interactions))
        )
    started = time.perf_counter()
    watching = [agent for agent in made if agent.pictures]
    if watching:
        for frame in source.frames():
            for agent in watching:
                agent.see(frame)
    watched_s = time.perf_counter() - started
    for agent, result in zip(made, results, strict=True):
        result.watch_s = watched_s if agent.pictures else 0.0
        for question in asked.values():
            result.rows[str(question.task)] = _ask(agent, question, source, setting, result)
    return results


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
        kept = {name: _load(out, seed, name, setting) for name in names}
        missing = [name for name in names if kept[name] is None]
        for result in run_episode(seed, missing, setting) if missing else []:
            kept[result.agent] = result
            _save(out / "episodes" / f"{seed}-{result.agent}.json", json.dumps(asdict(result), indent=1))
        results += [one for one in kept.values() if one is not None]
        if pictures and missing:
            _picture(out, seed, setting, [one for one in kept.values() if one is not None])
        if told is not None:
            told(seed, time.perf_counter() - began)
    report = summary(results, setting)
    _save(out / "report.json", json.dumps(report, indent=1))
    _save(out / "report.md", markdown(report))
    return report


def summary(results: Sequence[EpisodeResult], setting: Setting) -> dict[str, Any]:
    """Rates by agent: over everything, by category, by task; over the questions that some frame solves."""
    agents: dict[str, Any] = {}
    for name in dict.fromkeys(one.agent for one in results):
        mine = [one for one in results if one.agent == name]
        rows = [(int(number), row) for one in mine for number, row in one.rows.items()]
        failures: dict[str, int] = {}
        for _, row in rows:
            if row["failure"] and row["solvable"]:
                failures[row["failure"]] = failures.get(row["failure"], 0) + 1
        agents[name] = {
            "all": _rates([row for _, row in rows]),
            "by_category": {
                one: _rates([row for number, row in rows if task(number).category == one]) for one in CATEGORIES
            },
            "by_group": {one: _rates([row for number, row in rows if task(number).group == one]) for one in GROUPS},
            "by_task": {
                str(number): _rates([row for other, row in rows if other == number]) for number in range(1, 61)
            },
            "failures": dict(sorted(failures.items())),
            "watch_s": sum(one.watch_s for one in mine),
            "answer_s": sum(one.answer_s for one in mine),
        }
    episodes = {one.seed: one for one in results}
    return {
        "note": "mini benchmark on procedural homes; not a FindingDory score",
        "setting": asdict(setting),
        "episodes": sorted(episodes),
        "frames": sum(one.frames for one in episodes.values()),
        "agents": agents,
    }


def _rates(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``hl_sr`` over what can be solved; None where nothing can."""
    good = [row for row in rows if row["solvable"]]
    spl = [row["spl"] for row in good if row["spl"] != metrics.EXCLUDED]

    def mean(values: Sequence[float]) -> float | None:
        return round(sum(values) / len(values), 4) if values else None

    return {
        "questions": len(rows),
        "solvable": len(good),
        "hl_sr": mean([float(row["success"]) for row in good]),
        "dtg_sr": mean([float(row["dtg"]) for row in good]),
        "sc_sr": mean([float(row["sc"]) for row in good]),
        "hl_spl": mean(spl),
        "ll_sr": mean([float(row["ll_success"]) for row in good if "ll_success" in row]),
        "ll_spl": mean([row["ll_spl"] for row in good if "ll_success" in row and row["spl"] != metrics.EXCLUDED]),
    }


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    agents = report["agents"]
    lines = [
        f"# {report['note']}",
        "",
        f"{len(report['episodes'])} episodes, {report['frames']} frames, setting {json.dumps(report['setting'])}.",
        "HL-SR in % over the questions that some frame solves.",
        "",
        "| category | solvable | " + " | ".join(agents) + " |",
        "|---|---|" + "---|" * len(agents),
    ]

    def row(name: str, pick: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
        some = next(iter(agents.values()))
        cells = ["-" if pick(one)["hl_sr"] is None else f"{100 * pick(one)['hl_sr']:.1f}" for one in agents.values()]
        return f"| {name} | {pick(some)['solvable']} | " + " | ".join(cells) + " |"

    if agents:
        lines += [row(name, lambda one, name=name: one["by_category"][name]) for name in CATEGORIES]  # type: ignore[misc]
        lines.append(row("all", lambda one: one["all"]))
    for name, one in agents.items():
        lines += ["", f"{name}: failures {json.dumps(one['failures'])}, DTG-SR {one['all']['dtg_sr']}, "
                  f"SC-SR {one['all']['sc_sr']}, HL-SPL {one['all']['hl_spl']}, LL-SR {one['all']['ll_sr']}, "
                  f"LL-SPL {one['all']['ll_spl']}, watched {one['watch_s']:.1f} s, "
                  f"answered {one['answer_s']:.1f} s"]  # fmt: skip
    return "\n".join(lines) + "\n"


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


def _load(out: Path, seed: int, name: str, setting: Setting) -> EpisodeResult | None:
    path = out / "episodes" / f"{seed}-{name}.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        result = EpisodeResult(**raw)
    except (OSError, ValueError, TypeError):
        return None  # not there, or cut off by a kill: it is run again
    return result if result.setting == asdict(setting) and result.version == _VERSION else None


def _save(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", hint="free some space; the next run goes on") from None


def _picture(out: Path, seed: int, setting: Setting, results: Sequence[EpisodeResult]) -> None:
    """From above, with the goals of task 56 and what the last agent said to it."""
    from nav.homes.picture import from_above, save

    experience = HomeSource(setting.scene(seed)).experience
    row = results[-1].rows.get("56", {})
    said = [frame for frame in row.get("said") or [] if 0 <= frame < len(experience.frames)]
    save(out / "pictures" / f"{seed}.png", from_above(experience, goals=row.get("goals", []), answers=said))
