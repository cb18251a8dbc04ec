"""The last answers given on this machine, so that a person can say that one of them was wrong.

One line of JSON each in the cache directory, readable by its owner only; the oldest make room.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from streammem.config import Config
from streammem.errors import InputError
from streammem.model import Answer
from streammem.paths import cache_dir
from streammem.recall.lessons import answer_id

MOST = 200


def _file(config: Config) -> Path:
    return cache_dir(config.cache_dir) / "answers.jsonl"


def keep(config: Config, target: str, directory: str | Path, answer: Answer) -> str:
    """Note an answer; returns its id. A cache that can't be written loses the note, never the answer."""
    shown = answer.evidence or answer.closest[:1]
    entry = {
        "id": answer_id(answer),
        "target": target,
        "memory": str(directory),
        "question": answer.question,
        "status": answer.status,
        "text": answer.text,
        "moments": [[item.stream, item.t_start_ns, item.t_end_ns] for item in shown],
    }
    path = _file(config)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [line for line in _lines(path) if json.loads(line)["id"] != entry["id"]][-(MOST - 1) :]
        work = path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write("\n".join([*lines, json.dumps(entry)]) + "\n")
        os.replace(work, path)
    return str(entry["id"])


def find(config: Config, number: str) -> dict[str, Any]:
    """The answer with this id. Raises InputError."""
    for line in reversed(_lines(_file(config))):
        entry: dict[str, Any] = json.loads(line)
        if entry["id"] == number:
            return entry
    raise InputError(
        f"no answer {number[:40]!r} was given here lately", hint=f"`ask` prints the id; the last {MOST} are known"
    )


def _lines(path: Path) -> list[str]:
    """Those lines that are whole: a torn one is dropped."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return []
    good = []
    for line in text.splitlines():
        try:
            if isinstance(json.loads(line).get("id"), str):
                good.append(line)
        except (ValueError, AttributeError):
            continue
    return good
