"""What one moment shows of its surroundings: coloured points, free space, things at places."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from streammem.banks.spatial import geometry
from streammem.banks.spatial.octree import Octree
from streammem.model import Detection, Intrinsics, Pose, Record

LEAST_PIXELS = 3
"""Depth readings inside a box that make a position."""
NEAREST_M = 0.15
"""Nearer readings are the robot itself, or noise."""


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """``xyz`` (n, 3) metres in the map, ``pixels`` (n, 2) int rows and columns of the depth map, ``rgb`` (n, 3) uint8
    or None."""

    xyz: np.ndarray
    pixels: np.ndarray
    rgb: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Seen:
    """A name at a point of the map; ``placed`` False: somewhere in the picture that was taken from there."""

    name: str
    score: float
    point_m: tuple[float, float, float]
    radius_m: float
    placed: bool
    box: tuple[float, float, float, float] | None
    depth_m: float


def points_of(record: Record, pose: Pose, *, most: int, farthest_m: float) -> Points | None:
    """The points of a moment's depth map, thinned to about ``most``; None where it has no depth or no intrinsics.

    Colours come from its thumbnail: a picture of the same view. Raises ObservationError as ``unproject`` does."""
    depth = record.arrays.get("depth_m")
    if depth is None or record.intrinsics is None or not depth.size:
        return None
    step = max(1, math.ceil(math.sqrt(depth.size / most)))
    xyz, rows, columns = geometry.unproject(depth, record.intrinsics, pose, step=step, farthest_m=farthest_m)
    rgb = None
    if record.thumbnail is not None and len(xyz):
        picture = _picture(record.thumbnail)
        if picture is not None:
            height, width = picture.shape[:2]
            rgb = picture[rows * height // depth.shape[0], columns * width // depth.shape[1]]
    return Points(xyz, np.stack((rows, columns), axis=1), rgb)


def _picture(jpeg: bytes) -> np.ndarray | None:
    import cv2  # 0.1 s that an import of streammem must not pay

    try:
        return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # a damaged picture has no colours
        return None


def things_of(record: Record, pose: Pose, *, least_score: float, farthest_m: float) -> list[Seen]:
    """Detections at the median depth of the inner half of their boxes; detections without depth and labels of the
    whole picture at the camera."""
    depth, camera = record.arrays.get("depth_m"), record.intrinsics
    found = []
    for detection in record.detections:
        seen = None
        if depth is not None and camera is not None and depth.size:
            seen = _placed(detection, depth, camera, pose, farthest_m)
        found.append(seen or Seen(detection.label, detection.score, pose.position_m, 0.0, False, None, 0.0))
    found += [
        Seen(label.name, label.score, pose.position_m, 0.0, False, None, 0.0)
        for label in record.labels
        if label.score >= least_score
    ]
    return found


def _placed(detection: Detection, depth: np.ndarray, camera: Intrinsics, pose: Pose, farthest_m: float) -> Seen | None:
    height, width = depth.shape
    x0, y0, x1, y1 = detection.box
    inner = (x0 + (x1 - x0) / 4, y0 + (y1 - y0) / 4, x1 - (x1 - x0) / 4, y1 - (y1 - y0) / 4)
    left, right = (min(max(int(x * width), 0), width) for x in (inner[0], inner[2]))
    top, bottom = (min(max(int(y * height), 0), height) for y in (inner[1], inner[3]))
    patch = depth[top : max(bottom, top + 1), left : max(right, left + 1)]
    known = patch[(patch > NEAREST_M) & (patch <= farthest_m)]
    if len(known) < min(LEAST_PIXELS, max(patch.size, 1)):
        return None
    own = geometry.camera_for(camera, depth.shape)
    z = float(np.median(known))
    u, v = (x0 + x1) / 2 * width - 0.5, (y0 + y1) / 2 * height - 0.5
    local = np.array([[(u - own.cx) * z / own.fx, (v - own.cy) * z / own.fy, z]])
    x, y, w = geometry.apply(geometry.matrix_of(pose), local)[0].tolist()
    radius = max((x1 - x0) * width / own.fx, (y1 - y0) * height / own.fy) * z / 2
    return Seen(detection.label, detection.score, (x, y, w), radius, True, detection.box, z)


def rows_of_thing(tree: Octree, seen: Seen, points: Points, depth: np.ndarray) -> np.ndarray:
    """Leaves, each once, of the points inside a thing's box that lie near its depth."""
    if seen.box is None or not len(points.xyz):
        return np.empty(0, np.int64)
    height, width = depth.shape
    x0, y0, x1, y1 = seen.box
    v, u = points.pixels[:, 0], points.pixels[:, 1]
    inside = (u >= x0 * width) & (u < x1 * width) & (v >= y0 * height) & (v < y1 * height)
    near = np.abs(depth[v, u] - seen.depth_m) <= max(0.1, seen.radius_m)
    rows = np.unique(tree.find(points.xyz[inside & near]))
    return rows[rows >= 0]


def seen_through(
    centres_m: np.ndarray, depth: np.ndarray, camera: Intrinsics, pose: Pose, margin_m: float
) -> np.ndarray:
    """(n,) bool: the camera looked past this centre, and something further away was there.

    The nearest reading of 3 x 3 pixels decides, and a pixel without a reading decides nothing: edges of things must not
    erase them."""
    if not len(centres_m):
        return np.zeros(0, bool)
    import cv2

    nearest = cv2.erode(np.ascontiguousarray(depth, np.float32), np.ones((3, 3), np.uint8))
    own = geometry.camera_for(camera, depth.shape)
    rows, columns, z = geometry.project(centres_m, own, pose)
    # Out of the picture before the cast: a point beside the camera projects to 1e300.
    inside = (z > NEAREST_M) & (rows > -0.5) & (rows < depth.shape[0] - 0.5)
    inside &= (columns > -0.5) & (columns < depth.shape[1] - 0.5)
    through = np.zeros(len(centres_m), bool)
    at = np.flatnonzero(inside)
    reading = nearest[np.rint(rows[at]).astype(np.int64), np.rint(columns[at]).astype(np.int64)]
    through[at] = reading > z[at] * 1.02 + margin_m
    return through


def free_points(
    depth: np.ndarray, camera: Intrinsics, pose: Pose, *, spacing_m: float, farthest_m: float
) -> np.ndarray:
    """Points (n, 3) of the map that rays went through, ``spacing_m`` apart, ending one spacing before what they hit.

    About 32 x 24 rays: neighbours are 0.1 m apart in 3 m with a field of view of 60 degrees."""
    step = max(1, round(depth.shape[1] / 32))
    ends, _, _ = geometry.unproject(depth, camera, pose, step=step, farthest_m=math.inf)
    start = np.asarray(pose.position_m)
    toward = ends - start
    length = np.sqrt((toward * toward).sum(axis=1))
    reach = np.minimum(length - spacing_m, farthest_m)
    at = np.arange(NEAREST_M, farthest_m, spacing_m)
    used = at[None, :] <= reach[:, None]
    share = at[None, :] / np.maximum(length, 1e-9)[:, None]
    return (start + toward[:, None, :] * share[:, :, None])[used]
