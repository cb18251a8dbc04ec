"""Distractor-aware memory (DAM4SAM / SAM2.1++, arXiv 2411.17576; rules from its released code).

Two memories, seven maps in all. RAM, for accuracy: the newest visible frame and visible frames on multiples of five.
DRM, for resolving look-alikes: frames where the tracker was sure of its mask while another hypothesis lay elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streammem.banks.policies.base import Policy
from streammem.banks.policies.composite import ByRank, Composite, read_long
from streammem.banks.policies.record import Change, FrameRecord, Read, box_iou, mask_box

MAPS = 7
AREAS = 10


def divergence(mask: np.ndarray, others: Sequence[np.ndarray] | np.ndarray) -> float:
    """How far the rejected hypotheses lie from the chosen mask, as the smallest box IoU; 1 where none differs.

    For each hypothesis: what of it is outside the chosen mask, the largest connected piece of that, together with the
    chosen mask, against the chosen mask. ``mask`` (h, w) bool, ``others`` (k, h, w) bool."""
    import cv2

    chosen = mask_box(mask)
    least = 1.0
    for other in others:
        outside = (other & ~mask).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=8)
        if count <= 1:
            continue
        largest = labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        least = min(least, box_iou(chosen, mask_box(mask | largest)))
    return least


@dataclass(frozen=True, slots=True)
class Distractors:
    """A frame enters when predicted IoU > ``iou``, its area is within ``steady`` of the median of the last ten
    non-empty ones, more than ``cooldown`` frames have passed, and the divergence is at most ``apart``."""

    keeps: int = 4
    reads: int = 3
    iou: float = 0.8
    steady: float = 0.2
    cooldown: int = 5
    apart: float = 0.7

    @property
    def holds(self) -> int:
        return self.keeps

    def offer(self, policy: Policy, record: FrameRecord) -> list[Change]:
        refusal = self._refusal(policy, record)
        if record.box is not None:
            policy.extra["areas"] = [*policy.extra.get("areas", []), record.area][-AREAS:]
        if refusal:
            return [Change(record.t, "refuse", "long", refusal, record.t)]
        policy.extra["admitted"] = record.t
        changes = [Change(record.t, "add", "long", "sure of it beside a look-alike", record.t)]
        policy.long = [*policy.long, record.kept()]
        while len(policy.long) > self.keeps:
            gone = policy.long.pop(0)
            changes.append(Change(gone.t, "drop", "long", f"oldest of more than {self.keeps}", record.t))
        return changes

    def _refusal(self, policy: Policy, record: FrameRecord) -> str:
        if not record.visible:
            return "absent or empty"
        if not record.pred_iou > self.iou:
            return f"not sure enough (predicted IoU {record.pred_iou:.2f})"
        areas = policy.extra.get("areas", [])
        if areas and not 1 - self.steady <= record.area / max(float(np.median(areas)), 1e-12) <= 1 + self.steady:
            return f"the area jumps (to {record.area:.4f})"
        last = policy.extra.get("admitted", policy.prompts[0].t if policy.prompts else record.t)
        if record.t - last <= self.cooldown:
            return f"too soon (after frame {last})"
        if record.mask is None or record.alt_masks is None or not len(record.alt_masks):
            return "no look-alike"
        apart = divergence(record.mask, record.alt_masks)
        return "" if apart <= self.apart else f"no look-alike (box IoU {apart:.2f})"

    def read(self, policy: Policy, t: int) -> list[Read]:
        """Never t-1: it is read as recent."""
        return [read for read in read_long(policy, t) if read.t != t - 1][-self.reads :]


class Dam4Sam(Composite):
    """Both memories. Frames in the DRM aren't read again as recent ones; pointers come from visible frames only."""

    name = "dam4sam"

    def __init__(self, *, stride: int = 5) -> None:
        # One more than is read: the newest frame may also be one on the stride.
        super().__init__(short=ByRank(reads=MAPS, stride=stride), long=Distractors())

    def select(self, t: int) -> list[Read]:
        prompts, long = self.read_prompts(t), self.long_memory.read(self, t) if self.long_memory else []
        taken = {read.t for read in (*prompts, *long)}
        room = max(3, MAPS - len(prompts) - len(long))
        recent = [one for one in self.short if one.t < t and one.t not in taken][-min(room, 6) :]
        return [
            *prompts,
            *(Read(one.t, len(recent) - at, "recent", why="visible") for at, one in enumerate(recent)),
            *long,
        ]

    def pointers(self, t: int) -> list[tuple[int, FrameRecord]]:
        return [(dt, one) for dt, one in super().pointers(t) if one.visible]
