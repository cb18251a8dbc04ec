"""What a policy of an object's memory does, and the part that all of them share.

A policy decides which frames of one object are kept and which of them the tracker reads. It is numbers only: no
torch, no pictures, no clock. Its whole state is a set of shelves (lists of records) and a few plain values, so that
any policy can be saved, loaded and replayed. :class:`streammem.banks.policies.frame_memory.FrameMemory` holds the
invariants around it: a faulty policy can't lose a prompt or read the future.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from streammem.banks.policies.record import (
    CONDITIONING,
    Change,
    FrameRecord,
    Hypothesis,
    Limits,
    Read,
    Role,
    pack_records,
    unpack_records,
)
from streammem.errors import CorruptData

POINTERS = 15
"""Frames whose object pointers SAM 2 reads besides the prompts' (max_obj_ptrs_in_encoder 16)."""
SHELVES: tuple[tuple[str, Role], ...] = (
    ("prompts", "prompt"), ("long", "long"), ("pool", "long"), ("short", "recent"), ("past", "recent"),
)  # fmt: skip
"""Names of the shelves and the role of what is on them. ``pool`` holds candidates for ``long``; ``past`` is kept for
its pointers or a walk back, not read as a recent frame by itself."""


class Summary(msgspec.Struct, frozen=True):
    """An object in one vector: ``inside`` (d,) and ``around`` (d,) float32, unit length; ``frames`` averaged so far."""

    inside: Any
    around: Any
    frames: int


class MemoryPolicy(Protocol):
    """One object's rules. Methods are called by FrameMemory only, in the order of frames."""

    name: str

    def start(self, record: FrameRecord) -> list[Change]:
        """A prompt, or the frame that a credible start chose. It stays for good."""
        ...

    def propose(self, record: FrameRecord) -> FrameRecord | None:
        """Before the first start: a detector's frame. Returns the frame to start from, once there is one."""
        ...

    def observe(self, record: FrameRecord) -> list[Change]:
        """After predicting frame ``record.t``: what is kept, dropped and refused, each with a reason."""
        ...

    def select(self, t: int) -> list[Read]:
        """What to read for frame ``t``; the order of SAM 2: prompts, recent oldest first, long-term."""
        ...

    def pointers(self, t: int) -> list[tuple[int, FrameRecord]]:
        """``(t - t', record)`` of every object pointer to read."""
        ...

    def choose(self, hypotheses: Sequence[Hypothesis]) -> int:
        """Which of the masks to take."""
        ...

    def attended(self, mass: Mapping[int, float]) -> None:
        """How much attention each read frame received for the last frame; sums to about 1."""
        ...

    def summary(self) -> Summary | None:
        """The object in one vector, for policies that keep one."""
        ...

    def held(self) -> dict[int, tuple[Role, FrameRecord]]:
        """Everything kept, by frame number."""
        ...

    def drop(self, t: int) -> None:
        """Forget a frame, because the memory around it says so."""
        ...

    def budget(self) -> Limits: ...

    def state(self) -> bytes: ...

    def load(self, state: bytes) -> None:
        """Raises CorruptData."""
        ...


class Policy:
    """The shared part: shelves, prompts, SAM 2's pointer rule, saving. Subclasses give ``observe`` and ``select``."""

    name = "first"
    frames = 0
    """Records besides prompts that the policy may hold."""

    def __init__(self) -> None:
        self.prompts: list[FrameRecord] = []
        self.long: list[FrameRecord] = []
        self.pool: list[FrameRecord] = []
        self.short: list[FrameRecord] = []
        self.past: list[FrameRecord] = []
        self.extra: dict[str, Any] = {}
        """Plain values: they are saved with the shelves."""

    # what subclasses change

    def propose(self, record: FrameRecord) -> FrameRecord | None:
        """Only a prompt starts a track."""
        return record if record.is_prompt else None

    def observe(self, record: FrameRecord) -> list[Change]:
        """Keeps the prompts and nothing else."""
        return [Change(record.t, "refuse", "recent", "this policy keeps prompts only", record.t)]

    def select(self, t: int) -> list[Read]:
        return self.read_prompts(t)

    def choose(self, hypotheses: Sequence[Hypothesis]) -> int:
        """The best predicted IoU; the first of equals."""
        return int(np.argmax([one.pred_iou for one in hypotheses]))

    def attended(self, mass: Mapping[int, float]) -> None:
        """Most policies don't ask who was read."""

    def summary(self) -> Summary | None:
        return None

    def budget(self) -> Limits:
        return Limits(frames=self.frames)

    # what is shared

    def start(self, record: FrameRecord) -> list[Change]:
        changes = []
        for name, role in SHELVES[1:]:
            shelf = getattr(self, name)
            if any(one.t == record.t for one in shelf):
                setattr(self, name, [one for one in shelf if one.t != record.t])
                changes.append(Change(record.t, "drop", role, "replaced by a prompt", record.t))
        self.prompts = [one for one in self.prompts if one.t != record.t]
        self.prompts.append(record.kept())
        self.prompts.sort(key=lambda one: one.t)
        return [*changes[:1], Change(record.t, "add", "prompt", "prompt" if record.is_prompt else "start", record.t)]

    def read_prompts(self, t: int) -> list[Read]:
        return [Read(one.t, CONDITIONING, "prompt", why="prompt") for one in self.prompts if one.t < t]

    def pointers(self, t: int) -> list[tuple[int, FrameRecord]]:
        """SAM 2: prompts of the past, then up to 15 frames back, newest first."""
        ages = {one.t: one for shelf in (self.long, self.pool, self.past, self.short) for one in shelf}
        prompts = [(t - one.t, one) for one in self.prompts if one.t < t]
        known = {one.t for one in self.prompts}
        recent = [(t - at, ages[at]) for at in range(t - 1, t - 1 - POINTERS, -1) if at in ages and at not in known]
        return [*prompts, *recent]

    def held(self) -> dict[int, tuple[Role, FrameRecord]]:
        found: dict[int, tuple[Role, FrameRecord]] = {}
        for name, role in SHELVES:
            for one in getattr(self, name):
                found.setdefault(one.t, (role, one))
        return found

    def drop(self, t: int) -> None:
        for name, _ in SHELVES[1:]:
            setattr(self, name, [one for one in getattr(self, name) if one.t != t])

    def state(self) -> bytes:
        held = self.held()
        shelves = {name: [one.t for one in getattr(self, name)] for name, _ in SHELVES}
        records = pack_records([one for _, one in held.values()])
        return msgspec.msgpack.encode({"records": records, "shelves": shelves, "extra": self.extra})

    def load(self, state: bytes) -> None:
        try:
            plain = msgspec.msgpack.decode(state, type=_State)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise CorruptData(f"the saved memory of a track can't be read: {error}") from error
        records = {one.t: one for one in unpack_records(plain.records)}
        try:
            for name, _ in SHELVES:
                setattr(self, name, [records[t] for t in plain.shelves.get(name, [])])
        except KeyError as error:
            raise CorruptData(f"the saved memory of a track lacks frame {error}") from error
        self.extra = plain.extra


class _State(msgspec.Struct):
    records: list[dict[str, Any]]
    shelves: dict[str, list[int]]
    extra: dict[str, Any]


def left(before: Iterable[FrameRecord], after: Iterable[FrameRecord]) -> list[FrameRecord]:
    """The records of ``before`` that aren't in ``after``."""
    stay = {one.t for one in after}
    return [one for one in before if one.t not in stay]
