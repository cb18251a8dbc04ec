"""How fast the engine writes, opens and reads.

    streammem bench engine [--rows 1000000] [--writes 5000] [--directory DIR] [--keep]

``write``: observations with a 384-d vector, 3 KB of parts and an 8 KB thumbnail, acknowledged after fsync, through
``Memory.write`` in groups of 64 and one by one. ``open``: a memory of ``--rows`` rows in a fresh process, first
``blocks()`` included. Times are medians of several runs where that is cheap.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import streammem.memory
from streammem.cli.output import write_document
from streammem.config import Config, MemoryConfig
from streammem.model import Label, Observation, TextSpan
from streammem.storage.catalog import Catalog
from streammem.storage.files import Files
from streammem.storage.open_part import record_from_observation
from streammem.storage.recovery import mark
from streammem.storage.segment_writer import Row, write_segment
from streammem.storage.words import WordIndex

SECOND = 10**9
SEGMENT_ROWS = 40_000
"""What 32 MB of content without pictures come to."""
JPEG = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00\xff\xda" + bytes(8000) + b"\xff\xd9"


def observation(number: int, vectors: np.ndarray, *, full: bool) -> Observation:
    return Observation(
        stream="cam",
        seq=number,
        capture_ns=number * SECOND,
        space="bench@1",
        embedding=vectors[number % len(vectors)],
        parts={"scores": np.full((50, 15), number % 7, np.float32)} if full else {},
        thumbnail=JPEG if full else None,
        labels=(Label("cup", 0.5),),
        texts=(TextSpan(f"sign {number}", 0.9),) if number % 100 == 0 else (),
    )


def unit_vectors(count: int, dim: int = 384) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def bench_write(directory: Path, count: int) -> dict[str, float]:
    vectors = unit_vectors(1000)
    made = [observation(number, vectors, full=True) for number in range(count + 200)]
    groups: list[float] = []
    with streammem.memory.open(directory, config=Config(memory=MemoryConfig(seal_bytes=32 << 20))) as memory:
        start = time.perf_counter()
        for at in range(0, count, 64):
            before = time.perf_counter()
            memory.write(made[at : min(at + 64, count)])
            groups.append(time.perf_counter() - before)
        seconds = time.perf_counter() - start
        singles = []
        for one in made[count:]:
            before = time.perf_counter()
            memory.write(one)
            singles.append(time.perf_counter() - before)
        status = memory.status()
        before = time.perf_counter()
        memory.seal()
        seal = time.perf_counter() - before
    return {
        "observations": count,
        "observations_per_s": count / seconds,
        "group_of_64_ms_median": 1e3 * statistics.median(groups),
        "group_of_64_ms_max": 1e3 * max(groups),
        "single_ms_median": 1e3 * statistics.median(singles),
        "seal_of_the_rest_ms": 1e3 * seal,
        "segments": status.segments,
        "disk_mb": status.disk_bytes / 2**20,
    }


def build(directory: Path, rows: int) -> float:
    """Write segments directly, as sealing would, without the journal. Returns seconds."""
    start = time.perf_counter()
    files = Files()
    directory.mkdir(parents=True, exist_ok=True)
    catalog = Catalog(directory / "catalog.sqlite", write=True)
    words = WordIndex(catalog.database, write=True)
    mark(directory, files)
    vectors = unit_vectors(20_000)
    for first in range(0, rows, SEGMENT_ROWS):
        numbers = range(first, min(rows, first + SEGMENT_ROWS))
        batch = [Row(record_from_observation(observation(n, vectors, full=False)), n * 2654435761) for n in numbers]
        last = numbers[-1] + 1
        manifest = write_segment(
            directory / "segments", batch, files=files, bank="moments", stream="cam", lsn_first=first + 1, lsn=last
        )
        with catalog.transaction():
            catalog.add_segment(manifest)
            words.add(manifest.name, (row.record for row in batch))
            catalog.set_stream("cam", last, None)
            catalog.set_sequences("cam", {"": [(0, last - 1)]})
            catalog.set_fact("lsn", str(last).encode())
            catalog.set_fact("clean", b"1")
    catalog.close()
    return time.perf_counter() - start


OPEN = """
import time; start = time.perf_counter()
import streammem.memory as m
imported = time.perf_counter()
import sys; memory = m.open(sys.argv[1], mode=sys.argv[2]); opened = time.perf_counter()
rows = sum(len(b) for b in memory.blocks()); blocks = time.perf_counter()
memory.search_text("sign 500"); text = time.perf_counter()
memory.record(int(memory.blocks()[0].record_ids[5])); record = time.perf_counter()
digest = memory.digest(); memory.status(); end = time.perf_counter()
import json, resource
print(json.dumps({
    "rows": rows, "import_s": imported - start, "open_s": opened - imported, "blocks_s": blocks - opened,
    "text_search_ms": 1e3 * (text - blocks), "record_ms": 1e3 * (record - text),
    "digest_and_status_ms": 1e3 * (end - record), "total_s": end - start,
    "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def bench_open(directory: Path, mode: str, runs: int = 3) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    results = []
    for _ in range(runs):
        command = [sys.executable, "-c", OPEN, str(directory), mode]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        results.append(json.loads(done.stdout))
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def main(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser("streammem bench engine", description="Write, open and read a large memory.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--writes", type=int, default=5000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--keep", action="store_true", help="leave the big memory for other measurements")
    given = parser.parse_args(arguments)
    root = given.directory or Path(tempfile.mkdtemp(prefix="streammem-bench-"))
    try:
        result: dict[str, object] = {"write": bench_write(root / "write", given.writes)}
        built = (root / "big" / "FORMAT").exists() or build(root / "big", given.rows)
        result["build_s"] = built if built is not True else None
        result["open_write"] = bench_open(root / "big", "write")
        result["open_read"] = bench_open(root / "big", "read")
        if as_json:
            write_document(result)
        else:
            print(json.dumps(result, indent=2))
    finally:
        shutil.rmtree(root / "write", ignore_errors=True)
        if not given.keep:
            shutil.rmtree(root, ignore_errors=True)
    return 0
