"""What live sources share: the wall clock on their frames, and one picture a grid point."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from perception.frames import Frame
from perception.sampling import FixedRate

WallClock = Callable[[], int]
"""Unix time in nanoseconds; a test gives its own."""

wall_clock: WallClock = time.time_ns


class LiveGrid:
    """Chooses frames by capture time. Grid points are numbered from the Unix epoch, so that numbers never repeat
    when a camera is watched again tomorrow."""

    def __init__(self, sampling: FixedRate) -> None:
        self.sampling = sampling
        self._first_ns: int | None = None
        self._last_ns = -1
        self._last_index = -1

    def wants(self, capture_ns: int) -> bool:
        """Whether a frame of this time is the first at or after a grid point. Time that runs back is refused."""
        return capture_ns > self._last_ns and self.sampling.index(capture_ns) > self._last_index

    def frame(self, image: np.ndarray, capture_ns: int) -> Frame:
        """``image`` (h, w, 3) uint8 RGB as a frame."""
        if self._first_ns is None:
            self._first_ns = capture_ns
        self._last_ns = capture_ns
        self._last_index = self.sampling.index(capture_ns)
        return Frame(image, capture_ns - self._first_ns, capture_ns, self._last_index)
