"""Boxes of one picture, as any detector gives them, checked once at the edge.

``supervision.Detections`` is taken and given back without depending on it: whatever has ``xyxy``, ``confidence``,
``class_id`` and ``data`` will do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streammem.errors import InputError, ModelUnavailable

MOST = 300
"""Boxes of a picture that are looked at, the surest first; a detector that gives 10,000 is broken."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """``xyxy`` (n, 4) float32 in pixels, ``scores`` (n,) float32 in [0, 1], ``labels`` one each, and (n, d) float32
    unit ``vectors`` that describe how each looks, where there are any."""

    xyxy: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]
    vectors: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.xyxy)

    def take(self, index: np.ndarray | Sequence[int]) -> Boxes:
        """Some of them, in the order of ``index``."""
        chosen = np.asarray(index, np.int64)
        vectors = None if self.vectors is None else self.vectors[chosen]
        return Boxes(self.xyxy[chosen], self.scores[chosen], tuple(self.labels[at] for at in chosen), vectors)


@dataclass(slots=True)
class Drops:
    """Why boxes were left out, and how many."""

    counts: Counter[str] = field(default_factory=Counter)

    def note(self, reason: str, n: int) -> None:
        if n:
            self.counts[reason] += n


def boxes(
    xyxy: Any, scores: Any = None, labels: Sequence[str] | str = "object", vectors: np.ndarray | None = None
) -> Boxes:
    """Boxes from plain arrays. Raises InputError where the lengths or shapes don't fit."""
    corners = np.asarray(xyxy, np.float32).reshape(-1, 4) if np.size(xyxy) % 4 == 0 else None
    if corners is None:
        raise InputError(f"boxes have shape {np.shape(xyxy)}", hint="give (n, 4): x0, y0, x1, y1 in pixels")
    n = len(corners)
    sure = np.ones(n, np.float32) if scores is None else np.asarray(scores, np.float32).reshape(-1)
    names = (labels,) * n if isinstance(labels, str) else tuple(labels)
    if len(sure) != n or len(names) != n or (vectors is not None and len(vectors) != n):
        raise InputError(f"{n} boxes, {len(sure)} scores, {len(names)} labels", hint="give one of each for every box")
    return Boxes(corners, sure, names, vectors)


def clean(found: Boxes, size: tuple[int, int], drops: Drops, *, most: int = MOST) -> Boxes:
    """What can be used of ``found`` in a picture of ``size`` (height, width): finite, inside, not empty, cut off at
    the border, at most ``most``. Every box that goes is counted in ``drops``."""
    height, width = size
    finite = np.isfinite(found.xyxy).all(axis=1) & np.isfinite(found.scores)
    drops.note("box or score isn't finite", int((~finite).sum()))
    limits = np.array([width, height, width, height], np.float32)
    cut = np.clip(np.where(finite[:, None], found.xyxy, 0), 0, limits) if width and height else found.xyxy
    solid = finite & (cut[:, 2] - cut[:, 0] >= 1) & (cut[:, 3] - cut[:, 1] >= 1)
    drops.note("box is empty or outside of the picture", int((finite & ~solid).sum()))
    kept = np.flatnonzero(solid)
    if len(kept) > most:
        drops.note(f"more than {most} boxes in a picture", len(kept) - most)
        kept = np.sort(kept[np.argsort(-found.scores[kept], kind="stable")[:most]])
    chosen = found.take(kept)
    return Boxes(cut[kept], np.clip(chosen.scores, 0, 1), chosen.labels, chosen.vectors)


def from_supervision(detections: Any, names: Mapping[int, str] | Sequence[str] | None = None) -> Boxes:
    """From ``supervision.Detections`` (or anything with its fields). ``names`` by class number; without it
    ``data["class_name"]`` is used where it is there. Raises InputError for something else."""
    xyxy = getattr(detections, "xyxy", None)
    if xyxy is None:
        raise InputError(f"a {type(detections).__name__} has no xyxy", hint="give supervision.Detections")
    n = len(xyxy)
    numbers = getattr(detections, "class_id", None)
    data = getattr(detections, "data", None) or {}
    told = data.get("class_name") if hasattr(data, "get") else None
    if names is not None and numbers is not None:
        labels = [_name(names, int(number)) for number in numbers]
    elif told is not None and len(told) == n:
        labels = [str(name) for name in told]
    else:
        labels = [f"class {int(number)}" for number in numbers] if numbers is not None else ["object"] * n
    return boxes(xyxy, getattr(detections, "confidence", None), labels)


def to_supervision(found: Boxes, tracks: Sequence[str] = ()) -> Any:
    """As ``supervision.Detections``, with ``tracker_id`` where the tracks are numbers.

    Raises ModelUnavailable where supervision isn't installed."""
    try:
        import supervision
    except ImportError as error:
        raise ModelUnavailable("supervision isn't installed", hint="run: pip install supervision") from error
    kinds = sorted(set(found.labels))
    return supervision.Detections(
        xyxy=found.xyxy.astype(np.float32),
        confidence=found.scores.astype(np.float32),
        class_id=np.array([kinds.index(label) for label in found.labels], int),
        tracker_id=np.array([int(track) for track in tracks], int) if len(tracks) == len(found) else None,
        data={"class_name": np.array(found.labels)},
    )


def _name(names: Mapping[int, str] | Sequence[str], number: int) -> str:
    if isinstance(names, Mapping):
        return str(names.get(number, f"class {number}"))
    return str(names[number]) if 0 <= number < len(names) else f"class {number}"
