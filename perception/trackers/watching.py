"""From a source into a memory, with objects followed: what ``streammem watch --track`` does after the ordinary watch.

Every frame at the tracker's rate becomes an observation with one detection an object (``track`` is its name) and the
part ``track_vectors``. Its session is a hash of prompts and settings and its number the frame's grid point: a second
run of the same command writes nothing twice, and a run that was killed is simply made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from perception.encoders.colours import box_shares
from perception.frames import Frame, Source
from perception.observing import stream_info
from perception.sampling import FixedRate
from perception.trackers.prompts import Prompt, prompt_mask
from perception.trackers.propagation import PropagationSettings, PropagationTracker, Tracked
from perception.trackers.writing import COLOURS, NS, VECTORS, Sink, TrackReport, TrackWriter
from streammem.banks.policies import FrameMemory
from streammem.errors import InputError
from streammem.model import Detection, Observation, Producer

LOOK_AGAIN_NS = NS // 2
"""A thing that is waited for is looked for this often: a look costs as much as five frames followed."""


class MaskTracker(Protocol):
    """What is needed of a tracker: PropagationTracker, Sam2Tracker."""

    dropped: dict[str, int]

    @property
    def objects(self) -> list[str]: ...
    def memory(self, obj: str) -> FrameMemory: ...
    def ram_bytes(self) -> int: ...
    def step(self, image: np.ndarray, *, t: int, t_ns: int = 0, prompts: Any = None) -> Tracked: ...


def track_source(
    source: Source,
    sink: Sink,
    prompts: list[Prompt],
    *,
    fps: float = 10.0,
    settings: PropagationSettings | None = None,
    tracker: MaskTracker | None = None,
    made_by: tuple[str, str] = ("perception.trackers.propagation", "efficientnet-lite0-int8"),
    prompted: Callable[[np.ndarray, Prompt], Any] = prompt_mask,
    progress: Callable[[TrackReport], None] | None = None,
) -> TrackReport:
    """Follow the objects of ``prompts`` through a source. ``made_by`` is module and model of ``tracker``, ``prompted``
    turns a prompt into what it takes, or None where the thing isn't to be seen yet (``wording.with_words``); then it is
    asked again half a second later. Raises InputError where a prompt's moment never came."""
    chosen = settings or PropagationSettings()
    tracker = tracker or PropagationTracker(chosen)
    facts = (sorted(prompt.identity for prompt in prompts), fps, repr(chosen), made_by, source.info.stream)
    session = "track-" + hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    report = TrackReport(session)
    producer = Producer(*made_by, chosen.policy, session[6:])
    sink.set_stream(stream_info(source.info))
    writer = TrackWriter(sink, report, tracker, progress)
    waiting = list(prompts)
    look_ns = {prompt.name: round(prompt.at_s * NS) for prompt in prompts}
    for frame in source.frames(0, FixedRate(fps)):
        due = [prompt for prompt in waiting if frame.media_ns >= look_ns[prompt.name]]
        starts = {prompt.name: prompted(frame.image, prompt) for prompt in due}
        masks = {name: start for name, start in starts.items() if start is not None}
        waiting = [prompt for prompt in waiting if prompt.name not in masks]
        look_ns |= {name: frame.media_ns + LOOK_AGAIN_NS for name in starts if name not in masks}
        if not tracker.objects and not masks:
            continue
        tracked = tracker.step(frame.image, t=frame.index, t_ns=frame.capture_ns, prompts=masks)
        writer.looked(frame)
        if tracked.refused:
            continue
        picture = writer.picture(frame, due=bool(masks) or _kept(tracker, tracked))
        observation = _observation(frame, tracked, source.info.stream, session, producer, picture)
        writer.add(observation, tracked.masks)
    writer.flush()
    for prompt in waiting:
        if prompt.kind == "words":
            seen = f"no frame shows {prompt.words!r} surely enough, or not clearly enough where"
            raise InputError(seen, hint=f'point at it: --track "{prompt.name}=x,y@SECONDS"')
        raise InputError(f"the source ends before {prompt.at_s:g} s, where {prompt.name!r} is", hint="@SECONDS")
    return report


def _kept(tracker: MaskTracker, tracked: Tracked) -> bool:
    """Whether an object's memory took this frame for good: it deserves a picture."""
    return any(
        change.t == tracked.t and change.role == "long" and change.action == "add"
        for name in tracked.records
        for change in tracker.memory(name).audit()[-4:]
    )


def _observation(
    frame: Frame, tracked: Tracked, stream: str, session: str, producer: Producer, picture: bytes | None
) -> Observation:
    seen = [record for _, record in sorted(tracked.records.items()) if record.visible and record.box is not None]
    vectors = [record.desc_obj for record in seen if record.desc_obj is not None]
    parts: dict[str, np.ndarray] = {VECTORS: np.stack(vectors).astype(np.float16)} if vectors else {}
    if seen:
        height, width = frame.image.shape[:2]
        boxes = np.array([record.box for record in seen]) * (width, height, width, height)
        parts[COLOURS] = box_shares(frame.image, boxes, [tracked.masks.get(record.obj) for record in seen])
    return Observation(
        stream=stream,
        session=session,
        seq=frame.index,
        capture_ns=frame.capture_ns,
        media_ns=frame.media_ns,
        detections=tuple(
            Detection("object" if record.obj.isdigit() else record.obj, record.pred_iou, record.box, record.obj)
            for record in seen
            if record.box is not None
        ),
        parts=parts,
        thumbnail=picture,
        stats={"cut": float(tracked.cut)},
        producer=producer,
    )
