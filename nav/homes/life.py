"""Days in a row in one home: each begins as the last one ended, and other things are carried about.

What a robot lives through between two visits of its makers. A :class:`Life` is a list of experiences and the one long
experience that they are together: one count of frames, so that a frame's number, the observation's ``seq`` in a memory
and an answer are one number, whatever the day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from nav.findingdory.clock import DayClock, DaysClock
from nav.findingdory.log import Interaction, InteractionLog, RoomInfo
from nav.homes.experience import Event, Experience, Morning, make_experience
from nav.homes.layout import Home
from streammem.errors import InputError

MOST_DAYS = 100


@dataclass(eq=False)
class Life:
    """``days[d]``: the d-th experience, with the home as it was that morning."""

    home: Home
    days: Sequence[Experience]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first frame of each day."""
        return (0, *accumulate(len(day.frames) for day in self.days[:-1]))

    def until(self, days: int) -> Life:
        """The life as it was after so many days."""
        if not 1 <= days <= len(self.days):
            raise InputError(f"day {days} of a life of {len(self.days)}", hint="days count from 1")
        return self if days == len(self.days) else Life(self.home, self.days[:days])

    @cached_property
    def whole(self) -> Experience:
        """All days as one experience; its judge restores things to where the last day left them."""
        frames, events, done = [], [], []
        for start, day in zip(self.starts, self.days, strict=True):
            frames += [replace(frame, step=frame.step + start) for frame in day.frames]
            events += [Event(event.step + start, event.object_id, event.place) for event in day.events]
            done += [_shifted(one, start) for one in day.interactions]
        first = self.days[0].clock
        clock = DaysClock(first.steps_daily, first.day, self.starts)
        return Experience(self.home, self.days[0].seed, frames, events, done, clock)

    def log(self, day: int) -> InteractionLog:
        """What happened on one day (from 0), in steps of that day; ``distance_m`` is from where the life ended, because
        that is where the robot is asked."""
        one, whole = self.days[day], self.whole.log
        steps = {room.entity_id: 0 for room in self.home.rooms}
        for frame in one.frames:
            if frame.room is not None:
                steps[frame.room] += 1
        log = InteractionLog(
            objects=whole.objects,
            receptacles=whole.receptacles,
            rooms=tuple(RoomInfo(entity_id=r.entity_id, category=r.category, steps=steps[r.entity_id])
                        for r in self.home.rooms),
            interactions=tuple(one.interactions),
            start_room=one.frames[0].room or "",
            steps=len(one.frames),
            distance_m=whole.distance_m,
            steps_daily=one.clock.steps_daily,
        )  # fmt: skip
        log.check()
        return log


def make_life(
    home: Home, days: int, seed: int = 0, *, interactions: int | None = None, clock: DayClock | None = None
) -> Life:
    """``days`` days (1 to 100). The first is ``make_experience(home, seed)``; a longer life begins with a shorter one's
    days. What was carried yesterday is let be while something else can be carried. Raises InputError."""
    if not 1 <= days <= MOST_DAYS:
        raise InputError(f"a life of {days} days", hint=f"use 1 to {MOST_DAYS}")
    first = clock or DayClock()
    made = [make_experience(home, seed, interactions=interactions, clock=first)]
    for number in range(1, days):
        last = made[-1]
        morning = Morning(number, last.final_pose, frozenset(one.object_id for one in last.interactions))
        made.append(
            make_experience(
                home.arranged(last.placements()[0]),
                seed,
                interactions=interactions,
                clock=DayClock(first.steps_daily, first.day + number),
                morning=morning,
            )
        )
    return Life(home, made)


def _shifted(one: Interaction, by: int) -> Interaction:
    return Interaction(
        object_id=one.object_id, start_id=one.start_id, goal_id=one.goal_id,
        start_room=one.start_room, goal_room=one.goal_room,
        pick_step=one.pick_step + by, nav_place_step=one.nav_place_step + by,
        place_step=one.place_step + by, end_step=one.end_step + by,
    )  # fmt: skip
