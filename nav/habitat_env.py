"""The environment in habitat-sim: real scenes, behind the same protocol.

habitat-sim is imported when an environment is opened, never before: it comes by conda, for a Python of its own (see
docs/findingdory.md for the versions). It runs without a GPU (``gpu_device_id=-1``, Mesa software EGL). With a wrong
device it ends the *process* without an exception, and drawing from another thread than the first aborts it: open it
in a process of its own, use and close it in one thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from nav.env import FORWARD_M, RADIUS_M, TURN_RAD, Action, AgentPose, CameraSpec, Entity, EnvObservation, moved
from nav.findingdory.clock import DayClock
from nav.habitat_frames import (
    habitat_from_map,
    habitat_rotation_from_yaw,
    map_from_habitat,
    quaternion_from_matrix,
)
from streammem.errors import InputError, ModelUnavailable, SourceError

CELL_HEIGHT_M = 0.05
"""The navigation mesh lies one cell above the floor; Habitat's default of 0.2 m would lift cameras by that much."""
_SNAP_M = 2.0
INSTALL = (
    "conda create -n habitat python=3.9 cmake=3.14; "
    "conda install habitat-sim=0.3.1 withbullet headless -c conda-forge -c aihabitat"
)


@dataclass(frozen=True, slots=True)
class HabitatSettings:
    """``scene``: a .glb, or a scene's name in ``dataset`` (a .scene_dataset_config.json). ``receptacles``: semantic
    categories that count as receptacles; every other labelled thing is an object. ``gpu``: -1 draws on the CPU."""

    scene: str
    dataset: str = "default"
    gpu: int = -1
    camera: CameraSpec = field(default_factory=CameraSpec)
    body_height_m: float = 1.41
    receptacles: frozenset[str] = frozenset(
        "bed bench cabinet chair chest_of_drawers counter couch desk shelf shelves sofa stool table".split()
    )
    physics: bool = False
    draw: bool = True
    """False: no sensors, so no renderer is made: navigation alone, which any thread may ask for."""


class HabitatEnv:
    """``nav.env.Env`` over habitat-sim. Points are in the map frame; ``pose.z`` is the height of the mesh."""

    def __init__(self, settings: HabitatSettings, *, clock: DayClock | None = None, module: Any = None) -> None:
        """``module`` stands for habitat_sim in tests. Raises ModelUnavailable, SourceError."""
        self.settings, self.clock = settings, clock or DayClock()
        self._habitat = module if module is not None else load_habitat()
        try:
            self._sim = self._habitat.Simulator(self._configuration())
        except (RuntimeError, ValueError, AssertionError) as error:
            raise SourceError(
                f"the scene {settings.scene!r} can't be opened: {error}", hint="check the path"
            ) from error
        self._mesh()
        self.steps, self.collided = 0, False
        self.pose = self.random_pose(0)
        self._start = self.pose

    @property
    def camera(self) -> CameraSpec:
        return self.settings.camera

    @property
    def module(self) -> Any:
        """habitat_sim, or what stands for it."""
        return self._habitat

    @property
    def simulator(self) -> Any:
        """The running ``habitat_sim.Simulator``, for what this protocol doesn't cover."""
        return self._sim

    def reset(self, seed: int | None = None) -> EnvObservation:
        self._sim.reset()
        # reset() returns to a random place of its own: the state is always set.
        self.pose = self._start if seed is None else self.random_pose(seed)
        self.steps, self.collided = 0, False
        return self.observe()

    def step(self, action: Action) -> EnvObservation:
        self.act(action)
        return self.observe()

    def act(self, action: Action) -> None:
        """A step without a picture."""
        after: AgentPose | None = moved(self.pose, action)
        if action == "forward":
            after = self.reach(self.pose)
        self.collided = after is None
        self.pose = self.pose if after is None else after
        self.steps += 1

    def reach(self, pose: AgentPose) -> AgentPose | None:
        """Where a forward step from ``pose`` leads: all the way or not at all (None). The mesh may lift or lower it."""
        after = moved(pose, "forward")
        start, end = (_list(habitat_from_map(p[:3])) for p in (pose, after))
        reached = map_from_habitat(self._sim.pathfinder.try_step_no_sliding(start, end))
        return None if math.dist(reached[:2], after[:2]) > 1e-3 else after._replace(z=float(reached[2]))

    def observe(self) -> EnvObservation:
        state = self._habitat.AgentState()
        state.position = np.array(_list(habitat_from_map(self.pose[:3])), np.float32)
        state.rotation = _list(quaternion_from_matrix(habitat_rotation_from_yaw(self.pose.yaw)))
        self._sim.get_agent(0).set_state(state, True)
        seen = self._sim.get_sensor_observations()
        depth = np.asarray(seen["depth"], np.float32)
        return EnvObservation(
            rgb=np.ascontiguousarray(seen["color"][..., :3]),
            depth_m=np.where(np.isfinite(depth), depth, 0).astype(np.float32),
            instances=np.asarray(seen["semantic"]).astype(np.int32),
            pose=self.pose,
            camera=self.camera.pose(self.pose),
            time_ns=self.clock.capture_ns(self.steps),
            collided=self.collided,
        )

    def set_pose(self, pose: AgentPose) -> None:
        if not self.is_navigable(pose) or not math.isfinite(pose.yaw):
            raise InputError(f"the base doesn't fit at ({pose.x:.2f}, {pose.y:.2f})", hint="snap the point first")
        self.pose = pose

    def geodesic(self, start: Sequence[float], ends: Sequence[Sequence[float]]) -> float:
        # An end inside furniture would be moved silently, however far: what can't be snapped can't be reached.
        near = [point for end in ends if (point := self.snap(end)) is not None]
        begin = self.snap(start)
        if not near or begin is None:
            return math.inf
        path = self._habitat.MultiGoalShortestPath()
        path.requested_start = np.array(_list(habitat_from_map(begin)), np.float32)
        path.requested_ends = [np.array(_list(habitat_from_map(point)), np.float32) for point in near]
        return float(path.geodesic_distance) if self._sim.pathfinder.find_path(path) else math.inf

    def path(self, start: Sequence[float], end: Sequence[float]) -> list[tuple[float, float, float]]:
        begin, last = self.snap(start), self.snap(end)
        if begin is None or last is None:
            return []
        path = self._habitat.ShortestPath()
        path.requested_start = np.array(_list(habitat_from_map(begin)), np.float32)
        path.requested_end = np.array(_list(habitat_from_map(last)), np.float32)
        return [_point(map_from_habitat(p)) for p in path.points] if self._sim.pathfinder.find_path(path) else []

    def snap(self, point: Sequence[float]) -> tuple[float, float, float] | None:
        found = np.asarray(
            self._sim.pathfinder.snap_point(np.array(_list(habitat_from_map(_three(point))), np.float32))
        )
        if not np.isfinite(found).all():
            return None
        place = _point(map_from_habitat(found))
        return place if math.dist(place[:2], point[:2]) <= _SNAP_M else None

    def is_navigable(self, point: Sequence[float]) -> bool:
        return bool(self._sim.pathfinder.is_navigable(np.array(_list(habitat_from_map(_three(point))), np.float32)))

    def topdown(self, metres_per_pixel: float = 0.05) -> tuple[np.ndarray, tuple[float, float]]:
        low = np.asarray(self._sim.pathfinder.get_bounds()[0], float)
        height = float(habitat_from_map(self.pose[:3])[1])
        grid = np.asarray(self._sim.pathfinder.get_topdown_view(metres_per_pixel, height), bool)
        # Theirs: row = (z - z0) / mpp, col = (x - x0) / mpp. Map x is -z and map y is -x: both axes turn round.
        return grid.T[::-1, ::-1], (
            -(low[2] + grid.shape[0] * metres_per_pixel),
            -(low[0] + grid.shape[1] * metres_per_pixel),
        )

    def region_of(self, point: Sequence[float]) -> str | None:
        scene = self._sim.semantic_scene
        if scene is None or not len(scene.regions):
            return None
        held = scene.get_regions_for_point(np.array(_list(habitat_from_map(_three(point))), np.float32))
        return str(scene.regions[held[0]].id) if len(held) else None

    def entities(self) -> list[Entity]:
        """Labelled things of the scene. A scene without annotations has none: its instance pictures are all 0."""
        scene = self._sim.semantic_scene
        made = []
        for one in scene.objects if scene is not None else []:
            if one is None or one.category is None or not one.semantic_id:
                continue
            name = str(one.category.name())
            # .aabb always includes the origin (a defect of the binding): the oriented box is right.
            where = _point(map_from_habitat(one.obb.center))
            kind = "receptacle" if name in self.settings.receptacles else "object"
            made.append(Entity(str(one.id), cast(Any, kind), name, int(one.semantic_id), where))
        for region in scene.regions if scene is not None else []:
            where = _point(map_from_habitat(region.aabb.center))
            name = str(region.category.name()) if region.category is not None else ""
            made.append(Entity(str(region.id), "room", name, 0, where))
        return made

    def close(self) -> None:
        self._sim.close()

    def random_pose(self, seed: int) -> AgentPose:
        """Somewhere that the base fits. Raises SourceError where that is nowhere."""
        finder = self._sim.pathfinder
        finder.seed(seed)
        point = np.asarray(finder.get_random_navigable_point(), float)
        if not np.isfinite(point).all():
            raise SourceError(f"{self.settings.scene}: nowhere can the base stand", hint="check the scene's scale")
        turn = np.random.default_rng(seed).integers(36)
        return AgentPose(*_point(map_from_habitat(point)), math.remainder(int(turn) * TURN_RAD, math.tau))

    def _mesh(self) -> None:
        mesh = self._habitat.NavMeshSettings()
        mesh.set_defaults()
        mesh.agent_radius, mesh.agent_height = RADIUS_M, self.settings.body_height_m
        mesh.cell_height = CELL_HEIGHT_M
        if not self._sim.recompute_navmesh(self._sim.pathfinder, mesh):
            raise SourceError(f"{self.settings.scene}: no navigation mesh can be made", hint="has the scene a floor?")

    def _configuration(self) -> Any:
        h, s = self._habitat, self.settings
        sim = h.SimulatorConfiguration()
        sim.scene_id, sim.scene_dataset_config_file = s.scene, s.dataset
        sim.gpu_device_id, sim.allow_sliding, sim.enable_physics = s.gpu, False, s.physics
        sensors = []
        for name, kind in (("color", "COLOR"), ("depth", "DEPTH"), ("semantic", "SEMANTIC")):
            spec = h.CameraSensorSpec()
            spec.uuid, spec.sensor_type = name, getattr(h.SensorType, kind)
            spec.sensor_subtype = h.SensorSubType.PINHOLE
            spec.resolution = [s.camera.height, s.camera.width]
            # Float lists: integers raise TypeError in the binding.
            spec.position = [0.0, float(s.camera.above_floor_m), 0.0]
            spec.orientation = [float(s.camera.tilt_rad), 0.0, 0.0]
            spec.hfov = math.degrees(s.camera.hfov_rad)
            sensors.append(spec)
        agent = h.agent.AgentConfiguration()
        agent.height, agent.radius = s.body_height_m, RADIUS_M
        agent.sensor_specifications = sensors if s.draw else []
        agent.action_space = {
            "move_forward": h.agent.ActionSpec("move_forward", h.agent.ActuationSpec(amount=FORWARD_M)),
            "turn_left": h.agent.ActionSpec("turn_left", h.agent.ActuationSpec(amount=math.degrees(TURN_RAD))),
            "turn_right": h.agent.ActionSpec("turn_right", h.agent.ActuationSpec(amount=math.degrees(TURN_RAD))),
        }
        return h.Configuration(sim, [agent])


def open_habitat(settings: HabitatSettings, *, clock: DayClock | None = None) -> HabitatEnv:
    """Raises ModelUnavailable where habitat-sim isn't installed, SourceError for a scene that can't be opened."""
    return HabitatEnv(settings, clock=clock)


def load_habitat() -> Any:
    """The module, or ModelUnavailable that says how it is installed."""
    try:
        import habitat_sim
    except ImportError as error:
        raise ModelUnavailable(f"habitat-sim can't be loaded: {error}", hint=INSTALL) from error
    return habitat_sim


def _list(values: Any) -> list[float]:
    return [float(value) for value in values]


def _point(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _three(point: Sequence[float]) -> tuple[float, float, float]:
    return float(point[0]), float(point[1]), float(point[2]) if len(point) > 2 else 0.0
