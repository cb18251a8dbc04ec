"""From a source into a memory, with everything a detector finds followed: ``streammem watch --track detector:PATH``.

Every frame at the tracker's rate in which something is tracked becomes an observation with one detection a track
(``track`` is its number), the part ``track_colours``, and ``track_vectors`` where looks are described: the banks of
tracks and entities take them from there. Returns come with the tracker's own evidence in ``stats``. As in
``watching.py`` a second run of the same command writes nothing twice; another detector or other settings are another
session, whose tracks are numbered after those that are there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from perception.encoders.colours import box_shares
from perception.frames import Frame, Source
from perception.observing import stream_info
from perception.sampling import FixedRate
from perception.trackers.appearance import Appearance
from perception.trackers.association import LOOKED, AssociationSettings, AssociationTracker, Followed, Refound
from perception.trackers.boxes import Boxes
from perception.trackers.detectors import Detector
from perception.trackers.numbers import Kept, TrackNumbers
from perception.trackers.writing import COLOURS, VECTORS, Sink, TrackReport, TrackWriter
from streammem.model import Detection, Observation, Producer

LONGEST_S = 600.0
"""Absence after which looks don't bring a track back."""
REFOUND = 64
"""Newest finds that a report names; the rest are counted."""


@dataclass(slots=True)
class DetectReport(TrackReport):
    """And the tracks that came back, newest last, with their evidence."""

    refound: list[Refound] = field(default_factory=list)
    refound_n: int = 0


class NumberedSink(Sink, Kept, Protocol):
    """What is needed of a memory."""


def follow_detections(
    source: Source,
    sink: NumberedSink,
    detector: Detector,
    *,
    appearance: Appearance | None = None,
    fps: float = 10.0,
    settings: AssociationSettings | None = None,
    progress: Callable[[TrackReport], None] | None = None,
) -> DetectReport:
    """Detect, associate and write. ``settings`` default to the looks' own threshold."""
    chosen = settings or AssociationSettings()
    if settings is None and appearance is not None:
        # Looks can bring back what motion has long given up; most_tracks bounds what that costs.
        chosen = AssociationSettings(alike=appearance.alike, forget=max(1, round(LONGEST_S * fps)))
    looks = appearance.name if appearance is not None else ""
    facts = (detector.name, looks, fps, repr(chosen), source.info.stream)
    session = "detect-" + hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    report = DetectReport(session)
    producer = Producer("perception.trackers.association", f"{detector.name} {looks}".strip(), "1", session[7:])
    sink.set_stream(stream_info(source.info))
    numbers = TrackNumbers(sink, source.info.stream, session)
    tracker = AssociationTracker(chosen, made=numbers.first)
    writer = TrackWriter(sink, report, tracker, progress, before=lambda: numbers.keep(tracker.made))
    for frame in source.frames(0, FixedRate(fps)):
        found = detector.detect(frame.image)
        if appearance is not None:
            found = Boxes(found.xyxy, found.scores, found.labels, appearance.describe(frame.image, found))
        step = tracker.step(found, t=frame.index, size=frame.image.shape[:2], t_ns=frame.capture_ns)
        writer.looked(frame)
        report.refound = [*report.refound, *step.refound][-REFOUND:]
        report.refound_n += len(step.refound)
        given_up = any(why == LOOKED for _, why in step.retired)
        if step.tracks or given_up:
            new = not report.seen.keys() >= set(step.tracks)
            picture = writer.picture(frame, due=given_up or new or bool(step.refound))
            writer.add(_observation(frame, step, source.info.stream, session, producer, picture), step.tracks)
    writer.flush()
    numbers.keep(tracker.made, done=True)
    return report


def _observation(
    frame: Frame, step: Followed, stream: str, session: str, producer: Producer, picture: bytes | None
) -> Observation:
    height, width = frame.image.shape[:2]
    fractions = step.boxes.xyxy / np.array([width, height, width, height], np.float32)
    vectors = step.boxes.vectors
    parts = {COLOURS: box_shares(frame.image, step.boxes.xyxy)} if len(step.tracks) else {}
    if vectors is not None and len(step.tracks):
        parts[VECTORS] = vectors.astype(np.float16)
    stats = {f"refound:{one.track}": one.score for one in step.refound}
    stats |= {f"alike:{one.track}": one.alike for one in step.refound if one.alike is not None}
    stats |= {f"gone:{name}": 1.0 for name, why in step.retired if why == LOOKED}
    return Observation(
        stream=stream,
        session=session,
        seq=frame.index,
        capture_ns=frame.capture_ns,
        media_ns=frame.media_ns,
        detections=tuple(
            Detection(label, float(score), (float(x0), float(y0), float(x1), float(y1)), name)
            for label, score, (x0, y0, x1, y1), name in zip(
                step.boxes.labels, step.boxes.scores, fractions, step.tracks, strict=True
            )
        ),
        parts=parts,
        thumbnail=picture,
        stats=stats,
        producer=producer,
    )
