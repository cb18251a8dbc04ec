"""Diversity-driven long-term memory (ReSurgSAM2, arXiv 2505.08581, MICCAI 2025; rules from its released code).

Reliable frames go into a pool; when the pool is full, the frame that is least like the newest long-term entry becomes
the next one, and the pool is emptied. The released code asks for the predicted IoU only; the presence gate is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from streammem.banks.policies.base import Policy
from streammem.banks.policies.composite import VISIBLE, ByAge, ByRank, Composite, Gate, read_long
from streammem.banks.policies.record import Change, FrameRecord, Read, cosine

Similarity = Literal["map", "object"]


def describe(record: FrameRecord, similarity: Similarity) -> np.ndarray | None:
    """What two frames are compared by: the whole frame's memory map, or the object alone."""
    return record.desc_map if similarity == "map" else record.desc_obj


def width_cosine(a: np.ndarray, b: np.ndarray) -> float:
    """As the released code computes it: cosine along the last axis, averaged over the others."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    norm = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return float(np.mean(np.divide((x * y).sum(axis=-1), norm, out=np.zeros_like(norm), where=norm > 0)))


@dataclass(frozen=True, slots=True)
class DiversePool:
    """``pool`` admitted frames, then the one least similar to the newest entry (or the latest prompt); ``keeps``
    entries, first in first out. ``gate`` is asked before the pool; ``iou`` must be *exceeded*."""

    pool: int = 5
    keeps: int = 3
    iou: float = 0.95
    gate: Gate | None = VISIBLE
    similarity: Similarity = "map"
    release: bool = False

    @property
    def holds(self) -> int:
        return self.pool + self.keeps

    def like(self, a: FrameRecord, b: FrameRecord) -> float:
        x, y = describe(a, self.similarity), describe(b, self.similarity)
        if x is None or y is None:
            return 0.0
        return width_cosine(x, y) if self.release and x.ndim > 1 else cosine(x, y)

    def offer(self, policy: Policy, record: FrameRecord) -> list[Change]:
        refusal = self.gate.refusal(record) if self.gate is not None else ""
        if not refusal and not record.pred_iou > self.iou:
            refusal = f"not reliable enough for long-term (predicted IoU {record.pred_iou:.2f})"
        if not refusal and describe(record, self.similarity) is None:
            refusal = f"no descriptor ({self.similarity})"
        if refusal:
            return [Change(record.t, "refuse", "long", refusal, record.t)]
        candidates = [*policy.pool, record.kept()]
        if len(candidates) < self.pool:
            policy.pool = candidates
            return [Change(record.t, "add", "long", f"candidate ({len(candidates)} of {self.pool})", record.t)]
        reference = policy.long[-1] if policy.long else policy.prompts[-1]
        alike = [self.like(one, reference) for one in candidates]
        best = int(np.argmin(alike))
        chosen = candidates[best]
        why = f"least like frame {reference.t} of {self.pool} (cosine {alike[best]:.3f})"
        changes = [Change(chosen.t, "add", "long", why, record.t)]
        policy.pool = []
        policy.long = [*policy.long, chosen]
        for at, one in enumerate(candidates):
            if at != best:
                changes.append(
                    Change(one.t, "drop", "long", f"a more diverse frame was kept (cosine {alike[at]:.3f})", record.t)
                )
        while len(policy.long) > self.keeps:
            gone = policy.long.pop(0)
            changes.append(Change(gone.t, "drop", "long", f"oldest of more than {self.keeps}", record.t))
        return changes

    def read(self, policy: Policy, t: int) -> list[Read]:
        return read_long(policy, t)


class ReSurgDiverse(Composite):
    """SAM 2's recent memory and a diverse long-term memory beside it.

    ``compat="release"`` is what the released code does: no presence gate, cosine along the width axis, 3 entries.
    ``compat="paper"`` is the paper's formula (plain cosine) with 4 entries and our presence gate."""

    name = "resurg"

    def __init__(self, *, compat: Literal["paper", "release"] = "paper", similarity: Similarity = "map") -> None:
        release = compat == "release"
        long = DiversePool(
            keeps=3 if release else 4, gate=None if release else VISIBLE, similarity=similarity, release=release
        )
        super().__init__(short=ByAge(), long=long, name="resurg_release" if release else self.name)


class GatedDiverse(Composite):
    """Ours: presence gate first, recent frames by rank, diverse long-term frames beside them, compared by the object
    alone (whole frames are mostly background: in a test with hand-made features that changed the choice in 17 of 37
    pools)."""

    name = "diverse"

    def __init__(self, *, iou: float = 0.6, keeps: int = 4, reads: int = 6, similarity: Similarity = "object") -> None:
        super().__init__(
            gate=Gate(),
            short=ByRank(reads=reads, gate=None),
            long=DiversePool(keeps=keeps, iou=iou, similarity=similarity),
        )
