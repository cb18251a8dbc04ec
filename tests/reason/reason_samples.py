"""Memories and a deepener for tests of the loop: no encoders, everything known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from word_space import JPEG, WordSpace, vector_of

import streammem.memory
from streammem.config import Config, TimelineConfig
from streammem.memory import Memory
from streammem.model import Observation, StreamInfo
from streammem.reason.base import Deeper, Period
from streammem.recall.layers import Layered

S = 1_000_000_000


def open_words(folder: Path, *, timeline: bool = True) -> Memory:
    """An empty memory in the space of five words."""
    config = Config(timeline=TimelineConfig(on=timeline))
    return streammem.memory.open(folder, config=config, spaces=lambda _: WordSpace())


def look(thing: str, t_ns: int, *, stream: str = "cam", session: str = "") -> Observation:
    return Observation(
        stream=stream,
        session=session,
        seq=t_ns // 1_000_000,
        capture_ns=t_ns,
        space="words@1",
        embedding=vector_of(thing),
        thumbnail=JPEG,
    )


class Script:
    """A deepener that knows what is really there at every second; counts what it is asked for."""

    def __init__(self, memory: Memory, folder: Path, truth: Sequence[str], *, gone: str = "") -> None:
        self.memory, self.truth, self.gone = memory, truth, gone
        self.beside = open_words(folder, timeline=False)
        self.asked: list[Period] = []

    @property
    def view(self) -> Layered:
        return Layered(self.memory, self.beside)

    def deepen(self, period: Period, fps: float, *, limit: int = 64) -> Deeper:
        self.asked.append(period)
        if self.gone:
            return Deeper(period, (), 0, 0, self.gone)
        seconds = range(-(-period.t_start_ns // S), period.t_end_ns // S + 1)
        new = [look(self.truth[s], s * S, session="deeper") for s in seconds if s < len(self.truth)][:limit]
        receipt = self.beside.write(new)
        ids = tuple(one.record_id for one in new)
        return Deeper(period, ids, receipt.written, receipt.duplicates)

    def close(self) -> None:
        self.beside.close()


def sparse(folder: Path, truth: Sequence[str], every: int) -> Memory:
    """A memory that looked at every ``every``-th second only."""
    memory = open_words(folder)
    memory.set_stream(StreamInfo(stream="cam", clock="media"))
    memory.write([look(thing, second * S) for second, thing in enumerate(truth) if second % every == 0])
    return memory


def filled(length: int, events: Iterable[tuple[int, str]]) -> list[str]:
    """A scene of nothing known, and things at their seconds."""
    truth = ["tree"] * length
    for second, thing in events:
        truth[second] = thing
    return truth
