"""A day of stream in minutes: do bytes on disk and in RAM stay flat under a budget?

    streammem bench soak [--hours 24] [--rate 1] [--disk 500] [--ram 300] [--data DIR] [--cache DIR]

Real looks of the shared recordings (see ``bench retention``), joined in a shuffled order again and again, each with an
8 KB picture, are written as a camera would, ``--rate`` a second of stream time, as fast as they are taken: on an idle
machine about a thousand times faster than they would come. Every twenty-fourth of the way: bytes on the disk (all
files), RSS, and the part of it that is no file (RssAnon: mapped segments are the kernel's to drop). ``growth`` compares
the medians of the third and the last quarter.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import streammem.memory
from streammem.benchmarks._recordings import DATA
from streammem.benchmarks.retention import PICTURE, looks_of, noisy
from streammem.cli.output import write_document
from streammem.config import BudgetConfig, Config
from streammem.model import Label, Observation

POINTS = 24
GROUP = 60
SECOND = 10**9


def resident_mb() -> tuple[float, float]:
    """(all, not of files), in MB."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "RssAnon"):
            found[name] = int(rest.split()[0]) / 1024
    return found["VmRSS"], found["RssAnon"]


def disk_mb(directory: Path) -> float:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 2**20


def growth(values: list[float]) -> float:
    quarter = max(1, len(values) // 4)
    return statistics.median(values[-quarter:]) / statistics.median(values[-2 * quarter : -quarter]) - 1


def soak(directory: Path, vectors: np.ndarray, config: Config, *, hours: float, rate: float) -> dict[str, Any]:
    """Write ``hours`` of stream. The curve has a point for each twenty-fourth."""
    rng = np.random.default_rng(0)
    total = int(hours * 3600 * rate)
    curve: list[dict[str, float]] = []
    begun = time.perf_counter()
    with streammem.memory.open(directory, config=config) as memory:
        for first in range(0, total, GROUP):
            group = []
            for number in range(first, min(first + GROUP, total)):
                if number % len(vectors) == 0:
                    order = rng.permutation(len(vectors) // GROUP)
                at = int(order[(number % len(vectors)) // GROUP % len(order)]) * GROUP + number % GROUP
                group.append(
                    Observation(
                        stream="cam",
                        seq=number,
                        capture_ns=int(number / rate * SECOND),
                        space="bench@1",
                        embedding=noisy(vectors[at % len(vectors)], 0.02, rng),
                        thumbnail=PICTURE,
                        labels=(Label(f"thing {at % 50}", 0.5),),
                    )
                )
            memory.write(group)
            if first // GROUP % max(1, total // GROUP // POINTS) == 0:
                rss, anonymous = resident_mb()
                status = memory.status()
                curve.append(
                    {
                        "hour": round(first / rate / 3600, 2),
                        "disk_mb": round(disk_mb(directory), 1),
                        "rss_mb": round(rss, 1),
                        "rss_anon_mb": round(anonymous, 1),
                        "segments": status.segments,
                        "records": status.records,
                    }
                )
        seconds = time.perf_counter() - begun
        count = memory.observation_count
    return {
        "observations": count,
        "times_real_speed": round(hours * 3600 / seconds, 1),
        "disk_max_mb": max(point["disk_mb"] for point in curve),
        "rss_max_mb": max(point["rss_mb"] for point in curve),
        "rss_growth": round(growth([point["rss_mb"] for point in curve]), 4),
        "rss_anon_growth": round(growth([point["rss_anon_mb"] for point in curve]), 4),
        "curve": curve,
    }


def main(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser("streammem bench soak", description="A day of stream under a budget.")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--disk", type=int, default=500, metavar="MB")
    parser.add_argument("--ram", type=int, default=300, metavar="MB")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="where the memory goes (default: a temporary folder)")
    chosen = parser.parse_args(arguments)
    looks = looks_of(chosen.data, chosen.cache, 2.0)
    vectors = np.array([look.vector for name in sorted(looks) for look in looks[name]])
    config = Config(budget=BudgetConfig(disk_bytes=chosen.disk << 20, ram_bytes=chosen.ram << 20))
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        result = soak(Path(folder) / "memory", vectors, config, hours=chosen.hours, rate=chosen.rate)
    if as_json:
        write_document(result)
        return 0
    curve = result.pop("curve")
    print(" ".join(f"{name:>11}" for name in curve[0]))
    for point in curve:
        print(" ".join(f"{value:>11}" for value in point.values()))
    for name, value in result.items():
        print(f"{name:>20}  {value}")
    return 0
