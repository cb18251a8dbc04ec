"""From depth and pose to points in the map; every convention is converted once, here, in a function that names it.

House frame: OpenCV-optical (x right, y down, z forward), ``map_from_camera``, metres, quaternions x, y, z, w.
Pixel centres are at whole numbers (column 0 is seen along ``(0 - cx) / fx``), as OpenCV and 7-Scenes have it; a picture
made smaller by a factor keeps the rays of its pixels: ``cx' = (cx + 0.5) * s - 0.5``.
"""

from __future__ import annotations

import math

import numpy as np

from streammem.errors import ObservationError
from streammem.model import Intrinsics, Pose

NO_READING = (0, 65535)
"""16-bit depth of sensors: both mean "nothing measured"."""
ASPECT_TOLERANCE = 0.02
_OPTICAL_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])


def depth_m_from_mm(depth_mm: np.ndarray) -> np.ndarray:
    """Depth (h, w) uint16 in millimetres -> float32 metres; 0 and 65535 become 0, unknown.

    Raises ObservationError for another type: a float in millimetres would be a house a thousand times as large."""
    if depth_mm.dtype != np.uint16 or depth_mm.ndim != 2:
        raise ObservationError(
            f"depth in millimetres must be uint16 (h, w), got {depth_mm.dtype} {depth_mm.shape}",
            field="depth_m",
            hint="read the PNG unchanged (cv2.IMREAD_UNCHANGED)",
        )
    metres = depth_mm.astype(np.float32) / np.float32(1000)
    metres[(depth_mm == NO_READING[0]) | (depth_mm == NO_READING[1])] = 0.0
    return metres


def depth_m_from_normalised(depth: np.ndarray, nearest_m: float = 0.0, farthest_m: float = 10.0) -> np.ndarray:
    """habitat-lab's depth (h, w) or (h, w, 1) in [0, 1] -> float32 metres along the optical axis; what was clipped to
    either end is unknown."""
    plain = np.asarray(depth, np.float32).reshape(depth.shape[:2])
    metres = nearest_m + plain * np.float32(farthest_m - nearest_m)
    metres[(plain <= 0) | (plain >= 1)] = 0.0
    return metres


def planar_from_ray_depth(distance_m: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Distances along the rays (h, w), as ray casters give them -> depth along the optical axis."""
    x, y = _rays(camera_for(camera, distance_m.shape), *_grid(distance_m.shape, 1))
    return (distance_m / np.sqrt(x * x + y * y + 1.0)).astype(np.float32)


def pose_from_matrix(
    map_from_camera: np.ndarray, frame_id: str = "map", map_version: int = 0, *, tolerance: float = 1e-2
) -> Pose:
    """A 4 x 4 rigid transform -> Pose. Raises ObservationError for what isn't one (7-Scenes writes NaN for a lost
    camera; a failed pose is never taken as the identity)."""
    matrix = np.asarray(map_from_camera, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ObservationError(
            f"a pose must be 4 x 4 finite numbers, got {matrix.shape}", field="pose", hint="leave out lost poses"
        )
    rotation = matrix[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > tolerance or np.linalg.det(rotation) < 0:
        raise ObservationError("the pose's 3 x 3 part isn't a rotation", field="pose", hint="check rows and columns")
    return Pose(_three(matrix[:3, 3]), quaternion_from_rotation(rotation), frame_id, map_version)


def pose_from_opengl(map_from_camera: np.ndarray, frame_id: str = "map", map_version: int = 0) -> Pose:
    """A camera of OpenGL or Habitat (x right, y up, looks along -z) as 4 x 4 -> Pose of the optical frame.

    Only the camera's own axes turn; the map stays as it is (Habitat's has y up)."""
    matrix = np.array(map_from_camera, np.float64)
    if matrix.shape == (4, 4):
        matrix[:3, :3] = matrix[:3, :3] @ _OPTICAL_FROM_OPENGL
    return pose_from_matrix(matrix, frame_id, map_version)


def pose_from_habitat(
    position_m: tuple[float, float, float], q_wxyz: tuple[float, float, float, float], frame_id: str = "map"
) -> Pose:
    """habitat-sim's sensor state: numpy-quaternion's order w, x, y, z -> Pose of the optical frame."""
    w, x, y, z = q_wxyz
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_from_quaternion((x, y, z, w))
    matrix[:3, 3] = position_m
    return pose_from_opengl(matrix, frame_id)


def optical_from_robot_body() -> np.ndarray:
    """Rotation from REP-103's body axes (x forward, y left, z up) into the optical frame."""
    return np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])


def rotation_from_quaternion(q_xyzw: tuple[float, float, float, float]) -> np.ndarray:
    """(3, 3) float64. Raises ObservationError for a quaternion of norm 0 or not finite."""
    q = np.asarray(q_xyzw, np.float64)
    norm = float(np.sqrt((q * q).sum()))
    if not (math.isfinite(norm) and norm > 1e-6):
        raise ObservationError(
            f"the quaternion {tuple(q_xyzw)} is no rotation", field="pose", hint="leave out the pose"
        )
    x, y, z, w = q / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_rotation(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """x, y, z, w with w >= 0: the largest of the four is found first, so that nothing is divided by a small number
    (Shepperd 1978)."""
    m = np.asarray(rotation, np.float64)
    trace = float(np.trace(m))
    squares = np.array([1 + 2 * m[0, 0] - trace, 1 + 2 * m[1, 1] - trace, 1 + 2 * m[2, 2] - trace, 1 + trace])
    best = int(np.argmax(squares))
    q = np.empty(4)
    if best == 3:
        q[:] = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], squares[3]
    else:
        i, j, k = best, (best + 1) % 3, (best + 2) % 3
        q[i], q[j], q[k] = squares[i], m[j, i] + m[i, j], m[k, i] + m[i, k]
        q[3] = m[k, j] - m[j, k]
    q /= np.linalg.norm(q)
    x, y, z, w = (q if q[3] >= 0 else -q).tolist()
    return x, y, z, w


def matrix_of(pose: Pose) -> np.ndarray:
    """(4, 4) float64 ``map_from_camera``."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_from_quaternion(pose.q_xyzw)
    matrix[:3, 3] = pose.position_m
    return matrix


def apply(transform: np.ndarray, points_m: np.ndarray) -> np.ndarray:
    """A 4 x 4 transform on points (n, 3)."""
    return points_m @ transform[:3, :3].T + transform[:3, 3]


def camera_for(camera: Intrinsics, shape: tuple[int, ...]) -> Intrinsics:
    """The camera in pixels of a depth map of this (h, w). Raises ObservationError where the aspects differ: then the
    intrinsics are of another picture."""
    height, width = shape[:2]
    sx, sy = width / camera.width, height / camera.height
    if abs(sx / sy - 1) > ASPECT_TOLERANCE:
        raise ObservationError(
            f"intrinsics are of a {camera.width} x {camera.height} picture, the depth map is {width} x {height}",
            field="intrinsics",
            hint="crop both alike, or send the intrinsics of this depth map",
        )
    return Intrinsics(
        camera.fx * sx, camera.fy * sy, (camera.cx + 0.5) * sx - 0.5, (camera.cy + 0.5) * sy - 0.5, width, height
    )


def unproject(
    depth_m: np.ndarray, camera: Intrinsics, pose: Pose, *, step: int = 1, farthest_m: float = math.inf
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth (h, w) float32 metres along the optical axis -> points in the map (n, 3) float64, and the rows and columns
    (n,) of the pixels that they came from. Every ``step``-th pixel an axis; zero, NaN, infinite and too far depths are
    left out.

    Raises ObservationError for a depth map that isn't 2-D float, or of another aspect than the intrinsics."""
    if depth_m.ndim != 2 or depth_m.dtype.kind != "f":
        raise ObservationError(
            f"depth must be (h, w) float metres, got {depth_m.dtype} {depth_m.shape}",
            field="depth_m",
            hint="depth_m_from_mm converts 16-bit millimetres",
        )
    own = camera_for(camera, depth_m.shape)
    v, u = _grid(depth_m.shape, step)
    z = depth_m[v, u].astype(np.float64)
    good = np.isfinite(z) & (z > 0) & (z <= farthest_m)
    z = z[good]
    rows, columns = np.nonzero(good)
    x, y = _rays(own, v, u)
    x, y = np.broadcast_to(x, good.shape)[good] * z, np.broadcast_to(y, good.shape)[good] * z
    rotation = rotation_from_quaternion(pose.q_xyzw)
    points = np.empty((len(z), 3))
    for axis in range(3):
        a, b, c = rotation[axis]
        points[:, axis] = a * x + b * y + c * z + pose.position_m[axis]
    return points, v[rows, 0], u[0, columns]


def project(points_m: np.ndarray, camera: Intrinsics, pose: Pose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in the map (n, 3) -> rows, columns (n,) float pixels, and depth (n,) metres; a pixel means nothing where
    the depth isn't positive."""
    rotation = rotation_from_quaternion(pose.q_xyzw)
    local = (points_m - np.asarray(pose.position_m)) @ rotation
    z = local[:, 2]
    safe = np.where(z > 0, z, 1.0)
    return local[:, 1] / safe * camera.fy + camera.cy, local[:, 0] / safe * camera.fx + camera.cx, z


def _grid(shape: tuple[int, ...], step: int) -> tuple[np.ndarray, np.ndarray]:
    first = (step - 1) // 2
    return np.arange(first, shape[0], step)[:, None], np.arange(first, shape[1], step)[None, :]


def _rays(camera: Intrinsics, v: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy


def _three(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


class PoseGate:
    """Lets through poses that a camera can have had. A jump is refused until ``confirm`` poses in a row agree with each
    other about the new place: then the camera was carried, or its tracker found itself again.

    State is plain numbers, so that it can be saved."""

    def __init__(self, jump_m: float = 1.5, confirm: int = 3) -> None:
        self._jump_m = jump_m
        self._confirm = confirm
        self.last: tuple[float, float, float] | None = None
        self.waiting: list[tuple[float, float, float]] = []

    def judge(self, pose: Pose) -> str:
        """``"good"``, ``"moved"`` (a new stretch begins here), or why it is refused: ``"nan"``, ``"quaternion"``,
        ``"jump"``."""
        if not all(map(math.isfinite, (*pose.position_m, *pose.q_xyzw))):
            return "nan"
        if abs(math.sqrt(sum(part * part for part in pose.q_xyzw)) - 1) > 1e-3:
            return "quaternion"
        here = pose.position_m
        if self.last is None or math.dist(here, self.last) <= self._jump_m:
            self.last, self.waiting = here, []
            return "good"
        if self.waiting and math.dist(here, self.waiting[-1]) > self._jump_m:
            self.waiting = []
        self.waiting.append(here)
        if len(self.waiting) < self._confirm:
            return "jump"
        self.last, self.waiting = here, []
        return "moved"
