"""Policies made of parts: a gate, a short memory, a long memory. The order matters: the gate comes first.

Ablations of DAM4SAM and our own suite agree: a presence gate is the first gain, diversity the second, and diversity
or distractor rules without a reliable gate lose quality (docs/tracking.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from streammem.banks.policies.base import POINTERS, Policy
from streammem.banks.policies.record import CONDITIONING, Change, FrameRecord, Limits, Read

RECENT = 6
"""Recent frames that SAM 2 reads (num_maskmem 7 = the prompt + 6)."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What may be remembered. ``presence_logit`` must be above ``presence``, ``pred_iou`` at or above ``iou``,
    ``quality`` at or above ``quality``; an empty mask never passes."""

    presence: float = 0.0
    iou: float = 0.0
    quality: float = 0.0

    def refusal(self, record: FrameRecord) -> str:
        """Why not; empty where it passes."""
        if record.box is None:
            return "empty mask"
        if not record.presence_logit > self.presence:
            return f"absent (logit {record.presence_logit:.2f})"
        if not record.pred_iou >= self.iou:
            return f"unsure mask (predicted IoU {record.pred_iou:.2f})"
        if not record.quality >= self.quality:
            return f"refinement disagrees (IoU {record.quality:.2f})"
        return ""


VISIBLE = Gate()
"""Present, and not an empty mask."""


class Short(Protocol):
    @property
    def holds(self) -> int: ...

    def offer(self, policy: Policy, record: FrameRecord) -> list[Change]: ...
    def read(self, policy: Policy, t: int) -> list[Read]: ...


class Long(Protocol):
    @property
    def holds(self) -> int: ...

    def offer(self, policy: Policy, record: FrameRecord) -> list[Change]: ...
    def read(self, policy: Policy, t: int) -> list[Read]: ...


@dataclass(frozen=True, slots=True)
class ByAge:
    """SAM 2's recent memory: frames t-1 .. t-6 with their age as temporal row, whatever they hold; absent ones too
    (their memory is marked by the model). 15 frames are kept, for the pointers."""

    reads: int = RECENT
    keeps: int = POINTERS

    @property
    def holds(self) -> int:
        return self.keeps

    def offer(self, policy: Policy, record: FrameRecord) -> list[Change]:
        gone = [one for one in policy.short if record.t - one.t >= self.keeps]
        policy.short = [*(one for one in policy.short if record.t - one.t < self.keeps), record.kept()]
        reason = f"older than {self.keeps} frames"
        return [
            Change(record.t, "add", "recent", "recent", record.t),
            *(Change(one.t, "drop", "recent", reason, record.t) for one in gone),
        ]

    def read(self, policy: Policy, t: int) -> list[Read]:
        return [
            Read(one.t, t - one.t, "recent", why="visible" if one.visible else "recent, absent")
            for one in policy.short
            if 1 <= t - one.t <= self.reads
        ]


@dataclass(frozen=True, slots=True)
class ByRank:
    """The newest frame that passes the gate, then the newest ones ``stride`` apart, ``reads`` in all; the temporal row
    is the rank. Frames that fail never enter, so that an absence leaves the memory as it was."""

    reads: int = RECENT
    stride: int = 1
    gate: Gate | None = VISIBLE

    @property
    def holds(self) -> int:
        return self.reads

    def offer(self, policy: Policy, record: FrameRecord) -> list[Change]:
        refusal = self.gate.refusal(record) if self.gate is not None else ""
        if refusal:
            return [Change(record.t, "refuse", "recent", refusal, record.t)]
        changes = [Change(record.t, "add", "recent", "recent", record.t)]
        kept = list(policy.short)
        # The newest is read whatever its number; when it stops being that, only multiples of the stride stay.
        if kept and kept[-1].t % self.stride:
            changes.append(Change(kept.pop().t, "drop", "recent", f"not on the stride of {self.stride}", record.t))
        kept.append(record.kept())
        while len(kept) > self.reads:
            changes.append(Change(kept.pop(0).t, "drop", "recent", f"beyond the newest {self.reads}", record.t))
        policy.short = kept
        return changes

    def read(self, policy: Policy, t: int) -> list[Read]:
        past = [one for one in policy.short if one.t < t][-self.reads :]
        return [
            Read(one.t, min(len(past) - at, 6), "recent", why="visible" if one.visible else "recent, absent")
            for at, one in enumerate(past)
        ]


class Composite(Policy):
    """``gate -> short + long``. The gate, if any, is asked before both; each part may have its own besides."""

    name = "composite"

    def __init__(
        self,
        *,
        short: Short | None = None,
        long: Long | None = None,
        gate: Gate | None = None,
        name: str = "",
        bytes: int = 0,
    ) -> None:
        super().__init__()
        self.name = name or self.name
        self.gate = gate
        self.short_memory = short
        self.long_memory = long
        self._bytes = bytes

    def budget(self) -> Limits:
        holds = sum(part.holds for part in (self.short_memory, self.long_memory) if part is not None)
        return Limits(frames=holds, bytes=self._bytes)

    def observe(self, record: FrameRecord) -> list[Change]:
        refusal = self.gate.refusal(record) if self.gate is not None else ""
        if refusal:
            return [Change(record.t, "refuse", "recent", refusal, record.t)]
        changes = []
        if self.short_memory is not None:
            changes += self.short_memory.offer(self, record)
        if self.long_memory is not None:
            changes += self.long_memory.offer(self, record)
        return changes

    def select(self, t: int) -> list[Read]:
        reads = self.read_prompts(t)
        if self.short_memory is not None:
            reads += self.short_memory.read(self, t)
        taken = {read.t for read in reads}
        if self.long_memory is not None:
            # Nothing is read both as recent and as long-term (ReSurgSAM2).
            reads += [read for read in self.long_memory.read(self, t) if read.t not in taken]
        return reads


def read_long(policy: Policy, t: int) -> list[Read]:
    """Every long-term frame of the past, on the conditioning row: "no temporal encoding" in SAM 2's terms."""
    return [Read(one.t, CONDITIONING, "long", why="long-term") for one in policy.long if one.t < t]
