"""Is a small thing that was there for three seconds found again in two hours, and at how many bytes?

    streammem bench needles [--data DIR] [--cache DIR] [--hours 2] [--needles 48]

A stream at 1 frame/s: stretches of real recordings (half of them mirrored) one after the other until it is long enough.
Needles: crops of 37 % of a side from recordings that are not in the stream (DAVIS), pasted into three frames in a row.
Question: the same thing 0.13 s later, a tenth darker, in the middle of another picture; its tokens in that box less the
picture's mean, as the question ``select`` with ``like`` and ``box`` makes it. A clip is right if it holds a planted
frame. Everybody gets the same tokens (block 10 of Lite0, 14 x 14 of 112, float16), the same clips and the same score
(the best cosine with a token or slot less its clip's mean):

``raw`` keeps all tokens; ``pool`` and ``merge`` go through the bank; ``fifo`` keeps the newest tokens and ``uniform``
those of every n-th frame, both with the bytes of the largest compressor; ``summary`` is one mean a clip.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streammem.banks.clip_questions import tokens_in_box
from streammem.banks.clips import ClipsBank
from streammem.banks.compressors import open_compressor
from streammem.banks.compressors.base import unit
from streammem.benchmarks import _recordings
from streammem.cli.output import write_document
from streammem.model import Record, record_id

SECOND = 1_000_000_000
SIDE, WIDTH, COUNT = 14, 112, 196
PICTURE, CROP = 224, 84
PLANTED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """``base`` (m, 196, 112) float16 of distinct frames, ``which`` (n,) the frame shown at each second, ``planted`` the
    tokens of those that were changed, ``needles`` (q, 112) the questions, ``places`` (q,) the first planted second."""

    base: np.ndarray
    which: np.ndarray
    planted: dict[int, np.ndarray]
    needles: np.ndarray
    places: np.ndarray

    def tokens(self, at: int) -> np.ndarray:
        return self.planted.get(at, self.base[self.which[at]])


def pictures(data: Path) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
    """Recordings for the stream and for the needles, each a list of 224 x 224 pictures."""
    import cv2

    stream, needles = [], []
    for recording in _recordings.everything(data, 2.0, film=True):
        frames = [cv2.resize(frame, (PICTURE, PICTURE), interpolation=cv2.INTER_AREA) for frame in recording.frames]
        if not recording.name.startswith("davis"):
            stream += [frames, [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]]
    for name, (pattern, native) in _recordings.FOLDERS.items():
        paths = sorted(data.glob(pattern))
        if name.startswith("davis") and paths:
            needles.append(_recordings.read_folder(name, paths, native, native).frames)
    return stream, needles


def encode(frames: Sequence[np.ndarray]) -> np.ndarray:
    from perception.encoders.tokens import PatchTokens

    encoder = PatchTokens("stride16")
    return np.stack([encoder.of(frame) for frame in frames])


def paste(picture: np.ndarray, crop: np.ndarray, y: int, x: int) -> np.ndarray:
    out = picture.copy()
    out[y : y + len(crop), x : x + crop.shape[1]] = crop
    return out


def crops(
    recordings: list[list[np.ndarray]], count: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (as planted, as asked): of random places the ones with the most contrast, spread over all recordings."""
    import cv2

    found = []
    for frames in recordings:
        side = frames[0].shape[0] * CROP // PICTURE
        tried = []
        for _ in range(200):
            at = int(rng.integers(0, len(frames) - 4))
            y, x = int(rng.integers(0, frames[at].shape[0] - side)), int(rng.integers(0, frames[at].shape[1] - side))
            tried.append((float(frames[at][y : y + side, x : x + side].std()), at, y, x))
        chosen: list[tuple[int, int, int]] = []
        for _, at, y, x in sorted(tried, reverse=True):
            if all(abs(y - b) > side // 2 or abs(x - c) > side // 2 for _, b, c in chosen):
                chosen.append((at, y, x))
        for at, y, x in chosen[: -(-count // len(recordings))]:
            planted = cv2.resize(frames[at][y : y + side, x : x + side], (CROP, CROP), interpolation=cv2.INTER_AREA)
            later = cv2.resize(frames[at + 3][y : y + side, x : x + side], (CROP, CROP), interpolation=cv2.INTER_AREA)
            found.append((planted, (later * 0.9).astype(np.uint8)))
    return found[:count]


def make(data: Path, cache: Path | None, hours: float, count: int, seed: int) -> Stream:
    rng = np.random.default_rng(seed)
    recordings, others = pictures(data)
    flat = [frame for frames in recordings for frame in frames]
    path = None if cache is None else cache / f"needles-{len(flat)}.npy"
    if path is not None and path.exists():
        base = np.load(path, allow_pickle=False)
    else:
        print(f"encoding {len(flat)} frames", file=sys.stderr)
        base = encode(flat)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, base)
    starts = np.cumsum([0] + [len(frames) for frames in recordings])
    which: list[int] = []
    while len(which) < hours * 3600:
        number = int(rng.integers(len(recordings)))
        length = min(len(recordings[number]), int(rng.integers(6, 40)))
        lo = int(rng.integers(0, len(recordings[number]) - length + 1))
        which += range(int(starts[number]) + lo, int(starts[number]) + lo + length)
    pairs = crops(others, count, rng)
    places = np.sort(rng.choice(len(which) // 10 - 1, size=len(pairs), replace=False)) * 10 + 3
    planted: dict[int, np.ndarray] = {}
    asked = []
    for place, (needle, later) in zip(places.tolist(), pairs, strict=True):
        y, x = rng.integers(8, PICTURE - CROP - 8, size=2)
        shaken = [rng.integers(-4, 5, size=2) for _ in range(PLANTED)]
        frames = [paste(flat[which[place + i]], needle, int(y + dy), int(x + dx)) for i, (dy, dx) in enumerate(shaken)]
        middle = (PICTURE - len(later)) // 2
        frames.append(paste(flat[int(rng.integers(len(flat)))], later, middle, middle))
        made = encode(frames)
        planted.update({place + i: made[i] for i in range(PLANTED)})
        inner = (middle + 8) / PICTURE
        asked.append(tokens_in_box(made[-1].astype(np.float32), (inner, inner, 1 - inner, 1 - inner)))
    return Stream(base, np.array(which), planted, np.stack(asked), places)


def remember(stream: Stream, name: str, slots: int) -> tuple[list[Record], float]:
    """The bank's clips, and milliseconds a frame."""
    bank = ClipsBank(open_compressor(name, slots=slots))
    clips: list[Record] = []
    spent = 0.0
    for at in range(len(stream.which)):
        record = Record(
            record_id=record_id("moments", "s", "", at),
            bank="moments",
            stream="s",
            t_start_ns=at * SECOND,
            t_end_ns=at * SECOND,
            seq=at,
            arrays={"tokens": stream.tokens(at)},
        )
        started = time.perf_counter()
        clips += bank.observe(record)
        spent += time.perf_counter() - started
    clips += [clip.record for clip in bank.open_clips(None)]
    return clips, spent / len(stream.which) * 1e3


def scores(groups: Sequence[np.ndarray], questions: np.ndarray) -> np.ndarray:
    """(q, k): the best cosine of each question with a vector of each group less the group's mean; -inf where empty."""
    asked = unit(questions.astype(np.float32)).T
    columns = []
    for group in groups:
        if not len(group):
            columns.append(np.full(questions.shape[0], -np.inf, np.float32))
            continue
        own = group.astype(np.float32)
        columns.append((unit(own - own.mean(axis=0)) @ asked).max(axis=0))
    return np.stack(columns, axis=1)


def recalls(found: np.ndarray, spans: np.ndarray, places: np.ndarray) -> dict[str, float]:
    """``spans`` (k, 2) first and last second of each clip."""
    order = np.argsort(-found, axis=1, kind="stable")
    right = (spans[:, 0][None] < places[:, None] + PLANTED) & (spans[:, 1][None] >= places[:, None])
    right &= np.isfinite(found)
    ranked = np.take_along_axis(right, order, axis=1)
    return {
        "recall_1": round(float(ranked[:, 0].mean()), 3),
        "recall_5": round(float(ranked[:, :5].any(axis=1).mean()), 3),
    }


def measure(stream: Stream, sizes: Sequence[int]) -> dict[str, Any]:
    frames = len(stream.which)
    hours = frames / 3600
    clips, _ = remember(stream, "pool", 1)
    spans = np.array([(clip.t_start_ns // SECOND, clip.t_end_ns // SECOND) for clip in clips])
    whole = COUNT * WIDTH * 2

    def row(found: np.ndarray, size: float, **more: Any) -> dict[str, Any]:
        return {**recalls(found, spans, stream.places), "mb_an_hour": round(size / hours / 1e6, 2), **more}

    def kept(seconds: set[int] | None) -> list[np.ndarray]:
        chosen = [[t for t in range(a, b + 1) if seconds is None or t in seconds] for a, b in spans]
        return [np.concatenate([stream.tokens(t) for t in own]) if own else np.empty((0, WIDTH)) for own in chosen]

    results = {"raw": row(scores(kept(None), stream.needles), frames * whole, share=1.0)}
    summaries = np.stack([clip.arrays["summary"][0].astype(np.float32) for clip in clips])
    means = unit(stream.needles) @ unit(summaries - summaries.mean(axis=0)).T
    results["summary"] = row(means, summaries.shape[0] * WIDTH * 2, share=round(summaries.shape[0] / frames / COUNT, 4))
    largest = 0
    for name in ("pool", "merge"):
        for size in sizes:
            if name == "pool" and int(size**0.5) ** 2 != size:
                continue
            made, cost = remember(stream, name, size)
            used = sum(array.nbytes for clip in made for key, array in clip.arrays.items() if key != "keys")
            largest = max(largest, used)
            found = scores([clip.arrays["slots"] for clip in made], stream.needles)
            results[f"{name} {size}"] = row(
                found, used, share=round(used / frames / whole, 4), ms_a_frame=round(cost, 2)
            )
    most = largest // whole
    results["fifo"] = row(scores(kept(set(range(frames - most, frames))), stream.needles), most * whole)
    step = -(-frames // most)
    results["uniform"] = row(
        scores(kept(set(range(0, frames, step))), stream.needles), len(range(0, frames, step)) * whole
    )
    for name in ("fifo", "uniform"):
        results[name]["share"] = round(results[name]["mb_an_hour"] / results["raw"]["mb_an_hour"], 4)
    return {"frames": frames, "clips": len(clips), "needles": len(stream.places), "kept": results}


def main(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser("streammem bench needles", description="Needles in a long stream.")
    parser.add_argument("--data", type=Path, default=_recordings.DATA)
    parser.add_argument("--cache", type=Path, default=None, help="where encoded frames are kept")
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--needles", type=int, default=48)
    parser.add_argument("--slots", type=int, nargs="+", default=[4, 16, 24])
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    document = measure(make(chosen.data, chosen.cache, chosen.hours, chosen.needles, chosen.seed), chosen.slots)
    if as_json:
        write_document(document)
        return 0
    clips, needles = document["clips"], document["needles"]
    print(f"{document['frames']} frames at 1/s, {clips} clips, {needles} needles of {PLANTED} frames")
    print(f"  {'':<12}{'recall@1':>9}{'recall@5':>9}{'MB/hour':>9}{'share':>8}{'ms/frame':>10}")
    for name, row in document["kept"].items():
        cost = f"{row['ms_a_frame']:.2f}" if "ms_a_frame" in row else ""
        print(
            f"  {name:<12}{row['recall_1']:>9.2f}{row['recall_5']:>9.2f}{row['mb_an_hour']:>9.2f}"
            f"{row['share']:>8.3f}{cost:>10}"
        )
    return 0
