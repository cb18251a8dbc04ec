"""The bank of viewpoints: where a view's point lies, which views stay, and that they outlive the moments' detail."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streammem
from streammem.banks.viewpoints import ViewpointsBank
from streammem.config import Config, TracksConfig
from streammem.errors import CorruptData, QueryError
from streammem.model import Detection, Intrinsics, Observation, Pose, Record, record_id

CAMERA = Intrinsics(40.0, 40.0, 29.5, 39.5, 60, 80)
SECOND = 10**9
FORWARD_X = (0.5, -0.5, 0.5, -0.5)
"""``map_from_camera``: the camera looks along +x, its right is -y, its down is -z."""


def seen(
    seq: int,
    *,
    at: tuple[float, float, float] = (0.0, 0.0, 1.0),
    away: float = 2.0,
    box=(0.4, 0.4, 0.6, 0.6),
    who="mug_1",
) -> Observation:
    """A wall ``away`` metres before the camera, and a thing in the box."""
    return Observation(
        stream="robot",
        seq=seq,
        capture_ns=seq * SECOND,
        depth_m=np.full((40, 30), away, np.float32),
        pose=Pose(at, FORWARD_X),
        intrinsics=CAMERA,
        detections=(Detection(who.partition("_")[0], 1.0, box, who),),
    )


def record(one: Observation) -> Record:
    return Record(
        record_id=record_id("moments", one.stream, one.session, one.seq), bank="moments", stream=one.stream,
        t_start_ns=one.capture_ns, t_end_ns=one.capture_ns, seq=one.seq, detections=one.detections, pose=one.pose,
        intrinsics=one.intrinsics, arrays={"depth_m": one.depth_m} if one.depth_m is not None else {},
    )  # fmt: skip


def views(bank: ViewpointsBank, track: str = "mug_1") -> list[dict]:  # type: ignore[type-arg]
    return [one.view for one in bank._ask_views(None, streams=None, tracks=[track])]  # type: ignore[arg-type]


def test_the_point_is_where_the_thing_is() -> None:
    """By hand: a box in the middle, 2 m ahead of a camera at (1, 2, 1) that looks along +x: about (3, 2, 1)."""
    bank = ViewpointsBank(TracksConfig())
    bank.observe(record(seen(0, at=(1.0, 2.0, 1.0))))
    (view,) = views(bank)
    assert view["point_m"] == pytest.approx((3.0, 2.0, 1.0), abs=0.06)
    assert view["away_m"] == pytest.approx(2.0, abs=0.02) and view["seq"] == 0
    assert view["position_m"] == pytest.approx((1.0, 2.0, 1.0))


def test_what_has_no_depth_pose_or_track_is_left_out() -> None:
    import dataclasses

    bank = ViewpointsBank(TracksConfig())
    good = seen(0)
    for bad in ({"depth_m": None}, {"pose": None}, {"intrinsics": None}, {"depth_m": np.zeros((40, 30), np.float32)}):
        bank.observe(record(dataclasses.replace(good, **bad)))
    bank.observe(record(dataclasses.replace(good, detections=(Detection("mug", 1.0, (0.4, 0.4, 0.6, 0.6)),))))
    wide = Intrinsics(40.0, 40.0, 99.5, 39.5, 200, 80)
    bank.observe(record(dataclasses.replace(good, intrinsics=wide)))
    assert bank.state("robot") in (b"", b"\x80") and bank.ram_bytes() == 0


def test_a_viewpoint_keeps_the_largest_and_a_moved_thing_the_newest() -> None:
    bank = ViewpointsBank(TracksConfig())
    for seq, size in enumerate((0.1, 0.2, 0.15)):
        bank.observe(record(seen(seq, box=(0.5 - size, 0.5 - size, 0.5 + size, 0.5 + size))))
    assert [view["seq"] for view in views(bank)] == [1]
    bank.observe(record(seen(3, away=4.0, box=(0.45, 0.45, 0.55, 0.55))))  # the same place, but it is 2 m further now
    assert [view["seq"] for view in views(bank)] == [3]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.floats(0.05, 0.4)), max_size=40), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_views_are_bounded(walk: list[tuple[int, int, float]], most: int) -> None:
    """One view a spot until there are too many; the largest or newest of a spot; saved and loaded they are the same."""
    bank = ViewpointsBank(TracksConfig(viewpoints=most))
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for seq, (x, y, size) in enumerate(walk):
        # The thing is at (20, y); steps of a metre, so that each is a spot of its own.
        box = (0.5 - size, 0.5 - size, 0.5 + size, 0.5 + size)
        bank.observe(record(seen(seq, at=(x - 12.0, float(y), 1.0), away=32.0 - x, box=box)))
        if best.get((x, y), (0.0, 0))[0] <= size:
            best[x, y] = (size, seq)
    kept = views(bank)
    assert len(kept) == min(most, len(best))
    if len(best) <= most:
        assert sorted(view["seq"] for view in kept) == sorted(seq for _, seq in best.values())
    assert bank.ram_bytes() <= bank.cap_bytes
    again = ViewpointsBank(TracksConfig(viewpoints=most))
    again.load("robot", bank.state("robot"), lambda number: None)
    assert again.digest("robot") == bank.digest("robot")


def test_bad_state_and_forgetting() -> None:
    bank = ViewpointsBank(TracksConfig())
    with pytest.raises(CorruptData, match="viewpoints"):
        bank.load("robot", b"\xc1", lambda number: None)
    for seq in range(4):
        bank.observe(record(seen(seq, at=(float(seq), 0.0, 1.0))))
    assert bank.forget("robot", 1 * SECOND, 2 * SECOND) == 2
    assert [view["seq"] for view in views(bank)] == [0, 3]
    assert bank.forget("robot", 0, 9 * SECOND) == 2 and bank.state("robot") == b""


def test_things_are_bounded() -> None:
    bank = ViewpointsBank(TracksConfig(max_objects=2))
    for seq, who in enumerate(("mug_1", "book_1", "ball_1")):
        bank.observe(record(seen(seq, who=who)))
    assert [one.track for one in bank._ask_views(None, streams=None)] == ["ball_1", "book_1"]  # type: ignore[arg-type]


def test_views_outlive_the_detail_and_a_restart(tmp_path: Path) -> None:
    """Under a budget moments lose depth and boxes; from where the thing was seen is still known, before and after a
    restart, and the digest is the same as without the restart."""
    config = Config.model_validate({"budget": {"disk_bytes": 4 << 20}, "spatial": {"on": False}})
    noise = np.random.default_rng(0)
    frames = [
        Observation(
            stream="robot", seq=n, capture_ns=n * 60 * SECOND, pose=Pose((n * 0.1, 0.0, 1.0), FORWARD_X),
            depth_m=(2.0 + noise.random((160, 120))).astype(np.float32), intrinsics=CAMERA,
            detections=(Detection("mug", 1.0, (0.4, 0.4, 0.6, 0.6), "mug_1"),) if n < 10 else (),
        )
        for n in range(200)
    ]  # fmt: skip
    with streammem.open(tmp_path / "a", config=config) as memory:
        memory.write(frames)
        assert any(level > 0 for level in memory.status().streams[0].levels)
        told = memory.query("viewpoints", "views", label="Mug")
        assert 1 <= len(told) <= 12 and all(one["track"] == "mug_1" for one in told)
        digest = memory.digest()
        with pytest.raises(QueryError):
            memory.query("viewpoints", "views", tracks=3)
    with streammem.open(tmp_path / "b", config=config) as memory:
        memory.write(frames[:120])
        memory.flush()
        shutil.copytree(tmp_path / "b", tmp_path / "c", ignore=shutil.ignore_patterns("*lock*"))
    with streammem.open(tmp_path / "c", config=config) as memory:
        memory.write(frames[120:])
        assert memory.query("viewpoints", "views", label="mug") == told
        assert memory.digest() == digest
        assert math.dist(told[0]["view"]["position_m"], (0.0, 0.0, 1.0)) < 1.0
