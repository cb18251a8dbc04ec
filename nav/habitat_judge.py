"""What the benchmark's predicates read in a Habitat scene: the judge of an episode. Never in an agent's hands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nav.env import AgentPose
from nav.findingdory.offline import Frames
from nav.findingdory.predicates import FULL, Reading, heading_difference
from nav.findingdory.tasks import Question
from nav.habitat_env import HabitatEnv
from streammem.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Station:
    """An entity where it is now. ``views`` (n, 3): a receptacle's view points, map frame, metres."""

    kind: Literal["object", "receptacle", "room"]
    instance: int
    position: tuple[float, ...]
    views: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))


class HabitatJudge:
    """``poses``: of yesterday's frames; ``placed_at``: from which frame on a carried thing is where it is now. Things
    must stand as yesterday left them while it reads."""

    def __init__(
        self,
        env: HabitatEnv,
        poses: Sequence[AgentPose],
        stations: Mapping[str, Station],
        placed_at: Mapping[str, int],
    ) -> None:
        self._env, self._poses, self._stations, self._placed_at = env, list(poses), stations, placed_at
        self._shares: dict[AgentPose, dict[int, float]] = {}
        self._readings: dict[tuple[str, AgentPose], Reading] = {}
        self._frames_of: dict[tuple[str, str], list[int]] = {}

    @property
    def frames(self) -> int:
        return len(self._poses)

    def position(self, entity_id: str) -> tuple[float, ...]:
        return self._station(entity_id).position

    def reading(self, entity_id: str, frame: int) -> Reading:
        if not 0 <= frame < self.frames:
            raise InputError(f"frame {frame} of {self.frames}", hint="metrics.prepare checks what agents say")
        return self.reading_at(entity_id, self._poses[frame])

    def reading_at(self, entity_id: str, pose: AgentPose) -> Reading:
        key = (entity_id, pose)
        if key not in self._readings:
            self._readings[key] = self._read(self._station(entity_id), entity_id, pose)
        return self._readings[key]

    def distance(self, a: str | None, b: str) -> float:
        if a == b:
            return 0.0
        start = self._poses[-1] if a is None else self._places(a)[0]
        return self._env.geodesic(start[:3], self._places(b))

    def distances(self, names: Sequence[str]) -> dict[str, float]:
        """Geodesic metres from the final pose."""
        return {name: self.distance(None, name) for name in names}

    def answer(self, question: Question) -> Frames:
        """For each goal every frame that solves it; ``[[-1]]`` where some goal has none. A carried thing counts from
        the start of its last place skill on."""
        goal = question.goal
        rows = [sorted({f for name in group for f in self.frames_of(goal.target, name)}) for group in goal.groups]
        return rows if rows and all(rows) else [[-1]]

    def frames_of(self, target: Literal["object", "receptacle", "room"], entity_id: str) -> list[int]:
        key = (target, entity_id)
        if key not in self._frames_of:
            since = self._placed_at.get(entity_id, 0) if target == "object" else 0
            self._frames_of[key] = [
                frame for frame in range(since, self.frames) if FULL.holds(target, self.reading(entity_id, frame))
            ]
        return self._frames_of[key]

    def _read(self, station: Station, entity_id: str, pose: AgentPose) -> Reading:
        if station.kind == "room":
            inside = self._env.region_of(pose[:3]) == entity_id
            return Reading(0.0 if inside else math.inf, 0.0, inside=inside)
        dx, dy = station.position[0] - pose.x, station.position[1] - pose.y
        angle = heading_difference(pose.yaw, dx, dy)
        if angle > math.pi / 2:
            return Reading(math.inf, angle)  # beyond the wider of the two limits: nothing passes
        places = station.views if len(station.views) else np.array([station.position])
        nearest = places[int(np.hypot(places[:, 0] - pose.x, places[:, 1] - pose.y).argmin())]
        straight = math.hypot(nearest[0] - pose.x, nearest[1] - pose.y)
        # Beyond 6 m the exact way decides nothing: the straight line stands for it.
        far = straight > 3 * FULL.object_distance_m
        distance = straight if far else self._env.geodesic(pose[:3], [tuple(nearest)])
        return Reading(distance, angle, self._share(station.instance, pose))

    def _share(self, instance: int, pose: AgentPose) -> float:
        if pose not in self._shares:
            keep = self._env.pose
            self._env.pose = pose
            seen = self._env.observe().instances
            self._env.pose = keep
            numbers, counts = np.unique(seen, return_counts=True)
            self._shares[pose] = {
                int(number): float(count / seen.size) for number, count in zip(numbers, counts, strict=True)
            }
        return self._shares[pose].get(instance, 0.0)

    def _places(self, entity_id: str) -> list[tuple[float, ...]]:
        """Where one stands to be at an entity."""
        station = self._station(entity_id)
        return [tuple(point) for point in station.views] if len(station.views) else [station.position]

    def _station(self, entity_id: str) -> Station:
        if entity_id not in self._stations:
            raise InputError(f"this scene has no {entity_id!r}", hint="it isn't among the episode's entities")
        return self._stations[entity_id]
