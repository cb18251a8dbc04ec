"""Agents with a memory: a real directory, written as a robot writes and read by its own questions.

Each is built without the experience: it is handed frames (sensors, and the labels of a perfect detector where the
source sends them) and words. ``memory`` keeps every frame; ``fifo`` the last ``budget``, ``uniform`` as many evenly
spread; ``short_term`` reads nothing but the memory's newest seconds.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Literal

import streammem
from nav.findingdory.agents import Asked
from nav.findingdory.choosing import frames_for
from nav.findingdory.driving import Body, Seen, drive, stations
from nav.findingdory.instructions import read
from nav.findingdory.metrics import DriveTrace
from nav.findingdory.perceive import Perceiver
from nav.findingdory.recollection import Recollection
from perception.frames import Frame
from streammem.config import Config
from streammem.errors import InputError
from streammem.memory import Memory

STREAM = "robot"
FRAMES = 96
"""Frames that a limited agent keeps: what the benchmark gives to a video model."""
Keep = Literal["all", "fifo", "uniform", "short_term"]
KEPT: tuple[Keep, ...] = ("fifo", "uniform")


class MemoryAgent:
    """``budget``: frames that are kept (0: all). For ``uniform`` and ``fifo`` the other frames are never written: what
    they showed isn't known. Frames are put by until the day ends, because only then are they known to be chosen."""

    pictures = True

    def __init__(
        self, keep: Keep = "all", budget: int = 0, *, name: str = "memory", config: Config | None = None
    ) -> None:
        self.name, self.keep, self.budget = name, keep, budget
        self.drives = keep == "all"
        self._config = config or Config()
        self._folder: Path | None = None
        self._memory: Memory | None = None

    def reset(self, seed: int) -> None:
        """A new directory; the last one is removed."""
        self.close()
        self._folder = Path(tempfile.mkdtemp(prefix="dory-memory-"))
        self._memory = streammem.open(self._folder, config=self._config)
        self._perceiver = Perceiver(STREAM)
        self._waiting: list[Frame] = []
        self._known: Recollection | None = None

    def see(self, frame: Frame) -> None:
        self._known = None
        if self.keep in ("fifo", "uniform"):
            self._waiting.append(_slim(frame))
            if self.keep == "fifo" and len(self._waiting) > self.budget:
                del self._waiting[0]
            return
        self._write(frame)

    def recollect(self) -> None:
        """Read the memory now; without it the first answer does."""
        self._recollected()

    def answer(self, asked: Asked) -> list[int] | None:
        try:
            instruction = read(asked.text)
        except InputError:
            return None
        return frames_for(instruction, self._recollected())

    def drive(self, body: Body, frames: list[int], seen: Seen) -> DriveTrace:
        """Go to the places of an answer, on the memory's own map. ``seen`` is the judge's, called where it stops."""
        known = self._recollected()
        if known.planner is None:
            return DriveTrace([(body.pose.x, body.pose.y)], ended="planner_failure")
        return drive(body, known.planner, stations(known, frames), seen)

    def close(self) -> None:
        """Close the memory and remove its directory."""
        if self._memory is not None:
            self._memory.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._memory = self._folder = None

    def __del__(self) -> None:
        self.close()

    def disk_bytes(self) -> int:
        """What the memory's files hold, once everything seen is in them."""
        if self._folder is None:
            return 0
        self._recollected()
        self.memory.flush()
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    @property
    def memory(self) -> Memory:
        """The memory of this day. Raises InputError before ``reset``."""
        if self._memory is None:
            raise InputError("the agent has no memory yet", hint="call reset(seed) first")
        return self._memory

    def _write(self, frame: Frame) -> None:
        for observation in self._perceiver.see(frame):
            self.memory.write(observation, durable=False)

    def rest(self) -> None:
        """Write what was put by: the day is over, for now."""
        waiting, self._waiting = self._waiting, []
        if self.keep == "uniform" and self.budget < len(waiting):
            count = len(waiting)
            waiting = [waiting[(2 * i + 1) * count // (2 * self.budget)] for i in range(self.budget)]
        for frame in waiting:
            self._write(frame)
        for observation in self._perceiver.rest():
            self.memory.write(observation, durable=False)
        self.memory.flush()

    def _recollected(self) -> Recollection:
        if self._known is None:
            self.rest()
            self._known = self._recollect()
        return self._known

    def _recollect(self) -> Recollection:
        records = self.memory.recent(STREAM) if self.keep == "short_term" else None
        return Recollection(self.memory, STREAM, records)


def _slim(frame: Frame) -> Frame:
    """Without the picture: nothing here looks at it."""
    import dataclasses

    return dataclasses.replace(frame, image=frame.image[:1, :1])


MEMORY_AGENTS: dict[str, tuple[Keep, int]] = {
    "memory": ("all", 0),
    "short_term": ("short_term", 0),
    "fifo": ("fifo", FRAMES),
    "uniform": ("uniform", FRAMES),
    **{f"{keep}-{budget}": (keep, budget) for keep in KEPT for budget in (16, 48)},
}
"""Name -> what is kept, and how many frames of it."""


def memory_agent(name: str, *_: object) -> MemoryAgent:
    """By name; whatever else a caller gives (a source, questions) is not looked at."""
    keep, budget = MEMORY_AGENTS[name]
    # The short-term memory needs none of the other banks.
    less = {"spatial": {"on": False}, "timeline": {"on": False}, "tracks": {"on": False}, "events": {"on": False}}
    config = Config.model_validate(less) if keep == "short_term" else Config()
    return MemoryAgent(keep, budget, name=name, config=config)
