"""The 60 tasks on a log that was written by hand: acceptance 14, and what the official reading changes."""

from __future__ import annotations

import random

import msgspec
import pytest
from three_interactions import EXPECTED, LOG

from nav.findingdory.clock import DayClock, FrameIndex, clock_text, subsampled
from nav.findingdory.log import InteractionLog
from nav.findingdory.tasks import CATEGORIES, GROUPS, TASKS, answer_groups, interacted_name, ordinal, questions, task
from streammem.errors import InputError
from streammem.model import Observation

LOG.check()


@pytest.mark.parametrize("number", range(1, 61))
def test_goal_sets_of_all_60(number: int) -> None:
    slots, expected = EXPECTED[number]
    goal = task(number).goal(LOG, slots)
    assert [sorted(group) for group in goal.groups] == [sorted(group) for group in expected]
    assert goal.solvable
    words = task(number).text(LOG, slots)
    assert words.startswith(("Go to", "Revisit")) and "{" not in words
    # The way it is asked here is among the ways in which it can be asked (orders: rotations only).
    assert number >= 58 or slots in task(number).ways(LOG)


def test_the_table() -> None:
    assert list(TASKS) == list(range(1, 61))
    counts = {name: sum(one.category == name for one in TASKS.values()) for name in CATEGORIES}
    assert list(counts.values()) == [2, 6, 7, 5, 5, 5, 16, 2, 3, 6, 3]
    assert [sum(one.group == name for one in TASKS.values()) for name in GROUPS] == [30, 21, 9]
    with pytest.raises(InputError, match="no task 67"):
        task(67)


def test_official_readings() -> None:
    # Second placed on: bed1. The second interaction's start, shelf1, was placed on in the first: it matches too.
    assert task(33).goal(LOG, {"n": 2}, "official").groups == (("bed1", "shelf1"),)
    assert task(33).goal(LOG, {"n": 2}, "strict").groups == (("bed1",),)
    # 06:33 and 06:34 are bed1's and, where the minute was drawn from it, nothing else counts.
    assert task(47).goal(LOG, {"minute": 384, "chosen": "shelf1"}, "official").groups == (("shelf1",),)
    assert task(47).goal(LOG, {"minute": 384, "chosen": "shelf1"}, "strict").groups == (("table1",),)
    assert ordinal(11, "official") == "10th" and ordinal(11) == "11th"
    twice = msgspec.structs.replace(
        LOG, interactions=tuple(msgspec.structs.replace(i, goal_id="bed1") for i in LOG.interactions)
    )
    made = task(59).goal(twice, {"order": (0, 1, 2)}, "official")
    assert made.groups == (("bed1",),)
    assert made.path_groups == (("mug1",), ("book1",), ("mug2",))
    assert task(59).goal(twice, {"order": (0, 1, 2)}).groups == (("bed1",),) * 3
    asked = next(one for one in questions(twice, profile="official") if one.task == 59)
    assert len(asked.goal.groups) == 1 and len(answer_groups(twice, asked)) == 3


def test_ties_and_whole_minutes() -> None:
    first, second, third = LOG.interactions
    # 42 and 43 steps are 10 whole minutes both: the first met wins. Counted in steps the second took longer.
    even = msgspec.structs.replace(
        LOG,
        interactions=(
            msgspec.structs.replace(first, pick_step=100, end_step=142, place_step=140),
            msgspec.structs.replace(second, pick_step=300, end_step=343, place_step=340),
            third,
        ),
    )
    assert task(49).goal(even, {}, "official").groups == (("mug1",),)
    assert task(49).goal(even, {}, "strict").groups == (("book1",),)


def test_connected_receptacles_count() -> None:
    joined = msgspec.structs.replace(
        LOG,
        receptacles=tuple(
            msgspec.structs.replace(one, connected=("sofa1",)) if one.entity_id == "bed1" else one
            for one in LOG.receptacles
        ),
    )
    assert task(4).goal(joined).groups == (("bed2",),)
    assert task(53).goal(joined).groups == (("shelf1",), ("bed1", "sofa1"), ("table1",))


def test_names_of_repeated_categories() -> None:
    assert [interacted_name(LOG, k) for k in range(3)] == ["first mug", "book", "second mug"]
    assert task(36).text(LOG, {"a": 0}) == "Go to the object that you moved right after the first mug."
    assert task(48).text(LOG, {"minute": 390, "chosen": "mug1"}).endswith("at 6:30.")


def test_an_experience_without_an_instance_is_not_asked() -> None:
    short = msgspec.structs.replace(LOG, interactions=LOG.interactions[:1])
    asked = {one.task for one in questions(short)}
    assert not asked & {36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 58, 59, 60}
    assert len({one.task for one in questions(LOG)}) == 60
    nothing = InteractionLog(objects=(), receptacles=(), rooms=(), interactions=(), start_room="", steps=1)
    assert questions(nothing) == []
    with pytest.raises(InputError, match="task 31 can't be asked"):
        task(31).goal(LOG, {"n": 9})
    with pytest.raises(InputError, match="no entity 'unicorn'"):
        LOG.category("unicorn")


def test_questions_depend_on_the_seed_alone() -> None:
    assert questions(LOG, seed=5) == questions(LOG, seed=5)
    assert questions(LOG, seed=5) != questions(LOG, seed=6)
    drawn = {task(60).draw(LOG, random.Random(i)).slots["order"] for i in range(60)}  # type: ignore[union-attr]
    assert len(drawn) == 6


@pytest.mark.parametrize(("step", "text"), [(0, "06:00"), (500, "08:00"), (1000, "10:00"), (3499, "19:59")])
def test_clock_of_acceptance_14(step: int, text: str) -> None:
    assert DayClock().text(step) == text


def test_clock_inverse_is_exact() -> None:
    clock = DayClock()
    lengths = {len(clock.steps_of(minute)) for minute in range(360, 22 * 60)}
    assert lengths == {4, 5}
    for daily in (4000, 700, 333):
        clock = DayClock(daily, day=3)
        for step in range(daily):
            assert step in clock.steps_of(clock.minute(step))
            assert clock.step_at(clock.capture_ns(step)) == step
            assert clock.step_at(clock.capture_ns(step + 1) - 1) == step
    assert clock_text(599) == "09:59"


def test_frames_records_and_times_are_one() -> None:
    index = FrameIndex("robot", "s", 600)
    for frame in (0, 1, 17, 599):
        made = Observation(stream="robot", session="s", seq=frame, capture_ns=index.capture_ns(frame))
        assert made.record_id == index.record_id(frame)
        assert index.frame_of(made.record_id) == index.frame_at(made.capture_ns) == frame
    for bad in (-1, 600):
        with pytest.raises(InputError, match="of an experience of 600"):
            index.record_id(bad)
    with pytest.raises(InputError, match="no frame of robot"):
        index.frame_of(7)


def test_subsampling() -> None:
    assert subsampled(1800, 96)[:3] == [0, 18, 37] and subsampled(1800, 96)[-1] == 1799
    assert subsampled(10, 1) == [0] and len(subsampled(5, 96)) == 96
    with pytest.raises(InputError):
        subsampled(0, 96)
