"""An experience written in the published schemas: question rows, videos, episode file with its arrays, frame log."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from nav.env import quaternion_xyzw
from nav.findingdory.clock import subsampled
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
    np.save(folder / "transformations.npy", np.array(transforms, np.float32).reshape(-1, 4, 4))


def _episode(
    number: int, one: Experience, views: list[list[float]], transforms: list[np.ndarray], seed: int
) -> dict[str, Any]:
    truth, log = one.truth, one.log

    def candidate(name: str) -> dict[str, Any]:
        entity = truth.entities[name]
        rows = []
        if entity.kind == "receptacle":
            for x, y in truth.view_points(name):
                yaw = math.atan2(entity.position[1] - y, entity.position[0] - x)
                rotation = quaternion_xyzw(habitat_rotation_from_yaw(yaw))
                rows.append(len(views))
                views.append([*habitat_from_map((x, y, 0.0)), *rotation, 1.0])
        where = [float(v) for v in habitat_from_map(entity.position)]
        return {"name": name, "object_category": entity.category, "position": where, "view_points": rows}

    rigid = []
    for thing in one.home.things:
        matrix = np.eye(4)
        matrix[:3, 3] = habitat_from_map(truth.entities[thing.entity_id].position)
        rigid.append([thing.entity_id, len(transforms)])
        transforms.append(matrix)
    moved = {i.object_id for i in log.interactions}
    start, goal = [i.start_id for i in log.interactions], [i.goal_id for i in log.interactions]
    used = {*start, *goal}
    free = [r.entity_id for r in log.receptacles if r.entity_id not in used]
    pose = one.frames[0].pose
    return {
        "episode_id": str(number),
        "scene_id": f"home_{one.home.seed}",
        "start_position": [float(v) for v in habitat_from_map(pose[:3])],
        "start_rotation": list(quaternion_xyzw(habitat_rotation_from_yaw(pose.yaw))),
        "candidate_objects": [candidate(i.object_id) for i in log.interactions],
        "candidate_objects_noninteracted": [candidate(o.entity_id) for o in log.objects if o.entity_id not in moved],
        "candidate_start_receps": [candidate(name) for name in dict.fromkeys(start)],
        "candidate_start_receps_noninteracted": [candidate(name) for name in free],
        "candidate_goal_receps": [candidate(name) for name in dict.fromkeys(goal)],
        "candidate_goal_receps_noninteracted": [candidate(name) for name in free],
        "target_receptacles": start,
        "goal_receptacles": goal,
        "name_to_receptacle": {t.entity_id: one.placements()[0][t.entity_id][0] for t in one.home.things},
        "rigid_objs": rigid,
        "instructions": {f"task_{q.task}": _instruction(q) for q in questions(log, seed=seed)},
    }


def _instruction(question: Question) -> dict[str, Any]:
    one = task(question.task)
    order = question.slots.get("order")
    multi = one.mode != "any"
    return {
        "task_id": f"task_{question.task}",
        "lang": question.text,
        "task_type": one.category,
        "goal_expr": None,
        "sampled_objects": list(question.goal.entities) if one.target == "object" else [],
        "sampled_receps": list(question.goal.entities) if one.target == "receptacle" else [],
        "sequential_goals": {"ordered": order is not None, "sequence": list(order or ())} if multi else None,
        "temporal_target_entity": question.slots.get("chosen"),
    }


def _distance(simulation: HomeSimulation, name: str) -> float:
    entity = next(one for one in simulation.entities() if one.entity_id == name)
    return math.dist(entity.position[:2], simulation.pose[:2])
