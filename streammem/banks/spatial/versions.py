"""Map versions: how a corrected trajectory moves what was mapped before, without losing what was believed when.

A correction comes as an observation of the stream, so that it is journalled, ordered and replayed like everything
else: the parts ``map.t_ns`` (n,) int64, capture times of keyframes, and ``map.pose`` (n, 7) float64, their corrected
``map_from_camera`` (x, y, z, qx, qy, qz, qw); ``pose.map_version`` of that observation is the new version. It is what a
SLAM front end has in hand after a loop closure. Each earlier submap moves rigidly with its nearest keyframe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streammem.banks.spatial import geometry
from streammem.errors import ObservationError
from streammem.model import Pose, Record

TIMES, POSES = "map.t_ns", "map.pose"


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """``known_ns``: capture time at which it became known. ``record_id`` is that of the bank's own record of it."""

    map_version: int
    frame_id: str
    known_ns: int
    times_ns: np.ndarray
    poses: np.ndarray
    record_id: int = 0

    def transform_for(self, steps: np.ndarray) -> np.ndarray | None:
        """``new_map_from_old_map`` (4, 4) of a submap with these steps: of the keyframe and the step that are nearest
        in time. None where the submap has no steps."""
        if not len(steps) or not len(self.times_ns):
            return None
        at = np.argsort(self.times_ns, kind="stable")
        times = self.times_ns[at]
        right = np.minimum(np.searchsorted(times, steps["t_ns"]), len(times) - 1)
        left = np.maximum(right - 1, 0)
        gaps = np.stack((np.abs(times[left] - steps["t_ns"]), np.abs(times[right] - steps["t_ns"])))
        side, step = np.unravel_index(int(np.argmin(gaps)), gaps.shape)
        key = int(at[(left, right)[int(side)][step]])
        new = geometry.matrix_of(pose_of(self.poses[key], self.frame_id))
        old = geometry.matrix_of(pose_of(steps["pose"][step], self.frame_id))
        return new @ np.linalg.inv(old)


def pose_of(row: np.ndarray, frame_id: str, map_version: int = 0) -> Pose:
    """A row x, y, z, qx, qy, qz, qw -> Pose."""
    x, y, z, qx, qy, qz, qw = (float(value) for value in row)
    return Pose((x, y, z), (qx, qy, qz, qw), frame_id, map_version)


def row_of(pose: Pose) -> np.ndarray:
    """The way back, (7,) float64."""
    return np.array([*pose.position_m, *pose.q_xyzw])


def moved_pose(pose: Pose, transform: np.ndarray, map_version: int) -> Pose:
    """The pose after a correction of its map."""
    return geometry.pose_from_matrix(transform @ geometry.matrix_of(pose), pose.frame_id, map_version)


def correction_of(record: Record) -> Correction | None:
    """The correction that a moment carries, or None. Raises ObservationError for one that can't be used."""
    arrays: Mapping[str, np.ndarray] = record.arrays
    if TIMES not in arrays and POSES not in arrays:
        return None
    times, poses = arrays.get(TIMES), arrays.get(POSES)
    if times is None or poses is None or record.pose is None:
        raise ObservationError(
            "a map correction needs the parts map.t_ns and map.pose, and a pose with the new map_version", field="parts"
        )
    if times.ndim != 1 or poses.shape != (len(times), 7) or times.dtype.kind != "i":
        raise ObservationError(
            f"a map correction has times {times.dtype} {times.shape} and poses {poses.shape}",
            field="parts",
            hint="(n,) int64 and (n, 7)",
        )
    poses = poses.astype(np.float64)
    norms = np.linalg.norm(poses[:, 3:], axis=1)
    if not np.isfinite(poses).all() or (np.abs(norms - 1) > 1e-3).any():
        raise ObservationError("a map correction holds a pose that is no rigid transform", field="parts")
    return Correction(record.pose.map_version, record.pose.frame_id, record.t_start_ns, times.astype(np.int64), poses)
