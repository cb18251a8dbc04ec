"""Policies without a long memory: SAM 2's own, the same with a gate, and SAMURAI's filter.

Sources: sam2 ``sam2_base.py``; samurai ``sam2_base.py`` and ``kalman_filter.py`` (arXiv 2411.11922).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streammem.banks.policies.base import POINTERS, Policy
from streammem.banks.policies.composite import RECENT, ByAge, ByRank, Composite, Gate
from streammem.banks.policies.motion import BoxFilter
from streammem.banks.policies.record import Change, FrameRecord, Hypothesis, Limits, Read, box_iou


class SAM2Fifo(Composite):
    """All prompts and the last six frames, whatever is in them."""

    name = "fifo"

    def __init__(self, *, reads: int = RECENT, pointers: int = POINTERS) -> None:
        super().__init__(short=ByAge(reads, pointers))


class GatedFifo(Composite):
    """The last six frames that pass a presence gate."""

    name = "gated"

    def __init__(self, *, reads: int = RECENT, gate: Gate | None = None) -> None:
        super().__init__(short=ByRank(reads=reads, gate=gate or Gate()))


STABLE = 15
"""Frames in a row after which the motion filter has a say."""
MOTION_SHARE = 0.15
"""Its share in the choice of a mask; the rest is the predicted IoU."""
FOLLOWS = 0.3
"""Below this predicted IoU the filter starts anew."""


class Samurai(Policy):
    """SAMURAI: masks are chosen with a Kalman filter's help; memory is filtered when it is read.

    Kept: the newest 15 frames with IoU > 0.5, presence logit > 0 and (where there is one) motion IoU > 0, and the
    frame before the current one, which is read even if it fails. The last six are read, their rank is their temporal
    row. The original walks back to frame 2; here the walk ends at 15 valid frames, wherever they are."""

    name = "samurai"
    frames = 2 * POINTERS
    presence_threshold = -1.0
    """Logit from which SAMURAI takes an object as present; an adapter applies it."""

    def __init__(self, *, reads: int = RECENT) -> None:
        super().__init__()
        self.reads = reads
        self._filter = BoxFilter()
        self._chosen_motion: float | None = None

    def budget(self) -> Limits:
        return Limits(frames=self.frames)

    def choose(self, hypotheses: Sequence[Hypothesis]) -> int:
        ious = np.array([one.pred_iou for one in hypotheses])
        self._filter.load(self.extra.get("filter"))
        self._chosen_motion = None
        if self.extra.get("stable", 0) < STABLE or not self._filter.started:
            return int(ious.argmax())
        expected = self._filter.predicted()
        motion = np.array([box_iou(expected, one.box) for one in hypotheses])
        best = int((MOTION_SHARE * motion + (1 - MOTION_SHARE) * ious).argmax())
        self._chosen_motion = float(motion[best])
        return best

    def observe(self, record: FrameRecord) -> list[Change]:
        motion = record.motion_iou if record.motion_iou is not None else self._chosen_motion
        self._follow(record)
        good = record.pred_iou > 0.5 and record.presence_logit > 0 and (motion is None or motion > 0)
        changes = [Change(record.t, "add", "recent", "valid" if good else "newest, although it fails", record.t)]
        shelf = {True: "short", False: "past"}[good and record.box is not None]
        setattr(self, shelf, [*getattr(self, shelf), record.kept()])
        while len(self.short) > POINTERS:
            gone = self.short.pop(0)
            changes.append(Change(gone.t, "drop", "recent", f"beyond the newest {POINTERS} valid frames", record.t))
        # Failed frames: pointers aren't filtered in SAMURAI, so they stay as long as a pointer may be read.
        for one in [one for one in self.past if record.t - one.t >= POINTERS]:
            self.past.remove(one)
            changes.append(Change(one.t, "drop", "recent", f"failed, and older than {POINTERS} frames", record.t))
        return changes

    def _follow(self, record: FrameRecord) -> None:
        """The motion filter: started by a mask, updated by good ones, restarted by bad ones."""
        self._filter.load(self.extra.get("filter"))
        stable = int(self.extra.get("stable", 0))
        if record.box is None:
            stable = 0
        elif not self._filter.started or stable == 0:
            self._filter.start(record.box)
            stable = 1
        else:
            self._filter.step()
            if record.pred_iou > FOLLOWS:
                self._filter.update(record.box)
                stable += 1
            else:
                stable = 0
        self.extra["filter"], self.extra["stable"] = self._filter.plain(), stable
        self._chosen_motion = None

    def select(self, t: int) -> list[Read]:
        past = [one for one in self.short if one.t < t]
        before = [one for one in self.past if one.t == t - 1]
        chosen = [*past, *before][-self.reads :]
        reads = self.read_prompts(t)
        for at, one in enumerate(chosen):
            why = "t-1, although it fails" if one in before else "valid"
            reads.append(Read(one.t, min(len(chosen) - at, 6), "recent", why=why))
        return reads
