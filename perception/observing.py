"""From a frame and what the encoders made of it to the observation that a memory keeps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from perception.encoders.base import EncodedFrame, Glance
from perception.frames import Frame, SourceInfo
from perception.sampling import Choice
from streammem.errors import StreammemError
from streammem.model import Observation, Producer, Speech, StreamInfo

_JPEG_QUALITY = 85
"""Below about 80 text in a 320-pixel thumbnail begins to smear; 95 doubles the bytes."""


def light_observation(
    frame: Frame, glance: Glance, choice: Choice, *, stream: str, session: str, space: str | None, producer: Producer
) -> Observation:
    """A frame that looks like one before: the glance alone, no thumbnail."""
    return Observation(
        stream=stream,
        session=session,
        seq=frame.index,
        capture_ns=frame.capture_ns,
        media_ns=frame.media_ns,
        space=space,
        embedding=glance.embedding.vector if space else None,
        parts=glance.embedding.parts if space else {},
        tokens=glance.tokens,
        labels=frame.sensed.labels + glance.labels,
        detections=frame.sensed.detections,
        depth_m=frame.sensed.depth_m,
        states=frame.sensed.states,
        pose=frame.sensed.pose,
        intrinsics=frame.sensed.intrinsics,
        stats=_stats(frame, choice, glance.stats),
        producer=producer,
    )


def full_observation(
    frame: Frame,
    encoded: EncodedFrame,
    choice: Choice,
    *,
    stream: str,
    session: str,
    space: str | None,
    producer: Producer,
    thumbnail_px: int,
) -> Observation:
    """A keyframe: everything that was made of it, and a thumbnail."""
    return Observation(
        stream=stream,
        session=session,
        seq=frame.index,
        capture_ns=frame.capture_ns,
        media_ns=frame.media_ns,
        space=space if encoded.embedding is not None else None,
        embedding=encoded.embedding,
        parts=encoded.parts,
        tokens=encoded.tokens,
        thumbnail=thumbnail(frame.image, thumbnail_px) if thumbnail_px else None,
        labels=frame.sensed.labels + encoded.labels,
        detections=frame.sensed.detections + encoded.detections,
        depth_m=frame.sensed.depth_m,
        states=frame.sensed.states,
        pose=frame.sensed.pose,
        intrinsics=frame.sensed.intrinsics,
        texts=encoded.texts,
        stats=_stats(frame, choice, encoded.stats),
        producer=producer,
    )


def spoken_observation(speech: Speech, number: int, offset_ns: int, *, stream: str, session: str) -> Observation:
    """Words heard: an observation of their own, in the session ``<session>/speech``. ``offset_ns`` is added to the
    capture time (0 for a file)."""
    return Observation(
        stream=stream,
        session=f"{session}/speech",
        seq=number,
        capture_ns=speech.t_start_ns + offset_ns,
        media_ns=speech.t_start_ns,
        speech=(speech,),
        producer=Producer("perception.encoders.speech"),
    )


def stream_info(info: SourceInfo) -> StreamInfo:
    """What the memory keeps of a source."""
    return StreamInfo(
        stream=info.stream,
        source=info.text,
        clock=info.clock,
        content_hash=info.content_hash,
        duration_ns=info.duration_ns,
        width=info.width,
        height=info.height,
        fps=info.fps,
    )


def thumbnail(image: np.ndarray, longest_px: int) -> bytes:
    """JPEG of (h, w, 3) uint8 RGB whose longest side is at most ``longest_px``."""
    import cv2  # 0.1 s that `--help` must not pay

    height, width = image.shape[:2]
    shrink = min(1.0, longest_px / max(height, width))
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    # OpenCV writes BGR.
    done, jpeg = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise StreammemError(f"no JPEG can be made of a {width}x{height} picture", hint="this is a bug: report it")
    return bytes(jpeg)


def _stats(frame: Frame, choice: Choice, measured: Mapping[str, float]) -> dict[str, float]:
    return {
        # Tells a service that a camera hangs: embeddings alone can't tell that from a still scene.
        **({} if frame.repeated is None else {"frozen": float(frame.repeated)}),
        **{name: float(value) for name, value in measured.items()},
        **{name: float(value) for name, value in frame.sensed.stats.items()},
        "key": float(choice.key),
        "novelty": round(choice.novelty, 6),
        "change": round(choice.change, 4),
    }
