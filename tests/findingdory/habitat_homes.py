"""A public stand-in of the module ``habitat_sim``: its API, conventions and quirks over our procedural homes.

    monkeypatch.setitem(sys.modules, "habitat_sim", habitat_homes.module())

A scene is called ``home_SEED``; it is drawn by rays. Everything crosses the border in Habitat's terms (y up, looking
along -z, quaternions w first or x, y, z, w as documented, depth along the axis with 0 for nothing, RGBA, uint32 ids),
converted here by other formulas than ours: a mixed-up axis or quaternion shows in what a robot sees.
"""

from __future__ import annotations

import math
import random
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
from habitat_stand_in import Quaternion, named

from nav.env import AgentPose, CameraSpec
from nav.homes.layout import make_home
from nav.homes.simulation import HomeSimulation
from nav.homes.solids import Scene


def to_map(point: Any) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in point)
    return -z, -x, y


def to_habitat(x: float, y: float, z: float = 0.0) -> np.ndarray:
    return np.array([-y, z, -x], np.float32)


def floats(values: Any) -> None:
    """The binding takes no lists of integers."""
    assert all(isinstance(v, (float, np.floating)) for v in values), f"TypeError: {values!r}"


class PathFinder:
    def __init__(self, home: Any) -> None:
        self.home, self.floor = home, home.floor

    def seed(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def get_random_navigable_point(self, max_tries: int = 10, island_index: int = -1) -> np.ndarray:
        pose = self.home.start(self.rng)
        return to_habitat(pose.x, pose.y)

    def snap_point(self, point: Any, island_index: int = -1) -> np.ndarray:
        found = self.floor.snap(to_map(point)[:2])
        return np.full(3, np.nan, np.float32) if found is None else to_habitat(*found)

    def is_navigable(self, point: Any, max_y_delta: float = 0.5) -> bool:
        return bool(self.floor.is_free(to_map(point)[:2]))

    def try_step_no_sliding(self, start: Any, end: Any) -> np.ndarray:
        floats((*start, *end))
        free = self.floor.line_is_free(to_map(start)[:2], to_map(end)[:2])
        return np.array(end if free else start, np.float32)

    def find_path(self, path: Any) -> bool:
        start = to_map(path.requested_start)[:2]
        ends = getattr(path, "requested_ends", None) or [path.requested_end]
        if len(ends) > 1:  # one field for all of them
            field = self.floor.field(self.floor.cell(start))
            lengths = [float(field[self.floor.cell(to_map(end)[:2])]) for end in ends]
        else:
            lengths = [self.floor.distance(start, to_map(ends[0])[:2])]
        best = int(np.argmin(lengths))
        path.geodesic_distance = lengths[best]
        if len(ends) == 1 and path.wants_points:
            path.points = [to_habitat(x, y) for x, y in self.floor.path(start, to_map(ends[best])[:2])]
        return math.isfinite(lengths[best])

    def get_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        rows, cols = self.floor.free.shape
        (x, y), cell = self.floor.origin, self.floor.cell_m
        return np.array([-(y + rows * cell), 0, -(x + cols * cell)]), np.array([-y, 2.5, -x])

    def get_topdown_view(self, metres: float, height: float, eps: float = 0.5) -> np.ndarray:
        low, high = self.get_bounds()
        rows, cols = math.ceil((high[2] - low[2]) / metres - 1e-9), math.ceil((high[0] - low[0]) / metres - 1e-9)
        z, x = (low[i] + (np.arange(n) + 0.5) * metres for i, n in ((2, rows), (0, cols)))
        return np.array([[self.is_navigable((a, height, b)) for a in x] for b in z])


class Rigid:
    def __init__(self, handle: str, solids: list[Any], height: float, instance: int = 0) -> None:
        self.handle, self.solids, self.height, self.instance = handle, solids, height, instance
        self.semantic_id = 0
        self.motion_type = "DYNAMIC"
        self._where = np.zeros(3, np.float32)
        self.rotation = SimpleNamespace(scalar=1.0, vector=(0.0, 0.0, 0.0))

    @property
    def translation(self) -> np.ndarray:
        return self._where

    @translation.setter
    def translation(self, value: Any) -> None:
        assert self.motion_type != "STATIC", "a static object doesn't move, silently"
        floats(value)
        self._where = np.array(value, np.float32)

    def drawn(self) -> list[Any]:
        """Its own frame's origin is its middle; solids stand on theirs."""
        x, y, z = to_map(self._where)
        assert self.rotation.vector[0] == self.rotation.vector[2] == 0, "things stand upright"
        yaw = 2 * math.atan2(self.rotation.vector[1], self.rotation.scalar)
        return [solid.at((x, y, z - self.height / 2), yaw) for solid in self.solids] if z > -100 else []


class Simulator:
    def __init__(self, configuration: Any) -> None:
        self.settings, agents = configuration
        name = self.settings.scene_id.rpartition("/")[2]
        if not name.startswith("home_") or not name[5:].isdigit():
            raise RuntimeError(f"ESP_CHECK failed: no asset {self.settings.scene_id}")
        self.home = make_home(int(name[5:]))
        self.pathfinder = PathFinder(self.home)
        self.specs = agents[0].sensor_specifications
        # Without sensors there is no renderer, and any thread may ask for ways.
        self.thread = threading.get_ident()
        self.closed = False
        simulation = HomeSimulation(self.home)
        self.state: Any = None
        self.things = {
            thing.entity_id: (simulation.local_solids(thing.entity_id), thing.model.size_m[2], thing.instance)
            for thing in self.home.things
        }
        self.rigid: dict[str, Rigid] = {}
        for one in self.home.receptacles:
            self.rigid[one.entity_id] = Rigid(one.entity_id, [], 0.0, one.instance)
        self.semantic_scene = SimpleNamespace(
            objects=[None],
            regions=[
                SimpleNamespace(id=r.entity_id, category=named(r.category),
                                aabb=SimpleNamespace(center=to_habitat(*r.middle, 1.0)))
                for r in self.home.rooms
            ],
            get_regions_for_point=self._regions,
        )  # fmt: skip

    def _regions(self, point: Any) -> list[int]:
        held = self.home.room_at(*to_map(point)[:2])
        return [i for i, room in enumerate(self.home.rooms) if room.entity_id == held]

    def recompute_navmesh(self, finder: Any, settings: Any) -> bool:
        return True

    def get_agent(self, number: int) -> Any:
        return SimpleNamespace(set_state=self._set_state)

    def _set_state(self, state: Any, reset_sensors: bool = True) -> None:
        floats(state.rotation)
        self.state = state

    def reset(self) -> None:
        self.state = None

    def get_sensor_observations(self) -> dict[str, np.ndarray]:
        assert threading.get_ident() == self.thread, "SIGABRT: the context belongs to another thread"
        assert not self.closed
        x, y, z, w = self.state.rotation
        assert x == z == 0 or max(abs(x), abs(z)) < 1e-6, "a body stands upright: is w first here?"
        pose = AgentPose(*to_map(self.state.position), 2 * math.atan2(y, w))
        spec = self.specs[0]
        height, width = spec.resolution
        camera = CameraSpec(width, height, math.radians(spec.hfov), spec.position[1], spec.orientation[0])
        scene = Scene([*self.home.fixed_solids, *(s for one in self.rigid.values() for s in one.drawn())])
        rgb, depth, instances = scene.render(pose, camera)
        label = np.zeros(max(2, int(instances.max()) + 1), np.uint32)
        for one in self.rigid.values():
            if one.instance < len(label):
                label[one.instance] = one.semantic_id
        alpha = np.full((height, width, 1), 255, np.uint8)
        return {"color": np.concatenate([rgb, alpha], axis=2), "depth": depth, "semantic": label[instances]}

    def get_object_template_manager(self) -> Any:
        known = [f"objects/{name}.object_config.json" for name in self.things]
        return SimpleNamespace(
            load_configs=lambda folder: [1] if "none" not in folder else [],
            get_template_handles=lambda part: [handle for handle in known if part in handle],
        )

    def get_rigid_object_manager(self) -> Any:
        return SimpleNamespace(
            add_object_by_template_handle=self._add,
            get_object_handles=lambda: list(self.rigid),
            get_object_by_handle=self.rigid.get,
        )

    def _add(self, template: str) -> Rigid:
        assert self.settings.enable_physics
        name = template.rpartition("/")[2].removesuffix(".object_config.json")
        solids, height, instance = self.things[name]
        made = Rigid(f"{name}_:0000", solids, height, instance)
        self.rigid[made.handle] = made
        return made

    def close(self) -> None:
        self.closed = True


def quat_from_coeffs(coefficients: Any) -> Quaternion:
    x, y, z, w = coefficients
    return Quaternion(w, x, y, z)


def quat_to_magnum(q: Quaternion) -> Any:
    return SimpleNamespace(scalar=q.w, vector=(q.x, q.y, q.z))


def module() -> Any:
    """What ``import habitat_sim`` gives."""
    from habitat_stand_in import stand_in

    made = stand_in()
    made.Simulator = Simulator
    made.ShortestPath = lambda: SimpleNamespace(wants_points=True)
    made.MultiGoalShortestPath = lambda: SimpleNamespace(wants_points=False)
    made.physics = SimpleNamespace(MotionType=SimpleNamespace(KINEMATIC="KINEMATIC", STATIC="STATIC"))
    made.utils = SimpleNamespace(
        common=SimpleNamespace(quat_from_coeffs=quat_from_coeffs, quat_to_magnum=quat_to_magnum)
    )
    return made
