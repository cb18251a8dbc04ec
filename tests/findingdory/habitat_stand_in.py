"""As much of habitat-sim's API as the adapter uses, over a flat floor of 10 x 10 m: names, types, frames and quirks as
documented. The real one isn't on the Python index; where it is installed, the contract tests run over it too."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np


class Quaternion:
    """numpy-quaternion's order: w first."""

    def __init__(self, w: float, x: float, y: float, z: float) -> None:
        self.w, self.x, self.y, self.z = w, x, y, z


def free(x: float, z: float) -> bool:
    return -5 <= x <= 5 and -5 <= z <= 5 and not (x > 4 and z > 3)


class Finder:
    def seed(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def get_random_navigable_point(self, max_tries: int = 10, island_index: int = -1) -> np.ndarray:
        return np.array([self.rng.uniform(-4, 3), 0.0, self.rng.uniform(-4, 2)], np.float32)

    def snap_point(self, point: Any, island_index: int = -1) -> np.ndarray:
        x, _, z = (float(v) for v in point)
        if max(abs(x), abs(z)) > 8:
            return np.full(3, np.nan, np.float32)
        return np.array([np.clip(x, -5, 5), 0.0, np.clip(z, -5, 5)], np.float32)

    def is_navigable(self, point: Any, max_y_delta: float = 0.5) -> bool:
        return free(float(point[0]), float(point[2]))

    def try_step_no_sliding(self, start: Any, end: Any) -> np.ndarray:
        assert all(isinstance(v, float) for v in (*start, *end)), "integer lists raise TypeError"
        return np.array(end if free(end[0], end[2]) else start, np.float32)

    def find_path(self, path: Any) -> bool:
        ends = getattr(path, "requested_ends", None) or [path.requested_end]
        lengths = [float(np.linalg.norm(np.subtract(path.requested_start, end))) for end in ends]
        best = int(np.argmin(lengths))
        path.geodesic_distance, path.points = lengths[best], [path.requested_start, ends[best]]
        return True

    def get_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([-5.0, 0, -5.0]), np.array([5.0, 0, 5.0])

    def get_topdown_view(self, metres: float, height: float, eps: float = 0.5) -> np.ndarray:
        count = math.ceil(10 / metres)
        at = -5 + (np.arange(count) + 0.5) * metres
        return np.array([[free(x, z) for x in at] for z in at])


def named(name: str) -> Any:
    return SimpleNamespace(name=lambda: name)


class Scene:
    def __init__(self) -> None:
        self.objects = [
            None,  # the real list begins with an empty place
            SimpleNamespace(
                id="table_1", semantic_id=4, category=named("table"), obb=SimpleNamespace(center=[0, 0, 0])
            ),
            SimpleNamespace(id="mug_1", semantic_id=9, category=named("mug"), obb=SimpleNamespace(center=[1, 0.8, -2])),
        ]
        box = SimpleNamespace(center=[0.0, 1.0, -2.5])
        self.regions = [SimpleNamespace(id="kitchen_0", category=named("kitchen"), aabb=box)]

    def get_regions_for_point(self, point: Any) -> list[int]:
        return [0] if point[2] < 0 else []


class Agent:
    def set_state(self, state: Any, reset_sensors: bool = True) -> None:
        assert all(isinstance(v, float) for v in state.rotation)
        self.state = state


class Simulator:
    def __init__(self, configuration: Any) -> None:
        self.configuration = configuration
        self.pathfinder, self.semantic_scene, self.agent = Finder(), Scene(), Agent()

    def recompute_navmesh(self, finder: Any, settings: Any) -> bool:
        self.mesh = settings
        return True

    def get_agent(self, number: int) -> Agent:
        return self.agent

    def reset(self) -> None:
        self.agent = Agent()

    def get_sensor_observations(self) -> dict[str, np.ndarray]:
        height, width = self.configuration[1][0].sensor_specifications[0].resolution
        return {
            "color": np.full((height, width, 4), 80, np.uint8),
            "depth": np.full((height, width), 2.0, np.float32),
            "semantic": np.full((height, width), 4, np.uint32),
        }

    def close(self) -> None:
        pass


def stand_in() -> Any:
    """A module object."""
    agent = SimpleNamespace(AgentConfiguration=SimpleNamespace, ActionSpec=lambda *a: a,
                            ActuationSpec=SimpleNamespace)  # fmt: skip
    return SimpleNamespace(
        Simulator=Simulator,
        SimulatorConfiguration=SimpleNamespace,
        CameraSensorSpec=SimpleNamespace,
        SensorType=SimpleNamespace(COLOR=1, DEPTH=2, SEMANTIC=4),
        SensorSubType=SimpleNamespace(PINHOLE=1),
        NavMeshSettings=lambda: SimpleNamespace(set_defaults=lambda: None),
        Configuration=lambda simulator, agents: (simulator, agents),
        AgentState=SimpleNamespace,
        ShortestPath=SimpleNamespace,
        MultiGoalShortestPath=SimpleNamespace,
        agent=agent,
    )
