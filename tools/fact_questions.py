"""The questions of ``tests/data/fact_questions.yaml``: which shape each is read as, and whether that is right.

    python tools/fact_questions.py dev
    python tools/fact_questions.py held
    python tools/fact_questions.py others --memories DIR

``others`` asks the questions of ``queries.yaml`` (about pictures, not about tracks).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from streammem.recall.asking import Asked, read_asked  # noqa: E402

FILE = REPOSITORY / "tests" / "data" / "fact_questions.yaml"


def load(split: str) -> list[dict[str, Any]]:
    """Entries of ``dev`` or ``held``: ``q``, ``shape``, ``of`` and where given ``to``."""
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))[split]
    return found


def told(asked: Asked | None) -> tuple[str, tuple[str, ...]]:
    """Shape and things, as the file writes them."""
    return ("none", ()) if asked is None else (asked.shape, tuple(thing.key for thing in asked.things))


def right(entry: Mapping[str, Any]) -> bool:
    asked = read_asked(entry["q"])
    shape, things = told(asked)
    same = shape == entry["shape"] and things == tuple(entry.get("of", ()))
    return same and (asked is None or "to" not in entry or asked.to == entry["to"])


def score(split: str) -> int:
    """Print the share read right, by shape, and every wrong one; returns how many were wrong."""
    entries = load(split)
    by_shape: Counter[str] = Counter()
    good: Counter[str] = Counter()
    for entry in entries:
        by_shape[entry["shape"]] += 1
        if right(entry):
            good[entry["shape"]] += 1
        else:
            asked = read_asked(entry["q"])
            print(f"  {entry['q']!r}: {told(asked)} {asked.to if asked else ''}")
    wrong = len(entries) - sum(good.values())
    shapes = ", ".join(f"{name} {good[name]}/{count}" for name, count in sorted(by_shape.items()))
    print(f"{split}: {len(entries) - wrong} of {len(entries)} read right ({1 - wrong / len(entries):.0%}): {shapes}")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("dev", "held"))
    given = parser.parse_args(arguments)
    score(given.what)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
