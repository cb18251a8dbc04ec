"""From a robot's frames to observations of its memory: what it sees, and what its own hands did.

No label says what was picked: while the arm is at work the camera stands still, so the thing that is gone afterwards
was picked up, and the thing that is new was put down; the receptacle is the furniture under it in the picture. That is
sent as an event log entry of the first frame of the arm's work::

    StateFact("#mug_1", "picked_from", "table_2", kind="mug", until_ns=<last frame of the arm's work>)

The frames of the arm's work (8 to 15) are held back until it rests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from nav.findingdory.instructions import is_furniture
from perception.frames import Frame
from streammem.model import Detection, Observation, Producer, StateFact

PICKED, PLACED = "picked_from", "placed_on"
PRODUCER = Producer("nav.findingdory.perceive", revision="1")
ARM = "manipulation"
"""The number (0 or 1) by which a robot says that its arm is at work."""
NIGHT_NS = 4 * 3600 * 10**9
"""A robot that was off for so long starts a new session of its stream."""
UNSEEN = "unseen thing"
"""Kind of what was picked up outside the picture."""


class Perceiver:
    """One experience of one stream. Frames in order; observations come in the same order, some a few frames later."""

    def __init__(self, stream: str, *, labels: bool = True, depth_every: int = 2) -> None:
        """``labels`` False: detections and statements are thrown away (a robot without a detector). ``depth_every``:
        every how many-th pixel of the depth map is kept, along both axes."""
        self.stream, self.labels, self._every = stream, labels, depth_every
        self._block: list[Observation] = []
        self._held: str | None = None
        self._count = self._nights = 0
        self._last_ns: int | None = None

    def see(self, frame: Frame) -> list[Observation]:
        made = self.observation(frame)
        if made.stats.get(ARM):
            self._block.append(made)
            return []
        return [*self.rest(), made]

    def rest(self) -> list[Observation]:
        """The arm is at rest: what was held back, with what the hands did. Call it once more after the last frame."""
        block, self._block = self._block, []
        # The camera stands still: what is between the first and the last of them would be measured once more.
        block[1:-1] = [dataclasses.replace(one, depth_m=None) for one in block[1:-1]]
        if not block or not self.labels:
            return block
        facts = self._did(block)
        return [dataclasses.replace(block[0], states=(*block[0].states, *facts)), *block[1:]] if facts else block

    def observation(self, frame: Frame) -> Observation:
        """What was sensed, and nothing of what the hands did."""
        sensed, step = frame.sensed, self._every
        if self._last_ns is not None and frame.capture_ns - self._last_ns > NIGHT_NS:
            self._nights += 1
        self._last_ns = frame.capture_ns
        return Observation(
            stream=self.stream,
            session=f"day-{self._nights}" if self._nights else "",
            seq=frame.index,
            capture_ns=frame.capture_ns,
            depth_m=None if sensed.depth_m is None else sensed.depth_m[::step, ::step].copy(),
            pose=sensed.pose,
            intrinsics=sensed.intrinsics,
            detections=sensed.detections if self.labels else (),
            states=sensed.states if self.labels else (),
            stats=dict(sensed.stats),
            producer=PRODUCER,
        )

    def _did(self, block: Sequence[Observation]) -> list[StateFact]:
        """One work of the arm is a pick or a put: by what is gone or new, else by turns."""
        before, after = _things(block[0].detections), _things(block[-1].detections)
        gone, new = [n for n in before if n not in after], [n for n in after if n not in before]
        put = self._held is not None if bool(gone) == bool(new) else bool(new)
        until = block[-1].capture_ns
        if put:
            name = self._held if self._held in new or not new else _middle(after[one] for one in new)
            thing, picture = after.get(name or ""), block[-1].detections
        else:
            name = _middle(before[one] for one in gone) if gone else None
            thing, picture = before.get(name or ""), block[0].detections
        if name is None:
            self._count += 1
            name = f"{UNSEEN} {self._count}"
        self._held = None if put else name
        under = support(thing, picture)
        kind = thing.label if thing is not None else "" if put and not name.startswith(UNSEEN) else UNSEEN
        entity = name if name.startswith(UNSEEN) else f"#{name}"
        return [StateFact(entity, PLACED if put else PICKED, under, kind=kind, until_ns=until)]


def _things(detections: Iterable[Detection]) -> dict[str, Detection]:
    return {one.track: one for one in detections if one.track and not is_furniture(one.label)}


def _middle(found: Iterable[Detection]) -> str | None:
    """The one nearest to the middle of the picture, across: the robot faces what it handles."""
    best = min(found, key=lambda one: (abs((one.box[0] + one.box[2]) / 2 - 0.5), one.track or ""), default=None)
    return None if best is None else best.track


def support(thing: Detection | None, detections: Iterable[Detection]) -> str:
    """Track of the furniture under a thing: the smallest one whose box holds the foot of the thing; without a thing,
    or where none does, the one nearest to the middle. Empty where there is no furniture in the picture."""
    furniture = [one for one in detections if one.track and is_furniture(one.label)]
    u, v = (0.5, 0.5) if thing is None else ((thing.box[0] + thing.box[2]) / 2, thing.box[3] - 0.005)

    def outside(one: Detection) -> float:
        x0, y0, x1, y1 = one.box
        return max(x0 - u, u - x1, 0.0) + max(y0 - v, v - y1, 0.0)

    def area(one: Detection) -> float:
        return (one.box[2] - one.box[0]) * (one.box[3] - one.box[1])

    best = min(furniture, key=lambda one: (outside(one), area(one), one.track or ""), default=None)
    return "" if best is None or best.track is None else best.track
