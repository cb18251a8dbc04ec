"""The clock of an experience: which step is which minute of the day, and which capture time.

A day runs from 06:00 to 22:00, spread evenly over ``steps_daily`` steps (4,000 in FindingDory: 14.4 s a step, 25/6
steps a minute). Minutes are floored, as the benchmark's ``time_of_day`` sensor does. Integers only: nothing drifts.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from streammem.errors import InputError
from streammem.model import record_id

DAY_START_MINUTE = 6 * 60
DAY_MINUTES = 16 * 60
STEPS_DAILY = 4000
_MINUTE_NS = 60_000_000_000
FIRST_DAY_NS = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z. Any fixed day would do; a wall clock makes "at 10:32" mean something."""


@dataclass(frozen=True, slots=True)
class DayClock:
    """Steps of one day. ``day`` counts from 0, for experiences that are chained."""

    steps_daily: int = STEPS_DAILY
    day: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.steps_daily <= 10_000_000:
            raise InputError(f"a day of {self.steps_daily} steps", hint="use 1 to 10,000,000; FindingDory has 4,000")

    def minute(self, step: int) -> int:
        """Minute of the day, floored: 360 (06:00) at step 0. Steps beyond the day go on counting."""
        if step < 0:
            raise InputError(f"step {step} is before the day", hint="steps count from 0")
        return DAY_START_MINUTE + step * DAY_MINUTES // self.steps_daily

    def text(self, step: int) -> str:
        """``HH:MM`` as the benchmark shows it."""
        return clock_text(self.minute(step))

    def steps_of(self, minute: int) -> range:
        """Every step whose floored minute is ``minute``: 4 or 5 of them at 4,000 steps a day."""
        since = minute - DAY_START_MINUTE
        if since < 0:
            return range(0)
        # ceil(m * N / 960), because minute(s) >= m means s * 960 >= m * N.
        return range(-(-since * self.steps_daily // DAY_MINUTES), -(-(since + 1) * self.steps_daily // DAY_MINUTES))

    def capture_ns(self, step: int) -> int:
        """Unix nanoseconds at which the step is seen (rounded down; exact to the ns at 4,000 steps a day)."""
        if step < 0:
            raise InputError(f"step {step} is before the day", hint="steps count from 0")
        start = FIRST_DAY_NS + self.day * 24 * 60 * _MINUTE_NS + DAY_START_MINUTE * _MINUTE_NS
        return start + step * DAY_MINUTES * _MINUTE_NS // self.steps_daily

    def step_at(self, capture_ns: int) -> int:
        """The step that was showing at this time. Raises InputError before the day's start."""
        since = capture_ns - self.capture_ns(0)
        if since < 0:
            raise InputError("that time is before the experience", hint="its first frame is at 06:00 of its day")
        # capture_ns floors, so the next step may begin a fraction of a nanosecond before it says.
        step = since * self.steps_daily // (DAY_MINUTES * _MINUTE_NS)
        return step + 1 if self.capture_ns(step + 1) <= capture_ns else step


@dataclass(frozen=True, slots=True)
class DaysClock(DayClock):
    """Several days in one count of steps: ``starts[d]`` is the first step of the d-th of them. The night between two is
    no step: the robot is off. ``day`` is the first one's number."""

    starts: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        DayClock.__post_init__(self)
        if self.starts[:1] != (0,) or any(b <= a for a, b in pairwise(self.starts)):
            raise InputError(f"days that start at steps {self.starts}", hint="the first starts at 0, each has a step")

    def day_of(self, step: int) -> tuple[int, int]:
        """(which of the days, step of that day), both from 0."""
        number = bisect_right(self.starts, step) - 1
        return number, step - self.starts[max(number, 0)]

    def one_day(self, number: int) -> DayClock:
        """The clock of the steps of one of the days."""
        return DayClock(self.steps_daily, self.day + number)

    def minute(self, step: int) -> int:
        return DayClock.minute(self, self.day_of(step)[1] if step >= 0 else step)

    def steps_of(self, minute: int) -> range:
        raise InputError(f"{clock_text(minute)} comes once a day", hint="ask one_day(number)")

    def capture_ns(self, step: int) -> int:
        if step < 0:
            return DayClock.capture_ns(self, step)
        number, own = self.day_of(step)
        return self.one_day(number).capture_ns(own)

    def step_at(self, capture_ns: int) -> int:
        number = bisect_right([self.one_day(d).capture_ns(0) for d in range(len(self.starts))], capture_ns) - 1
        step = self.one_day(max(number, 0)).step_at(capture_ns) + self.starts[max(number, 0)]
        # A day's last step shows until the next morning.
        return min(step, self.starts[number + 1] - 1) if number + 1 < len(self.starts) else step


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Frame index <-> record id <-> capture time of one experience in a memory: frame ``i`` is step ``i``, observation
    ``seq=i`` of ``(stream, session)``. Exact in every direction."""

    stream: str
    session: str
    frames: int
    clock: DayClock = DayClock()

    def record_id(self, frame: int) -> int:
        return record_id("moments", self.stream, self.session, self._checked(frame))

    def capture_ns(self, frame: int) -> int:
        return self.clock.capture_ns(self._checked(frame))

    def frame_at(self, capture_ns: int) -> int:
        """The frame that was showing. Raises InputError outside the experience."""
        return self._checked(self.clock.step_at(capture_ns))

    def frame_of(self, record: int) -> int:
        """The frame of a record's id. O(frames): hashes don't run backwards. Raises InputError for a foreign id."""
        for frame in range(self.frames):
            if record_id("moments", self.stream, self.session, frame) == record:
                return frame
        raise InputError(f"record {record:016x} is no frame of {self.stream}", hint="its session may be another one")

    def _checked(self, frame: int) -> int:
        if not 0 <= frame < self.frames:
            raise InputError(f"frame {frame} of an experience of {self.frames}", hint=f"use 0 to {self.frames - 1}")
        return frame


def clock_text(minute: int) -> str:
    """Minute of the day as ``HH:MM``."""
    return f"{minute // 60:02d}:{minute % 60:02d}"


def subsampled(frames: int, count: int) -> list[int]:
    """The original indices of ``count`` evenly spaced frames: linspace(0, frames-1, count), truncated, as the 96-frame
    data set does. Fewer frames than ``count``: some appear more than once, as there. Raises InputError."""
    if frames < 1 or count < 1:
        raise InputError(f"{count} of {frames} frames can't be chosen", hint="both must be at least 1")
    # NumPy's own arithmetic, float steps and all: a whole number that lands just below itself is truncated to one
    # less, here as in the published set.
    return [int(index) for index in np.linspace(0, frames - 1, count)]
