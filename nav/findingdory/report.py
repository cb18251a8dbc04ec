"""What a run found out: one result for each episode and agent, kept as a file; rates, tables, Markdown.

A result file is written new and renamed, so that a killed run leaves whole files or none; the next run reads those of
the same setting and goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nav.findingdory import metrics
from nav.findingdory.tasks import CATEGORIES, GROUPS, task
from streammem.errors import SourceError

_VERSION = 3
FAILURES = (
    "response_error", "num_targets_error", "out_of_bounds_pred", "oracle_agent_timeout", "misidentification",
)  # fmt: skip
"""In the benchmark's words; misidentification is the rest."""


@dataclass(slots=True)
class EpisodeResult:
    """One agent on one episode. ``rows``: task -> what became of the answer. ``watch_s`` is what the agent itself spent
    on the frames, ``draw_s`` what it cost to make them (once for all agents), ``answer_s`` all its answers;
    ``memory_bytes`` what its memory held on disk when it had answered (0: it has none)."""

    episode: str
    agent: str
    setting: dict[str, Any]
    frames: int
    interactions: int
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    watch_s: float = 0.0
    draw_s: float = 0.0
    answer_s: float = 0.0
    memory_bytes: int = 0
    model: dict[str, float] = field(default_factory=dict)
    """What a chat model cost, and how it failed (``metered.Metered.costs``)."""
    version: int = _VERSION


def load(out: Path, episode: str, agent: str, setting: Mapping[str, Any]) -> EpisodeResult | None:
    """The result of an earlier run with the same setting, or None."""
    path = _path(out, episode, agent)
    try:
        result = EpisodeResult(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # not there, or of another version: it is run again
    return result if result.setting == dict(setting) and result.version == _VERSION else None


def keep(out: Path, result: EpisodeResult) -> None:
    """Raises SourceError where it can't be written."""
    save(_path(out, result.episode, result.agent), json.dumps(asdict(result), indent=1))


def save(path: Path, text: str) -> None:
    """Whole or not at all. Raises SourceError."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", hint="free some space; the next run goes on") from None


def _path(out: Path, episode: str, agent: str) -> Path:
    return out / "episodes" / f"{episode}-{agent}.json"


def spent_on(one: EpisodeResult) -> dict[str, Any]:
    """What an episode cost, as a report tells it."""
    return {
        "watch_s": round(one.watch_s, 3),
        "answer_s": round(one.answer_s, 3),
        "memory_bytes": one.memory_bytes,
        **({"model": one.model} if one.model else {}),
    }


def summary(results: Sequence[EpisodeResult], setting: Mapping[str, Any], note: str) -> dict[str, Any]:
    """Rates by agent: over everything, by category, by task, by episode."""
    agents: dict[str, Any] = {}
    for name in dict.fromkeys(one.agent for one in results):
        mine = [one for one in results if one.agent == name]
        rows = [(int(number), row) for one in mine for number, row in one.rows.items()]
        failures: dict[str, int] = {}
        for _, row in rows:
            if row["failure"] and row["counts"]:
                failures[row["failure"]] = failures.get(row["failure"], 0) + 1

        def some(wanted: Callable[[int], bool], rows: Sequence[tuple[int, dict[str, Any]]] = rows) -> dict[str, Any]:
            return _rates([row for number, row in rows if wanted(number)])

        agents[name] = {
            "all": _rates([row for _, row in rows]),
            "by_category": {one: some(lambda n, one=one: task(n).category == one) for one in CATEGORIES},  # type: ignore[misc]
            "by_group": {one: some(lambda n, one=one: task(n).group == one) for one in GROUPS},  # type: ignore[misc]
            "by_task": {str(number): some(lambda n, number=number: n == number) for number in range(1, 61)},  # type: ignore[misc]
            "by_episode": {one.episode: {**_rates(list(one.rows.values())), **spent_on(one)} for one in mine},
            "failures": dict(sorted(failures.items())),
            "watch_s": sum(one.watch_s for one in mine),
            "answer_s": sum(one.answer_s for one in mine),
            "memory_bytes": sum(one.memory_bytes for one in mine),
        }
    episodes = {one.episode: one for one in results}
    return {
        "note": note,
        "setting": dict(setting),
        "episodes": list(episodes),
        "frames": sum(one.frames for one in episodes.values()),
        "draw_s": sum(one.draw_s for one in episodes.values()),
        "agents": agents,
    }


def _rates(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over what counts: what some frame solves, and under the official profile everything; None of nothing."""
    good = [row for row in rows if row["counts"]]
    spl = [row["spl"] for row in good if row["spl"] != metrics.EXCLUDED]
    return {
        "questions": len(rows),
        "solvable": sum(row["solvable"] for row in rows),
        "counted": len(good),
        "hl_sr": mean([float(row["success"]) for row in good]),
        "dtg_sr": mean([float(row["dtg"]) for row in good]),
        "sc_sr": mean([float(row["sc"]) for row in good]),
        "hl_spl": mean(spl),
        "ll_sr": mean([float(row["ll_success"]) for row in good if "ll_success" in row]),
        "ll_spl": mean([row["ll_spl"] for row in good if "ll_success" in row and row["spl"] != metrics.EXCLUDED]),
    }


def mean(values: Sequence[float]) -> float | None:
    """To four digits; None of nothing."""
    return round(sum(values) / len(values), 4) if values else None


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def megabytes(count: int) -> str:
    return f"{count / 1e6:.2f}" if count else "-"


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    agents: dict[str, Any] = report["agents"]
    lines = [
        f"# {report['note']}",
        "",
        f"{len(report['episodes'])} episodes, {report['frames']} frames, setting {json.dumps(report['setting'])}.",
        "HL-SR in % over all questions (official: what no frame solves is a failure)."
        if report["setting"].get("profile") == "official"
        else "HL-SR in % over the questions that some frame solves.",
        "",
    ]
    if not agents:
        return "\n".join(lines) + "\n"
    first = next(iter(agents.values()))

    def row(name: str, pick: Callable[[dict[str, Any]], dict[str, Any]]) -> list[str]:
        return [name, str(pick(first)["counted"]), *(percent(pick(one)["hl_sr"]) for one in agents.values())]

    def by(key: str, name: str) -> list[str]:
        return row(name, lambda one: one[key][name])

    head = ("questions", *agents)
    lines += table(
        ("category", *head), [*(by("by_category", n) for n in CATEGORIES), row("all", lambda one: one["all"])]
    )
    lines += ["", "## All measures", ""]
    lines += table(
        ("agent", "HL-SR", "DTG-SR", "SC-SR", "HL-SPL", "LL-SR", "LL-SPL"),
        [
            (name, *(percent(one["all"][key]) for key in ("hl_sr", "dtg_sr", "sc_sr", "hl_spl", "ll_sr", "ll_spl")))
            for name, one in agents.items()
        ],
    )
    lines += ["", "## Why answers failed", ""]
    kinds = [kind for kind in FAILURES if any(kind in one["failures"] for one in agents.values())]
    lines += table(
        ("agent", *kinds), [(name, *(one["failures"].get(kind, 0) for kind in kinds)) for name, one in agents.items()]
    )
    lines += ["", "## By task", ""]
    asked = [str(n) for n in range(1, 61) if first["by_task"][str(n)]["questions"]]
    lines += table(
        ("task", "category", *head),
        [(n, task(int(n)).category, *by("by_task", n)[1:]) for n in asked],
    )
    lines += ["", "## By episode", ""]
    lines += table(
        ("episode", "agent", "questions", "HL-SR", "watching s", "answering s", "memory MB"),
        [
            (episode, name, one["counted"], percent(one["hl_sr"]), f"{one['watch_s']:.1f}", f"{one['answer_s']:.1f}",
             megabytes(one["memory_bytes"]))
            for episode in report["episodes"]
            for name, whole in agents.items()
            if (one := whole["by_episode"].get(episode)) is not None
        ],
    )  # fmt: skip
    lines += ["", f"Drawing the frames took {report['draw_s']:.1f} s, once for all agents."]
    return "\n".join(lines) + "\n"
