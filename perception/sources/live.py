"""What live sources share: capture times that a wall clock can't spoil, and one picture a grid point."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from perception.frames import Frame, Health
from perception.sampling import NS, FixedRate

WallClock = Callable[[], int]
"""A clock in nanoseconds; a test gives its own."""

wall_clock: WallClock = time.time_ns
monotonic_clock: WallClock = time.monotonic_ns

_STEP_NS = NS
"""A wall clock that moves by more than this against the monotonic one was set; less is drift."""
_SLEW = 2000
"""Drift is followed by at most 1/2000 of the time that passed (500 ppm, NTP's own limit)."""
_WINDOW_NS = 60 * NS
PTS_RESET_NS = 10 * NS
"""Time stamps that jump further than this against the time of arrival belong to a new timeline: the camera restarted,
or set its clock."""


class CaptureClock:
    """Time stamps of a connection -> capture times on the wall clock, for months.

    A camera's clock runs by its own crystal (50 ppm is 4 s a day), and the network delays what it sends. The capture
    time of a picture is its time stamp plus the smallest difference to the arrival seen in the last one to two minutes:
    the delay's jitter falls out, the drift is followed. A wall clock that is set forward is followed at once (a robot
    that gets its first NTP answer); one that is set back is not, because capture times must not repeat: they go on
    from where they were, and the note says how far ahead they are."""

    def __init__(self, health: Health, *, wall: WallClock = wall_clock, monotonic: WallClock = monotonic_clock) -> None:
        self._health, self._wall, self._monotonic = health, wall, monotonic
        self._wall_offset = wall() - monotonic()
        self._offset: int | None = None
        self._lowest: int | None = None
        self._lowest_before: int | None = None
        self._window_at = 0
        self._slewed_at = 0
        self.last_ns: int | None = None

    def restart(self) -> None:
        """A new connection: its time stamps have nothing to do with those before."""
        self._offset = self._lowest = self._lowest_before = None

    def stamp(self, pts_ns: int | None) -> int:
        """The capture time (Unix ns) of a picture that arrived just now. ``pts_ns``: its time stamp on any origin,
        None where there is none (then it is the time of arrival). Strictly increasing."""
        now = self._monotonic()
        if pts_ns is None:
            at = now
        else:
            at = pts_ns + self._follow(now - pts_ns, now)
        captured = at + self._to_wall(now)
        if self.last_ns is not None and captured <= self.last_ns:
            captured = self.last_ns + 1
        self.last_ns = captured
        return captured

    def _follow(self, difference: int, now: int) -> int:
        if self._offset is not None and abs(difference - self._offset) > PTS_RESET_NS:
            self._health.pts_resets += 1
            self.restart()
        if self._offset is None:
            self._offset, self._window_at, self._slewed_at = difference, now, now
            self._lowest = self._lowest_before = difference
            return difference
        if now - self._window_at > _WINDOW_NS:
            self._lowest_before, self._lowest, self._window_at = self._lowest, difference, now
        assert self._lowest is not None and self._lowest_before is not None
        self._lowest = min(self._lowest, difference)
        lowest = min(self._lowest, self._lowest_before)
        most = (now - self._slewed_at) // _SLEW
        # The first pictures of a connection often come late in one burst: going down to the smallest is free.
        self._offset = lowest if lowest < self._offset else self._offset + min(lowest - self._offset, most)
        self._slewed_at = now
        return self._offset

    def _to_wall(self, now: int) -> int:
        moved = self._wall() - now - self._wall_offset
        if moved > _STEP_NS:
            self._health.clock_steps += 1
            self._health.note(f"the wall clock was set forward by {moved / NS:.0f} s; capture times follow")
            self._wall_offset += moved
        elif moved < -_STEP_NS:
            if not self._health.clock_ahead_s:
                self._health.clock_steps += 1
                self._health.note(f"the wall clock was set back by {-moved / NS:.0f} s; capture times go on")
            self._health.clock_ahead_s = -moved / NS
        else:
            self._health.clock_ahead_s = 0.0
            # NTP slews the wall clock against the monotonic one by nothing (Linux slews both); this is what is left.
            self._wall_offset += moved // 8
        return self._wall_offset


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

    def frame(self, image: np.ndarray, capture_ns: int, repeated: bool = False) -> Frame:
        """``image`` (h, w, 3) uint8 RGB as a frame; ``media_ns`` counts from the first one, over reconnections."""
        if self._first_ns is None:
            self._first_ns = capture_ns
        self._last_ns = capture_ns
        self._last_index = self.sampling.index(capture_ns)
        return Frame(image, capture_ns - self._first_ns, capture_ns, self._last_index, repeated)
