"""SORT and ByteTrack from the package ``trackers`` (Roboflow, Apache-2.0), to compare with on the same detections.

It isn't a dependency: it asks for a build of OpenCV that clashes with ours. ``pip install --no-deps trackers
supervision`` is enough.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from perception.trackers.boxes import Boxes
from streammem.errors import InputError, ModelUnavailable

BASELINES = {"sort": "SORTTracker", "bytetrack": "ByteTrackTracker"}
HINT = "run: pip install --no-deps trackers supervision"


def available() -> bool:
    """Whether the package is there; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in ("trackers", "supervision"))


class Baseline:
    """One of :data:`BASELINES` with the defaults of its authors, ``frame_rate`` apart."""

    def __init__(self, name: str, fps: float) -> None:
        if name not in BASELINES:
            raise InputError(f"there is no baseline {name!r}", hint=f"one of: {', '.join(BASELINES)}")
        if not available():
            raise ModelUnavailable("the packages trackers and supervision aren't installed", hint=HINT)
        import trackers

        self._tracker: Any = getattr(trackers, BASELINES[name])(frame_rate=fps)

    def step(self, found: Boxes) -> tuple[np.ndarray, np.ndarray]:
        """Detections -> identities (n,) int64 and boxes (n, 4) of those that have one."""
        import supervision

        given = supervision.Detections(
            xyxy=found.xyxy.astype(np.float32),
            confidence=found.scores.astype(np.float32),
            class_id=np.zeros(len(found), int),
        )
        answer = self._tracker.update(given)
        names = np.asarray(answer.tracker_id if answer.tracker_id is not None else [], np.int64)
        known = names >= 0
        return names[known], np.asarray(answer.xyxy, np.float64).reshape(-1, 4)[known]
