"""``rgbd:FOLDER``: a recording of colour, depth and poses, in the layouts of 7-Scenes, Open3D/Redwood/ICL and TUM.

    7-Scenes   frame-000000.color.jpg|png  frame-000000.depth.png  frame-000000.pose.txt  camera-intrinsics.txt
    Open3D     image|color|rgb/00000.jpg  depth/00000.png  trajectory.log  (intrinsics as below)
    TUM        rgb.txt  depth.txt  groundtruth.txt  rgb/  depth/

Intrinsics: ``camera-intrinsics.txt`` or ``intrinsics.txt`` (3 x 3), or ``intrinsic.json`` (Open3D); without a file
those of a PrimeSense sensor (525), with a note. Depth: 16-bit PNG, millimetres (TUM: 1/5000 m). Poses are
``map_from_camera``, optical, as all three layouts have them. The frame of reference is called like the folder.
"""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from perception.frames import Frame, Sensed, SourceInfo
from perception.identity import files_hash, stream_id
from perception.sampling import NS, FixedRate
from perception.sources.images import ImageSequence, is_image, natural_order
from streammem.banks.spatial.geometry import depth_m_from_mm, pose_from_matrix
from streammem.config import PerceptionConfig
from streammem.errors import ObservationError, SourceError, SourceNotFound
from streammem.model import Intrinsics, Pose

COLOUR_FOLDERS = ("image", "color", "colour", "rgb")
INTRINSICS_FILES = ("camera-intrinsics.txt", "intrinsics.txt", "camera_intrinsics.txt")
PRIME_SENSE = 525.0
"""Focal length in pixels of 640 x 480 that Open3D takes for sensors of this kind."""
DEPTH_PX = 320
"""Longest side of the depth that goes on: every second pixel of 640 x 480 (307 KB, the whole would be 1.2 MB)."""
MOVED_M, TURNED = 0.1, float(np.cos(np.radians(10)))
"""Depth goes on when the camera moved so far or turned by 10 degrees since the last one that did."""
TUM_SCALE = 5000.0
TUM_APART_S = 0.05
"""Depth and pose of a colour picture are at most so far from it in time."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Paths and poses, one a colour picture; None where one is missing or lost."""

    colours: list[str]
    depths: list[str | None]
    poses: list[np.ndarray | None]
    times_ns: list[int] | None
    metres_per_unit: float


class RgbdFolder(ImageSequence):
    """The pictures of the folder, each with what was sensed beside it."""

    def __init__(self, folder: str, *, text: str, fps: float = 1.0, cache: str | None = None) -> None:
        """Raises SourceNotFound, SourceError for a folder in none of the layouts, or files that can't be read."""
        if not os.path.isdir(folder):
            raise SourceNotFound(f"no folder is at {folder!r}", hint="rgbd:FOLDER of a recording")
        layout = _layout_of(folder)
        self._layout = layout
        super().__init__(layout.colours, text=text, folder=folder, fps=fps, cache=cache)
        self._frame_id = os.path.basename(os.path.abspath(folder))[:200] or "map"
        others = [path for path in layout.depths if path is not None] + _files_of_poses(folder)
        content = files_hash([*layout.colours, *others], root=folder, cache=cache)
        self._info = replace(
            self._info,
            kind="rgbd",
            content_hash=content,
            stream=stream_id(os.path.abspath(folder), content),
        )
        self._camera = self._intrinsics(folder, self._info)
        self._poses = [self._pose(number) for number in range(len(layout.colours))]
        self._deep = self._chosen()

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        for frame in super().frames(start_ns, sampling):
            number = bisect_right(self.times, frame.media_ns) - 1
            sensed = self.sensed(number)
            depth = self.depth_m(number) if self._deep[number] else None
            yield replace(frame, sensed=replace(sensed, depth_m=depth))

    def _times(self, folder: str | None) -> list[int]:
        times = self._layout.times_ns
        return super()._times(folder) if times is None else [at - times[0] for at in times]

    def sensed(self, number: int) -> Sensed:
        """Pose and intrinsics of a picture; its depth is read by :meth:`depth_m`."""
        return Sensed(pose=self._poses[number], intrinsics=self._camera)

    def depth_m(self, number: int, largest: int = DEPTH_PX) -> np.ndarray | None:
        """Depth (h, w) float32 metres of a picture, thinned to ``largest`` pixels a side; None where there is none."""
        import cv2

        path = self._layout.depths[number]
        raw = None if path is None else cv2.imread(path, cv2.IMREAD_UNCHANGED)
        if raw is None or raw.ndim != 2 or raw.dtype != np.uint16:
            if path is not None:
                self.health.note(f"{os.path.basename(path)!r} isn't a 16-bit depth map")
            return None
        step = max(1, -(-max(raw.shape) // largest))
        metres = depth_m_from_mm(raw[step // 2 :: step, step // 2 :: step])
        return np.ascontiguousarray(metres * np.float32(self._layout.metres_per_unit * 1000.0))

    def _pose(self, number: int) -> Pose | None:
        matrix = self._layout.poses[number]
        if matrix is None:
            return None
        try:
            return pose_from_matrix(matrix, self._frame_id)
        except ObservationError as error:
            self.health.note(f"picture {number} has no pose: {error.message}")
            return None

    def _chosen(self) -> list[bool]:
        """Whose depth goes on: decided from all poses at once, so that going on in the middle changes nothing."""
        chosen: list[bool] = []
        last: np.ndarray | None = None
        for number, pose in enumerate(self._poses):
            matrix = self._layout.poses[number]
            if pose is None or matrix is None:
                chosen.append(False)
                continue
            moved = last is None or float(np.linalg.norm(matrix[:3, 3] - last[:3, 3])) >= MOVED_M
            # The angle of a rotation from its trace: 1 + 2 cos.
            turned = last is not None and (np.trace(last[:3, :3].T @ matrix[:3, :3]) - 1) / 2 <= TURNED
            chosen.append(moved or turned)
            if moved or turned:
                last = matrix
        return chosen

    def _intrinsics(self, folder: str, info: SourceInfo) -> Intrinsics:
        for name in INTRINSICS_FILES:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                numbers = _numbers(path)
                if len(numbers) < 9:
                    raise SourceError(
                        f"{path!r} holds {len(numbers)} numbers, not 3 x 3", hint="fx 0 cx / 0 fy cy / 0 0 1"
                    )
                return Intrinsics(numbers[0], numbers[4], numbers[2], numbers[5], info.width, info.height)
        path = os.path.join(folder, "intrinsic.json")
        if os.path.isfile(path):
            return _open3d_intrinsics(path)
        self.health.note("no intrinsics in the folder: those of a PrimeSense sensor are taken")
        scale = info.width / 640.0
        return Intrinsics(
            PRIME_SENSE * scale,
            PRIME_SENSE * scale,
            (info.width - 1) / 2,
            (info.height - 1) / 2,
            info.width,
            info.height,
        )


def open_rgbd(rest: str, config: PerceptionConfig) -> RgbdFolder:
    """``rgbd:FOLDER`` for the grammar of sources."""
    return RgbdFolder(rest, text=f"rgbd:{rest}", fps=config.fps)


def _layout_of(folder: str) -> _Layout:
    names = sorted(os.listdir(folder), key=natural_order)
    if any(name.endswith(".pose.txt") for name in names):
        return _seven_scenes(folder, names)
    if "rgb.txt" in names and "depth.txt" in names:
        return _tum(folder)
    colours = next((name for name in COLOUR_FOLDERS if name in names), None)
    if colours is not None and "depth" in names and "trajectory.log" in names:
        return _open3d(folder, colours)
    raise SourceError(
        f"the folder {folder!r} is in none of the known layouts",
        hint="7-Scenes (*.color.*, *.pose.txt), Open3D (image/, depth/, trajectory.log), TUM (rgb.txt, depth.txt)",
    )


def _seven_scenes(folder: str, names: Sequence[str]) -> _Layout:
    colours = [name for name in names if re.search(r"\.color\.(jpe?g|png)$", name)]
    if not colours:
        raise SourceError(f"the folder {folder!r} has poses but no *.color.jpg or .png", hint="copy the pictures too")
    stems = [name.split(".color.")[0] for name in colours]
    depths = [_existing(folder, f"{stem}.depth.png") for stem in stems]
    poses: list[np.ndarray | None] = []
    for stem in stems:
        path = _existing(folder, f"{stem}.pose.txt")
        numbers = [] if path is None else _numbers(path)
        poses.append(np.array(numbers).reshape(4, 4) if len(numbers) == 16 else None)
    return _Layout([os.path.join(folder, name) for name in colours], depths, poses, None, 0.001)


def _open3d(folder: str, colour_folder: str) -> _Layout:
    def pictures(name: str) -> list[str]:
        below = os.path.join(folder, name)
        return [os.path.join(below, each) for each in sorted(os.listdir(below), key=natural_order) if is_image(each)]

    colours, depths = pictures(colour_folder), pictures("depth")
    with open(os.path.join(folder, "trajectory.log"), encoding="utf-8") as file:
        lines = [line.split() for line in file if line.strip()]
    matrices = []
    for at in range(0, len(lines) - 4, 5):
        try:
            matrices.append(np.array([[float(cell) for cell in line] for line in lines[at + 1 : at + 5]]))
        except ValueError as error:
            raise SourceError(f"trajectory.log, line {at + 2}: {error}", hint="a heading and 4 rows a pose") from error
    if len(colours) != len(depths) or len(colours) > len(matrices):
        raise SourceError(
            f"{folder!r} has {len(colours)} colour pictures, {len(depths)} depth maps and {len(matrices)} poses",
            hint="one each is needed",
        )
    return _Layout(colours, list(depths), list(matrices[: len(colours)]), None, 0.001)


def _tum(folder: str) -> _Layout:
    colours, depths = _table(folder, "rgb.txt"), _table(folder, "depth.txt")
    poses = _table(folder, "groundtruth.txt") if _existing(folder, "groundtruth.txt") else []
    found: list[tuple[str, str | None, np.ndarray | None, int]] = []
    for t, cells in colours:
        depth, pose = _nearest(depths, t), _nearest(poses, t)
        matrix = None if pose is None else _matrix_of([float(cell) for cell in pose[:7]])
        path = None if depth is None else os.path.join(folder, depth[0])
        found.append((os.path.join(folder, cells[0]), path, matrix, t))
    return _Layout(
        [each[0] for each in found],
        [each[1] for each in found],
        [each[2] for each in found],
        [each[3] for each in found],
        1 / TUM_SCALE,
    )


def _table(folder: str, name: str) -> list[tuple[int, list[str]]]:
    """Rows of a TUM list: time in ns and the other cells, sorted by time."""
    rows = []
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            cells = line.split()
            if not cells or cells[0].startswith("#"):
                continue
            try:
                whole, _, fraction = cells[0].partition(".")
                rows.append((int(whole) * NS + int((fraction + "000000000")[:9]), cells[1:]))
            except ValueError as error:
                raise SourceError(f"{name!r}, line {number}: {error}", hint="a time in seconds comes first") from error
    return sorted(rows)


def _nearest(rows: Sequence[tuple[int, list[str]]], t_ns: int) -> list[str] | None:
    at = bisect_right(rows, t_ns, key=lambda row: row[0])
    near = min(rows[max(0, at - 1) : at + 1], key=lambda row: abs(row[0] - t_ns), default=None)
    return None if near is None or abs(near[0] - t_ns) > TUM_APART_S * NS else near[1]


def _matrix_of(numbers: Sequence[float]) -> np.ndarray | None:
    """tx ty tz qx qy qz qw -> 4 x 4; None for a quaternion that is none."""
    from streammem.banks.spatial.geometry import rotation_from_quaternion

    matrix = np.eye(4)
    x, y, z, qx, qy, qz, qw = numbers
    matrix[:3, 3] = x, y, z
    try:
        matrix[:3, :3] = rotation_from_quaternion((qx, qy, qz, qw))
    except ObservationError:
        return None
    return matrix


def _open3d_intrinsics(path: str) -> Intrinsics:
    try:
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
        # Open3D writes the matrix column by column.
        fx, _, _, _, fy, _, cx, cy, _ = (float(value) for value in known["intrinsic_matrix"])
        return Intrinsics(fx, fy, cx, cy, int(known["width"]), int(known["height"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path!r} holds no intrinsics: {error}", hint="as Open3D writes them") from error


def _files_of_poses(folder: str) -> list[str]:
    names = ("trajectory.log", "groundtruth.txt", "intrinsic.json", *INTRINSICS_FILES)
    found = [os.path.join(folder, name) for name in names if os.path.isfile(os.path.join(folder, name))]
    return found + [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".pose.txt")]


def _existing(folder: str, name: str) -> str | None:
    path = os.path.join(folder, name)
    return path if os.path.isfile(path) else None


def _numbers(path: str) -> list[float]:
    with open(path, encoding="utf-8", errors="replace") as file:
        cells = file.read(100_000).split()
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        raise SourceError(f"{path!r} holds something else than numbers: {error}", hint="look at the file") from error
