"""Capture times over months, on clocks that the test moves (faults 12 and 13)."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.frames import Health
from perception.sampling import NS, FixedRate
from perception.sources.live import CaptureClock, LiveGrid

T0 = 1_800_000_000 * NS


class World:
    """A wall clock, a monotonic clock and a camera with its own crystal."""

    def __init__(self, *, drift: float = 0.0) -> None:
        self.mono, self.step, self.drift = 5_000 * NS, 0, drift
        self.health = Health()
        self.clock = CaptureClock(self.health, wall=self.wall, monotonic=lambda: self.mono)

    def wall(self) -> int:
        return T0 + self.mono + self.step

    def picture(self, seen_at: int, delay: int) -> int:
        """A picture that the sensor saw at monotonic ``seen_at`` and that arrives after ``delay``; its error in ns."""
        self.mono = max(self.mono, seen_at + delay)
        return self.clock.stamp(round(seen_at * (1 + self.drift)) + 77 * NS) - (T0 + seen_at)


def test_jitter_of_the_network_falls_out() -> None:
    world, chance = World(), random.Random(1)
    errors = [world.picture(5_000 * NS + n * NS // 10, round(chance.uniform(0.005, 0.2) * NS)) for n in range(3000)]
    # The smallest delay is what is left; the arrival's own error would be up to 200 ms.
    assert all(0 <= error <= 0.03 * NS for error in errors[200:])


@pytest.mark.parametrize("drift", [50e-6, -50e-6])
def test_a_crystal_that_drifts_by_4_s_a_day_is_followed(drift: float) -> None:
    world = World(drift=drift)
    errors = [world.picture(5_000 * NS + n * NS, 10_000_000) for n in range(86_400)]
    assert max(abs(error) for error in errors) < 0.1 * NS


def test_fault_12_a_wall_clock_set_forward_is_followed() -> None:
    world = World()
    world.picture(5_000 * NS, 0)
    world.step = 3600 * NS
    assert world.picture(5_001 * NS, 0) == pytest.approx(3600 * NS, abs=NS)
    assert world.health.clock_steps == 1 and "set forward by 3600 s" in world.health.notes[0]


def test_fault_12_a_wall_clock_set_back_does_not_stop_the_stream() -> None:
    world = World()
    grid, frames = LiveGrid(FixedRate(1.0)), 0
    for n in range(120):
        if n == 60:
            world.step = -3600 * NS
        world.mono = 5_000 * NS + n * NS
        captured = world.clock.stamp(world.mono)
        frames += grid.wants(captured)
        if grid.wants(captured):
            grid.frame(np.zeros((2, 2, 3), np.uint8), captured)
    # Every second has its picture; going back an hour would have refused them for an hour, as seen before.
    assert frames == 120
    assert world.health.clock_steps == 1 and world.health.clock_ahead_s == pytest.approx(3600)
    world.step = 0
    world.clock.stamp(world.mono)
    assert world.health.clock_ahead_s == 0


def test_fault_12_time_after_a_suspend_is_the_walls() -> None:
    # CLOCK_MONOTONIC stands still while the machine sleeps; the wall clock comes back ahead.
    world = World()
    world.picture(5_000 * NS, 0)
    world.step = 8 * 3600 * NS
    assert world.picture(5_001 * NS, 0) == pytest.approx(8 * 3600 * NS, abs=NS)


def test_fault_13_a_new_timeline_after_a_pts_reset_or_a_reconnection() -> None:
    world = World()
    for n in range(100):
        world.picture(5_000 * NS + n * NS, 0)
    world.mono = 5_100 * NS
    # The camera restarted: its PTS begins at 0 again.
    assert world.clock.stamp(0) == T0 + 5_100 * NS
    assert world.health.pts_resets == 1
    world.mono += NS
    assert world.clock.stamp(NS) == T0 + 5_101 * NS
    world.clock.restart()
    world.mono += NS
    assert world.clock.stamp(-5 * NS) == T0 + 5_102 * NS
    assert world.health.pts_resets == 1


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(
        st.tuples(
            st.integers(0, 5 * NS),
            st.integers(-400 * NS, 400 * NS),
            st.one_of(st.none(), st.integers(-(2**50), 2**50)),
        ),
        max_size=60,
    )
)
def test_capture_times_always_increase(moves: list[tuple[int, int, int | None]]) -> None:
    world, last = World(), -1
    for forward, step, pts in moves:
        world.mono += forward
        world.step += step
        captured = world.clock.stamp(pts)
        assert captured > last
        last = captured
