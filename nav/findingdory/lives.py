"""Recall against experience length: one robot, one home, one memory, asked after 1, 3, 10 days.

    streammem eval findingdory --days 1,3,10 --episodes 0-2 --agent memory --agent fifo-16mb --out lives/

A life is watched once; after each of the given days every agent is asked (:mod:`nav.findingdory.days`), and goes on
watching. Resumable by home and agent. Its numbers are never a FindingDory score.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nav.findingdory import metrics
from nav.findingdory.agents import Agent, Asked, LastVisible, RandomFrame
from nav.findingdory.days import LifeQuestion, life_questions
from nav.findingdory.life_agents import NAMES, held_bytes, life_agent
from nav.findingdory.memory_agents import MemoryAgent
from nav.findingdory.report import save
from nav.findingdory.run import Setting
from nav.findingdory.tasks import CATEGORIES, task
from nav.homes.life import MOST_DAYS, Life
from nav.source import HomeSource
from streammem.errors import InputError

_VERSION = 1
NOTE = "recall against experience length, mini benchmark on procedural homes; not a FindingDory score"
DEFAULT = ("memory", "memory-16mb", "fifo-16mb", "uniform-16mb", "short_term", "last_visible", "random")
AGES = ("all days", "first day", "between", "last day")


@dataclass(slots=True)
class Asking:
    """One agent, asked after some day. ``rows``: the question's key -> what became of it. ``recollect_s``: reading the
    memory once, before the first answer; ``answer_s``: all answers; ``watch_s``: watching, from the first day on."""

    days: int
    frames: int
    interactions: int
    bytes: int = 0
    watch_s: float = 0.0
    recollect_s: float = 0.0
    answer_s: float = 0.0
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class LifeResult:
    seed: int
    agent: str
    setting: dict[str, Any]
    askings: list[Asking] = field(default_factory=list)
    version: int = _VERSION


def make_agent(name: str) -> Agent:
    """Raises InputError."""
    if name == "random":
        return RandomFrame()
    if name == "last_visible":
        return LastVisible()
    try:
        return life_agent(name)
    except InputError as error:
        raise InputError(error.message, hint=f"known are random, last_visible, {NAMES}") from None


def parse_days(text: str) -> tuple[int, ...]:
    """``1,3,10``. Raises InputError."""
    parts = [part.strip() for part in text.split(",")]
    days = sorted({int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 5})
    if not days or len(days) != len(parts) or not 1 <= days[0] <= days[-1] <= MOST_DAYS:
        raise InputError(f"the days {text!r} can't be read", hint=f"use 1,3,10: each once, 1 to {MOST_DAYS}")
    return tuple(days)


def run_life(
    seed: int,
    names: Sequence[str],
    days: Sequence[int],
    setting: Setting,
    keep: Callable[[LifeResult], None] = lambda result: None,
) -> list[LifeResult]:
    """Every agent on one life; it is drawn once for all. ``keep`` gets each agent's result whenever it was asked.
    Raises InputError, SourceError."""
    agents = [make_agent(name) for name in names]
    source = HomeSource(f"{setting.scene(seed)}&days={max(days)}", fps=1000.0)
    life = source.life
    ends = {([*life.starts, len(life.whole.frames)][day]) - 1: day for day in days}
    results = [LifeResult(seed, name, {**asdict(setting), "days": list(days)}) for name in names]
    for agent in agents:
        agent.reset(seed)
    watched = [0.0] * len(agents)
    frames = iter(source.frames() if any(agent.pictures for agent in agents) else ())
    for step in range(len(life.whole.frames)):
        frame = next(frames, None)
        for at, agent in enumerate(agents):
            if agent.pictures and frame is not None:
                began = time.perf_counter()
                agent.see(frame)
                watched[at] += time.perf_counter() - began
        if step in ends:
            short = life.until(ends[step])
            asked = life_questions(short, seed=seed, profile=setting.profile)
            for agent, result, seconds in zip(agents, results, watched, strict=True):
                result.askings.append(_ask_all(agent, short, asked, setting))
                result.askings[-1].watch_s = seconds
                keep(result)
    for agent in agents:
        if isinstance(agent, MemoryAgent):
            agent.close()
    return results


def _ask_all(agent: Agent, life: Life, asked: Sequence[LifeQuestion], setting: Setting) -> Asking:
    truth = life.whole.truth
    made = Asking(len(life.days), truth.frames, len(life.whole.interactions))
    if isinstance(agent, MemoryAgent):
        agent.rest()
        began = time.perf_counter()
        agent.recollect()
        made.recollect_s = time.perf_counter() - began
        made.bytes = held_bytes(agent)
    for one in asked:
        question = one.question
        began = time.perf_counter()
        said = agent.answer(Asked(question.task, question.text, truth.frames))
        made.answer_s += time.perf_counter() - began
        judged = metrics.high_level(question.goal, said, truth, profile=setting.profile)
        made.rows[one.key] = {
            "task": question.task, "day": one.day, "question": question.text, "said": said,
            "success": judged.success, "failure": judged.failure, "solvable": truth.solvable(question.goal),
            "goals": list(question.goal.entities),
        }  # fmt: skip
    return made


def run(
    seeds: Iterable[int],
    names: Sequence[str],
    days: Sequence[int],
    setting: Setting,
    out: Path,
    *,
    told: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """All lives into ``out``; what is there already with the same setting is not run again. Returns the report, also
    written as ``lives.json`` and ``lives.md``."""
    out.mkdir(parents=True, exist_ok=True)
    results: list[LifeResult] = []
    for seed in seeds:
        began = time.perf_counter()
        kept = {name: _load(out, seed, name, {**asdict(setting), "days": list(days)}) for name in names}
        missing = [name for name in names if kept[name] is None]
        if missing:
            for result in run_life(seed, missing, days, setting, partial(_keep, out)):
                kept[result.agent] = result
        results += [one for one in kept.values() if one is not None]
        if told is not None:
            told(seed, time.perf_counter() - began)
    report = summary(results, setting)
    save(out / "lives.json", json.dumps(report, indent=1))
    save(out / "lives.md", markdown(report))
    return report


def _keep(out: Path, result: LifeResult) -> None:
    save(_path(out, result.seed, result.agent), json.dumps(asdict(result), indent=1))


def _path(out: Path, seed: int, name: str) -> Path:
    return out / "lives" / f"{seed}-{name}.json"


def _load(out: Path, seed: int, name: str, setting: dict[str, Any]) -> LifeResult | None:
    try:
        raw = json.loads(_path(out, seed, name).read_text(encoding="utf-8"))
        raw["askings"] = [Asking(**one) for one in raw["askings"]]
        result = LifeResult(**raw)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # not there, or cut off by a kill: it is run again
    # What was stopped between two askings is lived again: an agent can't take up a memory in the middle.
    whole = len(result.askings) == len(setting["days"])
    return result if whole and result.setting == setting and result.version == _VERSION else None


def summary(results: Sequence[LifeResult], setting: Setting) -> dict[str, Any]:
    """Rates by agent and days: over everything, by what was asked about, by category; means of bytes and seconds."""
    agents: dict[str, Any] = {}
    for name in dict.fromkeys(one.agent for one in results):
        mine = [asking for one in results if one.agent == name for asking in one.askings]
        agents[name] = {
            str(days): _told([one for one in mine if one.days == days]) for days in sorted({one.days for one in mine})
        }
    lengths = {(one.seed, asking.days): asking.frames for one in results for asking in one.askings}
    return {
        "note": NOTE,
        "setting": asdict(setting),
        "homes": sorted({one.seed for one in results}),
        "frames": {
            str(d): sum(n for (_, of), n in lengths.items() if of == d) for d in sorted({d for _, d in lengths})
        },
        "agents": agents,
    }


def _told(askings: Sequence[Asking]) -> dict[str, Any]:
    rows = [row for one in askings for row in one.rows.values()]
    last = {id(row): one.days - 1 for one in askings for row in one.rows.values()}
    count = max(1, len(askings))

    def age(row: dict[str, Any]) -> str:
        day = row["day"]
        return AGES[0] if day is None else AGES[1] if day == 0 else AGES[3] if day == last[id(row)] else AGES[2]

    return {
        "all": _rate(rows),
        "by_age": {one: _rate([row for row in rows if age(row) == one]) for one in AGES},
        "by_category": {one: _rate([row for row in rows if task(row["task"]).category == one]) for one in CATEGORIES},
        "bytes": sum(one.bytes for one in askings) // count,
        "watch_s": round(sum(one.watch_s for one in askings) / count, 2),
        "recollect_s": round(sum(one.recollect_s for one in askings) / count, 2),
        "seconds_a_question": round(sum(one.answer_s for one in askings) / max(1, len(rows)), 4),
    }


def _rate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    good = [row for row in rows if row["solvable"]]
    rate = round(sum(row["success"] for row in good) / len(good), 4) if good else None
    return {"questions": len(rows), "solvable": len(good), "hl_sr": rate}


def markdown(report: dict[str, Any]) -> str:
    """The report for people: a table by days, one by age of what is asked about, one by category for the longest."""
    agents = report["agents"]
    days = list(report["frames"])
    lines = [f"# {report['note']}", "", f"Homes {report['homes']}, frames by days {json.dumps(report['frames'])}, "
             f"setting {json.dumps(report['setting'])}.", "HL-SR in % over the questions that some frame solves; bytes "
             "on disk and seconds are means over homes.", ""]  # fmt: skip
    lines += [_row("agent", *(f"{d} day{'s' if d != '1' else ''}" for d in days), "MB", "reading it once, s",
                   "s a question"), _rule(len(days) + 4)]  # fmt: skip
    for name, told in agents.items():
        each = [told[d] for d in days]
        lines.append(_row(name, *(_percent(one["all"]) for one in each),
                          " / ".join(f"{one['bytes'] / 2**20:.1f}" for one in each),
                          " / ".join(f"{one['recollect_s']:.1f}" for one in each),
                          " / ".join(f"{one['seconds_a_question']:.3f}" for one in each)))  # fmt: skip
    last = days[-1] if days else ""
    for title, key, names in (("asked about", "by_age", AGES), ("category", "by_category", CATEGORIES)):
        lines += ["", f"After {last} days:", "", _row(title, "solvable", *agents), _rule(len(agents) + 2)]
        for one in names:
            cells = [told[last][key][one] for told in agents.values()]
            lines.append(_row(one, cells[0]["solvable"] if cells else 0, *(_percent(cell) for cell in cells)))
    return "\n".join(lines) + "\n"


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _rule(count: int) -> str:
    return "|" + "---|" * count


def _percent(rates: dict[str, Any]) -> str:
    return "-" if rates["hl_sr"] is None else f"{100 * rates['hl_sr']:.1f}"
