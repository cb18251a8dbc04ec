"""The environment protocol: what an agent and an evaluator need of a simulator, in one frame and one set of units.

The map frame is REP-103: x and y in the floor plane, z up, metres, right-handed. ``yaw``: radians, counter-clockwise
from +x; the body looks along (cos yaw, sin yaw). Cameras are OpenCV-optical (x right, y down, z forward). An adapter
converts once, in named functions, whatever its simulator uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from streammem.errors import InputError
from streammem.model import Intrinsics, Pose

Action = Literal["stop", "forward", "left", "right"]
ACTIONS: tuple[Action, ...] = ("stop", "forward", "left", "right")
"""In the order of the benchmark's integers 0 ... 3."""
FORWARD_M = 0.25
TURN_RAD = math.radians(10)
RADIUS_M = 0.25
"""FindingDory's Stretch: step, turn and base radius (section 2.1 of the page in docs/findingdory.md)."""


class AgentPose(NamedTuple):
    """Base on the floor: metres and radians, map frame."""

    x: float
    y: float
    z: float
    yaw: float


class Entity(NamedTuple):
    """Something that can be asked for. ``instance`` is its number in instance pictures (0: none, as for rooms);
    ``position`` is its middle, map frame, metres."""

    entity_id: str
    kind: Literal["object", "receptacle", "room"]
    category: str
    instance: int
    position: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """A pinhole camera on the body. Defaults: FindingDory's head camera at a quarter of its resolution."""

    width: int = 120
    height: int = 160
    hfov_rad: float = math.radians(43)
    above_floor_m: float = 1.31
    tilt_rad: float = math.radians(-30)
    """Negative looks down."""

    def __post_init__(self) -> None:
        if not (8 <= self.width <= 4096 and 8 <= self.height <= 4096 and 0.05 < self.hfov_rad < 3.0):
            raise InputError(
                f"a camera of {self.width}x{self.height}", hint="use 8 to 4096 pixels and 3 to 170 degrees"
            )

    @property
    def intrinsics(self) -> Intrinsics:
        """Square pixels: fx = fy = (W/2) / tan(hfov/2); the middle of pixel (u, v) is at (u+0.5, v+0.5)."""
        focal = self.width / 2 / math.tan(self.hfov_rad / 2)
        return Intrinsics(focal, focal, self.width / 2, self.height / 2, self.width, self.height)

    @property
    def vfov_rad(self) -> float:
        return 2 * math.atan(self.height / self.width * math.tan(self.hfov_rad / 2))

    def place(self, pose: AgentPose) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) in metres and rotation ``map_from_camera`` (3, 3) whose columns are right, down, forward."""
        return np.array([pose.x, pose.y, pose.z + self.above_floor_m]), optical_rotation(pose.yaw, self.tilt_rad)

    def pose(self, pose: AgentPose) -> Pose:
        """``map_from_camera`` as an observation carries it."""
        position, rotation = self.place(pose)
        x, y, z = (float(value) for value in position)
        return Pose((x, y, z), quaternion_xyzw(rotation))


@dataclass(frozen=True, slots=True, eq=False)
class EnvObservation:
    """``rgb`` (h, w, 3) uint8; ``depth_m`` (h, w) float32 metres along the optical axis, 0 = nothing hit;
    ``instances`` (h, w) int32, 0 = nothing that can be asked for; ``time_ns`` is the simulator's clock."""

    rgb: np.ndarray
    depth_m: np.ndarray
    instances: np.ndarray
    pose: AgentPose
    camera: Pose
    time_ns: int
    collided: bool = False

    def coverage(self, instance: int) -> float:
        """Share of the picture's pixels that show this instance."""
        return float(np.count_nonzero(self.instances == instance) / self.instances.size) if instance else 0.0


@runtime_checkable
class Env(Protocol):
    """One robot in one place. Points are (x, y, z) in the map frame, metres."""

    @property
    def camera(self) -> CameraSpec: ...

    def reset(self, seed: int | None = None) -> EnvObservation:
        """Everything back to where it was; the robot at a place that ``seed`` decides (None: the stated start)."""
        ...

    def step(self, action: Action) -> EnvObservation:
        """Forward 0.25 m, turn 10 degrees or stand still; a blocked step moves nothing and says ``collided``."""
        ...

    def observe(self) -> EnvObservation: ...
    def set_pose(self, pose: AgentPose) -> None:
        """Put the robot there. Raises InputError where the base would not fit."""
        ...

    def geodesic(self, start: Sequence[float], ends: Sequence[Sequence[float]]) -> float:
        """Length of the base's shortest way from ``start`` to the nearest of ``ends``; ``inf`` if there is none."""
        ...

    def path(self, start: Sequence[float], end: Sequence[float]) -> list[tuple[float, float, float]]:
        """Way points from start to end; empty if there is no way."""
        ...

    def snap(self, point: Sequence[float]) -> tuple[float, float, float] | None:
        """The nearest place where the base fits, or None where there is none within 2 m."""
        ...

    def is_navigable(self, point: Sequence[float]) -> bool: ...

    def topdown(self, metres_per_pixel: float = 0.05) -> tuple[np.ndarray, tuple[float, float]]:
        """(rows, cols) bool, true where the base fits, and (x, y) of the outer corner of [0, 0]. Row = y, col = x, both
        rising: ``row = floor((y - y0) / mpp)``."""
        ...

    def region_of(self, point: Sequence[float]) -> str | None:
        """Id of the room that holds this point, or None."""
        ...

    def entities(self) -> list[Entity]:
        """Everything that can be asked for, where it is now. The truth: never in an agent's hands."""
        ...

    def close(self) -> None: ...


def optical_rotation(yaw: float, tilt: float) -> np.ndarray:
    """(3, 3) ``map_from_camera`` of a camera that looks along ``yaw``, ``tilt`` radians above the horizon."""
    forward = np.array([math.cos(yaw) * math.cos(tilt), math.sin(yaw) * math.cos(tilt), math.sin(tilt)])
    right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def quaternion_xyzw(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Unit quaternion (x, y, z, w) of a (3, 3) rotation, w >= 0. Shepperd's method: the largest of the four parts is
    taken first, so that nothing is divided by a small number."""
    m = np.asarray(rotation, float)
    trace = float(np.trace(m))
    squares = np.array([m[0, 0], m[1, 1], m[2, 2], trace])
    i = int(np.argmax(squares))
    if i == 3:
        q = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + trace])
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q = np.zeros(4)
        q[i] = 1 + m[i, i] - m[j, j] - m[k, k]
        q[j], q[k], q[3] = m[j, i] + m[i, j], m[k, i] + m[i, k], m[k, j] - m[j, k]
    q /= np.linalg.norm(q)
    x, y, z, w = (float(value) for value in (q if q[3] >= 0 else -q))
    return x, y, z, w


def rotation_of(q_xyzw: Sequence[float]) -> np.ndarray:
    """(3, 3) rotation of a unit quaternion (x, y, z, w)."""
    x, y, z, w = (float(value) for value in q_xyzw)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def moved(pose: AgentPose, action: Action) -> AgentPose:
    """Where an unhindered step leads."""
    if action == "forward":
        return pose._replace(x=pose.x + FORWARD_M * math.cos(pose.yaw), y=pose.y + FORWARD_M * math.sin(pose.yaw))
    if action in ("left", "right"):
        turn = TURN_RAD if action == "left" else -TURN_RAD
        return pose._replace(yaw=math.remainder(pose.yaw + turn, math.tau))
    if action != "stop":
        raise InputError(f"no action is called {action!r}", hint=f"use one of {', '.join(ACTIONS)}")
    return pose
