"""A room of boxes whose every pixel is known: depth and names by casting rays in NumPy, for measuring and for tests."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streammem.banks.spatial.geometry import pose_from_matrix
from streammem.model import Detection, Intrinsics, Pose

CAMERA = Intrinsics(80.0, 80.0, 79.5, 59.5, 160, 120)
"""90 degrees wide: a walk of a few steps sees the whole room."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxRoom:
    """``inside`` (2, 3) the room's corners, ``boxes`` (n, 2, 3) lower and upper corners, metres, z up; ``names`` one a
    box, "" for one that no detector knows."""

    inside: np.ndarray
    boxes: np.ndarray
    names: tuple[str, ...]

    def render(self, pose: Pose, matrix: np.ndarray, camera: Intrinsics = CAMERA) -> tuple[np.ndarray, np.ndarray]:
        """Depth (h, w) float32 metres along the axis, and the number of the box (h, w) int32, -1 for the room."""
        v, u = np.mgrid[0 : camera.height, 0 : camera.width]
        local = np.stack(((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)), axis=-1)
        toward = local @ matrix[:3, :3].T
        start = np.asarray(pose.position_m)
        with np.errstate(divide="ignore", invalid="ignore"):
            # From inside, the walls are where the ray leaves the room.
            near, far = (self.inside[0] - start) / toward, (self.inside[1] - start) / toward
            depth = np.fmax(near, far).min(axis=-1)
            which = np.full(depth.shape, -1, np.int32)
            for number, (low, high) in enumerate(self.boxes):
                near, far = (low - start) / toward, (high - start) / toward
                enter, leave = np.fmin(near, far).max(axis=-1), np.fmax(near, far).min(axis=-1)
                hit = (enter <= leave) & (enter > 0) & (enter < depth)
                depth = np.where(hit, enter, depth)
                which[hit] = number
        return depth.astype(np.float32), which

    def detections(self, which: np.ndarray, least_pixels: int = 12) -> tuple[Detection, ...]:
        """What a perfect detector says: a box around every named thing with enough pixels."""
        height, width = which.shape
        found = []
        for number, name in enumerate(self.names):
            rows, columns = np.nonzero(which == number)
            if name and len(rows) >= least_pixels:
                box = (
                    float(columns.min() / width),
                    float(rows.min() / height),
                    float((columns.max() + 1) / width),
                    float((rows.max() + 1) / height),
                )
                found.append(Detection(name, 0.9, box))
        return tuple(found)


def looking(x: float, y: float, z: float, yaw: float, pitch: float = 0.3) -> np.ndarray:
    """``map_from_camera`` (4, 4) of a camera at a point of a map with z up; yaw 0 looks along x, pitch > 0 down."""
    ahead = np.array([math.cos(yaw), math.sin(yaw), 0.0])
    right, below = np.array([math.sin(yaw), -math.cos(yaw), 0.0]), np.array([0.0, 0.0, -1.0])
    matrix = np.eye(4)
    matrix[:3, 0] = right
    matrix[:3, 1] = below * math.cos(pitch) - ahead * math.sin(pitch)
    matrix[:3, 2] = ahead * math.cos(pitch) + below * math.sin(pitch)
    matrix[:3, 3] = x, y, z
    return matrix


def pose(matrix: np.ndarray, frame_id: str = "flat", map_version: int = 0) -> Pose:
    return pose_from_matrix(matrix, frame_id, map_version)


def furnished(seed: int = 0, things: int = 8) -> BoxRoom:
    """A room of 6 x 5 x 2.7 m with a table, a shelf, and small named things on them and on the floor."""
    rng = np.random.default_rng(seed)
    inside = np.array([[0.0, 0.0, 0.0], [6.0, 5.0, 2.7]])
    boxes = [np.array([[4.2, 1.6, 0.0], [5.4, 3.4, 0.75]]), np.array([[0.4, 4.4, 0.0], [2.6, 4.95, 1.2]])]
    names = ["", ""]
    spots = [
        *[(4.4 + 0.35 * n, 1.8 + 0.45 * n, 0.75) for n in range(3)],
        *[(0.7 + 0.6 * n, 4.6, 1.2) for n in range(3)],
        (3.0, 0.6, 0.0),
        (1.0, 1.2, 0.0),
    ]
    words = ("mug", "kettle", "book", "radio", "vase", "clock", "basket", "backpack")
    for (x, y, z), name in list(zip(spots, words, strict=True))[:things]:
        sx, sy, sz = rng.uniform(0.12, 0.3, 3)
        boxes.append(np.array([[x, y, z], [x + sx, y + sy, z + sz]]))
        names.append(name)
    return BoxRoom(inside, np.array(boxes), tuple(names))


def walk(steps: int = 48) -> list[np.ndarray]:
    """Camera matrices once around the middle of the room, looking outward and back, 1.3 m high."""
    found = []
    for number in range(steps):
        angle = 2 * math.pi * number / steps
        x, y = 3.0 + 1.0 * math.cos(angle), 2.5 + 0.8 * math.sin(angle)
        found.append(looking(x, y, 1.3, angle + (0.0 if number % 2 else 0.6), 0.35))
    return found
