"""Are events cut where the scene changes? Boundary F1 within a second, on joined recordings and on a film.

    streammem bench events [--data DIR] [--cache DIR] [--fps 2] [--minutes 10] [--streams 3]

Joined: stretches of 5 to 20 s of real recordings one after the other; the joins are exact truth. Film: the first 300 s
of Big Buck Bunny; truth is a detector at the full 24 frames a second (mean RGB change of a 64 x 36 picture above 20 and
more than twice its neighbours'); all 74 cuts that it finds were checked by eye on 2026-11-23. A film's shots are
shorter than events are meant to be. Every rule gets the frames, vectors and picture changes of a watched memory.
Baselines: windows of equal length, as many as there are true segments (they are told the number, the others aren't),
and a shot detector on the change of the 16 x 16 gray picture. Defaults were chosen on seeds 10 to 12.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from streammem.banks.segmentation import CosineSegmenter, FixedSegmenter, Segmenter, SurpriseRule, SurpriseSegmenter
from streammem.benchmarks import _looks, _recordings
from streammem.cli.output import write_document

SECOND = 1_000_000_000
TOLERANCE_NS = SECOND
SCENE_CUT = 40.0
Make = Callable[[], Segmenter]


class ChangeSegmenter(FixedSegmenter):
    """The shot-change baseline: it cuts where the picture changed, nowhere else."""

    def __init__(self) -> None:
        super().__init__(1e9)

    def push(self, t_ns: int, vector: np.ndarray, *, force: bool = False, hint: bool = False) -> tuple[int, ...]:
        return super().push(t_ns, vector, force=hint)


def join(looks: list[_looks.Looks], seconds: float, fps: float, seed: int) -> list[tuple[_looks.Looks, int, int]]:
    """Random stretches of random recordings, never the same recording twice in a row."""
    rng = np.random.default_rng(seed)
    parts: list[tuple[_looks.Looks, int, int]] = []
    frames = 0
    while frames < seconds * fps:
        chosen = looks[int(rng.integers(len(looks)))]
        if parts and parts[-1][0].name == chosen.name:
            continue
        length = min(len(chosen), round(float(rng.uniform(5, 20)) * fps))
        lo = int(rng.integers(0, len(chosen) - length + 1))
        parts.append((chosen, lo, lo + length))
        frames += length
    return parts


def cuts_of(
    segmenter: Segmenter, times: np.ndarray, vectors: np.ndarray, changes: np.ndarray, hints: bool
) -> list[int]:
    """Times in ns at which a segment begins, without the first."""
    lengths: list[int] = []
    for at, (t_ns, vector) in enumerate(zip(times.tolist(), vectors, strict=True)):
        lengths += segmenter.push(t_ns, vector, hint=bool(hints and at and changes[at] > SCENE_CUT))
    lengths += segmenter.finish()
    return [int(times[at]) for at in np.cumsum(lengths)[:-1]]


def f1(found: list[int], truth: list[int], tolerance_ns: int = TOLERANCE_NS) -> tuple[float, float, float]:
    """F1, precision, recall; every true cut is found by at most one, in the order of time."""
    right, at = 0, 0
    for cut in sorted(truth):
        while at < len(found) and found[at] < cut - tolerance_ns:
            at += 1
        if at < len(found) and found[at] <= cut + tolerance_ns:
            right, at = right + 1, at + 1
    precision, recall = right / max(1, len(found)), right / max(1, len(truth))
    return 2 * precision * recall / max(1e-9, precision + recall), precision, recall


def film_cuts(path: Path) -> list[int]:
    """Hard cuts of a film by their pictures at the full rate, in ns."""
    import av
    import cv2

    times, change = [], [0.0]
    before = None
    with av.open(str(path)) as film:
        for frame in film.decode(video=0):
            small = cv2.resize(frame.to_ndarray(format="rgb24"), (64, 36), interpolation=cv2.INTER_AREA).astype(
                np.float32
            )
            times.append(round(float(frame.time or 0.0) * SECOND))
            if before is not None:
                change.append(float(np.abs(small - before).mean()))
            before = small
    return [
        times[i]
        for i in range(2, len(change) - 2)
        if change[i] > 20 and change[i] > 2 * max(change[i - 2], change[i - 1], change[i + 1], change[i + 2])
    ]


def rules(count: int, seconds: float) -> dict[str, tuple[Make, bool]]:
    """By name: how to make it, and whether it is told of picture changes."""
    made: dict[str, tuple[Make, bool]] = {
        "events (default)": (lambda: SurpriseSegmenter(), True),
        "windows of equal length": (lambda: FixedSegmenter(seconds / max(1, count)), False),
        "shot change > 40": (ChangeSegmenter, True),
        "clips (IXC2.5-OL's rule)": (lambda: CosineSegmenter(), False),
    }
    for threshold in ("median_mad", "mean_std"):
        for refine in ("none", "modularity", "conductance"):
            rule = SurpriseRule(threshold=threshold, refine=refine)
            made[f"surprise alone, {threshold}, {refine}"] = (partial(SurpriseSegmenter, rule), False)
    return made


def measure(streams: list[tuple[Any, list[int]]]) -> dict[str, dict[str, float]]:
    """Mean over streams of ((times, vectors, changes), true cuts in ns)."""
    results: dict[str, dict[str, float]] = {}
    first = streams[0]
    for name in rules(len(first[1]) + 1, 1.0):
        rows, cuts, spent, frames = [], 0, 0.0, 0
        for (times, vectors, changes), truth in streams:
            make, hints = rules(len(truth) + 1, float(times[-1]) / SECOND)[name]
            started = time.perf_counter()
            found = cuts_of(make(), times, vectors, changes, hints)
            spent += time.perf_counter() - started
            frames += len(times)
            cuts += len(found)
            rows.append(f1(found, truth))
        mean = np.mean(rows, axis=0)
        results[name] = {
            "f1": round(float(mean[0]), 3),
            "precision": round(float(mean[1]), 3),
            "recall": round(float(mean[2]), 3),
            "cuts": cuts,
            "us_a_frame": round(spent / frames * 1e6, 1),
        }
    return results


def main(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser("streammem bench events", description="Boundary F1 within a second.")
    parser.add_argument("--data", type=Path, default=_recordings.DATA)
    parser.add_argument("--cache", type=Path, default=None, help="where looked-at frames are kept")
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--streams", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    looks = [_looks.look(recording, chosen.cache) for recording in _recordings.everything(chosen.data, chosen.fps)]
    step_ns = round(SECOND / chosen.fps)
    joined = []
    for seed in range(chosen.seed, chosen.seed + chosen.streams):
        times, vectors, changes, starts = _looks.as_watched(join(looks, chosen.minutes * 60, chosen.fps, seed), step_ns)
        joined.append(((times, vectors, changes), [int(times[at]) for at in starts]))
    document: dict[str, Any] = {
        "frames_a_second": chosen.fps,
        "joined": {"cuts": sum(len(truth) for _, truth in joined), "rules": measure(joined)},
    }
    film = chosen.data / _recordings.FILM
    if film.is_file():
        seen = _looks.look(_recordings.read(film.stem, film, chosen.fps), chosen.cache)
        times, vectors, changes, _ = _looks.as_watched([(seen, 0, len(seen))], step_ns)
        truth = film_cuts(film)
        document["film"] = {"cuts": len(truth), "rules": measure([((seen.times_ns, vectors, changes), truth)])}
    if as_json:
        write_document(document)
        return 0
    for part in ("joined", "film"):
        if part in document:
            print(f"{part}: {document[part]['cuts']} cuts, {chosen.fps:g} frames/s, within 1 s")
            print(f"  {'':<42}{'F1':>6}{'prec.':>7}{'recall':>7}{'cuts':>6}{'us/frame':>10}")
            for name, row in document[part]["rules"].items():
                print(
                    f"  {name:<42}{row['f1']:>6.2f}{row['precision']:>7.2f}{row['recall']:>7.2f}"
                    f"{row['cuts']:>6}{row['us_a_frame']:>10.0f}"
                )
    return 0
