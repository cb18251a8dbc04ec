"""A camera of this machine, by its number."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol, cast

import numpy as np

from perception.decoders.pictures import MAX_SIDE
from perception.frames import AudioChunk, Frame, Health, SourceInfo
from perception.sampling import FixedRate
from perception.sources.live import WallClock, wall_clock
from perception.sources.supervise import LiveFrames, Picture
from streammem.config import LiveConfig
from streammem.errors import SourceError, SourceNotFound

_MAX_FAILURES = 30
_FAILURE_WAIT_S = 0.03
"""Reads in a row that may fail: one second at 30 frames a second. Then the device is opened again."""


class Device(Protocol):
    """What is needed of ``cv2.VideoCapture``; a test gives a camera of its own."""

    def isOpened(self) -> bool: ...
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Any]: ...
    def get(self, propId: int) -> float: ...
    def release(self) -> None: ...


class Camera:
    """Frames carry the wall clock at which they were read. A camera that fails or hangs is opened again as
    ``LiveConfig`` says. Nothing is kept: :meth:`look_again` says "gone"."""

    def __init__(
        self,
        number: int,
        *,
        fps: float = 1.0,
        clock: WallClock = wall_clock,
        config: LiveConfig | None = None,
        open_device: Callable[[int], Device] | None = None,
    ) -> None:
        """Raises SourceNotFound where no such camera is, SourceError where it can't be opened."""
        self.sampling = FixedRate(fps)
        self.health = Health()
        self._clock, self._config, self._number = clock, config, number
        self._open = open_device or _open
        self._first: Device | None = self._open(number)
        self._running: LiveFrames | None = None
        import cv2

        width = int(self._first.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._first.get(cv2.CAP_PROP_FRAME_HEIGHT))
        rate = float(self._first.get(cv2.CAP_PROP_FPS))
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

    @property
    def state(self) -> str:
        """live, frozen, starved or gone; empty before :meth:`frames`."""
        return self._running.state if self._running is not None else ""

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        """Until the camera stays away or the source is closed; ``start_ns`` has no meaning here."""
        self._running = LiveFrames(
            self._connect,
            f"camera {self._number}",
            sampling=sampling or self.sampling,
            health=self.health,
            config=self._config,
            wall=self._clock,
        )
        return iter(self._running)

    def audio(self, start_ns: int = 0) -> Iterator[AudioChunk] | None:
        return None

    def look_again(self, t_start_ns: int, t_end_ns: int, fps: float) -> list[Frame]:
        return []

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
        if self._first is not None:
            self._first.release()
            self._first = None

    def _connect(self) -> _Connection:
        device, self._first = self._first or self._open(self._number), None
        return _Connection(device, self.health, f"camera {self._number}")


class _Connection:
    """An open device, for the supervisor."""

    def __init__(self, device: Device, health: Health, shown: str) -> None:
        self._device, self._health, self._shown, self._ended = device, health, shown, False

    def pictures(self) -> Generator[Picture, None, None]:
        failures = 0
        try:
            while not self._ended:
                # grab() takes the newest picture off the driver, retrieve() decodes it: only chosen ones are decoded.
                if self._device.grab():
                    failures = 0
                    self._health.packets += 1
                    yield None, self._picture
                    continue
                failures += 1
                self._health.bad_packets += 1
                if failures >= _MAX_FAILURES or not self._device.isOpened():
                    raise SourceError(f"{self._shown} gives no more pictures ({failures} reads failed)")
                time.sleep(_FAILURE_WAIT_S)
        finally:
            self._device.release()

    def close(self) -> None:
        # release() beside a grab() that hangs can crash the driver's library; the reader releases it when it returns.
        self._ended = True

    def _picture(self) -> np.ndarray | None:
        done, picture = self._device.retrieve()
        if not done or picture is None:
            return None
        self._health.decoded_frames += 1
        return shrunk_rgb(picture)


def shrunk_rgb(picture: np.ndarray) -> np.ndarray:
    """OpenCV's (h, w, 3) BGR -> RGB, longest side at most MAX_SIDE."""
    import cv2

    height, width = picture.shape[:2]
    shrink = MAX_SIDE / max(height, width)
    if shrink < 1:
        picture = cv2.resize(picture, (round(width * shrink), round(height * shrink)), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def _open(number: int) -> Device:
    import cv2

    if os.path.isdir("/sys") and not os.path.exists(f"/dev/video{number}"):
        raise SourceNotFound(f"there is no camera {number}", hint=f"/dev/video{number} doesn't exist; plug one in")
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        capture.release()
        raise SourceError(
            f"camera {number} can't be opened", hint="check that you are in the group 'video' and nobody else uses it"
        )
    return cast(Device, capture)
