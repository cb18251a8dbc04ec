"""What is still found when a long stream is squeezed: recall against budget for every policy of retention.

    streammem bench retention [--data DIR] [--cache DIR] [--visits 6] [--fps 2] [--seed 0]

The shared recordings (``_recordings.py``) are joined in a shuffled order: half of them come once, half again and again
(``--visits``), as a home has routine and rare things; a visit shows every look once more with 2 % noise. A look is a
real EfficientNet-Lite0 vector with an 8 KB picture. Every 30 looks are sealed; then the real ladder
(``storage/demotion.py``) takes detail away, a policy choosing whose, until 1/2, 1/8 and 1/32 of the bytes are left.

A question is the vector of a look with 20 % noise, its answer any moment of the same recording within 2 s of it.
``found@1`` and ``@5``: among the best hits, and pinned down to half a minute. ``pictures``: a picture is still there.
``rare`` asks about recordings that came once; ``again`` asks about what was cited before, as people do.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streammem.benchmarks._recordings import DATA, everything
from streammem.cli.output import write_document
from streammem.model import Observation, Record
from streammem.storage.demotion import LAST_LEVEL, demote
from streammem.storage.open_part import content_bytes, record_digest, record_from_observation
from streammem.storage.retention import POLICIES, Candidate, Policy
from streammem.storage.segment_writer import Row

SHARES = (2, 8, 32)
LOOKS = 30
"""In one sealed part."""
SECOND = 10**9
FILES_BYTES = 1024
"""What a segment costs besides its rows; on a disk ten pages, but then it is larger too."""
PICTURE = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00\xff\xda" + bytes(8000) + b"\xff\xd9"


class Look(NamedTuple):
    """A moment of a recording: which one, when in it, and its vector (d,) float32 of norm 1."""

    recording: str
    at_ns: int
    vector: np.ndarray


class Part:
    """A sealed part, as the simulation holds it: rows, level, bytes, and what the policy may know."""

    def __init__(self, order: int, rows: list[Row], cited: tuple[int, int, int]) -> None:
        self.order, self.rows, self.level, self.cited = order, rows, 0, cited
        self.t_min_ns = min(row.record.t_start_ns for row in rows)
        self.t_max_ns = max(row.record.t_end_ns for row in rows)
        self._measure()

    def _measure(self) -> None:
        self.bytes = FILES_BYTES + sum(content_bytes(row.record) for row in self.rows)
        vectors = [row.record.vector for row in self.rows if row.record.vector is not None]
        mean = np.mean(np.array(vectors, np.float32), axis=0) if vectors else None
        self.signature = None if mean is None else (mean / np.linalg.norm(mean)).astype(np.float32)

    def lower(self) -> None:
        self.level += 1
        self.rows = demote(self.rows, self.level)
        self._measure()

    def candidate(self, now_ns: int) -> Candidate:
        recalls, recalled_ns, gap_ns = self.cited
        return Candidate(
            self.order,
            "cam",
            self.t_min_ns,
            self.t_max_ns,
            now_ns,
            self.level,
            self.signature,
            "bench@1",
            recalls,
            recalled_ns,
            gap_ns,
        )


def looks_of(data: Path, cache: Path | None, fps: float) -> dict[str, list[Look]]:
    """Every recording's looks, from the cache where they are there."""
    from perception.encoders.lite0 import SIZE, Lite0

    path = None if cache is None else cache / f"looks-{fps:g}.npz"
    if path is not None and path.exists():
        with np.load(path, allow_pickle=False) as kept:
            names, times, vectors = kept["names"], kept["times"], kept["vectors"]
    else:
        import cv2

        network = Lite0()
        found: list[tuple[str, int, np.ndarray]] = []
        for recording in everything(data, fps, film=True):
            for at, frame in zip(recording.times_ns, recording.frames, strict=True):
                (pooled,) = network.run(cv2.resize(frame, (SIZE, SIZE))[None], "pooled")
                found.append((recording.name, at, pooled[0] / np.linalg.norm(pooled[0])))
        names = np.array([name for name, _, _ in found])
        times = np.array([at for _, at, _ in found])
        vectors = np.array([vector for _, _, vector in found], np.float32)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, names=names, times=times, vectors=vectors)
    # The vectors of all pictures share a large mean (cosine 0.5 of any two): without it they say what is different.
    centred = vectors - vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    result: dict[str, list[Look]] = {}
    for name, at, vector in zip(names.tolist(), times.tolist(), centred, strict=True):
        result.setdefault(name, []).append(Look(name, at, vector))
    return result


def joined(looks: dict[str, list[Look]], visits: int, rng: np.random.Generator) -> tuple[list[Look], set[str]]:
    """One long stream, and the names of what came once."""
    names = sorted(looks)
    once = {name for at, name in enumerate(rng.permutation(names).tolist()) if at % 2}
    order = [name for name in names for _ in range(1 if name in once else visits)]
    stream: list[Look] = []
    for name in rng.permutation(order).tolist():
        stream += [look._replace(vector=noisy(look.vector, 0.02, rng)) for look in looks[name]]
    return stream, once


def noisy(vector: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(len(vector)).astype(np.float32)
    mixed = vector + share * noise / np.linalg.norm(noise)
    return np.asarray(mixed / np.linalg.norm(mixed), np.float32)


def sealed(stream: list[Look], favourites: set[int]) -> list[Part]:
    """Parts of ``LOOKS`` looks, a look a second. What is a favourite was cited three times since, an hour apart."""
    parts = []
    for first in range(0, len(stream), LOOKS):
        rows = []
        for at in range(first, min(first + LOOKS, len(stream))):
            observation = Observation(
                stream="cam",
                seq=at,
                capture_ns=at * SECOND,
                space="bench@1",
                embedding=stream[at].vector,
                thumbnail=PICTURE,
            )
            record = record_from_observation(observation)
            rows.append(Row(record, record_digest(record)))
        order = first // LOOKS
        cited = (3, len(stream) * SECOND, 3600 * SECOND) if order in favourites else (0, 0, 0)
        parts.append(Part(order, rows, cited))
    return parts


def squeeze(parts: list[Part], policy: Policy, most_bytes: int) -> None:
    now_ns = max(part.t_max_ns for part in parts)
    used = sum(part.bytes for part in parts)
    while used > most_bytes:
        candidates = [part.candidate(now_ns) for part in parts if part.level < LAST_LEVEL]
        if not candidates:
            return
        part = parts[policy(candidates).order]
        used -= part.bytes
        part.lower()
        used += part.bytes


def asked(parts: list[Part], stream: list[Look], questions: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Shares of questions that are answered from what is left."""
    records: list[Record] = [row.record for part in parts for row in part.rows if row.record.vector is not None]
    if not records:
        return {"found@1": 0.0, "found@5": 0.0, "pictures": 0.0}
    matrix = np.array([record.vector for record in records], np.float32)
    first = five = pictures = 0
    for at in questions.tolist():
        look = stream[at]
        scores = matrix @ noisy(look.vector, 0.2, rng)
        best = np.argsort(-scores, kind="stable")[:5]
        hits = [_shows(records[hit], stream, look) for hit in best.tolist()]
        first += hits[0]
        five += any(hits)
        pictures += any(
            hit and records[row].thumbnail is not None for row, hit in zip(best.tolist(), hits, strict=True)
        )
    count = len(questions)
    return {"found@1": first / count, "found@5": five / count, "pictures": pictures / count}


def _shows(record: Record, stream: list[Look], wanted: Look) -> bool:
    lo, hi = record.t_start_ns // SECOND, record.t_end_ns // SECOND
    if hi - lo > 30:
        return False
    return any(
        look.recording == wanted.recording and abs(look.at_ns - wanted.at_ns) <= 2 * SECOND
        for look in stream[lo : hi + 1]
    )


def main(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser("streammem bench retention", description="Recall against budget, by policy.")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=None, help="folder for the looks: they take a minute to make")
    parser.add_argument("--visits", type=int, default=6)
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    rng = np.random.default_rng(chosen.seed)
    stream, once = joined(looks_of(chosen.data, chosen.cache, chosen.fps), chosen.visits, rng)
    count = -(-len(stream) // LOOKS)
    favourites = set(rng.choice(count, max(1, count // 20), replace=False).tolist())
    ask = {
        "all": rng.choice(len(stream), chosen.questions),
        "rare": rng.choice([at for at, look in enumerate(stream) if look.recording in once], chosen.questions),
        "again": rng.choice([at for at in range(len(stream)) if at // LOOKS in favourites], chosen.questions),
    }
    whole = sealed(stream, favourites)
    full = sum(part.bytes for part in whole)
    rows: list[dict[str, Any]] = []
    for name, share in [("everything", 1), *((name, share) for share in SHARES for name in sorted(POLICIES))]:
        parts = sealed(stream, favourites)
        begun = time.process_time()
        if share > 1:
            squeeze(parts, POLICIES[name], full // share)
        spent = time.process_time() - begun
        row: dict[str, Any] = {"policy": name, "share": share, "bytes": sum(part.bytes for part in parts)}
        for what, questions in ask.items():
            found = asked(parts, stream, questions, np.random.default_rng(chosen.seed + 1))
            row |= {f"{what} {key}": round(value, 3) for key, value in found.items()}
        rows.append(row | {"cpu_s": round(spent, 2)})
    document = {"looks": len(stream), "parts": count, "bytes": full, "results": rows}
    if as_json:
        write_document(document)
        return 0
    print(f"{len(stream)} looks in {count} parts, {full / 1e6:.1f} MB")
    print(
        f"{'policy':<12} {'share':>5}  {'all @1':>7} {'@5':>6} {'pict.':>6}  {'rare @1':>7} {'@5':>6}  {'again @1':>8}"
    )
    for row in rows:
        print(
            f"{row['policy']:<12} 1/{row['share']:<3}  {row['all found@1']:>7.3f} {row['all found@5']:>6.3f}"
            f" {row['all pictures']:>6.3f}  {row['rare found@1']:>7.3f} {row['rare found@5']:>6.3f}"
            f"  {row['again found@1']:>8.3f}"
        )
    return 0
