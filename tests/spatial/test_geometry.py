"""Depth and poses: points computed by hand for every convention, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammem.banks.spatial import geometry as g
from streammem.errors import ObservationError
from streammem.model import Intrinsics, Pose

CAMERA = Intrinsics(100.0, 200.0, 4.0, 2.0, 9, 5)
HERE = Pose((1.0, 2.0, 3.0), (0.0, 0.0, 0.0, 1.0))


def test_a_pixel_by_hand() -> None:
    depth = np.zeros((5, 9), np.float32)
    depth[4, 8] = 2.0
    points, rows, columns = g.unproject(depth, CAMERA, HERE)
    # x = (8 - 4) / 100 * 2, y = (4 - 2) / 200 * 2
    assert np.allclose(points, [[1.08, 2.02, 5.0]]) and (rows.tolist(), columns.tolist()) == ([4], [8])
    assert np.allclose([part[0] for part in g.project(points, CAMERA, HERE)], [4, 8, 2])


def test_a_turned_camera_by_hand() -> None:
    # 90 degrees about y (down): what was ahead (z) is now to the right of the map (x), its right (x) is -z.
    turned = Pose((0.0, 0.0, 0.0), (0.0, math.sqrt(0.5), 0.0, math.sqrt(0.5)))
    depth = np.zeros((5, 9), np.float32)
    depth[2, 8] = 2.0
    assert np.allclose(g.unproject(depth, CAMERA, turned)[0], [[2.0, 0.0, -0.08]])


def test_opengl_and_habitat_look_along_minus_z() -> None:
    pose = g.pose_from_opengl(np.eye(4))
    depth = np.zeros((5, 9), np.float32)
    depth[0, 4] = 1.0  # above the middle
    assert np.allclose(g.unproject(depth, CAMERA, pose)[0], [[0.0, 0.01, -1.0]])
    assert np.allclose(np.abs(pose.q_xyzw), [1, 0, 0, 0])
    # Habitat: w first; a quarter turn to the left about y: ahead is -x.
    half = math.sqrt(0.5)
    left = g.pose_from_habitat((5.0, 1.5, 0.0), (half, 0.0, half, 0.0))
    assert np.allclose(g.unproject(depth, CAMERA, left)[0], [[4.0, 1.51, 0.0]])


def test_depth_units() -> None:
    raw = np.array([[0, 1, 1500, 65535]], np.uint16)
    assert g.depth_m_from_mm(raw).tolist() == [[0.0, float(np.float32(0.001)), 1.5, 0.0]]
    with pytest.raises(ObservationError, match="uint16"):
        g.depth_m_from_mm(raw.astype(np.float32))
    assert np.allclose(g.depth_m_from_normalised(np.array([[[0.0], [0.25], [1.0]]])), [[0, 2.5, 0]])
    ray = np.full((5, 9), 2.0, np.float32)
    planar = g.planar_from_ray_depth(ray, CAMERA)
    assert planar[2, 4] == 2.0 and planar[4, 8] == pytest.approx(2 / math.sqrt(1 + 0.04**2 + 0.01**2))


def test_robot_axes() -> None:
    assert (g.optical_from_robot_body() @ [1, 0, 0]).tolist() == [0, 0, 1]  # ahead
    assert (g.optical_from_robot_body() @ [0, 1, 0]).tolist() == [-1, 0, 0]  # left
    assert (g.optical_from_robot_body() @ [0, 0, 1]).tolist() == [0, -1, 0]  # up


@given(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(x * x for x in q) > 0.01))
def test_quaternions_come_back(q: tuple[float, float, float, float]) -> None:
    rotation = g.rotation_from_quaternion(q)
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.allclose(g.rotation_from_quaternion(g.quaternion_from_rotation(rotation)), rotation, atol=1e-9)


@pytest.mark.parametrize("depth", [np.zeros((5, 9), np.float32), np.full((5, 9), np.nan, np.float32)])
def test_depth_without_readings(depth: np.ndarray) -> None:
    assert len(g.unproject(depth, CAMERA, HERE)[0]) == 0


def test_what_is_refused() -> None:
    with pytest.raises(ObservationError, match="intrinsics are of a 9 x 5 picture, the depth map is 5 x 9"):
        g.unproject(np.ones((9, 5), np.float32), CAMERA, HERE)
    with pytest.raises(ObservationError, match="float metres"):
        g.unproject(np.ones((5, 9), np.uint16), CAMERA, HERE)
    lost = np.full((4, 4), np.nan)
    for wrong in (lost, np.eye(3), np.diag([1.0, 1, -1, 1]), np.eye(4) * 2):
        with pytest.raises(ObservationError):
            g.pose_from_matrix(wrong)
    with pytest.raises(ObservationError, match="no rotation"):
        g.rotation_from_quaternion((0, 0, 0, 0))


def test_a_smaller_depth_map_keeps_its_rays() -> None:
    half = g.camera_for(Intrinsics(100, 100, 49.5, 29.5, 100, 60), (30, 50))
    assert (half.fx, half.cx, half.cy) == (50, 24.5, 14.5)


def test_the_gate() -> None:
    gate = g.PoseGate(jump_m=1.0, confirm=3)

    def at(x: float, q: tuple[float, float, float, float] = (0, 0, 0, 1)) -> str:
        return gate.judge(Pose((x, 0.0, 0.0), q))

    assert [at(0), at(0.9), at(math.nan), at(1.0, (0, 0, 0, 0)), at(9), at(1.5)] == [
        "good",
        "good",
        "nan",
        "quaternion",
        "jump",
        "good",
    ]
    assert [at(20), at(30), at(20), at(20.1), at(20.2)] == ["jump", "jump", "jump", "jump", "moved"]
