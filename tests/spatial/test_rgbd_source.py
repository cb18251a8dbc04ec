"""``rgbd:``: three layouts of the same recording give the same frames; what is broken is said; end to end."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from box_room_samples import ROOM

from perception.sources import open_source
from perception.sources.rgbd import RgbdFolder
from streammem.banks.spatial import geometry
from streammem.benchmarks._boxes import looking, pose
from streammem.config import PerceptionConfig
from streammem.errors import SourceError, SourceNotFound
from streammem.model import Intrinsics

CAMERA = Intrinsics(32.0, 32.0, 31.5, 23.5, 64, 48)
RED_KITCHEN = Path(__file__).parents[3] / "shared" / "data" / "redkitchen"


def recording(layout: str, folder: Path, frames: int = 6) -> list[np.ndarray]:
    """Write a short walk in one of the layouts; returns its matrices."""
    folder.mkdir()
    matrices = [looking(3.0, 2.5, 1.3, 0.02 * n + (1.0 if n >= 3 else 0.0)) for n in range(frames)]
    trajectory, rgb, depths, truth = [], [], [], []
    for n, matrix in enumerate(matrices):
        metres, _ = ROOM.render(pose(matrix), matrix, CAMERA)
        units = np.rint(metres * (5000 if layout == "tum" else 1000)).astype(np.uint16)
        colour = np.full((48, 64, 3), 40 * n, np.uint8)
        rows = "\n".join(" ".join(f"{value:.9f}" for value in row) for row in matrix)
        if layout == "seven":
            names = (f"frame-{n:06d}.color.png", f"frame-{n:06d}.depth.png")
            (folder / f"frame-{n:06d}.pose.txt").write_text(rows if n != 4 else rows.replace("1.300000000", "nan"))
        else:
            for below in ("rgb", "depth"):
                (folder / below).mkdir(exist_ok=True)
            names = (f"rgb/{n:05d}.png", f"depth/{n:05d}.png")
            trajectory.append(f"{n} {n} {n + 1}\n{rows}\n")
            stamp = f"{1305031102 + n}.5"
            rgb.append(f"{stamp} {names[0]}\n")
            depths.append(f"{1305031102 + n}.51 {names[1]}\n")
            q = geometry.quaternion_from_rotation(matrix[:3, :3])
            truth.append(f"{1305031102 + n}.49 " + " ".join(f"{v:.12f}" for v in (*matrix[:3, 3], *q)) + "\n")
        cv2.imwrite(str(folder / names[0]), colour)
        cv2.imwrite(str(folder / names[1]), units)
    (folder / "camera-intrinsics.txt").write_text("32 0 31.5\n0 32 23.5\n0 0 1\n")
    if layout == "open3d":
        (folder / "trajectory.log").write_text("".join(trajectory))
    if layout == "tum":
        for name, lines in (("rgb.txt", rgb), ("depth.txt", depths), ("groundtruth.txt", truth)):
            (folder / name).write_text("# timestamp ...\n" + "".join(lines))
    return matrices


@pytest.mark.parametrize("layout", ["seven", "open3d", "tum"])
def test_every_layout_gives_the_same_frames(layout: str, tmp_path: Path) -> None:
    matrices = recording(layout, tmp_path / "walk")
    source = open_source(f"rgbd:{tmp_path / 'walk'}", PerceptionConfig(fps=1.0))
    frames = list(source.frames())
    assert len(frames) == 6 and source.info.kind == "rgbd"
    lost = {4} if layout == "seven" else set()
    for n, (frame, matrix) in enumerate(zip(frames, matrices, strict=True)):
        assert frame.sensed.intrinsics == CAMERA
        if n in lost:
            assert frame.sensed.pose is None and frame.sensed.depth_m is None, "a lost pose is never the identity"
            continue
        assert frame.sensed.pose is not None and frame.sensed.pose.frame_id == "walk"
        assert np.allclose(geometry.matrix_of(frame.sensed.pose), matrix, atol=1e-6)
        # The camera moves in small turns, then jumps by a radian: depth comes at the first and at the jump.
        assert (frame.sensed.depth_m is not None) == (n in (0, 3))
    truth, _ = ROOM.render(pose(matrices[3]), matrices[3], CAMERA)
    assert frames[3].sensed.depth_m is not None and np.abs(frames[3].sensed.depth_m - truth).max() < 0.002
    late = list(source.frames(start_ns=frames[3].media_ns))
    assert late[0].sensed.depth_m is not None and late[0].sensed.pose == frames[3].sensed.pose, "resuming is the same"
    if layout == "tum":
        assert [frame.media_ns for frame in frames] == [n * 10**9 for n in range(6)]


def test_what_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound):
        open_source(f"rgbd:{tmp_path / 'nothing'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="none of the known layouts"):
        open_source(f"rgbd:{tmp_path / 'empty'}")
    recording("open3d", tmp_path / "short", 3)
    (tmp_path / "short" / "depth" / "00002.png").unlink()
    with pytest.raises(SourceError, match="3 colour pictures, 2 depth maps and 3 poses"):
        open_source(f"rgbd:{tmp_path / 'short'}")
    recording("seven", tmp_path / "camera", 2)
    (tmp_path / "camera" / "camera-intrinsics.txt").write_text("585 0")
    with pytest.raises(SourceError, match="2 numbers, not 3 x 3"):
        open_source(f"rgbd:{tmp_path / 'camera'}")
    (tmp_path / "camera" / "camera-intrinsics.txt").unlink()
    guessed = RgbdFolder(str(tmp_path / "camera"), text="x")
    assert any("PrimeSense" in note for note in guessed.health.notes)


@pytest.mark.data
@pytest.mark.skipif(not RED_KITCHEN.exists(), reason="the shared recordings are not here")
def test_the_kitchen_is_mapped_to_the_voxel(tmp_path: Path) -> None:
    """Planes of a real kitchen: what lies in front of every occupied voxel was looked through."""
    from streammem.banks.spatial.spatial_memory import SpatialBank
    from streammem.model import Observation
    from streammem.storage.open_part import record_from_observation

    source = RgbdFolder(str(RED_KITCHEN), text="rgbd:redkitchen")
    bank = SpatialBank()
    for number in range(0, 200, 20):
        sensed = source.sensed(number)
        made = Observation(
            stream="kitchen",
            seq=number,
            capture_ns=number * 10**9,
            depth_m=source.depth_m(number),
            pose=sensed.pose,
            intrinsics=sensed.intrinsics,
        )
        bank.observe(record_from_observation(made))
    view = bank.maps["kitchen"].view("redkitchen")
    assert bank.maps["kitchen"].rejected == {} and 5000 < len(view.tree) < 40_000
    assert view.map_version == 0 and len(view.steps) == 10
    # A frame that wasn't used: its points fall on voxels that are there already, within one voxel.
    sensed, depth = source.sensed(50), source.depth_m(50)
    assert sensed.pose is not None and sensed.intrinsics is not None and depth is not None
    points, _, _ = geometry.unproject(depth, sensed.intrinsics, sensed.pose, step=7)
    near = [view.tree.nearest(point, 1)[1][0] for point in points[:: max(1, len(points) // 100)]]
    assert float(np.median(near)) < 0.05 * math.sqrt(3)
