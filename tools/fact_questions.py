"""The questions of ``tests/data/fact_questions.yaml``: which shape each is read as, and whether that is right.

    python tools/fact_questions.py dev
    python tools/fact_questions.py held
    python tools/fact_questions.py loose|fresh|final
    python tools/fact_questions.py nextqa
    python tools/fact_questions.py others --memories DIR [--planted]

``others`` asks the 325 questions of ``queries.yaml``, which are about pictures, of the memories that
``tools/eval_recall.py --work`` made (in ``DIR/memories``), with the banks and without: no verdict may differ. With
``--planted`` each memory gets tracks and statements of things that those questions name, so that some are known; this
writes into them, so give it copies.
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
for folder in (REPOSITORY, REPOSITORY / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from streammem.recall.asking import Asked, read_asked  # noqa: E402

FILE = REPOSITORY / "tests" / "data" / "fact_questions.yaml"


def load(split: str) -> list[dict[str, Any]]:
    """Entries of ``dev``, ``held``, ``loose`` or ``fresh``: ``q``, ``shape``, ``of`` and where given ``to``."""
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


def nextqa() -> None:
    """Real questions that nobody wrote for this: how many of each type of NExT-QA are read, and what those that don't
    count (DC) are read as."""
    import csv

    from queries import data_root

    asked: Counter[str] = Counter()
    read: Counter[str] = Counter()
    with (data_root() / "text" / "nextqa" / "questions.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            asked[row["type"]] += 1
            if (found := read_asked(row["question"])) is not None:
                read[row["type"]] += 1
                if row["type"] != "DC":
                    print(f"  {row['question']!r}: {told(found)}")
    print(", ".join(f"{kind} {read[kind]}/{count}" for kind, count in sorted(asked.items())))


class WithoutBanks:
    """A memory whose banks can't be asked: what an answer was before there were facts."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory

    def __getattr__(self, name: str) -> Any:
        if name in ("query", "cite"):
            raise AttributeError(name)
        return getattr(self._memory, name)


PLANTED = (
    ("1", "person", {"black": 0.6, "blue": 0.2}),
    ("2", "person", {"gray": 0.5, "green": 0.3}),
    ("3", "car", {"red": 0.5, "black": 0.3}),
    ("4", "cup", {"white": 0.7}),
    ("5", "dog", {"brown": 0.6}),
)


def plant(memory: Any, stream: str, start_ns: int) -> None:
    """Five tracks of five seconds, and a mug that somebody put on a table."""
    import numpy as np

    from streammem.colours import TERMS
    from streammem.model import Detection, Observation, StateFact

    shares = np.array([[colours.get(term, 0.0) for term in TERMS] for _, _, colours in PLANTED], np.float16)
    boxes = [(0.15 * n, 0.2, 0.15 * n + 0.1, 0.6) for n in range(len(PLANTED))]
    found = tuple(Detection(kind, 0.8, box, name) for (name, kind, _), box in zip(PLANTED, boxes, strict=True))
    memory.write(
        [
            Observation(
                stream=stream,
                session="planted",
                seq=n,
                capture_ns=start_ns + n * 250_000_000,
                detections=found,
                parts={"track_colours": shares},
                states=(StateFact("mug-1", "place", "table", kind="mug", relation="on"),) if n == 0 else (),
            )
            for n in range(20)
        ]
    )


def others(memories: Path, *, planted: bool) -> int:
    """Ask the questions about pictures with the banks and without; prints and counts the verdicts that differ."""
    from queries import load_queries
    from streammem.memory import open as open_memory
    from streammem.recall.answer import ask

    queries = load_queries()
    asked = shaped = known = 0
    differ: list[str] = []
    for name in sorted({question.source.name for question in (*queries.present, *queries.absent)}):
        if not (memories / name).is_dir():
            print(f"  no memory of {name}")
            continue
        with open_memory(memories / name, mode="write" if planted else "read") as memory:
            if planted:
                info = memory.streams()[0]
                plant(memory, info.stream, int(memory.blocks("moments", [info.stream])[0].t_start_ns[0]))
            for question in (*queries.present, *queries.absent):
                if question.source.name != name:
                    continue
                asked += 1
                shaped += read_asked(question.query) is not None
                with_banks, without = ask(memory, question.query), ask(WithoutBanks(memory), question.query)
                known += with_banks.trace[:1] != without.trace[:1]
                if with_banks.status != without.status:
                    truth = "present" if question.spans else "absent"
                    change = f"{without.status} -> {with_banks.status}"
                    differ.append(f"  {name} ({truth}) {question.query!r}: {change}: {with_banks.text[:110]}")
    print("\n".join(differ))
    rest = f"{known} answered by a bank, {len(differ)} verdicts differ ({len(differ) / max(asked, 1):.1%})"
    print(f"{asked} questions about pictures, {shaped} of a shape that banks know, {rest}")
    return len(differ)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("dev", "held", "loose", "fresh", "final", "nextqa", "others"))
    parser.add_argument("--memories", type=Path, help="a folder of memories by source, as eval_recall.py --work makes")
    parser.add_argument("--planted", action="store_true")
    given = parser.parse_args(arguments)
    if given.what == "nextqa":
        nextqa()
    elif given.what != "others":
        score(given.what)
    elif given.memories is None:
        parser.error("others needs --memories")
    else:
        others(given.memories, planted=given.planted)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
