"""Agents for lives of many days, compared at the same bytes on disk.

memory            everything, with the default budgets
memory-16mb       the same memory under ``budget.disk_bytes``: it decides itself what loses detail
fifo-16mb         the newest frames that fit in as many bytes of the same files; the others were never written
uniform-16mb      as many frames as fit, evenly spread over the life
short_term        the newest seconds
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path

import streammem
from nav.findingdory.memory_agents import STREAM, Keep, MemoryAgent, memory_agent
from nav.findingdory.perceive import Perceiver
from perception.frames import Frame
from streammem.config import Config
from streammem.errors import InputError

MB = 1 << 20
NAMES = "memory, memory-16mb, fifo-16mb, uniform-16mb, short_term"
_FIRST_GUESS_BYTES = 24_000
"""Of a frame on disk; only where the search for how many fit begins."""


class KeptFrames(MemoryAgent):
    """The frames that fit: ``most_bytes`` of the memory's files decide how many. They are written anew whenever it is
    asked after new frames, because only then is it known which are the newest, or evenly spread."""

    def __init__(self, keep: Keep, most_bytes: int, *, name: str, config: Config | None = None) -> None:
        super().__init__(keep, 0, name=name, config=config)
        self.most_bytes = most_bytes

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._fits = 0

    def see(self, frame: Frame) -> None:
        self._known = None
        self._waiting.append(_thin(frame))

    def rest(self) -> None:
        count = min(len(self._waiting), self._fits or self.most_bytes // _FIRST_GUESS_BYTES)
        used = self._hold(count)
        grown = min(len(self._waiting), int(count * 0.95 * self.most_bytes / used))
        if grown > 1.1 * count:
            count, used = grown, self._hold(grown)
        while used > self.most_bytes and count > 1:
            count = max(1, int(count * 0.95 * self.most_bytes / used))
            used = self._hold(count)
        self._fits = count

    def _hold(self, count: int) -> int:
        """A new directory with so many frames; its bytes."""
        self.close()
        self._folder = Path(tempfile.mkdtemp(prefix="dory-memory-"))
        self._memory = streammem.open(self._folder, config=self._config)
        total = len(self._waiting)
        if self.keep == "fifo":
            chosen = self._waiting[total - count :]
        else:
            chosen = [self._waiting[(2 * i + 1) * total // (2 * count)] for i in range(count)]
        eyes = Perceiver(STREAM, depth_every=1)
        for frame in chosen:
            self.memory.write(eyes.see(frame), durable=False)
        self.memory.write(eyes.rest(), durable=False)
        self.memory.flush()
        return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())


def _thin(frame: Frame) -> Frame:
    """Without the picture, at which nothing here looks, and with the depth that a memory would be sent."""
    sensed, depth = frame.sensed, frame.sensed.depth_m
    thin = dataclasses.replace(sensed, depth_m=None if depth is None else depth[::2, ::2].copy())
    return dataclasses.replace(frame, image=frame.image[:1, :1], sensed=thin)


def life_agent(name: str) -> MemoryAgent:
    """By name. Raises InputError."""
    if name in ("memory", "short_term"):
        return memory_agent(name)
    found = re.fullmatch(r"(memory|fifo|uniform)-(\d{1,6})mb", name)
    if found is None or int(found[2]) < 4:
        raise InputError(f"no agent with a memory is called {name!r}", hint=f"known are {NAMES} (4mb and more)")
    most = int(found[2]) * MB
    if found[1] == "memory":
        return MemoryAgent(name=name, config=Config.model_validate({"budget": {"disk_bytes": most}}))
    return KeptFrames("fifo" if found[1] == "fifo" else "uniform", most, name=name)


def held_bytes(agent: MemoryAgent) -> int:
    """Of the memory's files, once everything seen is in them."""
    if agent.keep != "short_term":
        return agent.disk_bytes()
    return sum(sum(a.nbytes for a in record.arrays.values()) for record in agent.memory.recent(STREAM))
