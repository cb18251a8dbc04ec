"""What became of every question of an evaluation, one line of JSON each: a run can be stopped and gone on with."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streammem.errors import InputError
from streammem.evaluation.items import Item
from streammem.evaluation.scorers import Given, Profile, Score, constant, recall_and_iou, score
from streammem.reason.base import Budget


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One question answered by one strategy. ``spans``: the retrieved periods in seconds; ``stage``: where the answer
    came from; ``error``: why there is none."""

    strategy: str
    id: str
    text: str = ""
    option: int | None = None
    status: str = ""
    stage: str = ""
    partial: bool = False
    calls: int = 0
    tokens: int = 0
    records: int = 0
    frames: int = 0
    seconds: float = 0.0
    spans: tuple[tuple[float, float], ...] = ()
    error: str = ""


class Log:
    """A file of entries after one line that says what was run. Raises InputError for a file of another run: options
    shuffled with another seed would be scored against the wrong letters."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.entries: dict[tuple[str, str], Entry] = {}
        head = json.dumps({"about": dict(about)}, sort_keys=True)
        if path.is_file():
            lines = path.read_text("utf-8").splitlines()
            if not lines or lines[0] != head:
                raise InputError(f"{path} is of another run", hint="name another --out folder, or delete it")
            for line in lines[1:]:
                try:
                    entry = msgspec.json.decode(line, type=Entry)
                except msgspec.DecodeError:
                    continue  # a line that a kill cut off: that question is asked again
                if not entry.error:
                    self.entries[entry.strategy, entry.id] = entry
            text = "\n".join([head, *(msgspec.json.encode(e).decode() for e in self.entries.values())]) + "\n"
            path.write_text(text, "utf-8")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head + "\n", "utf-8")

    def add(self, entry: Entry) -> None:
        self.entries[entry.strategy, entry.id] = entry
        with self.path.open("a", encoding="utf-8") as file:
            file.write(msgspec.json.encode(entry).decode() + "\n")

    def has(self, strategy: str, item: Item) -> bool:
        return (strategy, item.id) in self.entries


class Row(msgspec.Struct, frozen=True):
    """One line of a report. ``temporal``: mean recall and IoU of the evidence where its truth is known."""

    strategy: str
    value: float
    count: int
    groups: dict[str, tuple[float, int]]
    seconds_p50: float = 0.0
    seconds_p99: float = 0.0
    calls: float = 0.0
    calls_p50: int = 0
    calls_p99: int = 0
    records: float = 0.0
    failed: int = 0
    stages: dict[str, int] = {}
    temporal: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


Scorer = Callable[[str, Mapping[str, Given]], Score]


def report(
    items: Sequence[Item], log: Log, strategies: Iterable[str], profile: Profile, scorer: Scorer | None = None
) -> list[Row]:
    """The constant letter first, then every strategy. ``scorer`` gets a strategy's name and its answers, in place of
    the benchmark's own rule."""
    letter, share = constant(items)
    rows = []
    if letter:
        kinds: dict[str, list[bool]] = defaultdict(list)
        for item in items:
            kinds[item.kind].append(item.letter == letter)
        groups = {kind: (sum(marks) / len(marks), len(marks)) for kind, marks in sorted(kinds.items())}
        rows.append(Row(f"constant {letter}", share, len(items), groups))
    for name in strategies:
        entries = {item.id: log.entries[name, item.id] for item in items if log.has(name, item)}
        answers = {number: Given(e.text, e.option, bool(e.error)) for number, e in entries.items()}
        scored = scorer(name, answers) if scorer is not None else score(items, answers, profile)
        rows.append(_row(name, items, list(entries.values()), scored))
    return rows


def _row(name: str, items: Sequence[Item], entries: Sequence[Entry], scored: Score) -> Row:
    seconds = sorted(entry.seconds for entry in entries)
    calls = sorted(float(entry.calls) for entry in entries)
    stages: dict[str, int] = defaultdict(int)
    for entry in entries:
        stages[entry.stage or "error"] += 1
    truth = {item.id: item.spans for item in items if item.spans}
    overlaps = [recall_and_iou(entry.spans, truth[entry.id]) for entry in entries if entry.id in truth]
    count = max(len(entries), 1)
    mean = [sum(pair[side] for pair in overlaps) / len(overlaps) for side in (0, 1)] if overlaps else None
    return Row(
        strategy=name,
        value=scored.value,
        count=scored.count,
        groups=dict(scored.groups),
        seconds_p50=_at(seconds, 0.5),
        seconds_p99=_at(seconds, 0.99),
        calls=sum(entry.calls for entry in entries) / count,
        calls_p50=int(_at(calls, 0.5)),
        calls_p99=int(_at(calls, 0.99)),
        records=sum(entry.records for entry in entries) / count,
        failed=sum(bool(entry.error) for entry in entries),
        stages=dict(sorted(stages.items())),
        temporal=(mean[0], mean[1]) if mean is not None else None,
        notes=scored.notes,
    )


def beyond(entries: Iterable[Entry], budget: Budget) -> int:
    """How many answers cost more calls, tokens, frames or seconds than the budget allowed each of them."""
    limits = {name: getattr(budget, name) for name in ("calls", "tokens", "frames", "seconds")}
    return sum(any(most is not None and getattr(e, name) > most for name, most in limits.items()) for e in entries)


def _at(values: Sequence[float], share: float) -> float:
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0
