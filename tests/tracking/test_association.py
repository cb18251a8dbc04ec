"""Detections to tracks: rules, finding again, ghosts, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.trackers.association import GONE, AssociationSettings, AssociationTracker, Followed
from perception.trackers.box_motion import BoxMotion
from perception.trackers.boxes import Boxes, Drops, boxes, clean, from_supervision
from streammem.errors import InputError

SIZE = (480, 640)
RED, BLUE = np.eye(8, dtype=np.float32)[0], np.eye(8, dtype=np.float32)[1]


def box(x: float, y: float = 100, w: float = 40, h: float = 100) -> list[float]:
    return [x, y, x + w, y + h]


def looks(*vectors: np.ndarray) -> np.ndarray:
    return np.stack(vectors).astype(np.float32)


def run(
    tracker: AssociationTracker, frames: list[tuple[list[list[float]], np.ndarray | None]], start: int = 0
) -> list[Followed]:
    return [
        tracker.step(boxes(np.array(found, np.float32), [0.9] * len(found), "person", vectors), t=t, size=SIZE)
        for t, (found, vectors) in enumerate(frames, start)
    ]


def test_one_thing_that_moves_is_one_track() -> None:
    steps = run(AssociationTracker(), [([box(10 + 5 * t)], None) for t in range(30)])
    assert steps[0].tracks == ()  # seen once: perhaps noise
    assert {step.tracks for step in steps[1:]} == {("1",)}


def test_an_unsure_detection_keeps_a_track_but_starts_none() -> None:
    tracker = AssociationTracker()
    run(tracker, [([box(10 + 5 * t)], None) for t in range(5)])
    step = tracker.step(boxes([box(35), box(400)], [0.3, 0.3]), t=5, size=SIZE)
    assert step.tracks == () and len(tracker.tracks) == 1  # the label differs: "object" is no "person"
    step = tracker.step(boxes([box(40), box(400)], [0.3, 0.3], "person"), t=6, size=SIZE)
    assert step.tracks == ("1",) and step.index == (0,)


def test_labels_never_mix() -> None:
    tracker = AssociationTracker()
    for t in range(6):
        tracker.step(boxes([box(10)], [0.9], "cat" if t < 3 else "dog"), t=t, size=SIZE)
    assert tracker.tracks == ["1", "2"]


def test_found_again_by_looks_elsewhere_with_evidence() -> None:
    tracker = AssociationTracker(AssociationSettings(alike=0.8))
    run(tracker, [([box(50), box(300)], looks(RED, BLUE))] * 10)
    run(tracker, [([box(50)], looks(RED))] * 200, start=10)
    steps = run(tracker, [([box(50), box(550)], looks(RED, BLUE))] * 3, start=210)
    assert set(steps[-1].tracks) == {"1", "2"}
    (back,) = [one for step in steps for one in step.refound]
    assert (back.track, back.by, back.absent) == ("2", "looks", 201)
    assert back.alike == pytest.approx(1.0, abs=1e-3) and back.like_t is not None and back.like_t < 10
    assert 0 < back.score <= 1 and back.offset > 1
    assert back.next_alike is None or back.next_alike < 0.1


@pytest.mark.parametrize("absent", [8, 15, 40])
def test_a_stranger_in_the_same_place_is_not_the_one_who_left(absent: int) -> None:
    tracker = AssociationTracker(AssociationSettings(alike=0.8))
    run(tracker, [([box(50)], looks(RED))] * 10)
    run(tracker, [([], None)] * absent, start=10)
    steps = run(tracker, [([box(50)], looks(BLUE))] * 3, start=10 + absent)
    assert steps[-1].tracks == ("2",) and not [one for step in steps for one in step.refound]


def test_a_ghost_ages_out_when_its_place_was_looked_at() -> None:
    tracker = AssociationTracker()
    run(tracker, [([box(200)], None)] * 5)
    steps = run(tracker, [([], None)] * 120, start=5)
    assert ("1", "looked there since and did not see it") in [one for step in steps for one in step.retired]
    after = next(t for t, step in enumerate(steps) if step.retired)
    chosen = AssociationSettings()
    assert after + 1 == int(np.ceil(np.log(GONE) / np.log(chosen.looked)))


def test_behind_something_it_is_believed_for_longer() -> None:
    tracker = AssociationTracker()
    run(tracker, [([box(200)], None)] * 5)
    # Something larger stands in front of it: there is nothing to look at.
    cover = box(180, 80, 90, 200)
    steps = [tracker.step(boxes([cover], [0.9], "car"), t=t, size=SIZE) for t in range(5, 65)]
    assert not [one for step in steps for one in step.retired]
    assert "1" in tracker.tracks


@given(
    st.lists(
        st.lists(
            st.tuples(
                *[st.one_of(st.floats(-50, 700), st.sampled_from([float("nan"), float("inf"), -1e30, 1e30]))] * 4,
                st.one_of(st.floats(0, 1), st.sampled_from([float("nan"), 2.0, -1.0])),
            ),
            max_size=12,
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_whatever_a_detector_says(frames: list[list[tuple[float, ...]]]) -> None:
    tracker = AssociationTracker()
    given_boxes = 0
    for t, found in enumerate(frames):
        rows = np.array(found, np.float32).reshape(-1, 5)
        step = tracker.step(boxes(rows[:, :4], rows[:, 4]), t=t, size=SIZE)
        given_boxes += len(rows)
        assert len(set(step.tracks)) == len(step.tracks) == len(step.boxes) == len(step.index)
        assert len(set(step.index)) == len(step.index) and all(0 <= at < len(rows) for at in step.index)
        assert np.isfinite(step.boxes.xyxy).all() and (step.boxes.xyxy >= 0).all()
    assert sum(tracker.dropped.values()) <= given_boxes
    assert np.isfinite(tracker._motion.boxes()).all()


def test_bad_boxes_leave_the_others_alone() -> None:
    clear, dirty = AssociationTracker(), AssociationTracker()
    random = np.random.default_rng(0)
    for t in range(12):
        good = np.array([box(10 + 5 * t), box(400 - 5 * t)], np.float32)
        bad = np.array([[np.nan, 0, 5, 5], [5, 5, 5, 5], [900, 900, 950, 950]], np.float32)
        a = clear.step(boxes(good, [0.9, 0.9]), t=t, size=SIZE)
        b = dirty.step(boxes(np.concatenate([bad, good]), [0.9] * 5), t=t, size=SIZE)
        assert a.tracks == b.tracks and np.array_equal(a.boxes.xyxy, b.boxes.xyxy)
        assert [at + 3 for at in a.index] == list(b.index)
    assert dirty.dropped == {"box or score isn't finite": 12, "box is empty or outside of the picture": 24}
    # 10,000 boxes: the surest 300 are looked at.
    many = random.uniform(0, 400, (10_000, 2)).astype(np.float32)
    flood = np.concatenate([many, many + 30], axis=1)
    step = dirty.step(boxes(flood, random.uniform(0, 0.5, 10_000)), t=12, size=SIZE)
    assert dirty.dropped["more than 300 boxes in a picture"] == 9700 and len(step.boxes) <= 300
    assert dirty.step(boxes(good, [0.9, 0.9]), t=13, size=SIZE).tracks == ("1", "2")


def test_frames_twice_late_and_of_another_size() -> None:
    tracker = AssociationTracker()
    run(tracker, [([box(100)], None)] * 3)
    found = boxes([box(100)], [0.9], "person")
    assert tracker.step(found, t=2, size=SIZE).refused == "duplicate frame"
    assert tracker.step(found, t=1, size=SIZE).refused == "out of order"
    half = boxes(np.array([box(100)]) / 2, [0.9], "person")
    assert tracker.step(half, t=3, size=(240, 320)).tracks == ("1",)
    assert tracker.dropped == {
        "duplicate frame": 1,
        "out of order": 1,
        "picture of another size (positions scaled)": 1,
    }


def test_bounded_over_many_frames() -> None:
    tracker = AssociationTracker(AssociationSettings(forget=50, most_tracks=40))
    random = np.random.default_rng(0)
    sizes = []
    for t in range(600):
        x = random.uniform(0, 600, 6)
        found = np.stack([x, x * 0.5, x + 30, x * 0.5 + 60], axis=1).astype(np.float32)
        vectors = random.normal(size=(6, 32)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        tracker.step(boxes(found, [0.9] * 6, "person", vectors), t=t, size=SIZE)
        sizes.append(tracker.ram_bytes())
    assert len(tracker._tracks) <= 40 and max(sizes[300:]) < 1.3 * max(sizes[100:300])


def test_motion_expects_what_moves_on() -> None:
    motion = BoxMotion()
    motion.add(np.array(box(0)))
    for t in range(1, 20):
        motion.ahead()
        motion.update(0, np.array(box(6 * t)))
    motion.ahead(5)
    assert motion.boxes()[0, 0] == pytest.approx(6 * 24, abs=6)


class Stranger:
    """What supervision.Detections has."""

    def __init__(self) -> None:
        self.xyxy = np.array([[1, 2, 30, 40], [5, 6, 70, 80]], np.float32)
        self.confidence = np.array([0.5, 0.6], np.float32)
        self.class_id = np.array([0, 7])
        self.data = {"class_name": np.array(["person", "truck"])}


def test_supervision_at_the_edge() -> None:
    found = from_supervision(Stranger())
    assert found.labels == ("person", "truck") and found.scores.tolist() == pytest.approx([0.5, 0.6])
    assert from_supervision(Stranger(), {0: "man"}).labels == ("man", "class 7")
    with pytest.raises(InputError, match="no xyxy"):
        from_supervision([1, 2])
    with pytest.raises(InputError, match="2 boxes, 1 scores"):
        boxes(Stranger().xyxy, [0.5])
    drops = Drops()
    assert len(clean(Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ()), SIZE, drops)) == 0


def test_supervision_itself_round_trip() -> None:
    pytest.importorskip("supervision", reason="supervision isn't installed")
    from perception.trackers.boxes import to_supervision

    again = from_supervision(to_supervision(from_supervision(Stranger()), ["3", "9"]))
    assert again.labels == ("person", "truck") and np.array_equal(again.xyxy, Stranger().xyxy)
