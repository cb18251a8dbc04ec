"""Scores: strict ones, and what each benchmark's own script computes, quirks included (``official``).

Strict: a question without a readable answer is wrong and stays in the denominator; an answer is read as a letter or an
option's own words, nothing else. Each official quirk is named beside the line that reproduces it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from streammem.evaluation.items import LETTERS, Item

Profile = Literal["strict", "official"]
_LETTER = re.compile(r"^\W*([A-Z])(?:\W|$)")
_LETTER_MIDDLE = re.compile(r"(?:answer is|answer:|option)\s*\(?([A-Z])\)?(?:\W|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Given:
    """What was answered: a chosen option's index, and the text as it was said. ``missing``: there was no answer."""

    text: str = ""
    option: int | None = None
    missing: bool = False

    def said(self, item: Item) -> str:
        """The text that a script would see: a letter where options were chosen from."""
        return LETTERS[self.option] if self.option is not None and item.options else self.text


@dataclass(frozen=True, slots=True)
class Score:
    """``value`` in [0, 1] (or what the benchmark counts in), of ``count`` questions; ``groups``: by kind."""

    value: float
    count: int
    groups: Mapping[str, tuple[float, int]]
    notes: tuple[str, ...] = ()


def read_letter(text: str, options: tuple[str, ...]) -> int | None:
    """The option that a reply means: a letter at its beginning or after "answer is", or the option's own words."""
    for pattern in (_LETTER, _LETTER_MIDDLE):
        found = pattern.search(text.strip())
        if found and (index := LETTERS.find(found[1].upper())) < len(options):
            return index
    plain = " ".join(text.casefold().split()).strip(" .")
    same = [i for i, option in enumerate(options) if " ".join(option.casefold().split()).strip(" .") == plain]
    return same[0] if len(same) == 1 else None


def correct(item: Item, given: Given) -> bool:
    """Strictly right."""
    if given.missing:
        return False
    if item.options:
        chosen = given.option if given.option is not None else read_letter(given.text, item.options)
        return chosen is not None and chosen == item.answer
    if item.benchmark == "ovobench" and item.kind == "REC":
        numbers = re.findall(r"\d+", given.text)
        return len(numbers) == 1 and int(numbers[0]) == int(item.text)
    return _word(given.text) == _word(item.text) and bool(item.text)


def _word(text: str) -> str:
    return re.sub(r"\W+", " ", text.casefold()).strip()


def score(items: Iterable[Item], answers: Mapping[str, Given], profile: Profile = "strict") -> Score:
    """The score of one benchmark's items. Items of several benchmarks are scored by the first one's rule."""
    listed = list(items)
    if not listed:
        return Score(0.0, 0, {})
    rule = OFFICIAL.get(listed[0].benchmark) if profile == "official" else None
    return (rule or _strict)(listed, answers)


def _pooled(marks: Mapping[str, list[bool]], notes: tuple[str, ...] = ()) -> Score:
    count = sum(map(len, marks.values()))
    right = sum(sum(one) for one in marks.values())
    return Score(right / max(count, 1), count, _groups(marks), notes)


def _mean_of_groups(marks: Mapping[str, list[bool]], notes: tuple[str, ...] = ()) -> Score:
    groups = _groups(marks)
    value = sum(mean for mean, _ in groups.values()) / max(len(groups), 1)
    return Score(value, sum(map(len, marks.values())), groups, notes)


def _groups(marks: Mapping[str, list[bool]]) -> dict[str, tuple[float, int]]:
    return {kind: (sum(one) / len(one), len(one)) for kind, one in sorted(marks.items()) if one}


def _strict(items: list[Item], answers: Mapping[str, Given]) -> Score:
    """Every question counts. Items whose gold answer is defective are left out, and said."""
    marks: dict[str, list[bool]] = defaultdict(list)
    defects = [item for item in items if item.extra.get("defect")]
    for item in items:
        if not item.extra.get("defect"):
            marks[item.kind].append(correct(item, answers.get(item.id, Given(missing=True))))
    notes = [f"{len(defects)} questions with a defective gold answer left out"] if defects else []
    if items[0].benchmark in JUDGED:
        notes.append("not OpenEQA's score: the true words exactly; its own needs --judge-endpoint and --judge-model")
    if items[0].benchmark == "ovobench":
        return _ovo_mean(marks, {item.kind: item.category for item in items}, tuple(notes))
    return (_mean_of_groups if items[0].benchmark == "mlvu" else _pooled)(marks, tuple(notes))


def _ovo_mean(marks: Mapping[str, list[bool]], category: Mapping[str, str], notes: tuple[str, ...]) -> Score:
    """Task accuracy, mean over the tasks of a category, mean of the three categories."""
    tasks = _groups(marks)
    by: dict[str, list[float]] = defaultdict(list)
    for task, (mean, _) in tasks.items():
        by[category[task]].append(mean)
    means = [sum(values) / len(values) for values in by.values()]
    return Score(sum(means) / max(len(means), 1), sum(n for _, n in tasks.values()), tasks, notes)


def _streamingbench(items: list[Item], answers: Mapping[str, Given]) -> Score:
    """Quirks: only the first character of the reply is read; a missing reply leaves the denominator; an empty one
    raises in real and omni (here: wrong) and leaves it in sqa."""
    marks: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        given = answers.get(item.id)
        if given is None or given.missing:
            continue
        said = given.said(item)
        if not said and item.id.startswith("sqa/"):
            continue
        marks[item.kind].append(said[:1] == item.letter if item.options else said == item.text)
    return _pooled(marks, ("missing replies aren't counted", "the first character decides"))


def _ovobench(items: list[Item], answers: Mapping[str, Given]) -> Score:
    """Quirks: the gold letter anywhere in the reply is right, so prose with a capital A is; all digits of a reply run
    together are the count; "Yes"/"No" as a substring."""
    marks: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        said = answers.get(item.id, Given(missing=True)).said(item)
        if item.options:
            right = item.letter in said
        elif item.kind == "REC":
            right = "".join(re.findall(r"\d", said)) == item.text
        else:
            right = item.text in said or said == item.text[:1]
        marks[item.kind].append(bool(said) and right)
    notes = ("a letter inside a word counts",)
    return _ovo_mean(marks, {item.kind: item.category for item in items}, notes)


def _lvbench(items: list[Item], answers: Mapping[str, Given]) -> Score:
    """Quirks: the first letter A to D that stands in the reply; questions without a reply shrink the denominator; a
    question of several types counts in each."""
    marks: dict[str, list[bool]] = defaultdict(list)
    overall: list[bool] = []
    for item in items:
        given = answers.get(item.id)
        if given is None or given.missing:
            continue
        found = re.search(r"[A-D]", given.said(item))
        right = found is not None and found[0] == item.letter
        overall.append(right)
        for kind in item.kind.split("+"):
            marks[kind].append(right)
    value = sum(overall) / max(len(overall), 1)
    return Score(value, len(overall), _groups(marks), ("missing replies aren't counted",))


def _egomem(items: list[Item], answers: Mapping[str, Given]) -> Score:
    """Mean of Event and Detail; defective golds count as wrong."""
    marks: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        given = answers.get(item.id, Given(missing=True))
        marks[item.category].append(given.said(item)[:1] == item.letter != "")
    return _mean_of_groups(marks, ("questions with a defective gold count as wrong",))


def _first_letter(items: list[Item], answers: Mapping[str, Given]) -> Score:
    """Video-MME, NExT-QA: a letter is extracted from the reply; a missing one is wrong."""
    marks: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        said = answers.get(item.id, Given(missing=True)).said(item)
        found = re.search(r"[A-Z]", said)
        marks[item.category or item.kind].append(found is not None and found[0] == item.letter)
    return _pooled(marks)


def _mlvu(items: list[Item], answers: Mapping[str, Given]) -> Score:
    """Quirk: the letter must stand in brackets or alone. M-Avg is the plain mean of the tasks."""
    marks: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        if item.options:
            said = answers.get(item.id, Given(missing=True)).said(item).strip()
            found = re.search(r"\(([A-Z])\)", said)
            marks[item.kind].append((found[1] if found else said) == item.letter)
    return _mean_of_groups(marks, ("generative tasks need a judge and aren't in M-Avg",))


def _navqa(items: list[Item], answers: Mapping[str, Given]) -> Score:
    """Quirks: a binary reply that is neither yes nor no isn't counted; text questions are skipped; running means are
    divided by n + 1."""
    marks: list[bool] = []
    for item in items:
        if item.kind != "binary":
            continue
        said = answers.get(item.id, Given(missing=True)).text.strip().casefold()
        if said in ("yes", "no"):
            marks.append(said == item.text.strip().casefold())
    value = sum(marks) / (len(marks) + 1)
    return Score(value, len(marks), {"binary": (value, len(marks))}, ("divided by n + 1, as the script does",))


JUDGED = frozenset({"openeqa"})
"""Scored by a judge model (``evaluation/judge.py``); without one, word for word, which is far below what it would
give."""

OFFICIAL: dict[str, Callable[[list[Item], Mapping[str, Given]], Score]] = {
    "streamingbench": _streamingbench,
    "ovobench": _ovobench,
    "lvbench": _lvbench,
    "egomem": _egomem,
    "videomme": _first_letter,
    "nextqa": _first_letter,
    "mlvu": _mlvu,
    "navqa": _navqa,
}


def judge_score(marks: Mapping[str, float | None], count: int) -> float:
    """OpenEQA: marks of 1 to 5 by a judge model -> mean of (clip(mark, 1, 5) - 1) / 4, in [0, 1]; a missing prediction
    is 0. Publish which model judged: another one gives other numbers."""
    total = sum((min(max(mark, 1.0), 5.0) - 1) / 4 for mark in marks.values() if mark is not None)
    return total / max(count, 1)


def constant(items: Iterable[Item]) -> tuple[str, float]:
    """The best constant letter and its accuracy: what a system has to beat before it says anything."""
    listed = [item for item in items if item.options and item.answer is not None]
    counts: dict[str, int] = defaultdict(int)
    for item in listed:
        counts[item.letter] += 1
    best = max(sorted(counts), key=lambda letter: counts[letter], default="")
    return best, counts[best] / max(len(listed), 1) if best else 0.0


def recall_and_iou(
    found: Iterable[tuple[float, float]], truth: Iterable[tuple[float, float]], slack_s: float = 0.5
) -> tuple[float, float]:
    """Share of true spans that a found one touches (within ``slack_s``), and the intersection over union of both sets
    of seconds. (1, 1) where nothing is true and nothing was found."""
    mine, theirs = _joined(found), _joined(truth)
    if not theirs:
        return (1.0, 1.0) if not mine else (0.0, 0.0)
    hit = sum(any(a <= end + slack_s and b >= start - slack_s for a, b in mine) for start, end in theirs)
    both = sum(max(0.0, min(b, d) - max(a, c)) for a, b in mine for c, d in theirs)
    union = sum(b - a for a, b in mine) + sum(d - c for c, d in theirs) - both
    return hit / len(theirs), both / union if union > 0 else float(hit == len(theirs))


def _joined(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    out: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out
