"""The offline set: rows with videos, agents that watch them, the published scores. Resumable, one file an episode.

``relaxed_precision`` is the set's "relaxed accuracy"; each score is given as ``official`` (bug-compatible) and
``strict``. Over all rows, also those whose answer is ``[[-1]]``: whoever abstains there is right.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nav.findingdory import offline
from nav.findingdory.dataset import OfflineRow, OfflineSet, Split
from nav.findingdory.metered import Metered
from nav.findingdory.report import EpisodeResult, keep, load, mean, megabytes, percent, save, spent_on, table
from nav.findingdory.video_agents import (
    AGENTS,
    AnyFrame,
    MakeSuite,
    ModelWatcher,
    TruthTeller,
    VideoAgent,
    Watcher,
)
from nav.findingdory.video_memory import frame_times
from streammem.config import Config
from streammem.errors import InputError, SourceNotFound

SCORES = ("relaxed_any", "relaxed_precision", "relaxed_precision_official", "exact", "exact_official", "first_frames")
FAILURES = ("response_error", "num_targets_error", "out_of_bounds_pred", "abstained", "wrong_frame")
_LONGEST = 2000
"""Characters of an answer that are kept."""


@dataclass(frozen=True, slots=True)
class OfflineSetting:
    """What decides the numbers. ``frames`` 96 for the subsampled set, None for full-length videos."""

    split: Split = "validation"
    frames: int | None = None
    fingerprint: str = ""
    """Of the rows: other rows, other results."""
    made_with: str = ""
    """Of the encoders' settings and the model."""


def score(printed: str, row: OfflineRow, frames: int) -> dict[str, Any]:
    """Every score of what an agent printed for a row, and why it failed where ``relaxed_any`` is 0."""
    said, truth = offline.parse_answer(printed), row.answer
    plain = printed if printed.lstrip().startswith("[") or said is None else str(said)
    scores = {
        "relaxed_any": offline.relaxed_any(said, truth),
        "relaxed_precision": offline.relaxed_precision(said, truth),
        "relaxed_precision_official": offline.relaxed_precision(said, truth, "official"),
        "exact": offline.exact(printed, row.answer_text),
        # A list inside an object or a sentence is compared as that list is printed.
        "exact_official": offline.exact(plain, row.answer_text, "official"),
        "first_frames": offline.first_frames(said, truth),
    }
    return {
        "question": row.question,
        "said": printed[:_LONGEST],
        "truth": truth,
        **scores,
        "chance": offline.random_expectation(truth, frames),
        "failure": "" if scores["relaxed_any"] else _failure(said, truth, frames),
    }


def _failure(said: offline.Frames | None, truth: offline.Frames, frames: int) -> str:
    if said is None or not said:
        return "response_error"
    if said == offline.ABSTAIN:
        return "abstained"
    if any(not 0 <= frame < frames for goal in said for frame in goal):
        return "out_of_bounds_pred"
    return "num_targets_error" if len(said) != len(truth) and truth != offline.ABSTAIN else "wrong_frame"


def run_episode(
    rows: Sequence[OfflineRow], path: Path, agents: Sequence[VideoAgent], setting: Mapping[str, Any]
) -> Iterator[EpisodeResult]:
    """Every agent on one video, one after the other; each result as soon as it is there, so that it can be kept."""
    times = frame_times(path)
    for agent in agents:
        result = EpisodeResult(rows[0].ep_id, agent.name, dict(setting), len(times), rows[0].num_interactions)
        try:
            began = time.perf_counter()
            agent.watch(path, times)
            result.watch_s = time.perf_counter() - began
            for number, row in enumerate(rows):
                began = time.perf_counter()
                printed = agent.answer(row)
                result.answer_s += time.perf_counter() - began
                # A task may be asked more than once of an episode.
                result.rows[f"{row.task}.{number}"] = {
                    **score(printed, row, len(times)),
                    "task": row.task,
                    "category": row.low_level_category,
                    "group": row.high_level_category,
                }
            result.memory_bytes = agent.disk_bytes()
            if isinstance(agent, ModelWatcher):
                result.model = agent.model.costs()
        finally:
            agent.close()
        yield result


def make_agent(name: str, suite: MakeSuite, config: Config, model: Callable[[], Metered]) -> VideoAgent:
    """By name. Raises InputError that says which agents can answer from a video."""
    if name not in AGENTS:
        raise InputError(
            f"the agent {name!r} can't answer from a video alone", hint=f"of --env offline are {', '.join(AGENTS)}"
        )
    if name == "oracle":
        return TruthTeller()
    if name == "random":
        return AnyFrame()
    if name == "llm":
        return ModelWatcher(model(), suite, config)
    return Watcher(suite, config)


def run(
    rows: OfflineSet,
    names: Sequence[str],
    out: Path,
    *,
    make: Callable[[str], VideoAgent],
    episodes: Iterable[str] = (),
    limit: int | None = None,
    told: Callable[[str, float], None] | None = None,
    missed: Callable[[SourceNotFound], None] | None = None,
    made_with: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All wanted episodes into ``out``; what is there already is not run again. Returns the report, also written as
    ``report.json`` and ``report.md``.

    ``made_with`` is whatever else decides an agent's answers (plain values): results of another are run again. An
    episode without its video is told to ``missed``, named in the report and left out; with none at all the first
    SourceNotFound is raised: it says how to get them."""
    wanted = _wanted(rows, list(episodes), limit)
    by_episode = {name: [row for row in rows if row.ep_id == name] for name in wanted}
    agents = {name: make(name) for name in names}
    videos: dict[str, Path] = {}
    missing: list[SourceNotFound] = []
    for name, mine in by_episode.items():
        try:
            videos[name] = rows.video(mine[0])
        except SourceNotFound as error:
            missing.append(error)
            if missed is not None:
                missed(error)
    if missing and not videos:
        raise missing[0]
    with_what = configuration_text(made_with or {})
    setting = asdict(OfflineSetting(rows.split, rows.frames, rows.fingerprint, with_what))
    results: list[EpisodeResult] = []
    for name, path in videos.items():
        began = time.perf_counter()
        kept = {agent: load(out, name, agent, setting) for agent in names}
        todo = [agents[agent] for agent in names if kept[agent] is None]
        for result in run_episode(by_episode[name], path, todo, setting) if todo else []:
            kept[result.agent] = result
            keep(out, result)
        results += [one for one in kept.values() if one is not None]
        if told is not None:
            told(name, time.perf_counter() - began)
    report = summary(results, setting, [error.message for error in missing])
    save(out / "report.json", json.dumps(report, indent=1))
    save(out / "report.md", markdown(report))
    return report


def configuration_text(values: Mapping[str, Any]) -> str:
    """A short hash of plain values; empty for none."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12] if values else ""


def _wanted(rows: OfflineSet, episodes: list[str], limit: int | None) -> list[str]:
    known = rows.episodes()
    unknown = [name for name in episodes if name not in known]
    if unknown:
        raise InputError(
            f"{rows.path}: no episode {unknown[0]!r}", hint=f"it has {len(known)}, from {known[0]} to {known[-1]}"
        )
    return (episodes or known)[:limit]


def summary(
    results: Sequence[EpisodeResult], setting: Mapping[str, Any], missing: Sequence[str] = ()
) -> dict[str, Any]:
    """Mean scores by agent: over all rows, by category, by group, by task, by episode."""
    agents: dict[str, Any] = {}
    for name in dict.fromkeys(one.agent for one in results):
        mine = [one for one in results if one.agent == name]
        rows = [row for one in mine for row in one.rows.values()]
        agents[name] = {
            "all": _means(rows),
            **{
                f"by_{key}": {
                    str(value): _means([row for row in rows if row[key] == value])
                    for value in sorted({row[key] for row in rows})
                }
                for key in ("category", "group", "task")
            },
            "by_episode": {one.episode: {**_means(list(one.rows.values())), **spent_on(one)} for one in mine},
            "failures": {kind: count for kind in FAILURES if (count := sum(row["failure"] == kind for row in rows))},
        }
    episodes = {one.episode: one for one in results}
    return {
        "note": "FindingDory's offline questions: frames named from the video",
        "setting": dict(setting),
        "episodes": list(episodes),
        "frames": sum(one.frames for one in episodes.values()),
        "missing": list(missing),
        "agents": agents,
    }


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"questions": len(rows), **{name: mean([row[name] for row in rows]) for name in (*SCORES, "chance")}}


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    agents: dict[str, Any] = report["agents"]
    lines = [
        f"# {report['note']}",
        "",
        f"{len(report['episodes'])} episodes, {report['frames']} frames, setting {json.dumps(report['setting'])}.",
        "All scores in %. `chance`: what one random frame for each goal reaches on average in relaxed_any.",
        "",
    ]
    if not agents:
        return "\n".join(lines) + "\n"
    lines += table(
        ("agent", *SCORES, "chance"),
        [(name, *(percent(one["all"][key]) for key in (*SCORES, "chance"))) for name, one in agents.items()],
    )
    first = next(iter(agents.values()))
    for title, key in (("category", "by_category"), ("task", "by_task")):
        lines += ["", f"## relaxed_any by {title}", ""]
        order = sorted(first[key], key=lambda name: (int(name) if name.isdigit() else 0, name))
        rows = []
        for name in order:
            same = [one[key][name] for one in agents.values()]
            any_ = [percent(one["relaxed_any"]) for one in same]
            rows.append((name, same[0]["questions"], *any_, percent(same[0]["chance"])))
        lines += table((title, "questions", *agents, "chance"), rows)
    lines += ["", "## Why answers failed", ""]
    kinds = [kind for kind in FAILURES if any(kind in one["failures"] for one in agents.values())]
    lines += table(
        ("agent", *kinds), [(name, *(one["failures"].get(kind, 0) for kind in kinds)) for name, one in agents.items()]
    )
    lines += ["", "## By episode", ""]
    lines += table(
        ("episode", "agent", "questions", "relaxed_any", "watching s", "answering s", "memory MB"),
        [
            (episode, name, one["questions"], percent(one["relaxed_any"]), f"{one['watch_s']:.1f}",
             f"{one['answer_s']:.1f}", megabytes(one["memory_bytes"]))
            for episode in report["episodes"]
            for name, whole in agents.items()
            if (one := whole["by_episode"].get(episode)) is not None
        ],
    )  # fmt: skip
    if report["missing"]:
        lines += ["", f"## Left out: {len(report['missing'])} episodes without a video", ""]
        lines += [f"* {one}" for one in report["missing"]]
    return "\n".join(lines) + "\n"
