"""How quickly does the octree take in depth frames? Prints one JSON document.

    streammem bench octree --recording redkitchen --frames 10
    streammem bench octree                                      (points of a rendered room)

300,000 coloured points a frame, one thread, against the same voxels from ``np.unique`` (rows, with counts and colour
sums), and, where open3d is installed, its octree and its voxel grid. The contestants take turns on every frame, so that
a disturbed second hits all of them; ``processor_milliseconds`` is this thread's own time, for a busy machine. Only ours
keeps what it had: the others start anew with every frame.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from streammem.banks.spatial import geometry  # noqa: E402
from streammem.banks.spatial.octree import Octree  # noqa: E402
from streammem.benchmarks import _boxes  # noqa: E402
from streammem.cli.output import write_document  # noqa: E402
from streammem.model import Intrinsics  # noqa: E402

Frame = tuple[np.ndarray, np.ndarray]


def rendered(frames: int, points: int) -> list[Frame]:
    """Points (n, 3) and colours (n, 3) of a walk through a room of boxes."""
    width = round((points * 4 / 3) ** 0.5)
    camera = Intrinsics(width / 2, width / 2, width / 2, width * 3 / 8, width, width * 3 // 4)
    room, found = _boxes.furnished(), []
    for matrix in _boxes.walk(frames):
        pose = _boxes.pose(matrix)
        depth, which = room.render(pose, matrix, camera)
        xyz, rows, columns = geometry.unproject(depth, camera, pose)
        shade = (which[rows, columns] + 2) * 20 % 256
        found.append((xyz, np.repeat(shade[:, None], 3, axis=1).astype(np.uint8)))
    return found


def recorded(folder: str, frames: int) -> list[Frame]:
    """Points and colours of evenly spread frames of a recording (see ``rgbd:``), at the sensor's own resolution."""
    import cv2

    from perception.sources.rgbd import RgbdFolder

    source = RgbdFolder(folder, text=f"rgbd:{folder}")
    found = []
    for number in np.linspace(0, len(source.paths) - 1, frames).astype(int).tolist():
        depth, sensed = source.depth_m(number, largest=1 << 20), source.sensed(number)
        picture = cv2.imread(source.paths[number], cv2.IMREAD_COLOR_RGB)
        if depth is None or sensed.pose is None or sensed.intrinsics is None or picture is None:
            continue
        xyz, rows, columns = geometry.unproject(depth, sensed.intrinsics, sensed.pose)
        found.append((xyz, picture[rows, columns]))
    return found


def by_unique(voxel_m: float) -> Callable[[Frame], int]:
    def run(frame: Frame) -> int:
        cells = np.floor(frame[0] / voxel_m).astype(np.int64)
        unique, inverse, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        for axis in range(3):
            np.bincount(inverse.ravel(), weights=frame[1][:, axis], minlength=len(counts))
        return len(unique)

    return run


def by_unique_codes(voxel_m: float) -> Callable[[Frame], int]:
    """The stronger one: one number a cell first."""

    def run(frame: Frame) -> int:
        cells = np.floor(frame[0] / voxel_m).astype(np.int64) + (1 << 20)
        codes = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
        unique, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
        for axis in range(3):
            np.bincount(inverse, weights=frame[1][:, axis], minlength=len(counts))
        return len(unique)

    return run


def by_open3d(voxel_m: float) -> dict[str, Callable[[Frame], int]]:
    if importlib.util.find_spec("open3d") is None:
        return {}
    import open3d

    def cloud(frame: Frame) -> Any:
        made = open3d.geometry.PointCloud()
        made.points = open3d.utility.Vector3dVector(frame[0])
        made.colors = open3d.utility.Vector3dVector(frame[1] / 255.0)
        return made

    def octree(frame: Frame) -> int:
        made = cloud(frame)
        size = float((made.get_max_bound() - made.get_min_bound()).max())
        depth = max(1, int(np.ceil(np.log2(size / voxel_m))))
        tree = open3d.geometry.Octree(max_depth=depth)
        tree.convert_from_point_cloud(made, size_expand=0.0)
        return depth

    def grid(frame: Frame) -> int:
        return len(open3d.geometry.VoxelGrid.create_from_point_cloud(cloud(frame), voxel_m).get_voxels())

    return {"open3d_octree": octree, "open3d_voxel_grid": grid}


def main(arguments: list[str], as_json: bool) -> int:
    parser = argparse.ArgumentParser(prog="streammem bench octree", description=__doc__)
    parser.add_argument("--recording", default="", help="a folder as rgbd: reads it")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--points", type=int, default=300_000, help="of the rendered room")
    parser.add_argument("--voxel", type=float, default=0.05, help="metres")
    given = parser.parse_args(arguments)
    frames = recorded(given.recording, given.frames) if given.recording else rendered(given.frames, given.points)
    tree = Octree(given.voxel)
    count = 0

    def ours(frame: Frame) -> int:
        nonlocal count
        count += 1
        return len(tree.insert(frame[0], count, count, frame[1]))

    contestants: dict[str, Callable[[Frame], int]] = {
        "ours": ours,
        "numpy_unique_rows": by_unique(given.voxel),
        "numpy_unique_codes": by_unique_codes(given.voxel),
        **by_open3d(given.voxel),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    processor: dict[str, list[float]] = {name: [] for name in contestants}
    for frame in frames:
        for name, run in contestants.items():
            started, spent = time.perf_counter(), time.thread_time()
            run(frame)
            seconds[name].append(time.perf_counter() - started)
            processor[name].append(time.thread_time() - spent)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    write_document(
        {
            "frames": len(frames),
            "points": int(np.median([len(frame[0]) for frame in frames])),
            "voxel_m": given.voxel,
            "leaves": len(tree),
            "bytes_per_leaf": round(tree.nbytes / max(len(tree), 1), 1),
            "milliseconds": {name: round(value * 1e3, 2) for name, value in medians.items()},
            "processor_milliseconds": {
                name: round(float(np.median(values)) * 1e3, 2) for name, values in processor.items()
            },
            "frames_per_second": {name: round(1 / value, 2) for name, value in medians.items()},
            "times_ours": {name: round(value / medians["ours"], 2) for name, value in medians.items()},
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, NumPy {np.__version__}",
        }
    )
    return 0
