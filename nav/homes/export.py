"""An experience written in the published schemas: question rows, videos, episode file with its arrays, frame log."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from nav.env import AgentPose, quaternion_xyzw
from nav.findingdory.clock import clock_text, subsampled
from nav.findingdory.expressions import TIME_PLACEHOLDER, expression_of
from nav.findingdory.log import InteractionLog
from nav.findingdory.offline import Frames, subsample_answer
from nav.findingdory.tasks import Question, questions, task
from nav.habitat_frames import habitat_from_map, habitat_rotation_from_yaw
from nav.homes.experience import Experience
from nav.homes.simulation import HomeSimulation
from nav.homes.truth import visible


def offline_rows(
    experience: Experience, *, name: str, seed: int = 0, frames: int | None = None
) -> list[dict[str, Any]]:
    """Rows with the columns of the offline set: each task once. ``frames``: of the subsampled set (96), or None."""
    kept = None if frames is None else subsampled(len(experience.frames), frames)
    rows = []
    for question in questions(experience.log, seed=seed):
        answer: Frames = experience.truth.answer(question)
        if kept is not None:
            answer = subsample_answer(answer, kept)
        one = task(question.task)
        rows.append(
            {
                "ep_id": name,
                "video": f"videos/val/{name}.mp4",
                "question": f"The robot's goal is: {question.text}",
                "answer": json.dumps(answer),
                "task_id": f"task_{question.task}",
                "high_level_category": one.group,
                "low_level_category": one.category,
                "num_interactions": len(experience.interactions),
            }
        )
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_video(
    path: Path, experience: Experience, simulation: HomeSimulation, *, frames: int | None = None, fps: int = 10
) -> int:
    """An mp4 of the day as ``simulation`` draws it: picture ``i`` is frame ``i`` (of the ``frames`` of the subsampled
    set, where given). Returns how many there are. Odd sizes are cut by one pixel: H.264 wants even ones."""
    import av

    steps = range(len(experience.frames)) if frames is None else subsampled(len(experience.frames), frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = (n // 2 * 2 for n in (simulation.camera.width, simulation.camera.height))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in experience.replay(simulation, steps):
            rgb, _, _ = simulation.draw(simulation.pose)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb[:height, :width].copy(), format="rgb24")))
        container.mux(stream.encode())
    return len(steps)


def write_offline_set(
    root: Path, days: dict[str, tuple[Experience, HomeSimulation]], *, frames: int | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows and videos as the offline set has them, under ``root``: ``validation.jsonl``, ``videos/val/ep_1.mp4``.
    ``days``: by episode id. Returns the rows."""
    rows: list[dict[str, Any]] = []
    for name, (experience, simulation) in days.items():
        made = offline_rows(experience, name=name, seed=seed, frames=frames)
        write_video(root / made[0]["video"], experience, simulation, frames=frames)
        rows += made
    write_rows(root / "validation.jsonl", rows)
    return rows


def write_log(path: Path, experience: Experience, simulation: HomeSimulation) -> None:
    """One JSON line a frame: step, minute, time, pose, mode, action, room, held, what is visible, what begins here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for record in experience.replay(simulation):
            seen = [
                {"id": name, "coverage": round(share, 6), "distance": round(_distance(simulation, name), 3)}
                for name, share in visible(simulation).items()
            ]
            line = {
                "step": record.step,
                "minute": experience.clock.minute(record.step),
                "time": experience.clock.text(record.step),
                "pose": [round(float(value), 6) for value in record.pose],
                "mode": record.mode,
                "action": record.action,
                "room": record.room,
                "held": record.held,
                "visible": seen,
                "mark": record.mark,
            }
            file.write(json.dumps(line) + "\n")


def write_episodes(folder: Path, experiences: list[Experience], *, seed: int = 0) -> None:
    """``episodes.json``, ``viewpoints.npy``, ``transformations.npy`` as the habitat release lays them out, in Habitat's
    frame."""
    folder.mkdir(parents=True, exist_ok=True)
    views: list[list[float]] = []
    transforms: list[np.ndarray] = []
    episodes = [_episode(i, one, views, transforms, seed) for i, one in enumerate(experiences)]
    (folder / "episodes.json").write_text(json.dumps({"episodes": episodes}), encoding="utf-8")
    np.save(folder / "viewpoints.npy", np.array(views, np.float32).reshape(-1, 8))
    np.save(folder / "transformations.npy", np.array(transforms, np.float32).reshape(-1, 4, 4)[:, :3])


def _episode(
    number: int, one: Experience, views: list[list[float]], transforms: list[np.ndarray], seed: int
) -> dict[str, Any]:
    truth, log = one.truth, one.log
    first = HomeSimulation(one.home)
    begins = {entity.entity_id: entity for entity in first.entities()}

    def view(pose: AgentPose) -> int:
        rotation = quaternion_xyzw(habitat_rotation_from_yaw(pose.yaw))
        views.append([*habitat_from_map(pose[:3]), *rotation, 1.0])
        return len(views) - 1

    def matrix(where: tuple[float, float, float]) -> np.ndarray:
        made = np.eye(4)
        made[:3, 3] = habitat_from_map(where)
        return made

    def receptacle(name: str) -> dict[str, Any]:
        entity = truth.entities[name]
        rows = [
            view(AgentPose(x, y, 0.0, math.atan2(entity.position[1] - y, entity.position[0] - x)))
            for x, y in truth.view_points(name)
        ]
        # Where the robot stood when it placed something here: the recorded place skill begins there.
        rows += [view(one.frames[i.place_step].pose) for i in log.interactions if i.goal_id == name]
        return _candidate(name, entity.category, entity.position, rows)

    def thing(name: str) -> dict[str, Any]:
        rows = [view(one.frames[i.pick_step].pose) for i in log.interactions if i.object_id == name]
        return _candidate(name, begins[name].category, begins[name].position, rows)

    rigid = []
    for each in one.home.things:
        rigid.append([each.entity_id, len(transforms)])
        transforms.append(matrix(begins[each.entity_id].position))
    moved = {i.object_id for i in log.interactions}
    start, goal = [i.start_id for i in log.interactions], [i.goal_id for i in log.interactions]
    used = {*start, *goal}
    free = [r.entity_id for r in log.receptacles if r.entity_id not in used]
    receptacles = {name: receptacle(name) for name in dict.fromkeys((*start, *goal, *free))}
    pose = one.frames[0].pose
    return {
        "episode_id": str(number),
        "scene_id": f"home_{one.home.seed}",
        "start_position": [float(v) for v in habitat_from_map(pose[:3])],
        "start_rotation": list(quaternion_xyzw(habitat_rotation_from_yaw(pose.yaw))),
        "candidate_objects": [thing(i.object_id) for i in log.interactions],
        "candidate_objects_noninteracted": [thing(o.entity_id) for o in log.objects if o.entity_id not in moved],
        "candidate_start_receps": [receptacles[name] for name in start],
        "candidate_start_receps_noninteracted": [receptacles[name] for name in free],
        "candidate_goal_receps": [receptacles[name] for name in goal],
        "candidate_goal_receps_noninteracted": [receptacles[name] for name in free],
        "target_receptacles": [[name, None] for name in start],
        "goal_receptacles": [[name, None] for name in goal],
        "name_to_receptacle": {t.entity_id: one.placements(0)[0][t.entity_id][0] for t in one.home.things},
        "rigid_objs": rigid,
        "place_valid_receps": {
            str(k): len(receptacles[i.goal_id]["view_points"])
            - sum(later.goal_id == i.goal_id for later in log.interactions[k:])
            for k, i in enumerate(log.interactions)
        },
        "place_oracle_action_seq": {
            str(k): _place_actions(i.end_step - i.place_step + 1, matrix(truth.entities[i.object_id].position))
            for k, i in enumerate(log.interactions)
        },
        "nav_goal_pos": [float(v) for v in habitat_from_map(one.final_pose[:3])],
        "nav_goal_rot": list(quaternion_xyzw(habitat_rotation_from_yaw(one.final_pose.yaw))),
        "instructions": {f"task_{q.task}": _instruction(q, log) for q in questions(log, seed=seed)},
    }


def _candidate(name: str, category: str, position: tuple[float, float, float], rows: list[int]) -> dict[str, Any]:
    where = [float(v) for v in habitat_from_map(position)]
    return {"object_name": name, "object_category": category, "position": where, "view_points": rows}


def _place_actions(steps: int, matrix: np.ndarray) -> list[Any]:
    """A recorded place skill: names alone until the drop, then the thing's pose with every action."""
    pose = matrix.tolist()
    arm = {"action_args": {"arm_action": [0.0] * 10}}
    before: list[Any] = ["MANIPULATION_MODE", *["MOVE_FORWARD"] * max(0, steps - 5)]
    return [*before, ["DESNAP_OBJECT", [0.0] * 3, [0.0, 0.0, 0.0, 1.0], pose], ["MOVE_ARM", arm, pose],
            ["NAVIGATION_MODE", pose], "STOP"]  # fmt: skip


def _instruction(question: Question, log: InteractionLog) -> dict[str, Any]:
    expression, sequential = expression_of(question, log)
    timed = question.task in (47, 48)
    minute = clock_text(question.slots["minute"]).lstrip("0") if timed else ""
    return {
        "task_id": f"task_{question.task}",
        # The minute is known when the experience is over: until then its place is held.
        "lang": question.text.replace(minute, TIME_PLACEHOLDER) if timed else question.text,
        "task_type": "timestep" if timed else task(question.task).category,
        "goal_expr": expression,
        "sampled_objects": [],
        "sampled_receps": [],
        "sequential_goals": sequential,
        "temporal_target_entity": question.slots.get("chosen"),
    }


def _distance(simulation: HomeSimulation, name: str) -> float:
    entity = next(one for one in simulation.entities() if one.entity_id == name)
    return math.dist(entity.position[:2], simulation.pose[:2])
