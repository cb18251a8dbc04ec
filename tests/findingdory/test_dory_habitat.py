"""Habitat's conventions by hand-computed points, the adapter over a stand-in of its API, and the runner's agent."""

from __future__ import annotations

import ast
import io
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from habitat_stand_in import Quaternion, stand_in

from nav import habitat_agent, habitat_frames
from nav.env import AgentPose, CameraSpec, Env, rotation_of
from nav.findingdory.answering import serve
from nav.habitat_agent import AnswerProcess, StreammemAgent, goal_state
from nav.habitat_env import HabitatEnv, HabitatSettings, load_habitat
from nav.habitat_frames import (
    camera_pose_in_map,
    coefficients_xyzw,
    habitat_from_map,
    habitat_rotation_from_yaw,
    map_from_habitat,
    metres_from_normalised,
    quaternion_from_matrix,
    rotation_matrix,
    yaw_from_habitat,
)
from streammem.errors import InputError, ModelUnavailable

HALF = math.sqrt(0.5)


def test_axes_by_hand() -> None:
    # One metre ahead of the identity (along -z), to the right (x), up (y).
    assert map_from_habitat((0, 0, -1)) == pytest.approx([1, 0, 0])
    assert map_from_habitat((1, 0, 0)) == pytest.approx([0, -1, 0])
    assert map_from_habitat((0, 1, 0)) == pytest.approx([0, 0, 1])
    assert habitat_from_map(map_from_habitat((3, 5, 7))) == pytest.approx([3, 5, 7])
    assert np.linalg.det(habitat_frames.MAP_FROM_HABITAT) == pytest.approx(1)


def test_quaternion_orders_by_hand() -> None:
    """A left turn of 90 degrees about +y: w = y = sqrt(1/2). Lists are x, y, z, w; numpy-quaternion is w, x, y, z."""
    left = (0.0, HALF, 0.0, HALF)
    for rotation in (left, Quaternion(HALF, 0, HALF, 0), SimpleNamespace(scalar=HALF, vector=(0, HALF, 0))):
        assert coefficients_xyzw(rotation) == pytest.approx(left)
        assert yaw_from_habitat(rotation) == pytest.approx(math.pi / 2)
    # 60 degrees; mixed up (w first), the same four numbers would be a turn about another axis.
    w, y = math.cos(math.pi / 6), math.sin(math.pi / 6)
    assert yaw_from_habitat((0, y, 0, w)) == pytest.approx(math.pi / 3)
    assert abs(yaw_from_habitat((w, 0, y, 0)) - math.pi / 3) > 0.5
    with pytest.raises(ValueError, match="norm"):
        coefficients_xyzw((1, 1, 1, 1))
    for yaw in np.linspace(-3, 3, 25):
        q = quaternion_from_matrix(habitat_rotation_from_yaw(float(yaw)))
        assert yaw_from_habitat(q) == pytest.approx(yaw)
        assert rotation_matrix(q) == pytest.approx(habitat_rotation_from_yaw(float(yaw)), abs=1e-9)


def test_the_camera_is_the_same_by_both_roads() -> None:
    """Habitat's state converted, and our own camera on our own pose."""
    camera = CameraSpec(480, 640)
    for pose in (AgentPose(1, 2, 0, 0), AgentPose(-3, 0.5, 0.2, 2.1), AgentPose(0, 0, 0, -1.0)):
        q = quaternion_from_matrix(habitat_rotation_from_yaw(pose.yaw))
        where, rotation = camera_pose_in_map(habitat_from_map(pose[:3]), q, camera.above_floor_m, camera.tilt_rad)
        expected_where, expected = camera.place(pose)
        assert where == pytest.approx(expected_where)
        assert rotation_of(rotation) == pytest.approx(expected, abs=1e-9)


def test_depth_units() -> None:
    depth = np.array([[[0.0], [0.25], [1.0]]], np.float32)
    metres = metres_from_normalised(depth)
    assert metres.dtype == np.float32 and metres.tolist() == [[0.0, 2.5, 0.0]]


@pytest.fixture
def env() -> HabitatEnv:
    return HabitatEnv(HabitatSettings(scene="flat.glb", camera=CameraSpec(24, 32)), module=stand_in())


def test_the_adapter_keeps_the_protocol(env: HabitatEnv) -> None:
    assert isinstance(env, Env)
    seen = env.reset(3)
    assert seen.rgb.shape == (32, 24, 3) and seen.depth_m.shape == (32, 24) and seen.instances.dtype == np.int32
    assert env.reset(3).pose == seen.pose
    env.set_pose(AgentPose(1.0, 2.0, 0.0, 0.0))
    assert env.step("forward").pose[:2] == pytest.approx((1.25, 2.0))
    # What the simulator was told: 1.25 m along the map's x is -1.25 in Habitat's z, 2 m to the left is -2 in x.
    assert env._sim.agent.state.position == pytest.approx([-2.0, 0.0, -1.25], abs=1e-6)
    assert math.degrees(env.step("left").pose.yaw) == pytest.approx(10)
    assert env._sim.agent.state.rotation == pytest.approx([0, math.sin(math.radians(5)), 0, math.cos(math.radians(5))])
    env.set_pose(AgentPose(4.9, 0.0, 0.0, 0.0))
    blocked = env.step("forward")
    assert blocked.collided and blocked.pose[:2] == (4.9, 0.0)
    assert env.geodesic((0, 0, 0), [(3, 4, 0), (1, 0, 0)]) == pytest.approx(1)
    assert env.geodesic((0, 0, 0), [(40, 0, 0)]) == math.inf and env.snap((40, 0, 0)) is None
    assert [p[:2] for p in env.path((0, 0, 0), (3, 4, 0))] == [(0, 0), (3, 4)]
    with pytest.raises(InputError, match="doesn't fit"):
        env.set_pose(AgentPose(40, 0, 0, 0))


def test_the_adapter_turns_maps_round(env: HabitatEnv) -> None:
    """The stand-in's floor reaches from -5 to 5; a corner is missing where Habitat's x > 4 and z > 3."""
    grid, (x0, y0) = env.topdown(0.5)
    assert (x0, y0) == pytest.approx((-5, -5)) and grid.shape == (20, 20)
    for row, col in np.ndindex(grid.shape):
        point = (x0 + (col + 0.5) * 0.5, y0 + (row + 0.5) * 0.5, 0.0)
        assert grid[row, col] == env.is_navigable(point)
    assert not grid[0, 0] and grid[-1, -1]


def test_entities_of_a_labelled_scene(env: HabitatEnv) -> None:
    kinds = {entity.entity_id: (entity.kind, entity.category, entity.instance) for entity in env.entities()}
    assert kinds == {
        "table_1": ("receptacle", "table", 4),
        "mug_1": ("object", "mug", 9),
        "kitchen_0": ("room", "kitchen", 0),
    }
    assert next(e for e in env.entities() if e.entity_id == "mug_1").position == pytest.approx((2.0, -1.0, 0.8))
    assert env.region_of((1, 1, 0)) == "kitchen_0" and env.region_of((-1, 1, 0)) is None


def test_what_the_simulator_is_told(env: HabitatEnv) -> None:
    configuration, agents = env._sim.configuration
    assert configuration.gpu_device_id == -1 and configuration.allow_sliding is False
    sensors = {spec.uuid: spec for spec in agents[0].sensor_specifications}
    assert set(sensors) == {"color", "depth", "semantic"}
    assert sensors["depth"].resolution == [32, 24] and sensors["depth"].hfov == pytest.approx(43)
    assert sensors["depth"].position == [0.0, 1.31, 0.0] and sensors["depth"].orientation[0] < 0
    assert env._sim.mesh.cell_height == 0.05 and env._sim.mesh.agent_radius == 0.25


def test_without_habitat_the_error_says_how_to_get_it() -> None:
    if "habitat_sim" in sys.modules:
        pytest.skip("habitat-sim is installed here")
    with pytest.raises(ModelUnavailable, match="conda install habitat-sim"):
        load_habitat()


# ---- the runner's agent


class Sent:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, **fields: Any) -> None:
        self.sent.append(fields)

    def flush(self) -> None:
        pass


class Said:
    def __init__(self, *answers: list[int] | None) -> None:
        self.answers, self.asked = list(answers), []  # type: ignore[var-annotated]

    def ask(self, request: dict[str, Any]) -> list[int] | None:
        self.asked.append(request)
        return self.answers.pop(0)


def observation(x: float, y: float, yaw: float, **more: Any) -> dict[str, Any]:
    q = quaternion_from_matrix(habitat_rotation_from_yaw(yaw))
    state = SimpleNamespace(position=habitat_from_map((x, y, 0)), rotation=Quaternion(q[3], *q[:3]))
    return {
        "can_take_action": np.array([0]),
        "manipulation_mode": np.array([0]),
        "agent_state": state,
        "head_rgb": np.full((64, 48, 3), 90, np.uint8),
        "head_depth": np.full((64, 48, 1), 0.5, np.float32),
        "lang_memory_goal": "Go to a mug.",
        **more,
    }


def test_the_agent_of_the_runner() -> None:
    sent, said = Sent(), Said([1], [0, 2], None, [77])
    agent = StreammemAgent({"stream": "dory"}, producer=sent, answers=said)
    agent.episode_index, agent.task_id = 14, "task_1"
    agent.reset()
    for i in range(3):
        assert agent.act(observation(i, 0.0, 0.0, manipulation_mode=np.array([int(i == 2)]))) == 0
    assert len(sent.sent) == 3 and sent.sent[1]["pose"][0] == pytest.approx((1, 0, 1.31))
    assert sent.sent[1]["capture_ns"] - sent.sent[0]["capture_ns"] == 14_400_000_000
    assert float(sent.sent[0]["depth_m"][0, 0]) == 5.0
    # The head looks to the right of the base while the arm works.
    forward = rotation_of(sent.sent[2]["pose"][1]) @ [0, 0, 1]
    assert forward == pytest.approx([0, -math.cos(math.pi / 6), -0.5], abs=1e-9)

    now = {"can_take_action": np.array([1])}
    first = agent.act(observation(2, 0.0, 0.0, **now))
    assert first["action"] == "high_level_policy_action"  # type: ignore[index]
    assert first["action_args"]["nav_indices"] == [1] and first["action_args"]["nav_mode_flag"] == [True]  # type: ignore[index]
    assert said.asked[0] == {
        "question": "Go to a mug.", "task_id": "task_1", "stream": "dory", "session": "ep_14", "frames": 3,
    }  # fmt: skip
    # It stands one metre beyond, looking away: it turns round, drives, turns back, and stops.
    x, yaw, actions = 2.0, 0.0, []
    for _ in range(80):
        action = agent.act(observation(x, 0.0, yaw, **now))
        actions.append(action)
        if action == 1:
            x += 0.25 * math.cos(yaw)
        elif action in (2, 3):
            yaw += math.radians(10) * (1 if action == 2 else -1)
        else:
            break
    assert actions[-1] == {"action": "pddl_intermediate_stop", "action_args": {}}
    assert x == pytest.approx(1.0, abs=0.2) and math.cos(yaw) > 0.99

    agent.reset_new_task("task_57")
    several = agent.act(observation(x, 0.0, yaw, **now))
    assert several["action_args"]["nav_mode_flag"] == [True, False]  # type: ignore[index]
    turned = several["action_args"]["nav_goal_states"][1]  # type: ignore[index]
    assert yaw_from_habitat(turned.rotation) == pytest.approx(-math.pi / 2)
    assert yaw_from_habitat(agent._stored[2][0].rotation) == pytest.approx(0)
    for reason in ("response_error", "out_of_bounds_pred"):
        agent.reset_new_task("task_3")
        assert agent.act(observation(x, 0.0, yaw, **now))["action_args"]["nav_indices"] == [-1]  # type: ignore[index]
        assert agent.failures[reason] == 1
        assert agent.act(observation(x, 0, yaw, **now))["action"] == "low_level_policy_failure"  # type: ignore[index]


def test_the_agent_fills_a_real_memory(tmp_path: Path) -> None:
    """Over a real service: what it sends is accepted, and a frame's number is its record and its time."""
    import streammem.memory
    from nav.findingdory.clock import FrameIndex
    from streammem.config import Config
    from streammem.service import Service

    config = Config()
    with (
        streammem.memory.open(tmp_path / "memory", config=config) as memory,
        Service(memory, config=config.service, bind="tcp://127.0.0.1:*") as service,
    ):
        agent = StreammemAgent({"address": service.address, "stream": "dory"}, answers=Said([3]))
        agent.episode_index = 7
        agent.reset()
        for i in range(5):
            agent.act(observation(i, 0.5, 0.3))
        asked = agent.act(observation(5, 0.5, 0.3, can_take_action=1))
        assert asked["action_args"]["nav_indices"] == [3] and agent._producer.refused == {}  # type: ignore[index]
        index = FrameIndex("dory", "ep_7", 5)
        for i in range(5):
            record = memory.record(index.record_id(i))
            assert record is not None and record.t_start_ns == index.capture_ns(i)
            assert record.pose is not None and record.pose.position_m == pytest.approx((i, 0.5, 1.31))
            assert memory.thumbnail(record.record_id) and record.arrays["depth_m"].shape == (64, 48)
        agent._producer.close()


def test_the_agent_never_reads_the_truth() -> None:
    """An observation whose oracle_keyframes can't be touched."""

    class Forbidden(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            assert key != "oracle_keyframes"
            return super().__getitem__(key)

    agent = StreammemAgent({}, producer=Sent(), answers=Said([0]))
    agent.act(Forbidden(observation(0, 0, 0)))
    agent.act(Forbidden(observation(0, 0, 0, can_take_action=1)))


def test_goal_states_keep_their_kind() -> None:
    state = SimpleNamespace(position=[0, 0, 0], rotation=[0.0, 0.0, 0.0, 1.0])
    assert goal_state(state, False) is state
    assert goal_state(state, True).rotation == pytest.approx([0, -HALF, 0, HALF])


def test_answers_of_another_process() -> None:
    code = (
        "import json, sys, time\n"
        "for line in sys.stdin:\n"
        "    n = json.loads(line)['frames']\n"
        "    if n == 0: sys.exit(3)\n"
        "    if n == 1: time.sleep(30)\n"
        "    if n == 2: print('not json', flush=True)\n"
        "    else: print(json.dumps({'frame_indices': [n - 1]}), flush=True)\n"
    )
    process = AnswerProcess([sys.executable, "-c", code], timeout_s=5.0)
    assert process.ask({"frames": 9}) == [8]
    assert process.ask({"frames": 0}) is None
    assert process.ask({"frames": 2}) is None
    process._timeout_s = 0.2
    assert process.ask({"frames": 1}) is None
    process._timeout_s = 5.0
    assert process.ask({"frames": 4}) == [3]
    process.close()
    assert AnswerProcess(["/nowhere/python"]).ask({"frames": 4}) is None


def test_the_answering_loop() -> None:
    out = io.StringIO()
    lines = io.StringIO('{"frames": 3}\n[broken\n{"no": 1}\n{"frames": 0}\n')
    assert serve(lambda request: [request["frames"] - 1] if request["frames"] else None, lines, out) == 1
    replies = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [reply["frame_indices"] for reply in replies] == [[2], None, None, None]
    assert "error" in replies[1] and "KeyError" in replies[2]["error"] and "error" not in replies[3]


@pytest.mark.parametrize("module", [habitat_agent, habitat_frames])
def test_python_38_reads_what_is_copied_to_habitat(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    needed = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert needed <= {"numpy", "cv2", "nav", "perception", "habitat_frames", "mini_producer"}
