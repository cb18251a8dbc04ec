"""Small long memories that compete for their slots: RMem (by attention), READMem (by volume), a summary token.

Sources: RMem ``aot_plus/networks/layers/transformer.py`` (arXiv 2406.08476); READMem
``long_term_memory_handler.py`` (arXiv 2305.12823); JointFormer ``memory_manager.py`` (arXiv 2308.13505). In all three
we ask for a visible object before a frame may enter; they don't.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streammem.banks.policies.base import Policy, Summary
from streammem.banks.policies.composite import VISIBLE, ByRank, Composite, Gate, read_long
from streammem.banks.policies.diverse import Similarity, describe
from streammem.banks.policies.record import Change, FrameRecord, Read, cosine


def _too_soon(policy: Policy, record: FrameRecord, every: int) -> str:
    last = policy.extra.get("candidate", policy.prompts[0].t if policy.prompts else record.t - every)
    if record.t - last < every:
        return f"candidates are {every} frames apart"
    policy.extra["candidate"] = record.t
    return ""


@dataclass(frozen=True, slots=True)
class Attended:
    """``keeps`` slots, a candidate every ``every`` frames; when full, the slot with the smallest ``w + 1.5
    sqrt(ln(sum n) / (n + 8))`` goes: w is the attention it received (average with weight 0.8 on the new value), n how
    often it was read, so that new frames get their chance (an upper confidence bound)."""

    keeps: int = 8
    every: int = 5
    gate: Gate = VISIBLE

    @property
    def holds(self) -> int:
        return self.keeps

    def offer(self, policy: Policy, record: FrameRecord) -> list[Change]:
        refusal = self.gate.refusal(record) or _too_soon(policy, record, self.every)
        if refusal:
            return [Change(record.t, "refuse", "long", refusal, record.t)]
        changes = [Change(record.t, "add", "long", f"every {self.every} frames", record.t)]
        if len(policy.long) >= self.keeps:
            values = self.values(policy)
            worst = int(np.argmin(values))
            gone = policy.long[worst]
            policy.long = [one for one in policy.long if one.t != gone.t]
            reason = f"least attended (value {values[worst]:.3f})"
            changes.append(Change(gone.t, "drop", "long", reason, record.t))
        policy.long = [*policy.long, record.kept()]
        stay = {str(one.t) for one in policy.long}
        policy.extra["attention"] = {t: seen for t, seen in policy.extra.get("attention", {}).items() if t in stay}
        return changes

    def values(self, policy: Policy) -> list[float]:
        """What each slot is worth, in the order of ``policy.long``."""
        seen = policy.extra.get("attention", {})
        pairs = [seen.get(str(one.t), (0.0, 0)) for one in policy.long]
        total = max(sum(n for _, n in pairs), 1)
        return [w + 1.5 * math.sqrt(math.log(total) / (n + 8)) for w, n in pairs]

    def read(self, policy: Policy, t: int) -> list[Read]:
        return read_long(policy, t)


class RMem(Composite):
    """The prompt, eight slots that compete by attention, and the last visible frame."""

    name = "rmem"

    def __init__(self, *, keeps: int = 8, every: int = 5) -> None:
        super().__init__(short=ByRank(reads=1), long=Attended(keeps, every))

    def attended(self, mass: Mapping[int, float]) -> None:
        seen = self.extra.setdefault("attention", {})
        for one in self.long:
            if one.t in mass:
                w, n = seen.get(str(one.t), (0.0, 0))
                new = float(mass[one.t])
                seen[str(one.t)] = (new if n == 0 else 0.2 * w + 0.8 * new, n + 1)


def volume(vectors: np.ndarray) -> float:
    """|det(Gram)| of the rows (n, d), each scaled to unit length: how much room they span."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return abs(float(np.linalg.det(unit @ unit.T)))


@dataclass(frozen=True, slots=True)
class Volume:
    """``keeps`` slots with the prompt, a candidate every ``every`` frames that must resemble the prompt (cosine at
    least ``like``). When full, the swap that gives the largest volume is made, if it doesn't shrink it."""

    keeps: int = 10
    every: int = 10
    like: float = 0.5
    gate: Gate = VISIBLE
    similarity: Similarity = "object"

    @property
    def holds(self) -> int:
        return self.keeps

    def offer(self, policy: Policy, record: FrameRecord) -> list[Change]:
        vector = describe(record, self.similarity)
        refusal = self.gate.refusal(record) or _too_soon(policy, record, self.every)
        if not refusal and vector is None:
            refusal = f"no descriptor ({self.similarity})"
        if refusal or vector is None:
            return [Change(record.t, "refuse", "long", refusal, record.t)]
        anchors = [one for one in policy.prompts[:1] if describe(one, self.similarity) is not None]
        rows = [_flat(one, self.similarity) for one in (*anchors, *policy.long)]
        new = vector.astype(np.float64).ravel()
        if anchors:
            alike = cosine(rows[0], new)
            if alike < self.like:
                return [Change(record.t, "refuse", "long", f"unlike the prompt (cosine {alike:.3f})", record.t)]
        change = Change(record.t, "add", "long", "room is left", record.t)
        if len(policy.long) < self.keeps - len(anchors):
            policy.long = [*policy.long, record.kept()]
            return [change]
        now = volume(np.array(rows))
        swaps = []
        for at in range(len(anchors), len(rows)):
            swaps.append(volume(np.array([*rows[:at], *rows[at + 1 :], new])))
        best = int(np.argmax(swaps)) if swaps else 0
        if not swaps or swaps[best] < now:
            reason = f"no swap spans more (volume {now:.3g})"
            return [Change(record.t, "refuse", "long", reason, record.t)]
        gone = policy.long[best]
        policy.long = [*(one for one in policy.long if one.t != gone.t), record.kept()]
        reason = f"spans more (volume {now:.3g} to {swaps[best]:.3g})"
        return [
            Change(record.t, "add", "long", reason, record.t),
            Change(gone.t, "drop", "long", f"frame {record.t} {reason}", record.t),
        ]

    def read(self, policy: Policy, t: int) -> list[Read]:
        return read_long(policy, t)


def _flat(record: FrameRecord, similarity: Similarity) -> np.ndarray:
    vector = describe(record, similarity)
    assert vector is not None
    return vector.astype(np.float64).ravel()


class ReadMem(Composite):
    """The prompt and nine frames that span as much as possible, and the last visible frame."""

    name = "readmem"

    def __init__(self, *, keeps: int = 10, every: int = 10, similarity: Similarity = "object") -> None:
        super().__init__(short=ByRank(reads=1), long=Volume(keeps, every, similarity=similarity))


@dataclass(frozen=True, slots=True)
class Spaced:
    """A frame every ``every``, ``keeps`` of them, oldest out."""

    keeps: int = 2
    every: int = 5
    gate: Gate = VISIBLE

    @property
    def holds(self) -> int:
        return self.keeps

    def offer(self, policy: Policy, record: FrameRecord) -> list[Change]:
        refusal = self.gate.refusal(record) or _too_soon(policy, record, self.every)
        if refusal:
            return [Change(record.t, "refuse", "long", refusal, record.t)]
        policy.long = [*policy.long, record.kept()]
        changes = [Change(record.t, "add", "long", f"every {self.every} frames", record.t)]
        while len(policy.long) > self.keeps:
            gone = policy.long.pop(0)
            changes.append(Change(gone.t, "drop", "long", f"oldest of more than {self.keeps}", record.t))
        return changes

    def read(self, policy: Policy, t: int) -> list[Read]:
        return read_long(policy, t)


class SummaryToken(Composite):
    """JointFormer's shape without its network: the prompt, two frames five apart, the last frame, and one vector that
    stands for all of the past. Theirs is a learned token updated twice a frame; ours is a running average of the
    object's and its surroundings' descriptors, presence-gated, with at least ``least`` weight on the newest frame so
    that it follows slow change."""

    name = "summary"

    def __init__(self, *, keeps: int = 2, every: int = 5, least: float = 0.02) -> None:
        super().__init__(gate=Gate(), short=ByRank(reads=1, gate=None), long=Spaced(keeps, every))
        self._least = least

    def start(self, record: FrameRecord) -> list[Change]:
        self._learn(record)
        return super().start(record)

    def observe(self, record: FrameRecord) -> list[Change]:
        if self.gate is not None and not self.gate.refusal(record):
            self._learn(record)
        return super().observe(record)

    def _learn(self, record: FrameRecord) -> None:
        if record.desc_obj is None or record.desc_back is None:
            return
        new = np.stack([record.desc_obj, record.desc_back]).astype(np.float64)
        old, frames = self.extra.get("token", (None, 0))
        share = max(1.0 / (frames + 1), self._least)
        mean = new if old is None else (1 - share) * np.array(old) + share * new
        self.extra["token"] = (mean.tolist(), frames + 1)

    def summary(self) -> Summary | None:
        mean, frames = self.extra.get("token", (None, 0))
        if mean is None:
            return None
        both = np.array(mean, np.float32)
        both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-9)
        return Summary(both[0], both[1], frames)
