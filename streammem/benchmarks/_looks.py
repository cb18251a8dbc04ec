"""What the default perception sees of a picture, per frame and cached, so that streams can be joined of it at will.

A frame's vectors don't depend on its neighbours; which frames are keyframes does, so that is decided when they are
joined, by the same selector and on the same numbers as ``streammem watch`` does it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streammem.benchmarks._recordings import Recording


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """n frames of one recording: ``small`` (n, 16, 16, 3) uint8, ``pooled`` (n, 1280), ``light`` and ``full`` (n, d)
    float32 vectors of the embedding space, of one crop and of all."""

    name: str
    times_ns: np.ndarray
    small: np.ndarray
    pooled: np.ndarray
    light: np.ndarray
    full: np.ndarray

    def __len__(self) -> int:
        return len(self.times_ns)


def look(recording: Recording, cache: Path | None) -> Looks:
    """With ``cache`` it is read from there if it was looked at before."""
    import cv2

    from perception.encoders.imagenet import ImageNetSpace

    space = ImageNetSpace()
    name = f"{recording.name.replace('/', '-')}-{len(recording.frames)}-{space.identity}.npz"
    path = None if cache is None else cache / name
    if path is not None and path.exists():
        with np.load(path, allow_pickle=False) as known:
            return Looks(recording.name, *(known[key] for key in ("times", "small", "pooled", "light", "full")))
    print(f"looking at {recording.name}, {len(recording.frames)} frames", file=sys.stderr)
    rows: list[tuple[Any, ...]] = []
    for frame in recording.frames:
        pooled, glance = space.glance(frame)
        full = space.embed_frame(frame, glance=glance)
        small = cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA)
        rows.append((small, pooled, glance.vector, full.vector))
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    made = Looks(recording.name, np.array(recording.times_ns), *columns)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, times=made.times_ns, small=made.small, pooled=made.pooled, light=made.light, full=made.full)
    return made


def as_watched(
    parts: list[tuple[Looks, int, int]], step_ns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Frames [lo, hi) of recordings one after the other as a watched stream: times (n,), the vectors that a memory
    keeps (n, d), how much each picture changed (n,), and where a recording begins (without the first)."""
    from perception.sampling import KeyframeSelector

    selector = KeyframeSelector()
    vectors: list[np.ndarray] = []
    changes: list[float] = []
    starts: list[int] = []
    for looks, lo, hi in parts:
        if vectors:
            starts.append(len(vectors))
        for at in range(lo, hi):
            choice = selector.decide(looks.small[at], looks.pooled[at], len(vectors) * step_ns)
            vectors.append(looks.full[at] if choice.key else looks.light[at])
            changes.append(choice.change)
    return np.arange(len(vectors)) * step_ns, np.stack(vectors), np.array(changes), starts
