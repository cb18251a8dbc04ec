"""A selective memory without repetition: ours, in the spirit of HQ-SMem (arXiv 2507.18921).

Of HQ-SMem only the abstract could be read: it keeps relevant key frames, drops redundant ones instead of updating on
a schedule, picks among candidate masks by appearance, and updates the appearance model over time. The rules and
numbers below are ours, not the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streammem.banks.policies.base import Policy, Summary
from streammem.banks.policies.composite import ByRank, Composite, Gate, read_long
from streammem.banks.policies.diverse import Similarity, describe
from streammem.banks.policies.record import Change, FrameRecord, Hypothesis, Read, cosine

AGREES = 0.10
"""Floor of IoU(refined, coarse): below it a refinement has left the object (HQTrack's rule)."""
RELIABLE = Gate(iou=0.5, quality=AGREES)


@dataclass(frozen=True, slots=True)
class NonRedundant:
    """Up to ``keeps`` entries that differ: a frame with a cosine above ``duplicate`` to one that is kept refreshes
    that one instead (and replaces it if its mask is better). When full, the entry that is most like the others goes,
    be it the new one."""

    keeps: int = 10
    duplicate: float = 0.95
    gate: Gate = RELIABLE
    similarity: Similarity = "object"

    @property
    def holds(self) -> int:
        return self.keeps

    def offer(self, policy: Policy, record: FrameRecord) -> list[Change]:
        refusal = self.gate.refusal(record)
        vector = describe(record, self.similarity)
        if not refusal and vector is None:
            refusal = f"no descriptor ({self.similarity})"
        if refusal or vector is None:
            return [Change(record.t, "refuse", "long", refusal, record.t)]
        entries = [one for one in (*policy.prompts, *policy.long) if describe(one, self.similarity) is not None]
        rows = _unit([*(self._vector(one) for one in entries), vector])
        alike = rows[:-1] @ rows[-1]
        nearest = float(alike.max(initial=0.0))
        if nearest > self.duplicate:
            return self._refresh(policy, record, entries[int(np.argmax(alike))], nearest)
        fresh = [*policy.long, record.kept()]
        change = Change(record.t, "add", "long", f"new view (nearest cosine {nearest:.3f})", record.t)
        if len(fresh) <= self.keeps:
            policy.long = fresh
            return [change]
        ours = rows[len(entries) - len(policy.long) :]
        crowding = ((ours @ ours.T).sum(axis=1) - 1.0) / (len(ours) - 1)
        worst = int(np.argmax(crowding))
        reason = f"most like the others (mean cosine {crowding[worst]:.3f})"
        gone = fresh.pop(worst)
        if gone.t == record.t:
            return [Change(record.t, "refuse", "long", reason, record.t)]
        policy.long = fresh
        return [change, Change(gone.t, "drop", "long", reason, record.t)]

    def _refresh(self, policy: Policy, record: FrameRecord, known: FrameRecord, alike: float) -> list[Change]:
        better = record.pred_iou * record.quality > known.pred_iou * known.quality
        if better and any(one.t == known.t for one in policy.long):
            policy.long = [record.kept() if one.t == known.t else one for one in policy.long]
            return [
                Change(record.t, "add", "long", f"a better copy of frame {known.t} (cosine {alike:.3f})", record.t),
                Change(known.t, "drop", "long", f"frame {record.t} is a better copy (cosine {alike:.3f})", record.t),
            ]
        return [Change(known.t, "refresh", "long", f"seen again (cosine {alike:.3f})", record.t)]

    def _vector(self, record: FrameRecord) -> np.ndarray:
        vector = describe(record, self.similarity)
        assert vector is not None
        return vector

    def read(self, policy: Policy, t: int) -> list[Read]:
        return read_long(policy, t)


def _unit(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """(n, d) float64 rows of unit length; a zero vector stays zero."""
    rows = np.stack([vector.ravel() for vector in vectors]).astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


class SmartMemory(Composite):
    """Gate, six recent frames by rank, a long memory without repetition, and an appearance model (an average of the
    object's descriptor over accepted frames, weight ``decay`` on the old) that chooses among masks."""

    name = "smart"

    def __init__(
        self, *, keeps: int = 10, duplicate: float = 0.95, decay: float = 0.9, similarity: Similarity = "object"
    ) -> None:
        super().__init__(
            gate=Gate(), short=ByRank(gate=None), long=NonRedundant(keeps, duplicate, similarity=similarity)
        )
        self._decay = decay

    def start(self, record: FrameRecord) -> list[Change]:
        self._learn(record)
        return super().start(record)

    def observe(self, record: FrameRecord) -> list[Change]:
        changes = super().observe(record)
        if any(change.role == "long" and change.action in ("add", "refresh") for change in changes):
            self._learn(record)
        return changes

    def _learn(self, record: FrameRecord) -> None:
        if record.desc_obj is None:
            return
        seen, frames = self.extra.get("appearance", (None, 0))
        new = np.asarray(record.desc_obj, np.float64)
        mean = new if seen is None else self._decay * np.array(seen) + (1 - self._decay) * new
        self.extra["appearance"] = (mean.tolist(), frames + 1)

    def choose(self, hypotheses: Sequence[Hypothesis]) -> int:
        """Appearance inside minus appearance in the ring outside, as a bonus on the predicted IoU."""
        seen, _ = self.extra.get("appearance", (None, 0))
        scores = []
        for one in hypotheses:
            bonus = 0.0
            if seen is not None and one.inside is not None and one.ring is not None:
                bonus = cosine(np.array(seen), one.inside) - cosine(np.array(seen), one.ring)
            scores.append(one.pred_iou + bonus)
        return int(np.argmax(scores))

    def summary(self) -> Summary | None:
        seen, frames = self.extra.get("appearance", (None, 0))
        if seen is None:
            return None
        inside = np.array(seen, np.float32)
        return Summary(inside / max(float(np.linalg.norm(inside)), 1e-9), None, frames)
