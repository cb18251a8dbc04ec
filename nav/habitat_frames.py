"""Habitat's axes, quaternions and depth units, converted once. NumPy and Python 3.8 are enough: this file can be copied
beside ``habitat_agent.py`` and ``mini_producer.py`` into Habitat's own environment.

Habitat: +y up, the body looks along -z, +x is right, metres; yaw 0 looks along -z and positive yaw turns left.
Map (REP-103): +z up, yaw 0 looks along +x and positive yaw turns left. So yaw is the same number in both, and
``map = (-z, -x, y)``.
"""

from __future__ import annotations

import math
from typing import Any, Sequence  # noqa: UP035 - Python 3.8 reads this file

import numpy as np

MAP_FROM_HABITAT = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""(3, 3) rotation."""
OPTICAL_FROM_OPENGL = np.array([1.0, -1.0, -1.0])
"""Signs of the camera's axes: OpenGL has x right, y up, z backward; OpenCV x right, y down, z forward."""
DEPTH_RANGE_M = 10.0
"""FindingDory's ``head_depth`` is clipped to 10 m and divided by it."""


def map_from_habitat(point: Sequence[float] | np.ndarray) -> np.ndarray:
    """(3,) metres."""
    return MAP_FROM_HABITAT @ np.asarray(point, float)


def habitat_from_map(point: Sequence[float] | np.ndarray) -> np.ndarray:
    """(3,) metres."""
    return MAP_FROM_HABITAT.T @ np.asarray(point, float)


def coefficients_xyzw(rotation: Any) -> tuple[float, float, float, float]:
    """Any quaternion that Habitat hands out as (x, y, z, w): numpy-quaternion (parts w, x, y, z), Magnum's (scalar,
    vector), or a list of coefficients, which is x, y, z, w already. Raises ValueError unless its norm is 1."""
    if hasattr(rotation, "scalar"):
        x, y, z = (float(v) for v in rotation.vector)
        w = float(rotation.scalar)
    elif hasattr(rotation, "w"):
        x, y, z, w = float(rotation.x), float(rotation.y), float(rotation.z), float(rotation.w)
    else:
        x, y, z, w = (float(v) for v in rotation)
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    if not abs(norm - 1) < 1e-3:
        raise ValueError("a rotation of norm %r: is it a quaternion?" % norm)  # noqa: UP031
    return x / norm, y / norm, z / norm, w / norm


def rotation_matrix(q_xyzw: Sequence[float]) -> np.ndarray:
    """(3, 3) of a unit quaternion."""
    x, y, z, w = (float(v) for v in q_xyzw)
    v = np.array([x, y, z])
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray((w * w - v @ v) * np.eye(3) + 2 * np.outer(v, v) + 2 * w * cross)


def quaternion_from_matrix(matrix: np.ndarray) -> tuple[float, float, float, float]:
    """(x, y, z, w), w >= 0, of a (3, 3) rotation: the eigenvector of Bar-Itzhack's symmetric matrix (2000)."""
    m = np.asarray(matrix, float)
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], 0],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ]
    )
    q = np.linalg.eigh(k)[1][:, -1]
    q = q if q[3] >= 0 else -q
    return float(q[0]), float(q[1]), float(q[2]), float(q[3])


def habitat_rotation_from_yaw(yaw: float) -> np.ndarray:
    """(3, 3) rotation about +y."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def yaw_from_habitat(rotation: Any) -> float:
    """Heading in the floor plane of a body that looks along its -z, radians in (-pi, pi]."""
    ahead = rotation_matrix(coefficients_xyzw(rotation)) @ np.array([0.0, 0.0, -1.0])
    return math.atan2(-ahead[0], -ahead[2])


def camera_pose_in_map(
    position: Sequence[float] | np.ndarray, rotation: Any, above_floor_m: float, tilt_rad: float, pan_rad: float = 0.0
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """``map_from_camera`` (OpenCV-optical) of a camera above the feet of an agent: position (3,) in metres and
    quaternion x, y, z, w. ``tilt_rad`` below 0 looks down; ``pan_rad`` above 0 looks to the left."""
    body = rotation_matrix(coefficients_xyzw(rotation)) @ habitat_rotation_from_yaw(pan_rad)
    c, s = math.cos(tilt_rad), math.sin(tilt_rad)
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    camera = MAP_FROM_HABITAT @ body @ tilt * OPTICAL_FROM_OPENGL
    where = map_from_habitat(np.asarray(position, float) + np.array([0.0, above_floor_m, 0.0]))
    return where, quaternion_from_matrix(camera)


def metres_from_normalised(depth: np.ndarray) -> np.ndarray:
    """habitat-lab's (h, w, 1) or (h, w) float depth in [0, 1] -> (h, w) float32 metres; what was clipped (1) and what
    hit nothing (0) become 0 = unknown."""
    flat = np.asarray(depth, np.float32)
    flat = flat[..., 0] if flat.ndim == 3 else flat
    return np.where((flat > 0) & (flat < 1), flat * np.float32(DEPTH_RANGE_M), np.float32(0))
