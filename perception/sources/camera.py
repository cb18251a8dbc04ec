"""A camera of this machine, by its number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from perception.decoders.pictures import MAX_SIDE
from perception.frames import AudioChunk, Frame, Health, SourceInfo
from perception.sampling import FixedRate
from perception.sources.file import count_frozen
from perception.sources.live import LiveGrid, WallClock, wall_clock
from streammem.errors import SourceError, SourceNotFound

if TYPE_CHECKING:
    import cv2

_MAX_FAILURES = 30
"""Reads in a row that may fail: one second at 30 frames a second. Then the camera counts as gone."""


class Camera:
    """Frames carry the wall clock at which they were read. Nothing is kept: :meth:`look_again` says "gone"."""

    def __init__(self, number: int, *, fps: float = 1.0, clock: WallClock = wall_clock) -> None:
        """Raises SourceNotFound where no such camera is, SourceError where it can't be opened."""
        self.sampling = FixedRate(fps)
        self.health = Health()
        self._clock = clock
        self._capture = _open(number)
        import cv2

        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self._info = SourceInfo(
            text=str(number),
            kind="camera",
            stream=f"camera-{number}",
            clock="wall",
            width=width,
            height=height,
            fps=rate if 0 < rate < 1000 else 0.0,
            codec="camera",
            live=True,
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        """Until the camera fails or the source is closed; ``start_ns`` has no meaning here."""
        return count_frozen(self._frames(sampling or self.sampling), self.health)

    def audio(self, start_ns: int = 0) -> Iterator[AudioChunk] | None:
        return None

    def look_again(self, t_start_ns: int, t_end_ns: int, fps: float) -> list[Frame]:
        return []

    def close(self) -> None:
        self._capture.release()

    def _frames(self, sampling: FixedRate) -> Iterator[Frame]:
        grid, failures = LiveGrid(sampling), 0
        while self._capture.isOpened():
            # grab() takes the newest picture off the driver, retrieve() decodes it: only chosen ones are decoded.
            if not self._capture.grab():
                failures += 1
                self.health.bad_packets += 1
                if failures >= _MAX_FAILURES:
                    raise SourceError(
                        f"camera {self._info.text} gives no more pictures ({failures} reads failed)",
                        hint="check the cable and whether another program uses it",
                    )
                continue
            failures = 0
            self.health.packets += 1
            at = self._clock()
            if grid.wants(at):
                done, picture = self._capture.retrieve()
                if not done or picture is None:
                    self.health.bad_packets += 1
                    continue
                self.health.decoded_frames += 1
                yield grid.frame(shrunk_rgb(picture), at)


def shrunk_rgb(picture: np.ndarray) -> np.ndarray:
    """OpenCV's (h, w, 3) BGR -> RGB, longest side at most MAX_SIDE."""
    import cv2

    height, width = picture.shape[:2]
    shrink = MAX_SIDE / max(height, width)
    if shrink < 1:
        picture = cv2.resize(picture, (round(width * shrink), round(height * shrink)), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def _open(number: int) -> cv2.VideoCapture:
    import cv2

    if os.path.isdir("/sys") and not os.path.exists(f"/dev/video{number}"):
        raise SourceNotFound(f"there is no camera {number}", hint=f"/dev/video{number} doesn't exist; plug one in")
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise SourceError(
            f"camera {number} can't be opened", hint="check that you are in the group 'video' and nobody else uses it"
        )
    return capture
