"""The bank: planted things are found where they are, through restarts, forgetting, corrections and small budgets."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from box_room_samples import ROOM, SECOND, centre_of, moment, opened, visible

from streammem.banks.spatial.versions import POSES, TIMES, row_of
from streammem.errors import QueryError
from streammem.model import Intrinsics, Label, Observation, Pose

NAMES = [name for name in ROOM.names if name]


def test_planted_things_are_found_with_evidence(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.write([moment(n) for n in range(24)])
        for name in NAMES:
            best = memory.query("spatial", "where", text=f"the {name}s")[0]
            assert best["label"] == name and best["placed"] and best["there"] == "yes"
            assert math.dist(best["point_m"], centre_of(name)) < 0.25
            assert (best["frame_id"], best["map_version"]) == ("flat", 0)
            proof = best["evidence"]
            assert proof["frames"] and proof["pose"][2] == "flat"
            for frame in proof["frames"]:
                record = memory.record(frame["record_id"])
                assert record is not None and name in {found.label for found in record.detections}
                assert memory.thumbnail(frame["record_id"]) is not None
        assert memory.query("spatial", "where", text="elephant") == []
        near = memory.query("spatial", "near", position=centre_of("mug").tolist(), radius_m=0.5)[0]
        assert "mug" in [thing["label"] for thing in near["things"]] and near["leaves"] > 0 and "mug" in near["labels"]
        assert near["nearest_m"] < 0.2
        early = memory.query("spatial", "where", text="mug", between=[None, 3 * SECOND])
        late = memory.query("spatial", "last_seen", text="mug")[0]
        assert all(thing["last_ns"] <= 3 * SECOND for thing in early) and late["seen_ns"] > 3 * SECOND
        assert memory.query("spatial", "where", text="mug", near=[0, 0, 0], radius_m=1.0) == []
        rooms = memory.query("spatial", "rooms")
        assert [room["room"] for room in rooms] == ["robot/room-1"] and set(NAMES) <= set(rooms[0]["labels"])
        assert {thing["label"] for thing in memory.query("spatial", "in_room", room="room-1")} >= set(NAMES)
        assert memory.query("spatial", "in_room", room="room-9") == []
        spot = memory.query("spatial", "last_seen", position=[4.8, 2.5, 0.72], radius_m=0.3)[0]
        assert spot["there"] == "yes" and spot["seen_ns"] <= spot["looked_ns"] <= 23 * SECOND
        status = {bank.bank: bank for bank in memory.status().banks}["spatial"]
        assert 0 < status.ram_bytes < status.cap_bytes


def test_rooms_from_above_and_points(tmp_path: Path) -> None:
    import base64

    with opened(tmp_path) as memory:
        memory.write([moment(n) for n in range(24)])
        above = memory.query("spatial", "map", resolution_m=0.1)[0]
        cells = np.frombuffer(base64.b64decode(above["cells"]), np.uint8).reshape(above["height"], above["width"])
        assert (above["up"], above["up_sign"], above["across"], above["down"]) == (2, 1, 0, 1)

        def square(x: float, y: float) -> int:
            return int(
                cells[int((y - above["origin_m"][1]) / 0.1 + 1e-6), int((x - above["origin_m"][0]) / 0.1 + 1e-6)]
            )

        assert square(4.8, 2.5) == 2, "the table"
        assert square(3.0, 1.3) == 1, "between the walk and the wall"
        cloud = memory.query("spatial", "cloud")[0]
        points = np.frombuffer(base64.b64decode(cloud["points"]), "<f4").reshape(-1, 3)
        assert len(points) == cloud["count"] > 1000
        assert (points > ROOM.inside[0] - 0.06).all() and (points < ROOM.inside[1] + 0.06).all()


@pytest.mark.parametrize("step", [9])
def test_restarts_change_nothing(step: int, tmp_path: Path) -> None:
    """Killed (never closed) after every ``step`` moments: the same digest, the same answers."""
    whole = opened(tmp_path / "whole")
    whole.write([moment(n) for n in range(40)])
    place = tmp_path / "from-0"
    for start in range(0, 40, step):
        with opened(place) as part:
            part.write([moment(n) for n in range(start, min(40, start + step))])
            # What a kill would leave: the files as they are, before anything is flushed or closed.
            left = tmp_path / f"from-{start + step}"
            shutil.copytree(place, left, ignore=shutil.ignore_patterns("LOCK"))
        place = left
    with opened(place) as again:
        assert again.status().segments > 0
        assert again.digest() == whole.digest()
        for question, arguments in (("summary", {}), ("where", {"text": "kettle"}), ("places", {}), ("map", {})):
            a, b = (memory.query("spatial", question, **arguments) for memory in (again, whole))
            if question == "summary":
                for each in (*a, *b):
                    each.pop("bytes")
            assert a == b, question
    whole.close()


def test_forgetting_is_real(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.write([moment(n) for n in range(12)])
        memory.write([moment(n, detections=()) for n in range(12, 24)])
        memory.forget(stream="robot", between=(0, 11 * SECOND))
        assert all(memory.query("spatial", "where", text=name) == [] for name in NAMES)
        after = memory.query("spatial", "summary")
        assert all(each["moments"] <= 12 and each["sightings"] == 0 for each in after)
        memory.write([moment(n) for n in range(24, 30)])
        assert memory.query("spatial", "where", text=visible(0, 6))
        digest = memory.digest()
    with opened(tmp_path) as memory:
        assert memory.digest() == digest
        memory.forget(stream="robot")
        assert memory.query("spatial", "summary") == [] and memory.bank("spatial").ram_bytes() == 0


@pytest.mark.slow
def test_a_thing_that_is_taken_away(tmp_path: Path) -> None:
    with opened(tmp_path, voxel_m=0.05, points=20_000) as memory:
        memory.write([moment(n) for n in range(24)])
        memory.write([moment(n, without="backpack") for n in range(24, 96)])
        backpack, mug = (memory.query("spatial", "where", text=name)[0] for name in ("backpack", "mug"))
        assert (backpack["there"], mug["there"]) == ("gone", "yes") and backpack["looked_ns"] > backpack["last_ns"]
        changes = memory.query("spatial", "what_changed", between=[23 * SECOND, 95 * SECOND])
        gone = [change for change in changes if change["kind"] == "gone" and "backpack" in change["labels"]]
        assert gone and math.dist(gone[0]["centre_m"], centre_of("backpack")) < 0.25 and gone[0]["evidence"]["frames"]


def quarter_turn() -> np.ndarray:
    turn = np.array([[0.0, -1, 0, 3.0], [1, 0, 0, -2.0], [0, 0, 1, 0.5], [0, 0, 0, 1]])
    return turn


def test_a_moved_world_moves_the_answers(tmp_path: Path) -> None:
    moved = quarter_turn()
    with opened(tmp_path / "a") as here, opened(tmp_path / "b") as there:
        here.write([moment(n) for n in range(24)])
        there.write([moment(n, moved=moved) for n in range(24)])
        for name in NAMES:
            a, b = (memory.query("spatial", "where", text=name)[0] for memory in (here, there))
            assert np.allclose(moved[:3, :3] @ a["point_m"] + moved[:3, 3], b["point_m"], atol=1e-4)
            assert (a["sightings"], a["there"]) == (b["sightings"], b["there"])
        a, b = (memory.query("spatial", "route", start=0, goal="vase")[0] for memory in (here, there))
        assert a["places"] == b["places"] and a["length_m"] == pytest.approx(b["length_m"])


def correction(number: int, moved: np.ndarray, upto: int) -> object:
    """What a SLAM front end sends after a loop closure: corrected poses of earlier keyframes, in map version 1."""
    times = np.arange(0, upto, 4)
    rows = np.stack([row_of(moment(int(n), moved=moved).pose) for n in times])  # type: ignore[arg-type]
    parts = {TIMES: (times * SECOND).astype(np.int64), POSES: rows}
    return moment(number, moved=moved, map_version=1, parts=parts)


def test_a_correction_moves_what_was_mapped_and_keeps_what_was_believed(tmp_path: Path) -> None:
    name, moved = visible(0, 12), np.eye(4)
    moved[:3, 3] = 1.0, -0.5, 0.2
    with opened(tmp_path) as memory:
        memory.write([moment(n) for n in range(12)])
        before = memory.query("spatial", "where", text=name)[0]
        memory.write(correction(12, moved, 12))  # type: ignore[arg-type]
        memory.write([moment(n, moved=moved, map_version=1) for n in range(13, 38)])
        digest = memory.digest()
        for closing in (False, True):
            if closing:
                memory.seal()
            after = memory.query("spatial", "where", text=name)
            assert len(after) == 1, "old and new sightings are one thing again"
            assert after[0]["map_version"] == 1
            shift = np.array(after[0]["point_m"]) - centre_of(name)
            assert np.abs(shift - moved[:3, 3]).max() < 0.2
            old = memory.query("spatial", "where", text=name, map_version=0)[0]
            assert old["map_version"] == 0 and np.allclose(old["point_m"], before["point_m"])
            versions = memory.query("spatial", "versions")
            assert [each["map_version"] for each in versions] == [0, 1] and versions[1]["known_ns"] == 12 * SECOND
            assert versions[1]["moved_m"] == pytest.approx(float(np.linalg.norm(moved[:3, 3])), abs=1e-6)
    with opened(tmp_path) as memory:
        assert memory.digest() == digest
        assert memory.query("spatial", "where", text=name)[0]["point_m"] == after[0]["point_m"]


def test_frames_of_reference_are_not_mixed(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.write([moment(n) for n in range(3)])
        memory.write([moment(n, stream="other", frame_id="cellar") for n in range(3)])
        with pytest.raises(QueryError, match="'cellar' and 'flat'"):
            memory.query("spatial", "near", position=[0, 0, 0])
        assert memory.query("spatial", "near", position=[3, 2, 1], radius_m=9.0, frame="cellar")[0]["moments"] == 3
        assert {thing["frame_id"] for thing in memory.query("spatial", "where", text=visible(0, 3))} == {
            "cellar",
            "flat",
        }
        only = memory.query("spatial", "where", text=visible(0, 3), streams=["other"])
        assert {thing["evidence"]["stream"] for thing in only} == {"other"}
        with pytest.raises(QueryError, match="known: cellar, flat"):
            memory.query("spatial", "map", frame="attic")
        # One stream that changes its frame: two maps, nothing lost.
        memory.write([moment(n, frame_id="garden") for n in range(3, 6)])
        assert memory.query("spatial", "summary", streams=["robot"])[0]["frames"] == ["flat", "garden"]


def test_pose_alone_and_nothing_at_all(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.write([moment(n, depth_m=None, labels=(Label("kitchen", 0.9),)) for n in range(24)])
        memory.write([moment(n, stream="blind", pose=None) for n in range(3)])
        summary = memory.query("spatial", "summary")
        assert [each["stream"] for each in summary] == ["robot"]
        assert summary[0]["places"] > 1 and summary[0]["leaves"] == 0
        thing = memory.query("spatial", "where", text="kitchen")[0]
        assert not thing["placed"] and thing["there"] == "unknown"
        last = summary[0]["places"] - 1
        way = memory.query("spatial", "route", start=0, goal=last)[0]
        assert way["found"] and way["places"][0] == 0 and way["places"][-1] == last and way["length_m"] > 0
        with pytest.raises(QueryError, match="nothing is mapped"):
            memory.query("spatial", "map", streams=["blind"])


def test_bad_depth_and_poses_are_counted_and_harmless(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.write(moment(0))
        before = memory.query("spatial", "summary")[0]
        memory.write(moment(1, intrinsics=Intrinsics(80, 80, 60, 80, 120, 160)))
        memory.write(moment(2, depth_m=np.zeros((120, 160), np.float32)))
        memory.write(moment(3, depth_m=np.pad(np.full((1, 1), 2.0, np.float32), ((60, 59), (80, 79)))))
        memory.write(moment(4, pose=Pose((90.0, 0, 0), (0, 0, 0, 1), "flat")))
        memory.write(moment(5, parts={TIMES: np.array([1], np.int64)}))
        after = memory.query("spatial", "summary")[0]
        assert after["rejected"] == {"correction": 1, "intrinsics": 1, "jump": 1}
        assert before["leaves"] <= after["leaves"] <= before["leaves"] + 1
        assert memory.status().observations == 6, "the memory keeps them all"
        for question, wrong in (
            ("where", {"text": " "}),
            ("near", {"position": [1, 2]}),
            ("near", {"position": ["x", 0, 0]}),
            ("last_seen", {}),
            ("what_changed", {"between": [5, 1]}),
            ("map", {"resolution_m": 0}),
            ("route", {"start": 0, "goal": 99}),
            ("where", {"text": "mug", "between": [1, 2, 3]}),
            ("recall", {"position": [0, 0, 0], "record_id": 1}),
        ):
            with pytest.raises(QueryError):
                memory.query("spatial", question, **wrong)


def test_a_small_budget_coarsens_the_oldest_and_keeps_labels(tmp_path: Path) -> None:
    with opened(tmp_path / "small", bytes=4_000_000) as small, opened(tmp_path / "large") as large:
        for memory in (small, large):
            for turn in range(2):
                moments = [moment(n + 24 * turn, capture_ns=(n + 24 * turn) * 5 * SECOND) for n in range(24)]
                memory.write(moments)
        held, cap = small.bank("spatial").ram_bytes(), small.bank("spatial").cap_bytes
        assert held <= cap < large.bank("spatial").ram_bytes()
        a, b = (memory.query("spatial", "summary")[0] for memory in (small, large))
        assert a["coarsened"] > 0 and b["coarsened"] == 0
        assert small.digest() == large.digest(), "what is durable doesn't depend on RAM"
        for name in NAMES:
            thing = small.query("spatial", "where", text=name)[0]
            assert math.dist(thing["point_m"], centre_of(name)) < 0.25 and thing["sightings"] > 5
        labels = small.query("spatial", "near", position=centre_of("mug").tolist(), radius_m=0.6)[0]["labels"]
        assert "mug" in labels


def embedded(number: int) -> Observation:
    """A moment with a unit vector that turns slowly."""
    angle = 0.2 * (number % 24)
    vector = np.array([math.cos(angle), math.sin(angle), 0, 0], np.float32)
    return moment(number, depth_m=None, embedding=vector / np.linalg.norm(vector), space="toy@1")


@pytest.mark.parametrize("mode", ["log", "chain"])
def test_recall_is_short_term_first_and_survives_restarts(mode: str, tmp_path: Path) -> None:
    with opened(tmp_path, long_term=mode) as memory:
        memory.write([embedded(n) for n in range(24)])
        asked = {"position": moment(20).pose.position_m, "record_id": moment(20).record_id}  # type: ignore[union-attr]
        near = memory.query("spatial", "recall", **asked)[0]
        assert near["source"] == "short_term" and near["items"][0][0] == "leaf" and near["items"][0][2] > 0.9
        far = memory.query("spatial", "recall", **{**asked, "position": [90.0, 0, 0]})[0]
        assert far["source"] == "long_term" and far["items"][0][0] == "node" and far["items"][0][2] > 0.9
        assert near["evidence"][0]["pose"] is not None
        memory.seal()
        digest = memory.digest()
    with opened(tmp_path, long_term=mode) as memory:
        assert memory.digest() == digest and memory.query("spatial", "recall", **asked) == [near]
        first = [entry.record_id for entry in memory.bank("spatial").maps["robot"].short.entries]  # type: ignore[attr-defined]
        memory.forget(stream="robot", between=(None, 30 * SECOND))
        assert first and "robot" not in memory.bank("spatial").maps  # type: ignore[attr-defined]
        memory.write([embedded(n) for n in range(31, 40)])
        memory.seal()
        memory.write([embedded(n) for n in range(100, 104)])
        short = memory.bank("spatial").maps["robot"].short  # type: ignore[attr-defined]
        late = {embedded(n).record_id for n in range(100, 104)}
        assert {entry.record_id for entry in short.entries} > late & {entry.record_id for entry in short.entries}
        memory.forget(stream="robot", between=(31 * SECOND, 60 * SECOND))
        assert short.entries and {entry.record_id for entry in short.entries} <= late
