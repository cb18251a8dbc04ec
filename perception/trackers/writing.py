"""What trackers see on its way into a memory: observations in batches, with a picture now and then, and the count.

Shared by ``watching.py`` (masks) and ``detecting.py`` (boxes). A batch is written when it is full or the source ends;
what was written before is dropped by the memory as a duplicate, so a run that was killed is simply made again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from perception.frames import Frame
from perception.observing import thumbnail
from streammem.model import Observation, StreamInfo

NS = 1_000_000_000
BATCH = 32
THUMBNAIL_PX = 320
VECTORS = "track_vectors"
COLOURS = "track_colours"


class Sink(Protocol):
    """What is needed of a memory."""

    def write(self, observations: list[Observation], *, durable: bool = True) -> Any: ...
    def set_stream(self, info: StreamInfo) -> None: ...


class Counted(Protocol):
    """What is needed of a tracker."""

    @property
    def dropped(self) -> Mapping[str, int]: ...
    def ram_bytes(self) -> int: ...


@dataclass(slots=True)
class TrackReport:
    """``frames`` looked at; ``seen`` frames in which each object was visible; ``dropped`` frames by reason."""

    session: str
    frames: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    media_ns: int = 0
    ram_bytes: int = 0


class TrackWriter:
    """Fills ``report``, calls ``before`` ahead of each batch and ``progress`` after it."""

    def __init__(
        self,
        sink: Sink,
        report: TrackReport,
        tracker: Counted,
        progress: Callable[[TrackReport], None] | None = None,
        *,
        before: Callable[[], None] | None = None,
    ) -> None:
        self._sink = sink
        self._report = report
        self._tracker = tracker
        self._progress = progress
        self._before = before
        self._batch: list[Observation] = []
        self._last_picture = -NS

    def looked(self, frame: Frame) -> None:
        """The tracker was given this frame."""
        self._report.frames += 1
        self._report.media_ns = frame.media_ns

    def picture(self, frame: Frame, *, due: bool) -> bytes | None:
        """A small JPEG of the frame where one is ``due``, or was not kept for a second."""
        if not due and frame.media_ns - self._last_picture < NS:
            return None
        self._last_picture = frame.media_ns
        return thumbnail(frame.image, THUMBNAIL_PX)

    def add(self, observation: Observation, seen: Collection[str]) -> None:
        """One more observation; ``seen`` names what is visible in it."""
        for name in seen:
            self._report.seen[name] = self._report.seen.get(name, 0) + 1
        self._batch.append(observation)
        if len(self._batch) >= BATCH:
            self.flush()
            if self._progress is not None:
                self._progress(self._report)

    def flush(self) -> None:
        """Write what is left, and bring the report up to date."""
        if self._batch:
            if self._before is not None:
                self._before()
            self._sink.write(self._batch)
        self._batch = []
        self._report.dropped, self._report.ram_bytes = dict(self._tracker.dropped), self._tracker.ram_bytes()
