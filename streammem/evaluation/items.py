"""Questions of a benchmark in one shape, whatever its files look like; and how a file is read without trusting it."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from streammem.errors import AnnotationError

LARGEST = 1 << 30
"""Bytes of an annotation file; OVO-Bench's has 3 MB, NExT-QA's captions 4."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question. Times in seconds from the video's beginning.

    ``options`` without letters; ``answer`` is an index into them, None where the answer is ``text``. ``asked_s``: the
    question is asked then and may not know what comes after. ``spans``: where the evidence is, where the file says so.
    """

    benchmark: str
    id: str
    video: str
    question: str
    kind: str
    options: tuple[str, ...] = ()
    answer: int | None = None
    text: str = ""
    asked_s: float | None = None
    spans: tuple[tuple[float, float], ...] = ()
    category: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def letter(self) -> str:
        """The right option's letter, empty where there are no options."""
        return LETTERS[self.answer] if self.answer is not None and self.options else ""


def shuffled(item: Item, seed: int) -> Item:
    """The options in another order, the same for the same seed and question: a constant letter must not win."""
    if item.answer is None or len(item.options) < 2:
        return item
    order = list(range(len(item.options)))
    random.Random(f"{seed}/{item.benchmark}/{item.id}").shuffle(order)
    return replace(item, options=tuple(item.options[i] for i in order), answer=order.index(item.answer))


def read_json(path: Path, how: str) -> Any:
    """A JSON file. ``how`` says how to obtain it. Raises AnnotationError."""
    return _parse(path, _text(path, how), how)


def read_jsonl(path: Path, how: str) -> list[Any]:
    """One JSON document a line. Raises AnnotationError that names the line."""
    rows = []
    for number, line in enumerate(_text(path, how).splitlines(), 1):
        if line.strip():
            rows.append(_parse(path, line, how, f", line {number}"))
    return rows


def read_csv(path: Path, how: str, needs: Sequence[str]) -> list[dict[str, str]]:
    """A table with a header. Raises AnnotationError where a needed column is missing."""
    rows = list(csv.DictReader(_text(path, how).splitlines()))
    missing = [name for name in needs if rows and name not in rows[0]]
    if missing or not rows:
        what = f"has no column {missing[0]!r}" if missing else "holds no questions"
        raise AnnotationError(f"{path} {what}", hint=how)
    return rows


def _text(path: Path, how: str) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise AnnotationError(f"{path} has more than {LARGEST >> 30} GB: that is no annotation file", hint=how)
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no annotations are here", hint=how) from None
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path} can't be read: {error}", hint=how) from None


def _parse(path: Path, text: str, how: str, where: str = "") -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}{where} is no JSON: {error}", hint=how) from None


class Row:
    """One entry of a file, read by name; what is missing or of another type is named with file and number."""

    def __init__(self, value: Any, path: Path, number: int, how: str) -> None:
        self.path, self.number, self.how = path, number, how
        if not isinstance(value, dict):
            raise self.wrong("is no object")
        self.value: dict[str, Any] = value

    def wrong(self, what: str) -> AnnotationError:
        return AnnotationError(f"{self.path}, entry {self.number} {what}", hint=self.how)

    def get(self, name: str, default: Any = None) -> Any:
        return self.value.get(name, default)

    def text(self, name: str, *others: str) -> str:
        for key in (name, *others):
            if self.value.get(key) is not None:
                return str(self.value[key])
        raise self.wrong(f"has no {name!r}")

    def number_of(self, name: str) -> float:
        try:
            return float(self.text(name))
        except ValueError:
            raise self.wrong(f"has {name!r} = {self.value[name]!r}, no number") from None

    def strings(self, name: str) -> tuple[str, ...]:
        value = self.value.get(name)
        if not isinstance(value, (list, tuple)) or not value:
            raise self.wrong(f"has no list {name!r}")
        return tuple(str(entry) for entry in value)

    def rows(self, name: str) -> Iterator[Row]:
        value = self.value.get(name)
        if not isinstance(value, list):
            raise self.wrong(f"has no list {name!r}")
        for entry in value:
            yield Row(entry, self.path, self.number, self.how)


def rows_of(values: Any, path: Path, how: str) -> list[Row]:
    """A list of objects. Raises AnnotationError."""
    if not isinstance(values, list):
        raise AnnotationError(f"{path} holds {type(values).__name__}, not a list of questions", hint=how)
    if not values:
        raise AnnotationError(f"{path} holds no questions", hint=how)
    return [Row(value, path, number, how) for number, value in enumerate(values, 1)]


def seconds_of(text: str) -> float:
    """``90``, ``1:30``, ``00:01:30`` -> seconds. Raises ValueError."""
    total = 0.0
    for part in str(text).strip().split(":"):
        total = 60 * total + float(part)
    return total


def bare_option(text: str) -> str:
    """``"(A) a dog"``, ``"A. a dog"`` -> ``"a dog"``: a letter says nothing about a memory."""
    stripped = text.strip()
    for opening, closing in (("(", ")"), ("", "."), ("", ")"), ("", ":")):
        head = stripped[: len(opening) + 1 + len(closing)]
        if len(head) == len(opening) + 1 + len(closing) and head.startswith(opening) and head.endswith(closing):
            letter = head[len(opening)]
            if letter in LETTERS and head == f"{opening}{letter}{closing}":
                return stripped[len(head) :].strip()
    return stripped


def index_of(letter: str, count: int) -> int | None:
    """``"B"``, ``"(b)"``, ``"B."`` -> 1; None for what is no letter of ``count`` options."""
    bare = letter.strip().strip("().:").upper()
    found = LETTERS.find(bare) if len(bare) == 1 else -1
    return found if 0 <= found < count else None
