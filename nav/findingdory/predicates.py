"""When an agent is "at" an object, a receptacle or in a room: thresholds as data, the benchmark's comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from nav.findingdory.tasks import Target

INF = float("inf")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the predicates ask of one entity as seen from one pose.

    ``distance_m``: geodesic metres from the base, to the entity's snapped position (object) or to its nearest view
    point (receptacle). ``angle_rad``: between the heading and the direction to it, in the floor plane, 0 to pi.
    ``coverage``: its share of the picture's pixels. ``inside``: the base is in the room (rooms only)."""

    distance_m: float = INF
    angle_rad: float = math.pi
    coverage: float = 0.0
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A predicate fails on ``distance > distance_m``, ``angle > angle_rad`` or ``coverage < coverage`` (strict)."""

    object_distance_m: float = 2.0
    object_angle_rad: float = 0.785
    receptacle_distance_m: float = 0.1
    receptacle_angle_rad: float = 1.57
    coverage: float = 0.001

    def holds(self, target: Target, reading: Reading) -> bool:
        """Whether the agent is at the target. A distance that isn't a number fails."""
        if target == "room":
            return reading.inside
        if target == "object":
            distance, angle = self.object_distance_m, self.object_angle_rad
        else:
            distance, angle = self.receptacle_distance_m, self.receptacle_angle_rad
        fails = reading.distance_m > distance or reading.angle_rad > angle or reading.coverage < self.coverage
        return not fails and not math.isnan(reading.distance_m)


Measure = Literal["full", "dtg", "sc"]
FULL = Thresholds()
MEASURES: Mapping[Measure, Thresholds] = {
    "full": FULL,
    # DTG-SR looks at the distance only, SC-SR at what is seen only; the angle stays on in all three.
    "dtg": replace(FULL, coverage=0.0),
    "sc": replace(FULL, object_distance_m=10_000.0, receptacle_distance_m=10_000.0),
}


class Judge(Protocol):
    """Knows the truth of an experience: what the predicates would see. Never in an agent's hands."""

    @property
    def frames(self) -> int:
        """Frames of the experience."""
        ...

    def reading(self, entity_id: str, frame: int) -> Reading:
        """From the stored pose of an experience frame, with everything where it is *now* (after the experience)."""
        ...

    def distance(self, a: str | None, b: str) -> float:
        """Geodesic metres between two entities; from the start pose where ``a`` is None; ``inf`` if unreachable."""
        ...


def heading_difference(yaw: float, dx: float, dy: float) -> float:
    """Unsigned angle in [0, pi] between heading ``yaw`` (radians from +x, counter-clockwise) and (dx, dy) in the floor
    plane. Standing on the target itself is no angle: 0."""
    if dx == 0 and dy == 0:
        return 0.0
    return abs(math.remainder(math.atan2(dy, dx) - yaw, math.tau))


def satisfied(
    target: Target, groups: Sequence[Sequence[str]], readings: Mapping[str, Reading], at: Thresholds
) -> list[bool]:
    """For each group whether any member's predicate holds. Entities that weren't read don't hold."""
    return [any(name in readings and at.holds(target, readings[name]) for name in group) for group in groups]
