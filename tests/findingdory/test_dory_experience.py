"""Experiences, their ground truth (no renderer), the published layouts, and the source that a memory watches."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nav.findingdory import metrics as m
from nav.findingdory.clock import FrameIndex, subsampled
from nav.findingdory.dataset import Candidate, EpisodeSet, OfflineSet
from nav.findingdory.predicates import FULL
from nav.findingdory.tasks import Question, questions
from nav.grid_env import GridEnv
from nav.habitat_frames import map_from_habitat, yaw_from_habitat
from nav.homes.experience import Experience, make_experience
from nav.homes.export import offline_rows, write_episodes, write_log, write_rows
from nav.homes.layout import make_home
from nav.homes.simulation import HomeSimulation
from nav.homes.truth import Truth
from nav.source import HomeSource
from perception.sources import known_schemes, open_source
from streammem.errors import InputError, SourceError, SourceNotFound


@pytest.fixture(scope="module")
def experience() -> Experience:
    return make_experience(make_home(1, rooms=3), 0, interactions=3)


@pytest.fixture(scope="module")
def asked(experience: Experience) -> list[Question]:
    return questions(experience.log, seed=0)


def test_what_an_experience_is(experience: Experience) -> None:
    frames = experience.frames
    assert [frame.step for frame in frames] == list(range(len(frames)))
    again = make_experience(make_home(1, rooms=3), 0, interactions=3)
    assert again.frames == frames and again.interactions == experience.interactions
    assert make_experience(make_home(1, rooms=3), 1, interactions=3).frames != frames
    # Replaying the actions from the first pose gives every pose: nothing teleports.
    simulation = HomeSimulation(experience.home)
    simulation.pose = frames[0].pose
    for frame in frames[:-1]:
        assert simulation.pose == frame.pose
        simulation.act(frame.action)
    for k, one in enumerate(experience.interactions):
        assert frames[one.pick_step].mark == f"pick_{k}" and frames[one.place_step].mark == f"place_{k}"
        assert frames[one.nav_place_step].held == one.object_id and frames[one.end_step].held is None
        assert {frame.mode for frame in frames[one.pick_step : one.nav_place_step]} == {"manip"}
        places, held = experience.placements(one.end_step)
        assert places[one.object_id][0] == one.goal_id and held is None
        assert experience.placements(one.nav_place_step)[1] == one.object_id
    with pytest.raises(InputError, match="2 to 11"):
        make_experience(experience.home, 0, interactions=40)


def test_the_oracle_sees_what_it_carries(experience: Experience) -> None:
    """In the last frame of each place skill the thing is where it was put, in view and in reach."""
    for one in experience.interactions:
        assert FULL.holds("object", experience.truth.reading(one.object_id, one.end_step))
        assert FULL.holds("receptacle", experience.truth.reading(one.goal_id, one.end_step))


def test_14_the_oracle_scores_1_wherever_there_is_an_answer(experience: Experience, asked: list[Question]) -> None:
    """Any frame of the answer is accepted by the online judge: two roads to the same truth."""
    truth, solvable = experience.truth, 0
    assert len(asked) == 60
    for question in asked:
        answer = truth.answer(question)
        if answer == [[-1]]:
            continue
        solvable += 1
        for pick in (0, -1, None):
            said = [row[len(row) // 2 if pick is None else pick] for row in answer]
            result = m.high_level(question.goal, said, truth)
            assert result.success, (question, said, result)
            assert result.spl == m.EXCLUDED or 0 < result.spl <= 1
    assert solvable >= 54


def test_a_moved_thing_is_not_where_it_was(experience: Experience, asked: list[Question]) -> None:
    """Frames before the thing was put down don't answer, also where the robot looked at that place earlier."""
    first = experience.interactions[0]
    question = next(q for q in asked if q.task == 5)
    frames = experience.truth.frames_of(question.goal, first.object_id)
    assert frames and min(frames) >= first.place_step


def test_distances_from_the_final_pose(experience: Experience) -> None:
    truth = experience.truth
    for name, away in experience.log.distance_m.items():
        assert away == truth.distance(None, name) and truth.distance(name, name) == 0
        where = truth.entities[name].position
        assert away >= math.dist(where[:2], experience.final_pose[:2]) - 2.2
    with pytest.raises(InputError, match="has no 'unicorn'"):
        truth.reading("unicorn", 0)


def test_rays_decide_coverage_as_a_whole_picture_does(experience: Experience) -> None:
    truth = Truth(experience)
    simulation = GridEnv(experience.home)
    simulation.arrange(experience.placements()[0])
    for frame in range(0, len(experience.frames), 197):
        simulation.pose = experience.frames[frame].pose
        seen = simulation.observe()
        for name, entity in truth.entities.items():
            if entity.kind != "room":
                assert truth.reading(name, frame).coverage == pytest.approx(seen.coverage(entity.instance), abs=1e-9)


# ---- published layouts


def test_offline_rows_come_back(experience: Experience, asked: list[Question], tmp_path: Path) -> None:
    write_rows(tmp_path / "full" / "validation.jsonl", offline_rows(experience, name="ep_1"))
    write_rows(tmp_path / "few" / "val.jsonl", offline_rows(experience, name="ep_1", frames=96))
    full, few = OfflineSet(tmp_path / "full"), OfflineSet(tmp_path / "few", frames=96)
    assert len(full) == len(few) == 60 and full.episodes() == ["ep_1"]
    kept = subsampled(len(experience.frames), 96)
    for long, short, question in zip(full, few, asked, strict=True):
        assert long.task == short.task == question.task and question.text in long.question
        assert long.answer == experience.truth.answer(question) and long.num_interactions == 3
        if short.answer != [[-1]]:
            for goal, small in zip(long.answer, short.answer, strict=True):
                assert {kept[i] for i in small} <= set(goal)
    with pytest.raises(SourceNotFound, match=r"hf download yali30/findingdory-subsampled-96 videos.zip"):
        few.video(few.rows[0])
    (tmp_path / "few" / "videos" / "val").mkdir(parents=True)
    (tmp_path / "few" / "videos" / "val" / "ep_1.mp4").write_bytes(b"x")
    assert few.video(few.rows[0]).name == "ep_1.mp4"


def row(**changes: object) -> dict[str, object]:
    return {
        "ep_id": "ep_1", "video": "videos/val/ep_1.mp4", "question": "q", "answer": "[[3, 4]]", "task_id": "task_1",
        "high_level_category": "h", "low_level_category": "l", "num_interactions": 2, **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(answer="[[3")], r"row 0: the answer '\[\[3' is no JSON"),
        ([row(), row(answer="eval('1')")], "row 1: the answer"),
        ([row(answer="[[96]]")], "a frame beyond 95"),
        ([row(task_id="task_x")], "row 0"),
        ([{"ep_id": "ep_1"}], "the column 'video' is missing"),
        ([7], "no object"),
    ],
)
def test_rows_that_cannot_be_used(rows: list[object], words: str, tmp_path: Path) -> None:
    (tmp_path / "validation.jsonl").write_text("\n".join(json.dumps(one) for one in rows))
    with pytest.raises(SourceError, match=words):
        OfflineSet(tmp_path, frames=96)


def test_missing_and_hostile_files(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="hf download yali30/findingdory --repo-type dataset"):
        OfflineSet(tmp_path)
    with pytest.raises(InputError, match="no split"):
        OfflineSet(tmp_path, "test")  # type: ignore[arg-type]
    (tmp_path / "validation.jsonl").write_text("{")
    with pytest.raises(SourceError, match="no JSON"):
        OfflineSet(tmp_path)
    write_rows(tmp_path / "validation.jsonl", [row(video="../../../etc/passwd")])
    rows = OfflineSet(tmp_path)
    with pytest.raises(SourceError, match="is outside"):
        rows.video(rows.rows[0])
    with pytest.raises(SourceNotFound, match="hf download yali30/findingdory-habitat"):
        EpisodeSet(tmp_path)


def test_episode_files_come_back(experience: Experience, tmp_path: Path) -> None:
    write_episodes(tmp_path / "val", [experience])
    read = EpisodeSet(tmp_path)
    episode = read.episode("ep_0")
    assert [one.name for one in episode.candidate_objects] == [i.object_id for i in experience.interactions]
    assert episode.missing_tasks() == [] and episode.instructions["task_58"].sequential_goals["ordered"] is True  # type: ignore[index]
    candidate = episode.candidate_goal_receps[0]
    views = read.view_points(candidate)
    around = len(experience.truth.view_points(candidate.name))
    placed = sum(i.goal_id == candidate.name for i in experience.interactions)
    # After those around it, the poses from which something was placed on it.
    assert views.shape[1] == 8 and len(views) == around + placed and placed >= 1
    assert episode.place_valid_receps is not None and episode.place_valid_receps["0"] == around
    # In Habitat's frame with x, y, z, w quaternions: back in the map each view point faces the receptacle.
    where = map_from_habitat(candidate.position)
    for view in views[:around]:
        at = map_from_habitat(view[:3])
        facing = math.atan2(where[1] - at[1], where[0] - at[0])
        assert math.remainder(yaw_from_habitat(view[3:7]) - facing, math.tau) == pytest.approx(0, abs=1e-3)
    with pytest.raises(SourceNotFound, match="no episode"):
        read.episode("ep_9")
    with pytest.raises(SourceError, match="has view point 99999"):
        read.view_points(Candidate(name="x", view_points=[99999]))
    np.save(tmp_path / "val" / "viewpoints.npy", np.zeros((3, 7)))
    with pytest.raises(SourceError, match=r"float64 of shape \(3, 7\)"):
        EpisodeSet(tmp_path)
    np.save(tmp_path / "val" / "viewpoints.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(SourceError, match="no array"):
        EpisodeSet(tmp_path)
    (tmp_path / "val" / "episodes.json").write_text('{"episodes": [{"episode_id": 3}]}')
    np.save(tmp_path / "val" / "viewpoints.npy", np.zeros((3, 8)))
    with pytest.raises(SourceError, match="no episodes"):
        EpisodeSet(tmp_path)


def test_episodes_with_missing_tasks(experience: Experience, tmp_path: Path) -> None:
    """An episode of two interactions doesn't ask what needs three; what is missing is said, not made up."""
    write_episodes(tmp_path / "val", [experience])
    short = msgspec.structs.replace(experience.log, interactions=experience.log.interactions[:2])
    asked = {f"task_{one.task}" for one in questions(short)}
    path = tmp_path / "val" / "episodes.json"
    written = json.loads(path.read_text())
    kept = {name: one for name, one in written["episodes"][0]["instructions"].items() if name in asked}
    written["episodes"][0]["instructions"] = kept
    path.write_text(json.dumps(written))
    missing = EpisodeSet(tmp_path).episodes[0].missing_tasks()
    assert missing == sorted(set(range(1, 61)) - {int(name[5:]) for name in asked})
    assert set(missing) >= {38, 39, 40, 43, 44, 45, 46}


def test_the_frame_log(experience: Experience, tmp_path: Path) -> None:
    from nav.env import CameraSpec

    simulation = HomeSimulation(experience.home, camera=CameraSpec(36, 48))
    write_log(tmp_path / "log.jsonl", experience, simulation)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == len(experience.frames) and lines[0]["time"] == "06:00"
    one = experience.interactions[0]
    assert lines[one.nav_place_step]["held"] == one.object_id
    # While it is carried nobody sees it.
    assert one.object_id not in {seen["id"] for seen in lines[one.nav_place_step]["visible"]}
    assert any(one.object_id in {seen["id"] for seen in line["visible"]} for line in lines[: one.pick_step + 3])


# ---- the source


def test_the_source_sends_what_a_robot_would() -> None:
    assert "mujoco" in known_schemes()
    source = open_source("mujoco:1?rooms=3&interactions=2&size=18x24&labels=1&draw=rays")
    assert isinstance(source, HomeSource)
    frames = list(source.frames())
    index = FrameIndex(source.info.stream, "", len(source.experience.frames), source.experience.clock)
    assert len(frames) == index.frames
    for frame in frames[:: len(frames) // 9]:
        assert index.frame_at(frame.capture_ns) == frame.index and index.capture_ns(frame.index) == frame.capture_ns
        sensed = frame.sensed
        assert sensed.depth_m is not None and sensed.depth_m.shape == (24, 18) and sensed.depth_m.dtype == np.float32
        assert sensed.pose == source.camera.pose(source.experience.frames[frame.index].pose)
        assert sensed.intrinsics == source.camera.intrinsics
    assert any(frame.sensed.detections for frame in frames)
    assert all(0 <= edge <= 1 for frame in frames for one in frame.sensed.detections for edge in one.box)
    assert {frame.sensed.stats["manipulation"] for frame in frames} == {0.0, 1.0}
    resumed = list(source.frames(frames[50].media_ns))
    assert [frame.index for frame in resumed] == [frame.index for frame in frames[50:]]
    assert np.array_equal(resumed[0].image, frames[50].image)
    again = source.look_again(frames[20].media_ns, frames[22].media_ns, 1.0)
    assert [frame.index for frame in again] == [20, 21, 22]
    assert np.array_equal(again[0].image, frames[20].image)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "SCENE='x'"),
        ("1?interactions=12", "0 to 11"),
        ("1?size=1x1", "WIDTHxHEIGHT"),
        ("1?draw=vulkan", "gl or rays"),
        ("1?colour=red", "no option 'colour'"),
        ("1?labels=-1", "labels='-1'"),
    ],
)
def test_scenes_that_cannot_be_used(text: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        open_source(f"mujoco:{text}")


def test_a_memory_of_a_home(tmp_path: Path) -> None:
    """Watched twice, once after a stop: the same digest; every record is a frame of the experience. One look in 100 s
    (7 steps), so that it takes seconds."""
    import streammem
    from perception.encoders.fake import HistogramSuite
    from perception.pipeline import watch
    from streammem.config import Config

    config = Config()
    digests = []
    for name, stops in (("a", ()), ("b", (20,))):
        with streammem.open(tmp_path / name) as memory:
            for stop in (*stops, None):
                source = HomeSource("1?rooms=3&interactions=2&size=36x48&draw=rays&labels=1", fps=0.01)
                seen = [0]

                def enough(stop: int | None = stop, source: HomeSource = source, seen: list[int] = seen) -> bool:
                    seen[0] = source.health.decoded_frames
                    return stop is not None and seen[0] > stop

                report = watch(source, memory, HistogramSuite(), config, stop=enough)
            index = FrameIndex(source.info.stream, report.session, len(source.experience.frames))
            record = memory.record(index.record_id(28))
            assert record is not None and record.t_start_ns == index.capture_ns(28)
            assert record.pose == source.camera.pose(source.experience.frames[28].pose)
            assert record.arrays["depth_m"].shape == (48, 36) and "manipulation" in record.stats
            assert index.frame_of(record.record_id) == 28
            memory.flush()
            digests.append(memory.digest())
    assert digests[0] == digests[1]


def test_importing_nav_needs_no_simulator() -> None:
    import subprocess

    code = (
        "import sys, nav.mujoco_env, nav.habitat_env, nav.source; print({'mujoco', 'habitat_sim'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
