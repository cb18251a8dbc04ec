"""Questions about thousands of things: exact, and how fast.

    streammem bench entities [--log FILE] [--questions 300] [--seed 0]

Writes a log of movements (``--log``: the kitchen's, see docs/entities.md; else a made-up one of the same size) into a
real memory, closes it, opens it again, and asks. Each answer is compared with one computed from the raw entries by
brute force. ``CPU p99`` is what the thread itself took: on a shared machine the rest was waiting. Also: the cost of one
moment with five detections, and the RAM of what is kept.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streammem.memory
from streammem.banks.entities import EntitiesBank
from streammem.cli.output import write_document
from streammem.config import EntitiesConfig
from streammem.eventlog import MOVED, Movement, observations_of, read_movements, streams_of
from streammem.memory import Memory
from streammem.model import Detection, Observation
from streammem.storage.open_part import record_from_observation

SECOND = 10**9
VIDEOS, OBJECTS, NAMES = 85, 4400, 800


def made_up(seed: int) -> list[Movement]:
    """A log of the kitchen's size: 85 videos of 15 minutes, 4,400 things, one to four movements each."""
    rng = random.Random(seed)
    found = []
    for number in range(OBJECTS):
        for turn in range(rng.choice((1, 1, 2, 2, 3, 4))):
            start = rng.randrange(900 * SECOND)
            end = start + rng.randrange(SECOND, 20 * SECOND)
            video, kind = f"video-{number % VIDEOS:02d}", f"thing {rng.randrange(NAMES)}"
            found.append(Movement(video, start, end, f"{number:06x}", kind, f"{number:06x}-{turn}"))
    kinds = {movement.entity: movement.kind for movement in found}
    return sorted(movement._replace(kind=kinds[movement.entity]) for movement in found)


def _times(told: dict[str, Any]) -> list[tuple[int, int]]:
    return [(fact["t_start_ns"], fact["t_last_ns"]) for fact in told["facts"]]


class Asker:
    """Questions of each sort, each with its brute-force answer."""

    def __init__(self, memory: Memory, movements: list[Movement], seed: int) -> None:
        self.memory = memory
        self.movements = movements
        self.rng = random.Random(seed)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.busy: dict[str, list[float]] = defaultdict(list)
        self.wrong: dict[str, int] = defaultdict(int)

    def ask(self, name: str, question: str, expected: Any, got: Callable[[dict[str, Any]], Any], **given: Any) -> None:
        start, busy = time.perf_counter(), time.thread_time()
        told = self.memory.query("entities", question, **given)
        self.busy[name].append(time.thread_time() - busy)
        self.seconds[name].append(time.perf_counter() - start)
        self.wrong[name] += got(told) != expected

    def once(self) -> None:
        """One question of each sort about something drawn by chance."""
        rng, rows = self.rng, self.movements
        one = rng.choice(rows)
        mine = [row for row in rows if row.video == one.video and row.entity == one.entity]
        kind = [row for row in rows if row.kind.casefold() == one.kind.casefold()]
        inside = [row for row in rows if row.video == one.video]
        spans = sorted((row.t_start_ns, row.t_end_ns) for row in mine)
        here = {"streams": [one.video]}
        self.ask("when", "history", spans, _times, entity=one.entity, attribute=MOVED, **here)
        self.ask("how often", "how_often", len(mine), lambda told: told["total"], entity=one.entity, attribute=MOVED)
        self.ask("how often, a kind", "how_often", len(kind), _total, entity=one.kind, attribute=MOVED)
        last = max(end for _, end in spans)
        self.ask("last time", "last_seen", last, lambda t: t["facts"][0]["t_last_ns"], entity=one.entity, **here)
        newest = max(row.t_end_ns for row in kind)
        self.ask("last time, a kind", "last_seen", newest, lambda t: t["facts"][0]["t_last_ns"], entity=one.kind)
        names = rng.sample(sorted({row.entity for row in inside}), min(5, len({row.entity for row in inside})))
        firsts = {name: min((r.t_start_ns, r.t_end_ns) for r in inside if r.entity == name) for name in names}
        order = sorted(firsts.values())
        self.ask("in what order", "order", order, _times, entities=names, attribute=MOVED, **here)
        lo = rng.randrange(900 * SECOND)
        hi = lo + 60 * SECOND
        changes = sorted((r.t_start_ns, r.t_end_ns) for r in inside if lo <= r.t_start_ns <= hi)
        self.ask("what began", "changes_between", changes, _times, t_start_ns=lo, t_end_ns=hi, limit=1000, **here)
        number = len({(row.video, row.entity) for row in kind})
        self.ask("how many", "count", number, _total, entity=one.kind)
        at = rng.randrange(spans[0][0], spans[-1][1] + 1)
        held = sorted(row.track for row in mine if row.t_start_ns <= at <= row.t_end_ns)
        self.ask(
            "at that time", "was_at", held, lambda t: sorted(f["value"] for f in t["facts"]),
            entity=one.entity, t_ns=at, attribute=MOVED, **here,
        )  # fmt: skip
        self.ask("never", "how_often", ("not_seen", 0), lambda t: (t["status"], t["total"]), entity="unicorn horn")

    def table(self) -> list[dict[str, Any]]:
        rows = []
        for name, seconds in self.seconds.items():
            ordered = sorted(seconds)
            rows.append({"question": name, "asked": len(ordered), "wrong": self.wrong[name]})
            rows[-1] |= {"median_ms": 1e3 * statistics.median(ordered), "p99_ms": 1e3 * _p99(ordered)}
            rows[-1] |= {"max_ms": 1e3 * ordered[-1], "cpu_p99_ms": 1e3 * _p99(sorted(self.busy[name]))}
        return rows


def _p99(ordered: list[float]) -> float:
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


def _total(told: dict[str, Any]) -> int:
    return int(told["total"])


def observe_cost(count: int = 3000) -> float:
    """Median microseconds of one moment with five detections, four of them tracked."""
    bank = EntitiesBank(EntitiesConfig())
    boxes = [Detection(f"thing {n}", 0.8, (0.1, 0.1, 0.5, 0.5), f"t{n}" if n else None) for n in range(5)]
    taken = []
    for number in range(count):
        moment = Observation(stream="cam", seq=number, capture_ns=number * SECOND // 30, detections=tuple(boxes))
        record = record_from_observation(moment)
        start = time.perf_counter()
        bank.observe(record)
        taken.append(time.perf_counter() - start)
    return 1e6 * statistics.median(taken)


def bytes_per_item(movements: list[Movement]) -> tuple[float, float]:
    """RAM of what the bank holds of the log, measured and as it counts it, both in MB."""
    bank = EntitiesBank(EntitiesConfig())
    records = [record_from_observation(one) for one in observations_of(movements)]
    tracemalloc.start()
    for record in records:
        bank.observe(record)
    measured = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return measured / 2**20, bank.ram_bytes() / 2**20


def run(movements: list[Movement], questions: int, seed: int, directory: Path) -> dict[str, Any]:
    start = time.perf_counter()
    with streammem.memory.open(directory) as memory:
        for info in streams_of(movements):
            memory.set_stream(info)
        memory.write(observations_of(movements))
    written = time.perf_counter() - start
    start = time.perf_counter()
    with streammem.memory.open(directory) as memory:
        opened = time.perf_counter() - start
        asker = Asker(memory, movements, seed)
        for _ in range(questions):
            asker.once()
    measured, counted = bytes_per_item(movements)
    seconds: dict[str, int] = {}
    for row in movements:
        seconds[row.video] = max(row.t_end_ns, seconds.get(row.video, 0))
    return {
        "videos": len(seconds),
        "hours": sum(seconds.values()) / 3.6e12,
        "things": len({(row.video, row.entity) for row in movements}),
        "movements": len(movements),
        "write_s": written,
        "open_s": opened,
        "ram_mb": measured,
        "ram_counted_mb": counted,
        "observe_us": observe_cost(),
        "questions": asker.table(),
    }


def main(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser("streammem bench entities", description="Exact questions about many things.")
    parser.add_argument("--log", type=Path, help="an object movement log (JSON)")
    parser.add_argument("--questions", type=int, default=300, help="of each sort")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    movements = read_movements(given.log) if given.log else made_up(given.seed)
    with tempfile.TemporaryDirectory(prefix="streammem-bench-") as directory:
        result = run(movements, given.questions, given.seed, Path(directory) / "memory")
    if as_json:
        write_document(result)
    else:
        _show(result)
    return 0 if not any(row["wrong"] for row in result["questions"]) else 1


def _show(result: dict[str, Any]) -> None:
    print("{videos} videos, {hours:.1f} h, {things} things, {movements} movements".format(**result))
    print("written in {write_s:.1f} s, opened in {open_s:.2f} s".format(**result))
    print("RAM {ram_mb:.1f} MB (counted as {ram_counted_mb:.1f})".format(**result))
    print("a moment with 5 detections: {observe_us:.0f} us".format(**result))
    print(f"{'question':20} {'asked':>6} {'wrong':>6} {'median ms':>10} {'p99 ms':>8} {'max ms':>8} {'CPU p99':>8}")
    for row in result["questions"]:
        times = "{median_ms:10.2f} {p99_ms:8.2f} {max_ms:8.2f} {cpu_p99_ms:8.2f}".format(**row)
        print("{question:20} {asked:6d} {wrong:6d} ".format(**row) + times)
