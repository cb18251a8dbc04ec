"""One suite of contract tests over every environment: rays in NumPy, MuJoCo, and Habitat where it is installed."""

from __future__ import annotations

import importlib.util
import math
import random
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from nav.env import (
    ACTIONS,
    FORWARD_M,
    AgentPose,
    CameraSpec,
    Env,
    moved,
    optical_rotation,
    quaternion_xyzw,
    rotation_of,
)
from nav.grid_env import open_grid
from nav.homes.floor import FloorMap
from nav.homes.layout import make_home
from streammem.errors import InputError, StreammemError

SEED = 3


def gl_env(camera: CameraSpec | None = None) -> Env:
    """MuJoCo with a context that draws, or a visible skip."""
    from nav.mujoco_env import open_mujoco

    try:
        env = open_mujoco(SEED, camera=camera)
        env.observe()
    except StreammemError as error:
        pytest.skip(f"no MuJoCo picture here: {error}")
    return env


@pytest.fixture(params=["grid", pytest.param("mujoco", marks=pytest.mark.gl), "habitat"])
def env(request: pytest.FixtureRequest) -> Iterator[Env]:
    if request.param == "grid":
        made: Env = open_grid(SEED)
    elif request.param == "mujoco":
        made = gl_env()
    else:
        if importlib.util.find_spec("habitat_sim") is None:
            pytest.skip("habitat-sim isn't installed here (docs/findingdory.md says how)")
        import os

        from nav.habitat_env import HabitatSettings, open_habitat

        scene = os.environ.get("STREAMMEM_HABITAT_SCENE", "")
        if not scene:
            pytest.skip("set STREAMMEM_HABITAT_SCENE to a scene file (.glb)")
        made = open_habitat(HabitatSettings(scene=scene))
    made.reset(1)
    yield made
    made.close()


def test_it_is_an_env(env: Env) -> None:
    assert isinstance(env, Env)
    seen = env.observe()
    size = (env.camera.height, env.camera.width)
    assert seen.rgb.shape == (*size, 3) and seen.rgb.dtype == np.uint8
    assert seen.depth_m.shape == size and seen.depth_m.dtype == np.float32
    assert seen.instances.shape == size and seen.instances.dtype == np.int32
    assert np.isfinite(seen.depth_m).all() and (seen.depth_m >= 0).all() and (seen.depth_m < 1000).all()
    assert seen.rgb.std() > 1


def test_the_same_seed_gives_the_same_moment(env: Env) -> None:
    first, other, again = env.reset(5), env.reset(6), env.reset(5)
    assert first.pose == again.pose != other.pose
    assert np.array_equal(first.rgb, again.rgb) and np.array_equal(first.depth_m, again.depth_m)
    assert first.time_ns == again.time_ns


def test_primitive_actions(env: Env) -> None:
    before = env.observe().pose
    left = env.step("left").pose
    assert math.remainder(left.yaw - before.yaw, math.tau) == pytest.approx(math.radians(10), abs=1e-5)
    assert math.remainder(env.step("right").pose.yaw - before.yaw, math.tau) == pytest.approx(0, abs=1e-5)
    assert env.step("stop").pose[:3] == pytest.approx(before[:3], abs=1e-5)
    moves = 0
    for _ in range(40):
        pose = env.observe().pose
        seen = env.step("forward")
        went = math.dist(pose[:2], seen.pose[:2])
        # All the way or not at all: there is no sliding.
        assert went == pytest.approx(0 if seen.collided else FORWARD_M, abs=1e-4)
        if seen.collided:
            env.step("left")
        else:
            moves += 1
            expected = moved(pose, "forward")
            assert seen.pose[:2] == pytest.approx(expected[:2], abs=1e-4)
        assert env.is_navigable(seen.pose)
    assert moves > 3
    with pytest.raises(InputError, match="no action"):
        env.step("fly")  # type: ignore[arg-type]


def test_time_goes_on_by_steps(env: Env) -> None:
    times = [env.observe().time_ns] + [env.step(action).time_ns for action in ACTIONS]
    assert len(set(np.diff(times))) == 1 and times[1] > times[0]


def test_depth_agrees_with_the_pose(env: Env) -> None:
    """The floor is at z = 0 below the base: pixels that show it unproject to it."""
    seen = env.observe()
    k = env.camera.intrinsics
    rotation, position = rotation_of(seen.camera.q_xyzw), np.array(seen.camera.position_m)
    v, u = np.mgrid[0 : k.height, 0 : k.width] + 0.5
    points = np.stack([(u - k.cx) / k.fx, (v - k.cy) / k.fy, np.ones_like(u)], axis=-1) * seen.depth_m[..., None]
    z = (points @ rotation.T + position)[..., 2][seen.depth_m > 0] - seen.pose.z
    assert z.min() > -0.02
    assert z.max() < env.camera.above_floor_m + 0.2  # it looks down


def test_ways(env: Env) -> None:
    poses = [env.reset(seed).pose for seed in range(6)]
    for a, b in pairwise(poses):
        length = env.geodesic(a, [b])
        assert length == pytest.approx(env.geodesic(b, [a]), abs=0.02)
        assert length >= math.dist(a[:2], b[:2]) - 1e-4
        assert env.geodesic(a, [b, a]) == pytest.approx(0, abs=1e-3)
        path = env.path(a, b)
        walked = sum(math.dist(p[:2], q[:2]) for p, q in pairwise(path))
        assert walked == pytest.approx(length, rel=0.06, abs=0.1)
        assert path[0][:2] == pytest.approx(a[:2], abs=0.3) and path[-1][:2] == pytest.approx(b[:2], abs=0.3)
    assert env.geodesic(poses[0], [(1e4, 1e4, 0)]) == math.inf
    assert env.path(poses[0], (1e4, 1e4, 0)) == []
    assert env.snap((1e4, 1e4, 0)) is None and not env.is_navigable((1e4, 1e4, 0))
    with pytest.raises(InputError, match="doesn't fit"):
        env.set_pose(AgentPose(1e4, 1e4, 0, 0))


def test_topdown_says_what_is_navigable(env: Env) -> None:
    grid, (x0, y0) = env.topdown(0.05)
    rng = random.Random(0)
    agree = 0
    for _ in range(200):
        row, col = int(rng.random() * grid.shape[0]), int(rng.random() * grid.shape[1])
        agree += grid[row, col] == env.is_navigable((x0 + (col + 0.5) * 0.05, y0 + (row + 0.5) * 0.05, 0.0))
    assert agree >= 196 and 0.05 < grid.mean() < 1


def test_entities_are_where_they_are_said_to_be(env: Env) -> None:
    entities = env.entities()
    by_kind = {kind: [e for e in entities if e.kind == kind] for kind in ("object", "receptacle", "room")}
    numbers = [e.instance for e in entities if e.instance]
    assert len(set(numbers)) == len(numbers) and len({e.entity_id for e in entities}) == len(entities)
    if not by_kind["object"]:
        pytest.skip("this scene has no objects")
    seen_somewhere = 0
    for entity in by_kind["object"][:6]:
        place = env.snap(entity.position)
        assert place is not None
        env.set_pose(AgentPose(*place, math.atan2(entity.position[1] - place[1], entity.position[0] - place[0])))
        seen = env.observe()
        if seen.coverage(entity.instance) < 0.001:
            continue
        seen_somewhere += 1
        v, u = np.nonzero(seen.instances == entity.instance)
        k = env.camera.intrinsics
        depth = seen.depth_m[v, u]
        points = np.stack([(u + 0.5 - k.cx) / k.fx * depth, (v + 0.5 - k.cy) / k.fy * depth, depth], axis=1)
        world = points @ rotation_of(seen.camera.q_xyzw).T + np.array(seen.camera.position_m)
        assert np.abs(np.median(world, axis=0) - entity.position).max() < 0.3
    assert seen_somewhere >= 2
    for room in by_kind["room"]:
        assert env.region_of(room.position) == room.entity_id
    assert env.region_of((1e4, 1e4, 0)) is None


@pytest.mark.gl
def test_mujoco_draws_what_the_rays_say() -> None:
    """Two renderers that share nothing but the list of solids: ids equal, depth to 0.1 mm, except on edges."""
    grid, mujoco = open_grid(SEED), gl_env()
    try:
        for i in range(8):
            pose = grid.home.start(random.Random(i))
            grid.set_pose(pose)
            mujoco.set_pose(pose)
            a, b = grid.observe(), mujoco.observe()
            same = a.instances == b.instances
            assert same.mean() > 0.995
            assert np.median(np.abs(a.depth_m - b.depth_m)[same]) < 1e-5
            assert np.quantile(np.abs(a.depth_m - b.depth_m)[same], 0.98) < 1e-3
    finally:
        mujoco.close()


@pytest.mark.gl
def test_a_carried_thing_is_gone_and_comes_back_elsewhere() -> None:
    env = gl_env()
    try:
        thing = env.home.things[0]  # type: ignore[attr-defined]

        def looked() -> float:
            x, y, _ = where
            one = env.home.receptacle(thing.receptacle)  # type: ignore[attr-defined]
            front = (x + math.sin(one.yaw) * 0.75, y - math.cos(one.yaw) * 0.75, 0.0)
            place = env.snap(front)
            assert place is not None
            env.set_pose(AgentPose(*place, math.atan2(y - place[1], x - place[0])))
            return env.observe().coverage(thing.instance)

        where = env.where(thing.entity_id)  # type: ignore[attr-defined]
        assert looked() > 0.001
        env.pick(thing.entity_id)  # type: ignore[attr-defined]
        assert looked() == 0
        env.place(thing.receptacle, thing.slot)  # type: ignore[attr-defined]
        assert looked() > 0.001
        env.pick(thing.entity_id)  # type: ignore[attr-defined]
        env.reset()
        assert looked() > 0.001
    finally:
        env.close()


def test_camera_by_hand() -> None:
    """Looking along +x from 1.31 m, tilted 30 degrees down: the middle of the picture meets the floor 2.269 m ahead."""
    camera = CameraSpec(480, 640)
    k = camera.intrinsics
    assert k.fx == pytest.approx(609.28, abs=0.01) and k.fy == k.fx and (k.cx, k.cy) == (240, 320)
    assert math.degrees(camera.vfov_rad) == pytest.approx(55.4, abs=0.05)
    position, rotation = camera.place(AgentPose(1.0, 2.0, 0.0, 0.0))
    assert position == pytest.approx([1.0, 2.0, 1.31])
    ahead = rotation @ [0, 0, 1]
    assert ahead == pytest.approx([math.cos(math.pi / 6), 0, -0.5])
    hit = position + ahead * (1.31 / 0.5)
    assert hit == pytest.approx([1 + 2.269, 2.0, 0.0], abs=1e-3)
    # Right of the picture is -y for a robot that looks along +x; a level camera's down is -z.
    assert optical_rotation(0.0, 0.0) == pytest.approx(np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]))
    assert quaternion_xyzw(optical_rotation(0.0, 0.0)) == pytest.approx((-0.5, 0.5, -0.5, 0.5)) or quaternion_xyzw(
        optical_rotation(0.0, 0.0)
    ) == pytest.approx((0.5, -0.5, 0.5, 0.5))


def test_quaternions_are_rotations() -> None:
    rng = random.Random(0)
    for _ in range(300):
        matrix = optical_rotation(rng.uniform(-7, 7), rng.uniform(-1.5, 1.5))
        q = quaternion_xyzw(matrix)
        assert math.hypot(*q) == pytest.approx(1) and q[3] >= 0
        assert rotation_of(q) == pytest.approx(matrix, abs=1e-9)
        assert np.linalg.det(matrix) == pytest.approx(1)


def test_homes_keep_their_promises() -> None:
    for seed in range(12):
        home = make_home(seed)
        assert 3 <= len(home.rooms) <= 7 and 8 <= len(home.receptacles) <= 14 and 12 <= len(home.things) <= 20
        assert {home.room_at(*home.floor.middle(tuple(cell))) for cell in np.argwhere(home.floor.free)} == {  # type: ignore[arg-type]
            room.entity_id for room in home.rooms
        }
        assert len(np.unique(home.floor.islands[home.floor.free])) == 1
        assert len({(t.model.category, t.color, t.design) for t in home.things}) == len(home.things)
        assert len({(t.receptacle, t.slot) for t in home.things}) == len(home.things)
    assert make_home(4).things == make_home(4).things
    with pytest.raises(InputError, match="rooms are 3 to 7"):
        make_home(0, rooms=12)


def test_ways_on_a_floor_against_networkx() -> None:
    """The same moves as a graph of its own; walls are not cut at their corners."""
    import networkx as nx

    rng = np.random.default_rng(0)
    free = rng.random((14, 17)) > 0.25
    floor = FloorMap(free, (0.0, 0.0), 1.0)
    graph = nx.Graph()
    for row, col in np.argwhere(free):
        graph.add_node((row, col))
        for other in floor._around((int(row), int(col))):
            graph.add_edge((row, col), other, weight=math.hypot(other[0] - row, other[1] - col))
    start = tuple(int(v) for v in np.argwhere(free)[0])
    expected = nx.single_source_dijkstra_path_length(graph, start)
    field = floor.field(start)  # type: ignore[arg-type]
    for row, col in np.argwhere(free):
        assert field[row, col] == pytest.approx(expected.get((row, col), math.inf))
    narrow = FloorMap(np.array([[1, 0], [0, 1]], bool), (0.0, 0.0), 1.0)
    assert narrow.field((1, 1))[0, 0] == math.inf
