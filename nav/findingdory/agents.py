"""Who answers: the protocol, and the agents that every other one is compared with.

An agent sees yesterday's frames as a robot's sensors give them (``perception.frames.Frame``), once, in order; then it
is asked in words. Nothing of the truth is in its hands: not the goal, not how many places are wanted. Only
:class:`Oracle` is built with the judge, and says so.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import msgspec

from nav.findingdory.tasks import Question
from perception.frames import Frame

if TYPE_CHECKING:
    from nav.findingdory.worlds import Truth


class Asked(msgspec.Struct, frozen=True):
    """What an agent is told: the instruction, its task number, and how many frames there were."""

    task: int
    text: str
    frames: int


class Agent(Protocol):
    """``answer`` gives one frame for each place to go to, or None for no answer. ``pictures`` says whether
    :meth:`see` must be fed; drawing is what an episode costs."""

    name: str
    pictures: bool

    def reset(self, seed: int) -> None:
        """A new experience begins."""
        ...

    def see(self, frame: Frame) -> None:
        """The next frame of yesterday; ``frame.index`` is what answers are made of."""
        ...

    def answer(self, asked: Asked) -> list[int] | None: ...


def stated_targets(text: str) -> int:
    """How many places the words ask for: the items of a stated order; 2 where "all" leaves it open; else 1."""
    order = re.search(r"in this order: (.*)\.$", text)
    if order:
        return len(order[1].split(", then "))
    return 2 if re.match(r"(About [^:]+: )?Revisit", text) else 1


class Oracle:
    """Knows the truth: the upper bound, and the check that an episode can be solved at all. It says the middle frame of
    each goal's frames; None where no frame solves the question."""

    name = "oracle"
    pictures = False

    def __init__(self, truth: Truth, questions: Mapping[int, Question]) -> None:
        self._truth, self._questions = truth, questions

    def reset(self, seed: int) -> None:
        """Nothing is kept."""

    def see(self, frame: Frame) -> None:
        """It needs no eyes."""

    def answer(self, asked: Asked) -> list[int] | None:
        rows = self._truth.answer(self._questions[asked.task])
        return None if rows == [[-1]] else [row[len(row) // 2] for row in rows]


class RandomFrame:
    """Any frame, for as many places as the words ask for: the lower bound."""

    name = "random"
    pictures = False

    def reset(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def see(self, frame: Frame) -> None:
        """It doesn't look."""

    def answer(self, asked: Asked) -> list[int] | None:
        return [int(self._rng.random() * asked.frames) for _ in range(stated_targets(asked.text))]


class LastVisible:
    """The last frame in which a thing that the words name was large in the picture; where they name none, the last
    frames in which anything was. It uses labels (simulator or detector) and no history."""

    name = "last_visible"
    pictures = True

    def reset(self, seed: int) -> None:
        self._last: dict[tuple[str, str], tuple[int, float]] = {}
        self._end = 0

    def see(self, frame: Frame) -> None:
        self._end = frame.index
        for one in frame.sensed.detections:
            x0, y0, x1, y1 = one.box
            area = (x1 - x0) * (y1 - y0)
            key = (one.label, one.track or "")
            before = self._last.get(key)
            # Within 20 frames of the last sight the largest one wins: the thing is whole there, not at the edge.
            if before is None or frame.index - before[0] > 20 or area >= before[1]:
                self._last[key] = (frame.index, area)

    def answer(self, asked: Asked) -> list[int] | None:
        named = [key for key in self._last if re.search(rf"\b{re.escape(key[0])}\b", asked.text)]
        frames = sorted((self._last[key][0] for key in named or self._last), reverse=True)
        chosen = list(dict.fromkeys(frames))[: stated_targets(asked.text)]
        return chosen or [self._end]
