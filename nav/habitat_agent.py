"""An agent for FindingDory's own runner: yesterday's frames go to a memory service, answers come back as frames.

The runner has a Python 3.9 of its own, so this file needs NumPy, OpenCV, ``mini_producer.py`` and ``habitat_frames.py``
only; copy the three beside each other there. Hydra builds it from ``habitat_baselines.agent._target_``::

    habitat_baselines.agent._target_: habitat_agent.StreammemAgent
    habitat_baselines.agent.config: {address: "tcp://127.0.0.1:5570", stream: "dory",
        answer_command: ["/path/to/python3.11", "-m", "nav.findingdory.answering", "tcp://127.0.0.1:5570"]}

Answers come from a process of a newer Python: one JSON object a line, ``{"question", "task_id", "stream", "session",
"frames"}`` in, ``{"frame_indices": [...]}`` out. ``oracle_keyframes`` (ground truth) is never read.
"""

from __future__ import annotations

import contextlib
import json
import math
import select
import subprocess
import time
from typing import Any, Mapping, Sequence  # noqa: UP035 - Python 3.8 reads this file

import numpy as np

try:
    from nav import habitat_frames as frames_
    from perception.mini_producer import MiniProducer
except ImportError:  # copied files, no package
    import habitat_frames as frames_  # type: ignore[no-redef]
    from mini_producer import MiniProducer  # type: ignore[no-redef]

STOP, FORWARD, LEFT, RIGHT = 0, 1, 2, 3
HEAD_HEIGHT_M, HEAD_TILT_RAD, HEAD_HFOV_RAD = 1.31, math.radians(-30), math.radians(43)
TURN_RAD = math.radians(10)
MANIPULATION_TURN_RAD = math.radians(-90)
"""In manipulation mode the head looks along the arm, to the right of the base."""
ARRIVED_M = 0.2
BUDGET = 1000
DAY_START_NS = 1767247200000000000
"""2026-01-01T06:00Z, the first step of the benchmark's day; the same constant as nav.findingdory.clock."""
STEP_NS = 14400000000
"""0.24 minutes: 4,000 steps from 06:00 to 22:00."""


class AnswerProcess:
    """The other Python. A process that is silent for ``timeout_s`` or ends is no answer, not a crash of the run."""

    def __init__(self, command: Sequence[str], timeout_s: float = 120.0) -> None:
        self._command, self._timeout_s = list(command), timeout_s
        self._process: Any = None

    def ask(self, request: Mapping[str, Any]) -> list[int] | None:
        """Frame indices, or None where there is no readable answer in time."""
        try:
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._process.stdin.write(json.dumps(dict(request)).encode() + b"\n")
            self._process.stdin.flush()
            line = self._line(time.monotonic() + self._timeout_s)
            said = json.loads(line)["frame_indices"]
        except (OSError, ValueError, KeyError, TypeError):
            self.close()
            return None
        return [int(i) for i in said] if isinstance(said, list) and all(type(i) is int for i in said) else None

    def _line(self, until: float) -> bytes:
        got = b""
        while not got.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            piece = self._process.stdout.read1(65536) if ready else b""
            if not piece or len(got) > 1 << 20:
                raise OSError("no answer")
            got += piece
        return got

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # what was not taken by the dead is flushed to nobody
                    pipe.close()
            self._process = None


class StreammemAgent:
    """What the runner needs: ``episode_index``, ``task_id``, ``reset``, ``reset_new_task``, ``act``.

    While the oracle acts (``can_take_action`` is 0) every observation is stored and sent; then the first action of a
    task is the high-level answer, and integers drive straight to it. ``failures`` counts what could not be answered."""

    def __init__(self, config: Mapping[str, Any], producer: Any = None, answers: Any = None) -> None:
        self.config = config
        self.episode_index: Any = 0
        self.task_id: Any = ""
        self.failures: dict[str, int] = {}
        self._producer_given, self._producer = producer, producer
        self._answers = answers if answers is not None else AnswerProcess(config["answer_command"])
        self._stored: list[Any] = []
        self._clear_task()

    def reset(self) -> None:
        """A new episode: a session of its own in the memory."""
        self._stored = []
        self._clear_task()
        if self._producer_given is None:
            if self._producer is not None:
                self._producer.close()
            self._producer = MiniProducer(self.config["address"], self.stream, session=self.session)

    def reset_new_task(self, task_id: Any) -> None:
        """The next instruction about the same experience."""
        self.task_id = task_id
        self._clear_task()

    @property
    def stream(self) -> str:
        return str(self.config.get("stream", "findingdory"))

    @property
    def session(self) -> str:
        return "ep_" + str(self.episode_index)

    def act(self, obs: Mapping[str, Any]) -> int | dict[str, Any]:
        """One action of the runner's action space."""
        if int(np.asarray(obs["can_take_action"]).ravel()[0]) != 1:
            self._remember(obs)
            return STOP  # ignored: the oracle acts
        if self._goals is None:
            return self._answer(obs)
        return self._drive(obs)

    def _clear_task(self) -> None:
        self._goals: list[Any] | None = None
        self._steps = 0

    def _remember(self, obs: Mapping[str, Any]) -> None:
        manipulation = bool(np.asarray(obs["manipulation_mode"]).ravel()[0])
        state = obs["agent_state"]
        number = len(self._stored)
        self._stored.append((state, manipulation))
        pan = MANIPULATION_TURN_RAD if manipulation else 0.0
        where, q = frames_.camera_pose_in_map(state.position, state.rotation, HEAD_HEIGHT_M, HEAD_TILT_RAD, pan)
        rgb = np.asarray(obs["head_rgb"])
        height, width = rgb.shape[:2]
        focal = width / 2 / math.tan(HEAD_HFOV_RAD / 2)
        self._producer.send(
            capture_ns=DAY_START_NS + number * STEP_NS,
            thumbnail=jpeg(rgb),
            depth_m=frames_.metres_from_normalised(obs["head_depth"]),
            pose=(tuple(float(v) for v in where), q),
            intrinsics=(focal, focal, width / 2, height / 2, width, height),
            stats={"manipulation": float(manipulation)},
        )

    def _answer(self, obs: Mapping[str, Any]) -> int | dict[str, Any]:
        self._producer.flush()
        said = self._answers.ask(
            {
                "question": str(obs["lang_memory_goal"]),
                "task_id": str(self.task_id),
                "stream": self.stream,
                "session": self.session,
                "frames": len(self._stored),
            }
        )
        if said is None or not said or any(not 0 <= i < len(self._stored) for i in said):
            # Not clipped into range as the shipped agents do: a failure stays one.
            self._count("response_error" if not said else "out_of_bounds_pred")
            said = [-1]
        self._goals = [self._stored[i] for i in said if i >= 0]
        states = [goal_state(state, manipulation) for state, manipulation in self._goals]
        flags = [not manipulation for _, manipulation in self._goals]
        args = {"nav_indices": said, "nav_goal_states": states, "nav_mode_flag": flags}
        return {"action": "high_level_policy_action", "action_args": args}

    def _drive(self, obs: Mapping[str, Any]) -> int | dict[str, Any]:
        """Straight to the next goal; a planner on the memory's map replaces this (nav.planner)."""
        self._steps += 1
        if not self._goals or self._steps > BUDGET:
            self._count("low_level_policy_failure")
            return {"action": "low_level_policy_failure", "action_args": {}}
        here, (goal, manipulation) = obs["agent_state"], self._goals[0]
        dx, dy = (frames_.map_from_habitat(goal.position) - frames_.map_from_habitat(here.position))[:2]
        heading = frames_.yaw_from_habitat(here.rotation)
        arrived = math.hypot(dx, dy) <= ARRIVED_M
        look = frames_.yaw_from_habitat(goal.rotation) + (MANIPULATION_TURN_RAD if manipulation else 0.0)
        off = math.remainder((look if arrived else math.atan2(dy, dx)) - heading, math.tau)
        if abs(off) > TURN_RAD / 2 + 1e-6:
            return LEFT if off > 0 else RIGHT
        if not arrived:
            return FORWARD
        self._goals.pop(0)
        name = "low_level_subgoal_switch_action" if self._goals else "pddl_intermediate_stop"
        return {"action": name, "action_args": {}}

    def _count(self, reason: str) -> None:
        self.failures[reason] = self.failures.get(reason, 0) + 1


def goal_state(state: Any, manipulation: bool) -> Any:
    """A stored AgentState; turned by -90 degrees about y if it was recorded in manipulation mode, as the runner wants
    it. The stored one is not changed."""
    if not manipulation:
        return state
    import copy

    turned = copy.copy(state)
    matrix = frames_.rotation_matrix(frames_.coefficients_xyzw(state.rotation)) @ frames_.habitat_rotation_from_yaw(
        MANIPULATION_TURN_RAD
    )
    x, y, z, w = frames_.quaternion_from_matrix(matrix)
    # numpy-quaternion takes w first; a list of coefficients stays x, y, z, w.
    turned.rotation = type(state.rotation)(w, x, y, z) if hasattr(state.rotation, "w") else [x, y, z, w]
    return turned


def jpeg(rgb: np.ndarray) -> bytes:
    """(h, w, 3) uint8 RGB -> JPEG."""
    import cv2

    done, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise ValueError(f"no JPEG can be made of a picture of shape {rgb.shape}")
    return bytes(data)
