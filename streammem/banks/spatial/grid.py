"""The map from above: which squares of the floor are free, which are occupied."""

from __future__ import annotations

import numpy as np

from streammem.banks.spatial.answers import TopDown
from streammem.banks.spatial.joining import Joined
from streammem.errors import QueryError

UNKNOWN, FREE, OCCUPIED = 0, 1, 2
CLEARANCE_M = 0.15
"""What rises less above the floor can be walked or driven over (a carpet, noise of the depth)."""
ABOVE_CAMERA_M = 0.3
"""What hangs higher than this above the camera is passed under."""
MOST_CELLS = 4_000_000


def up_axis(up: np.ndarray) -> tuple[int, int]:
    """The axis of the map that is nearest to against gravity, and its sign. ``up`` (3,): the sum of the cameras' own
    upward directions (people and robots hold cameras upright)."""
    axis = int(np.argmax(np.abs(up)))
    return axis, 1 if up[axis] >= 0 else -1


def top_down(view: Joined, resolution_m: float) -> TopDown:
    """Squares of ``resolution_m``. Occupied: a leaf between the floor and just above the camera. Free: looked through
    at that height, or floor. The floor is where the second percentile of the occupied leaves lies.

    Raises QueryError for more than four million squares."""
    axis, sign = up_axis(view.up)
    across, down = [(1, 2), (0, 2), (0, 1)][axis]
    occupied = np.flatnonzero(view.tree.occupied)
    points = view.tree.surface(occupied)
    free = view.free.centres()
    path = view.steps["pose"][:, :3]
    everything = np.concatenate((points, free, path))[:, (across, down)]
    if not len(everything):
        raise QueryError(f"nothing is on the map {view.frame_id!r}", hint="streams without poses are not mapped")
    low = np.floor(everything.min(axis=0) / resolution_m) * resolution_m
    width, height = (np.floor((everything.max(axis=0) - low) / resolution_m).astype(np.int64) + 1).tolist()
    if width * height > MOST_CELLS:
        raise QueryError(
            f"a map of {width} x {height} squares is too large", hint=f"take squares larger than {resolution_m:g} m"
        )
    cells = np.zeros((height, width), np.uint8)
    floor = 0.0

    def paint(where: np.ndarray, value: int) -> None:
        at = np.floor((where[:, (across, down)] - low) / resolution_m).astype(np.int64)
        cells[np.clip(at[:, 1], 0, height - 1), np.clip(at[:, 0], 0, width - 1)] = value

    if len(points):
        heights = points[:, axis] * sign
        floor = float(np.percentile(heights, 2))
        ceiling = float(np.median(path[:, axis] * sign)) + ABOVE_CAMERA_M if len(path) else np.inf
        at = free[:, axis] * sign
        # A free cell is wide: it is painted as the square that it covers.
        reach = view.free.voxel_m / 2
        spread = np.arange(-reach + resolution_m / 2, reach, resolution_m)
        for a in spread if len(spread) else [0.0]:
            for b in spread if len(spread) else [0.0]:
                shift = np.zeros(3)
                shift[across], shift[down] = a, b
                paint(free[(at > floor) & (at < ceiling)] + shift, FREE)
        paint(points[heights <= floor + CLEARANCE_M], FREE)
        paint(points[(heights > floor + CLEARANCE_M) & (heights < ceiling)], OCCUPIED)
    paint(path, FREE)
    return TopDown(
        frame_id=view.frame_id,
        map_version=view.map_version,
        resolution_m=resolution_m,
        width=width,
        height=height,
        origin_m=(float(low[0]), float(low[1])),
        across=across,
        down=down,
        up=axis,
        up_sign=sign,
        floor_m=floor * sign,
        cells=cells.tobytes(),
        path_m=[(float(x), float(y), float(z)) for x, y, z in path],
    )
