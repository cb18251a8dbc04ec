"""Ground truth of an experience: what the predicates read, which frames answer a question. No OpenGL anywhere.

Agents never get hold of this; the evaluator's judge is :class:`Truth`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nav.env import AgentPose, CameraSpec, Entity
from nav.findingdory.offline import Frames
from nav.findingdory.predicates import FULL, Reading, heading_difference
from nav.homes.simulation import HomeSimulation
from streammem.errors import InputError

if TYPE_CHECKING:
    from nav.findingdory.tasks import Goal, Question
    from nav.homes.experience import Experience

VIEW_LATTICE_M = 0.14
"""Between view points: any place is at most 0.099 m from one, so the benchmark's 0.1 m threshold asks whether the robot
stands where the receptacle can be used, not whether it hit a point."""
VIEW_REACH_M = 1.0
_VIEW_CAMERA = CameraSpec(36, 48)
"""From a metre away furniture covers hundreds of its 1,728 pixels or none: 16 times fewer rays, the same places."""


class Truth:
    """The judge of one experience (``nav.findingdory.predicates.Judge``): poses of its frames, things where they are
    after it."""

    def __init__(self, experience: Experience, camera: CameraSpec | None = None) -> None:
        self.experience = experience
        self.home = experience.home
        self.camera = camera or CameraSpec()
        self._simulation = HomeSimulation(experience.home, camera=self.camera)
        self._simulation.arrange(experience.placements()[0])
        self.entities = {entity.entity_id: entity for entity in self._simulation.entities()}
        self._readings: dict[tuple[str, AgentPose], Reading] = {}
        self._frames_of: dict[tuple[str, str], list[int]] = {}
        self._shown: dict[tuple[str, str], bool] = {}

    @property
    def frames(self) -> int:
        return len(self.experience.frames)

    def reading(self, entity_id: str, frame: int) -> Reading:
        if not 0 <= frame < self.frames:
            raise InputError(f"frame {frame} of {self.frames}", hint="metrics.prepare checks what agents say")
        return self.reading_at(entity_id, self.experience.frames[frame].pose)

    def reading_at(self, entity_id: str, pose: AgentPose) -> Reading:
        """From any pose, for driven robots."""
        key = (entity_id, pose)
        if key not in self._readings:
            self._readings[key] = self._read(entity_id, pose)
        return self._readings[key]

    def distance(self, a: str | None, b: str) -> float:
        if a == b:
            return 0.0
        start = self.experience.final_pose[:2] if a is None else self._station(a)
        if a is None and self._entity(b).kind != "object":
            return self._from_start(b)[0]
        return self.home.floor.distance(start, self._station(b))

    def distances(self) -> dict[str, float]:
        """Geodesic metres from the final pose to each object and receptacle."""
        return {name: self.distance(None, name) for name, entity in self.entities.items() if entity.kind != "room"}

    def answer(self, question: Question) -> Frames:
        """The offline answer: for each goal every frame that solves it; ``[[-1]]`` where some goal has none."""
        from nav.findingdory.tasks import answer_groups

        rows = [
            sorted({f for name in group for f in self.frames_of(question.goal, name)})
            for group in answer_groups(self.experience.log, question)
        ]
        return rows if rows and all(rows) else [[-1]]

    def solvable(self, goal: Goal) -> bool:
        """Whether each group of the goal has a frame that solves it: :meth:`answer` is not ``[[-1]]``. Stops at the
        first frame found, so that it costs a few rays where ``answer`` draws for one frame in ten."""
        return goal.solvable and all(any(self._is_shown(goal, name) for name in group) for group in goal.groups)

    def _is_shown(self, goal: Goal, entity_id: str) -> bool:
        key = (goal.target, entity_id)
        if key in self._frames_of:
            return bool(self._frames_of[key])
        if key not in self._shown:
            poses = self._poses[self._since(goal, entity_id) :]
            away = np.hypot(*(poses[:, :2] - np.array(self._entity(entity_id).position[:2])).T)
            # The nearest first: a frame that passes is among them, and most things have one.
            self._shown[key] = any(
                self._may_hold(goal, entity_id, pose) and FULL.holds(goal.target, self.reading_at(entity_id, pose))
                for pose in (AgentPose(*poses[at].tolist()) for at in np.argsort(away, kind="stable"))
            )
        return self._shown[key]

    @cached_property
    def _poses(self) -> np.ndarray:
        """(frames, 4) x, y, z, yaw."""
        return np.array([frame.pose for frame in self.experience.frames], float).reshape(-1, 4)

    def _since(self, goal: Goal, entity_id: str) -> int:
        """A moved object counts from the start of its last place skill on: before, it wasn't there yet."""
        if goal.target != "object":
            return 0
        return max((i.place_step for i in self.experience.interactions if i.object_id == entity_id), default=0)

    def frames_of(self, goal: Goal, entity_id: str) -> list[int]:
        """Frames from which the predicate of ``goal.target`` holds for this entity."""
        key = (goal.target, entity_id)
        if key not in self._frames_of:
            self._frames_of[key] = self._find_frames(goal, entity_id)
        return self._frames_of[key]

    def _find_frames(self, goal: Goal, entity_id: str) -> list[int]:
        return [
            f
            for f in range(self._since(goal, entity_id), self.frames)
            if self._may_hold(goal, entity_id, self.experience.frames[f].pose)
            and FULL.holds(goal.target, self.reading(entity_id, f))
        ]

    def _may_hold(self, goal: Goal, entity_id: str, pose: AgentPose) -> bool:
        """False where angle or straight distance alone rule it out: rays are drawn for one frame in ten."""
        entity = self._entity(entity_id)
        if entity.kind == "room":
            return True
        dx, dy = entity.position[0] - pose.x, entity.position[1] - pose.y
        angle = heading_difference(pose.yaw, dx, dy)
        if entity.kind == "object":
            # The geodesic way ends at the snapped place, which is at most 2 m from the thing.
            near = math.hypot(dx, dy) <= 2 * FULL.object_distance_m and angle <= FULL.object_angle_rad
            return near and self.home.floor.distance(pose, entity.position) <= FULL.object_distance_m
        views = self.view_points(entity_id)
        away = np.hypot(views[:, 0] - pose.x, views[:, 1] - pose.y).min(initial=math.inf)
        return angle <= FULL.receptacle_angle_rad and (away <= FULL.receptacle_distance_m or not len(views))

    def view_points(self, receptacle: str) -> np.ndarray:
        """(n, 2) places within 1 m from which the receptacle, faced, covers enough of the picture."""
        if receptacle not in self._views:
            self._views[receptacle] = self._find_views(receptacle)
        return self._views[receptacle]

    @cached_property
    def _views(self) -> dict[str, np.ndarray]:
        return {}

    def _find_views(self, receptacle: str) -> np.ndarray:
        one = self.home.receptacle(receptacle)
        x0, y0, x1, y1 = one.rect
        reach, step = VIEW_REACH_M, VIEW_LATTICE_M
        found = []
        scene = self._simulation.scene.near(one.rect, reach)
        for x in np.arange(math.ceil((x0 - reach) / step), (x1 + reach) / step) * step:
            for y in np.arange(math.ceil((y0 - reach) / step), (y1 + reach) / step) * step:
                away = math.hypot(max(x0 - x, x - x1, 0.0), max(y0 - y, y - y1, 0.0))
                if away > reach or self.home.room_at(x, y) != one.room or not self.home.floor.is_free((x, y)):
                    continue
                yaw = math.atan2(one.position[1] - y, one.position[0] - x)
                pose = AgentPose(float(x), float(y), 0.0, yaw)
                if scene.coverage(one.instance, pose, _VIEW_CAMERA) >= FULL.coverage:
                    found.append((float(x), float(y)))
        return np.array(found, float).reshape(-1, 2)

    def _entity(self, entity_id: str) -> Entity:
        if entity_id not in self.entities:
            raise InputError(f"this home has no {entity_id!r}", hint="entities() lists what it has")
        return self.entities[entity_id]

    def _coverage(self, instance: int, pose: AgentPose) -> float:
        return self._simulation.scene.coverage(instance, pose, self.camera)

    def _read(self, entity_id: str, pose: AgentPose) -> Reading:
        entity = self._entity(entity_id)
        if entity.kind == "room":
            inside = self.home.room_at(pose.x, pose.y) == entity_id
            return Reading(distance_m=0.0 if inside else math.inf, angle_rad=0.0, inside=inside)
        dx, dy = entity.position[0] - pose.x, entity.position[1] - pose.y
        angle = heading_difference(pose.yaw, dx, dy)
        # The picture reaches 21.5 degrees to each side; beyond the wider of the two angle limits nothing passes, and a
        # thing behind the camera needs no rays.
        coverage = self._coverage(entity.instance, pose) if angle <= math.pi / 2 else 0.0
        floor = self.home.floor
        if entity.kind == "object":
            return Reading(floor.distance(pose, entity.position), angle, coverage)
        views = self.view_points(entity_id)
        if not len(views):
            return Reading(floor.distance(pose, entity.position), angle, coverage)
        straight = np.hypot(views[:, 0] - pose.x, views[:, 1] - pose.y)
        nearest = views[int(straight.argmin())]
        return Reading(floor.distance(pose, tuple(nearest)), angle, coverage)

    def _station(self, entity_id: str) -> tuple[float, float]:
        """Where one goes to be at an entity: the snapped object, or what of a receptacle or room is nearest the
        start."""
        entity = self._entity(entity_id)
        if entity.kind == "object":
            return self.home.floor.snap(entity.position) or (entity.position[0], entity.position[1])
        return self._from_start(entity_id)[1]

    @cached_property
    def _start_field(self) -> np.ndarray:
        floor = self.home.floor
        return floor.field(floor.cell(self.experience.final_pose))

    def _from_start(self, entity_id: str) -> tuple[float, tuple[float, float]]:
        """Metres from the final pose to the nearest view point of a receptacle or place of a room, and that place."""
        floor = self.home.floor
        entity = self._entity(entity_id)
        if entity.kind == "room":
            room = next(one for one in self.home.rooms if one.entity_id == entity_id)
            cells = np.argwhere(floor.free)
            places = [floor.middle((int(r), int(c))) for r, c in cells]
            inside = [i for i, (x, y) in enumerate(places) if room.holds(x, y)]
            if self.home.room_at(*self.experience.final_pose[:2]) == entity_id:
                return 0.0, (self.experience.final_pose.x, self.experience.final_pose.y)
            points = [places[i] for i in inside]
        else:
            points = [(float(x), float(y)) for x, y in self.view_points(entity_id)] or [
                floor.snap(entity.position) or (math.inf, math.inf)
            ]
        far = [float(self._start_field[floor.cell(p)]) if math.isfinite(p[0]) else math.inf for p in points]
        best = int(np.argmin(far)) if far else -1
        if best < 0 or not math.isfinite(far[best]):
            return math.inf, (entity.position[0], entity.position[1])
        return floor.distance(self.experience.final_pose, points[best]), points[best]


def visible(simulation: HomeSimulation, least_pixels: int = 2) -> Mapping[str, float]:
    """What the camera sees now: share of the picture by entity, from ``least_pixels`` on."""
    _, _, instances = simulation.scene.render(simulation.pose, simulation.camera, colour=False)
    numbers, counts = np.unique(instances, return_counts=True)
    names = {entity.instance: entity.entity_id for entity in simulation.entities() if entity.instance}
    return {
        names[int(n)]: float(count / instances.size)
        for n, count in zip(numbers, counts, strict=True)
        if n and count >= least_pixels
    }
