"""What a pair of a track and a detection is compared by: overlap, label, looks, distance; and what hides a place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perception.trackers.association_types import Track
from perception.trackers.box_metrics import overlaps
from perception.trackers.boxes import Boxes


def near(tracks: Sequence[Track], expected: np.ndarray, found: Boxes) -> np.ndarray:
    """(tracks, detections): IoU of the boxes (n, 4) where the tracks are ``expected`` with those ``found``; 0 where the
    labels differ."""
    return overlaps(expected, found.xyxy.astype(np.float64)) * same_label(tracks, found)


def same_label(tracks: Sequence[Track], found: Boxes) -> np.ndarray:
    """(tracks, detections): 1 where they are called the same, else 0."""
    a = np.array([one.label for one in tracks], object)
    b = np.array(found.labels, object)
    return np.asarray(a[:, None] == b[None], float)


def alike(tracks: Sequence[Track], found: Boxes) -> np.ndarray | None:
    """(tracks, detections): the best cosine of a detection with what a track keeps; NaN where a track keeps no vector.
    None where the detections have none."""
    if found.vectors is None:
        return None
    best = np.full((len(tracks), len(found)), np.nan)
    for row, one in enumerate(tracks):
        if one.views is not None and one.views.shape[1] == found.vectors.shape[1]:
            best[row] = (one.views @ found.vectors.T).max(axis=0)
    return np.where(same_label(tracks, found) > 0, best, np.minimum(best, 0))


def offset(expected: np.ndarray, found: Boxes) -> np.ndarray:
    """(tracks, detections): distance between centres, in heights of the larger box, plus the change of height."""
    a, b = expected, found.xyxy.astype(np.float64)
    heights = np.maximum(a[:, None, 3] - a[:, None, 1], b[None, :, 3] - b[None, :, 1])
    centres = np.hypot(
        (a[:, None, 0] + a[:, None, 2] - b[None, :, 0] - b[None, :, 2]) / 2,
        (a[:, None, 1] + a[:, None, 3] - b[None, :, 1] - b[None, :, 3]) / 2,
    )
    sizes = np.abs(np.log((a[:, None, 3] - a[:, None, 1]) / (b[None, :, 3] - b[None, :, 1])))
    distance: np.ndarray = centres / np.maximum(heights, 1e-6) + sizes
    return distance


def covered(found: Boxes, row: int) -> float:
    """The largest IoU of one detection with another of the same frame."""
    if len(found) < 2:
        return 0.0
    return float(np.delete(overlaps(found.xyxy[row][None], found.xyxy)[0], row).max())


def hidden(place: np.ndarray, found: Boxes, size: tuple[int, int]) -> bool:
    """Whether a place (4,) in a picture of ``size`` (height, width) can't be looked at: mostly outside of it, or behind
    something that was found."""
    height, width = size
    x0, y0, x1, y1 = place
    area = max((x1 - x0) * (y1 - y0), 1e-6)
    inside = max(min(x1, width) - max(x0, 0), 0) * max(min(y1, height) - max(y0, 0), 0)
    if inside < 0.5 * area:
        return True
    boxes = found.xyxy
    both = np.clip(np.minimum(boxes[:, 2], x1) - np.maximum(boxes[:, 0], x0), 0, None)
    both = both * np.clip(np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0), 0, None)
    return bool((both > 0.4 * area).any())
