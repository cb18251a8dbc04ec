"""Yesterday, driven anew in habitat-sim: along the navigation mesh from view point to view point, and what was carried.

No pictures are drawn here: a frame is a pose, and what stands where from which frame on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nav.env import FORWARD_M, TURN_RAD, Action, AgentPose
from nav.findingdory.dataset import Candidate, EpisodeInfo, EpisodeSet
from nav.findingdory.log import Interaction
from nav.habitat_env import HabitatEnv
from nav.habitat_frames import map_from_habitat, yaw_from_habitat
from streammem.errors import SourceError

HAND_STEPS = 10
"""Steps of a pick, and of a place whose actions weren't recorded."""
_MOST_STEPS = 2000
_NEAR_M = 0.6
_REACHED_M = 0.15
"""Half a step and a little, as the drives of the second day."""


@dataclass(frozen=True, slots=True)
class Step:
    """One frame of yesterday."""

    pose: AgentPose
    room: str | None
    manipulation: bool
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What stands where from a frame on: a (4, 4) pose in Habitat's frame, or None while it is carried."""

    step: int
    handle: str
    matrix: np.ndarray | None


class Wheels:
    """``nav.findingdory.driving.Body`` without pictures."""

    def __init__(self, env: HabitatEnv) -> None:
        self._env = env

    @property
    def pose(self) -> AgentPose:
        return self._env.pose

    @property
    def collided(self) -> bool:
        return self._env.collided

    def act(self, action: Action) -> None:
        self._env.act(action)


class Driver:
    """Drives by primitive actions along the mesh; every action is a frame. ``name`` is for errors."""

    def __init__(self, env: HabitatEnv, name: str) -> None:
        self.env, self.name = env, name
        self.steps: list[Step] = []

    def record(self, mark: str = "", *, manipulation: bool = False) -> None:
        """The robot as it stands now is the next frame."""
        self.steps.append(Step(self.env.pose, self._room(), manipulation, mark))

    def go(self, to: AgentPose, mark: str, *, exactly: bool = False) -> None:
        """By primitive actions: of the 36 headings that turns reach, the one whose step ends nearest to the goal, by
        the mesh. ``exactly``: set down at the very pose, as the benchmark does before it places."""
        env, first = self.env, len(self.steps)
        for _ in range(_MOST_STEPS):
            turns = None if math.dist(env.pose[:2], to[:2]) <= _REACHED_M else self._turns(to)
            if turns is None:
                break
            for _ in range(abs(turns)):
                self.act("left" if turns > 0 else "right")
            self.act("forward")
        for _ in range(round(abs(math.remainder(to.yaw - env.pose.yaw, math.tau)) / TURN_RAD)):
            self.act("left" if math.remainder(to.yaw - env.pose.yaw, math.tau) > 0 else "right")
        away = math.dist(env.pose[:2], to[:2])
        if away > _NEAR_M:
            raise SourceError(f"{self.name}: {mark} ended {away:.1f} m away", hint="is it the episode's scene?")
        if exactly:
            env.pose = to
        if len(self.steps) > first:
            self.steps[first] = replace(self.steps[first], mark=mark)

    def _turns(self, to: AgentPose) -> int | None:
        """How many turns to the left (negative: right) before the step that leads nearest; None where none does."""
        here = self.env.pose
        now = self.env.geodesic(here[:3], [to[:3]])
        best, chosen = now - 1e-3, None
        for turns in sorted(range(-17, 19), key=abs):
            reached = self.env.reach(here._replace(yaw=here.yaw + turns * TURN_RAD))
            if reached is not None and (left := self.env.geodesic(reached[:3], [to[:3]])) < best - 1e-6:
                best, chosen = left, turns
            if best <= now - 0.98 * FORWARD_M:
                break  # no heading leads much nearer than that
        return chosen

    def act(self, action: Action) -> None:
        self.record()
        self.env.act(action)

    def _room(self) -> str | None:
        return self.env.region_of(self.env.pose[:3])


def tour(env: HabitatEnv, places: int, seed: int) -> list[Step]:
    """A walk through a scene: so many random places one after the other, from a random start, turning round at each.
    Places that can't be reached are passed over. The same seed, the same walk."""
    driver = Driver(env, env.settings.scene)
    env.pose = env.random_pose(seed)
    for number in range(places):
        goal = env.random_pose(1000 * (seed + 1) + number)
        if math.isfinite(env.geodesic(env.pose[:3], [goal[:3]])):
            driver.go(goal, f"place_{number}")
            for _ in range(36):
                driver.act("left")
    driver.record("end")
    return driver.steps


class Yesterday(Driver):
    """``carried``: the handle of each interaction's thing; ``receptacles`` by name. Raises SourceError where episode
    and scene don't fit together: a view point that can't be reached, a receptacle that isn't there."""

    def __init__(
        self,
        episode: EpisodeInfo,
        data: EpisodeSet,
        env: HabitatEnv,
        carried: Sequence[str],
        receptacles: Mapping[str, Candidate],
    ) -> None:
        super().__init__(env, f"ep_{episode.episode_id.removeprefix('ep_')}")
        self.deeds: list[Interaction] = []
        self.changes: list[Change] = []
        self._episode, self._data = episode, data
        self._carried, self._receptacles = list(carried), receptacles
        self._run()

    def _run(self) -> None:
        episode, env = self._episode, self.env
        if not episode.start_position or len(episode.start_rotation) != 4:
            raise SourceError(f"{self.name} has no start pose", hint="is the episode file whole?")
        env.pose = pose_of(episode.start_position, episode.start_rotation)
        for k, candidate in enumerate(episode.candidate_objects):
            start = self._named(episode.target_receptacles, k)
            goal = self._named(episode.goal_receptacles, k)
            self.go(self._view(candidate, None), f"nav_pick_{k}")
            pick_step, start_room = len(self.steps), self._room()
            self._hands(f"pick_{k}", HAND_STEPS, self._carried[k], None)
            nav_place_step = len(self.steps)
            self.go(self._view(self._receptacles[goal], self._chosen_view(k)), f"nav_place_{k}", exactly=True)
            place_step = len(self.steps)
            steps, last = self._recorded(k, goal)
            self._hands(f"place_{k}", steps, self._carried[k], last)
            self.deeds.append(
                Interaction(
                    object_id=self._carried[k], start_id=start, goal_id=goal, start_room=start_room or "",
                    goal_room=self._room() or "", pick_step=pick_step, nav_place_step=nav_place_step,
                    place_step=place_step, end_step=len(self.steps) - 1,
                )
            )  # fmt: skip
        if episode.nav_goal_pos is not None:
            self.go(stated_pose(episode.nav_goal_pos, episode.nav_goal_rot), "leave")
        self.record("end")

    def _view(self, candidate: Candidate, chosen: int | None) -> AgentPose:
        """Its chosen view point, else the first that can be reached from here."""
        rows = self._data.view_points(candidate)
        order = range(len(rows)) if chosen is None or not 0 <= chosen < len(rows) else [chosen]
        for i in order:
            pose = pose_of(rows[i, :3], rows[i, 3:7])
            if self.env.is_navigable(pose) and math.isfinite(self.env.geodesic(self.env.pose[:3], [pose[:3]])):
                return pose
        raise SourceError(f"{self.name}: no view point of {candidate.name} can be reached", hint="is it its scene?")

    def _chosen_view(self, k: int) -> int | None:
        chosen = (self._episode.place_valid_receps or {}).get(str(k))
        return chosen if chosen is not None and chosen >= 0 else None

    def _recorded(self, k: int, goal: str) -> tuple[int, np.ndarray]:
        """Steps of the place skill and where it left the thing; without a record: the middle of the receptacle."""
        actions = (self._episode.place_oracle_action_seq or {}).get(str(k)) or []
        parts = [part for action in actions if isinstance(action, list) for part in action]
        poses = [matrix for part in parts if (matrix := _matrix(part)) is not None]
        if poses:
            return max(len(actions), 2), poses[-1]
        matrix = np.eye(4)
        matrix[:3, 3] = self._receptacles[goal].position
        return HAND_STEPS, matrix

    def _hands(self, mark: str, steps: int, handle: str, matrix: np.ndarray | None) -> None:
        for i in range(steps):
            if i == steps // 2:
                self.changes.append(Change(len(self.steps), handle, matrix))
            self.record(mark if i == 0 else "", manipulation=True)

    def _named(self, names: Sequence[Any], k: int) -> str:
        """``[name, ...]`` or a name, of a receptacle that the episode knows."""
        one = names[k] if k < len(names) else None
        name = str(one[0] if isinstance(one, (list, tuple)) and one else one)
        if name not in self._receptacles:
            raise SourceError(f"{self.name}: interaction {k} has no receptacle {name!r}", hint="is the file whole?")
        return name


def pose_of(position: Sequence[float] | np.ndarray, q_xyzw: Sequence[float] | np.ndarray) -> AgentPose:
    """Habitat's position and quaternion (x, y, z, w) as a pose in the map."""
    x, y, z = (float(value) for value in map_from_habitat(position))
    return AgentPose(x, y, z, yaw_from_habitat(q_xyzw))


def stated_pose(position: Any, rotation: Any) -> AgentPose:
    """The pose that the day ends at; the rotation is a quaternion x, y, z, w or an angle in radians."""
    where = position.get("position") if isinstance(position, dict) else position
    values = np.asarray(rotation if rotation is not None else 0.0, float).ravel()
    if len(values) == 4:
        return pose_of(np.asarray(where, float), values)
    return pose_of(np.asarray(where, float), (0.0, 0.0, 0.0, 1.0))._replace(yaw=float(values[0]))


def _matrix(part: object) -> np.ndarray | None:
    """(4, 4) where a recorded action's part is one."""
    if isinstance(part, list) and len(part) == 4 and all(isinstance(row, list) and len(row) == 4 for row in part):
        try:
            return np.array(part, float)
        except (TypeError, ValueError):
            return None
    return None
