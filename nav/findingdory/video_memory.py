"""What a memory knows of a day that it saw as a video: pictures alone, no depth, no pose, no labels of a simulator.

The video goes through the same pipeline as any other (``perception.pipeline.watch``): every frame becomes a record,
keyframes in full. Two things can be told from that: which moments look like words (``Memory.search``), and when the
robot's hands were at work, because then the camera stands still for some frames. What was picked up must be put down,
so every second stillness is a put; with that, order, clock and durations are known of things that have no name.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nav.findingdory.choosing import deeds_for
from nav.findingdory.clock import DayClock
from nav.findingdory.instructions import Instruction
from nav.findingdory.recollection import Deed, unique
from streammem.errors import QueryError, SourceError, SpaceMismatch
from streammem.memory import Memory
from streammem.model import Record

STILL = 0.05
"""Of the median change between frames: less is a camera that stands still. In rendered homes, compression included, a
still frame changes by 0.0 to 0.13 gray levels, a step or a turn by 4 to 6 in the median, and before a plain wall by 0.3
to 0.9, which 0.2 of the median took for stillness."""
LEAST_STILL = 6
"""Frames in a row that make a work of the hands: skills take 8 and more steps, of which the first still moved."""
_NOTICED = 50
"""Best moments that a search is asked for."""
_BESIDE = 12
"""Frames around a work of the hands that show what it was about: the robot walks up to it and away from it."""
PREFIX = "The robot's goal is:"


def frame_times(path: Path) -> list[int]:
    """Time of each picture of a video in ns, zero at the first, rising: frame ``i`` of the benchmark is the i-th. Read
    from the packets, nothing is decoded. Raises SourceError."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            base = stream.time_base
            stamps = sorted(p.pts for p in container.demux(stream) if p.pts is not None and not p.is_corrupt)
    except (av.error.FFmpegError, IndexError) as error:
        raise SourceError(f"{path}: no video can be read: {error}", hint="copy or download it again") from error
    if not stamps or base is None:
        raise SourceError(f"{path}: its pictures have no times", hint="copy or download it again")
    return [round((stamp - stamps[0]) * 10**9 * base) for stamp in dict.fromkeys(stamps)]


@dataclass(eq=False)
class VideoRecollection:
    """``times``: of the frames, as in :func:`frame_times`. ``clock`` maps frames to the day's time: it holds where the
    video has every frame."""

    memory: Memory
    stream: str
    times: Sequence[int]
    clock: DayClock

    def __post_init__(self) -> None:
        mine: list[Record] = [record for record in self.memory if record.stream == self.stream]
        self.moments = sorted(mine, key=lambda record: record.t_start_ns)
        self.frames = [self.frame_at(record.t_start_ns) for record in self.moments]
        self.blocks = still_blocks(self.frames, [record.stats.get("change", math.inf) for record in self.moments])
        self.deeds = [self._deed(k) for k in range(len(self.blocks) // 2)]

    def frame_at(self, media_ns: int) -> int:
        """The frame nearest to a time: containers round."""
        i = bisect_left(self.times, media_ns)
        near = [k for k in (i - 1, i) if 0 <= k < len(self.times)]
        return min(near, key=lambda k: abs(self.times[k] - media_ns))

    def best(self, words: str, within: Sequence[tuple[int, int]] = ()) -> int | None:
        """The frame that looks most like words, among ``within`` (first, last frame) where given; None where the
        memory's space can't compare words with pictures."""
        for frame, _ in self._found(words):
            if not within or any(first <= frame <= last for first, last in within):
                return frame
        return None

    def of_category(self, names: Sequence[str], category: str) -> list[str]:
        """The one whose works of the hands look most like the word. With no sight of words: all of them, as none can
        be told from the others."""
        scores = {name: self._likeness(name, category) for name in unique(names)}
        best = max(scores, key=lambda name: scores[name], default="")
        return [name for name in names if scores[best] == -math.inf or name == best]

    # -- inside

    def _found(self, words: str) -> list[tuple[int, float]]:
        try:
            found = self.memory.search(words, k=_NOTICED, streams=[self.stream])
        except (QueryError, SpaceMismatch):
            return []
        known = set(self.frames)
        made = [(self.frame_at(one.frames[0].t_ns if one.frames else one.t_start_ns), one.score) for one in found]
        return [(frame, score) for frame, score in made if frame in known]

    def _likeness(self, name: str, words: str) -> float:
        blocks = [self.blocks[number] for number in block_numbers(name) if number < len(self.blocks)]
        near = [
            score
            for frame, score in self._found(words)
            if any(first - _BESIDE <= frame <= last + _BESIDE for first, last in blocks)
        ]
        return max(near, default=-math.inf)

    def _deed(self, k: int) -> Deed:
        picked, placed = self.blocks[2 * k], self.blocks[2 * k + 1]
        return Deed(f"thing {k}", "", f"place {2 * k}", f"place {2 * k + 1}", self._span(picked), self._span(placed))

    def _span(self, block: tuple[int, int]) -> tuple[int, int]:
        """In the day's time, which is what instructions speak of."""
        return self.clock.capture_ns(block[0]), self.clock.capture_ns(block[1])


def block_numbers(name: str) -> list[int]:
    """``place 3`` is the fourth work of the hands; ``thing 1`` was in the third and the fourth."""
    kind, _, number = name.partition(" ")
    k = int(number)
    return [k] if kind == "place" else [2 * k, 2 * k + 1]


def still_blocks(frames: Sequence[int], change: Sequence[float]) -> list[tuple[int, int]]:
    """First and last frame of each time that the camera stood still for :data:`LEAST_STILL` frames or more.

    ``change``: mean gray difference (0 to 255) of each frame to the one before. One frame that changes in between (the
    thing is gone, or there) doesn't end a stillness; a second one does."""
    moving = [value for value in change[1:] if math.isfinite(value)]
    if not moving:
        return []
    least = STILL * float(np.median(moving))
    runs: list[list[int]] = []
    for i, value in enumerate(change):
        if value > least:
            continue
        if runs and runs[-1][1] == i - 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    whole: list[list[int]] = []
    for run in runs:
        if whole and len(whole[-1]) == 2 and run[0] == whole[-1][1] + 2:
            whole[-1] = [whole[-1][0], run[1], 1]  # its jump is used up
        else:
            whole.append(run)
    # A change is to the frame before: that one shows the same already.
    return [(frames[max(0, r[0] - 1)], frames[r[1]]) for r in whole if r[1] - r[0] + 1 >= LEAST_STILL]


def frames_for(asked: Instruction, known: VideoRecollection, words: str) -> list[int] | None:
    """One frame for each place to go to. ``words``: the instruction, for what only a search can find."""
    if not known.moments:
        return None
    if asked.target == "room" and asked.extreme:
        # No walls and no map: most time is spent where the robot was half way through; an unvisited room can't be
        # seen, so the place where the day began is named.
        return [known.frames[len(known.frames) // 2] if asked.extreme == "busiest" else known.frames[0]]
    if asked.order:
        deeds = [known.deeds[k - 1] for k in asked.order if 0 < k <= len(known.deeds)]
    elif asked.role == "untouched" or not _about_deeds(asked):
        return _one(known.best(asked.category or words))
    else:
        deeds = deeds_for(asked, known)
    if asked.category and deeds and not asked.every:
        names = [_name(deed, asked) for deed in deeds]
        chosen = known.of_category(names, asked.category)
        deeds = [deed for deed, name in zip(deeds, names, strict=True) if name in chosen][:1]
    if not deeds:
        return _one(known.best(words))
    if asked.every and asked.target == "receptacle" and asked.role == "touched":
        return [frame for deed in deeds for frame in _both(deed, known)]
    frames = [_frame(deed, asked, known) for deed in deeds]
    return frames if asked.every or asked.order else frames[-1:]


def _about_deeds(asked: Instruction) -> bool:
    """Whether some of what was carried is meant, and not just anything that is called so."""
    said = (asked.role, asked.nth, asked.anchors, asked.extreme, asked.thing, asked.start)
    return any(said) or asked.minute >= 0


def _both(deed: Deed, known: VideoRecollection) -> list[int]:
    """Ends of the pick and the put."""
    return [known.blocks[number][1] for number in block_numbers(deed.thing or "")]


def _one(frame: int | None) -> list[int] | None:
    return None if frame is None else [frame]


def _name(deed: Deed, asked: Instruction) -> str:
    if asked.target == "object":
        return deed.thing or ""
    return deed.start if asked.role == "picked" else deed.goal


def _frame(deed: Deed, asked: Instruction, known: VideoRecollection) -> int:
    """Things are where they were put: the end of the put. Receptacles: while the hands were at work on them."""
    picked, placed = _both(deed, known)
    at_pick = asked.target != "object" and (asked.role == "picked" or _only_picked(deed, asked))
    return picked if at_pick else placed


def _only_picked(deed: Deed, asked: Instruction) -> bool:
    """Whether a minute that was named lies in the pick."""
    if asked.minute < 0 or deed.picked_ns is None:
        return False
    first, last = (t_ns // (60 * 10**9) % (24 * 60) for t_ns in deed.picked_ns)
    return first <= asked.minute <= last
