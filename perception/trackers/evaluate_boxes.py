"""Trackers of boxes on sequences with true identities: ours, and SORT and ByteTrack on the same detections.

Detections and how they look are made once for a sequence and handed to every tracker.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from perception.trackers.appearance import Appearance
from perception.trackers.association import AssociationSettings, AssociationTracker
from perception.trackers.baselines import BASELINES, Baseline
from perception.trackers.box_metrics import BoxScore, Frame, score_boxes
from perception.trackers.boxes import Boxes, boxes
from perception.trackers.detectors import Detector
from perception.trackers.mot import MotSequence
from streammem.errors import InputError, SourceError

OURS, WITH_LOOKS = "association", "association+looks"


@dataclass(frozen=True, slots=True)
class BoxRun:
    """One tracker on one sequence. ``ms`` is its median time a frame, detection and looks not counted."""

    sequence: str
    tracker: str
    score: BoxScore
    ms: float
    refound: int = 0


def detections(
    sequence: MotSequence, detector: Detector | None, appearance: Appearance | None
) -> tuple[list[Boxes], list[Boxes] | None]:
    """The boxes of every frame, given ones where ``detector`` is None; and the same with vectors.

    The second is None without pictures or without ``appearance``. Raises SourceError where pictures are needed and
    there are none."""
    seen = sequence.video is not None or bool(sequence.pictures)
    if detector is not None and not seen:
        raise SourceError(f"{sequence.name} has no pictures to detect in", hint="--only one that has a video")
    given = [boxes(xyxy, scores, "person") for xyxy, scores in zip(sequence.boxes, sequence.scores, strict=True)]
    if not seen or (detector is None and appearance is None):
        return given, None
    plain: list[Boxes] = []
    described: list[Boxes] = []
    for t, image in enumerate(_pictures(sequence)):
        if t >= len(sequence):
            break
        found = given[t] if detector is None else detector.detect(image)
        plain.append(found)
        if appearance is not None:
            described.append(replace(found, vectors=appearance.describe(image, found)))
    missing = len(sequence) - len(plain)
    if missing:
        raise SourceError(f"{sequence.name}: the video ends {missing} frames before the truth", hint="get it again")
    return plain, described if appearance is not None else None


def run_tracker(
    sequence: MotSequence, name: str, found: Sequence[Boxes], settings: AssociationSettings | None = None
) -> BoxRun:
    """``name`` is one of :data:`BASELINES`, ``association`` or ``association+looks``."""
    baseline = Baseline(name, sequence.fps) if name in BASELINES else None
    if baseline is None and name not in (OURS, WITH_LOOKS):
        raise InputError(f"there is no tracker {name!r}", hint=f"one of: {OURS}, {', '.join(BASELINES)}")
    tracker = AssociationTracker(settings)
    answers: list[Frame] = []
    times: list[float] = []
    refound = 0
    for t, each in enumerate(found):
        before = time.perf_counter()
        if baseline is not None:
            answers.append(baseline.step(each))
        else:
            step = tracker.step(each, t=t, size=sequence.size)
            refound += len(step.refound)
            answers.append((np.array([int(one) for one in step.tracks], np.int64), step.boxes.xyxy.astype(np.float64)))
        times.append(time.perf_counter() - before)
    score = score_boxes(sequence.truth, answers)
    return BoxRun(sequence.name, name, score, 1000 * float(np.median(times)), refound)


def blacked_out(found: Sequence[Boxes], frames: int) -> list[Boxes]:
    """Without the detections of the ``frames`` in the middle: everything is absent at once, and comes back."""
    start = (len(found) - frames) // 2
    return [each.take([]) if start <= t < start + frames else each for t, each in enumerate(found)]


def mean_of(runs: Sequence[BoxRun]) -> BoxScore:
    """Means over sequences of the shares, sums of the counts."""
    scores = [run.score for run in runs]
    means: dict[str, Any] = {name: float(np.mean([getattr(one, name) for one in scores])) for name in _SHARES}
    sums: dict[str, Any] = {name: sum(getattr(one, name) for one in scores) for name in _COUNTS}
    return BoxScore(**means, **sums)


_SHARES = ("hota", "det", "ass", "idf1", "mota")
_COUNTS = ("switches", "found", "missed", "false", "boxes", "tracks")


def _pictures(sequence: MotSequence) -> Iterator[np.ndarray]:
    """(h, w, 3) uint8 RGB, every frame of the sequence."""
    if sequence.video is None:
        for path in sequence.pictures:
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is None:
                raise SourceError(f"{path}: not a picture", hint="get it again")
            yield np.ascontiguousarray(picture[:, :, ::-1])
        return
    import av

    with av.open(str(sequence.video)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
