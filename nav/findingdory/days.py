"""Questions to a robot that lived for several days: the 60 task types over all of it, and over one day of it.

    Go to the 23rd object that you interacted with.
    About the first day: Go to the receptacle that you interacted with at 7:12.
    About yesterday: Revisit all objects that you interacted with.
    About 2026-01-03: Go to a room that you did not visit; if there is none, to the room in which you started.

What was done is a day's, where it is now is today's: goal sets come from that day's log, the judge looks at the house
as the last day left it. Any frame of any day may be the answer. The robot is asked on the day after its last one.
"""

from __future__ import annotations

import random

import msgspec

from nav.findingdory.dates import date_of
from nav.findingdory.goals import Profile
from nav.findingdory.tasks import Question, ordinal, questions
from nav.homes.life import Life

UNDATED = (1, 2)
"""Tasks that are about no day: go to a mug."""
DATED_ONLY = (47, 48)
"""A minute of the day comes every day."""


class LifeQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """``day`` (from 0) that is asked about, None: all; ``question.text`` says it in words."""

    question: Question
    day: int | None = None

    @property
    def key(self) -> str:
        """``31`` over all days, ``day2/31`` over the third one."""
        return str(self.question.task) if self.day is None else f"day{self.day}/{self.question.task}"


def life_questions(life: Life, *, seed: int = 0, profile: Profile = "strict") -> list[LifeQuestion]:
    """Each task over all days; of two days and more also over the first and the last one, of three over one between."""
    count = len(life.days)
    asked = [
        LifeQuestion(question=one)
        for one in questions(life.whole.log, seed=seed, profile=profile)
        if count == 1 or one.task not in DATED_ONLY
    ]
    if count == 1:
        return asked
    rng = random.Random(f"{seed}/days/{count}")
    chosen = [0, *([1 + int(rng.random() * (count - 2))] if count > 2 else []), count - 1]
    for day in chosen:
        names = day_names(day, life)
        for one in questions(life.log(day), seed=seed + 7919 * (day + 1), profile=profile):
            if one.task not in UNDATED:
                text = f"About {names[int(rng.random() * len(names))]}: {one.text}"
                asked.append(LifeQuestion(question=msgspec.structs.replace(one, text=text), day=day))
    return asked


def day_names(day: int, life: Life) -> list[str]:
    """The ways of naming a day (from 0) of a life."""
    ago = len(life.days) - day
    names = [f"the {ordinal(day + 1)} day", date_of(life.days[day].clock.capture_ns(0)).isoformat()]
    return [*names, "yesterday" if ago == 1 else f"the day {ago} days ago"]
