"""From a question to a time range: each row names its situation. Times are written by hand, from a calendar."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammem.recall.plan import SOFT_SHARE, Anchor, plan_question, resolve, split_budget

S = 10**9
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * S


MEDIA = [
    ("between", "what happens between 2:10 and 3:00?", (130, 180), "what happens?"),
    ("from to", "show me the dog from 0:10 to 0:20", (10, 20), "show me the dog"),
    ("ago", "what was on the table ten minutes ago?", (600 - 120, 600 + 120), "what was on the table?"),
    ("half", "who came in half an hour ago?", None, None),
    ("recent", "did a car pass in the last two minutes?", (1080, 1200), "did a car pass?"),
    ("first", "what is seen in the first 30 seconds?", (0, 30), "what is seen?"),
    ("end", "who is there at the end of the video?", (800, 1200), "who is there?"),
    ("beginning", "a bird at the very beginning", (0, 400), "a bird"),
    ("at", "what is at 3:00?", (175, 185), "what is?"),
    ("edge", "a boat after 10:00", (600, 1200), "a boat"),
    ("minute", "what is shown in minute 3?", (180, 240), "what is shown?"),
    ("plain", "is there a red car?", None, "is there a red car?"),
    ("a date on a media clock is no time", "the car on 2026-11-22", None, "the car on 2026-11-22"),
]


@pytest.mark.parametrize(("name", "question", "span", "phrase"), MEDIA, ids=[row[0] for row in MEDIA])
def test_media_clock(name: str, question: str, span: tuple[int, int] | None, phrase: str | None) -> None:
    plan = plan_question(question, clock="media", now_ns=1200 * S, t_min_ns=0, t_max_ns=1200 * S)
    if name == "half":
        assert plan.ranges[0].t_start_ns == (1200 - 1800 - 360) * S
        return
    assert [(r.t_start_ns, r.t_end_ns) for r in plan.ranges] == ([(span[0] * S, span[1] * S)] if span else [])
    assert plan.phrase == phrase


# 2026-11-24 is a Tuesday. In Berlin the clocks go back on 2026-10-25 and forward on 2026-03-29.
WALL = [
    ("today", "2026-11-24T15:00", "what fell down today?", ("2026-11-24T00:00", "2026-11-25T00:00")),
    ("yesterday, across midnight", "2026-11-24T00:00", "the cat yesterday", ("2026-11-23T00:00", "2026-11-24T00:00")),
    ("last Tuesday on a Tuesday", "2026-11-24T15:00", "the mug last Tuesday", ("2026-11-17T00:00", "2026-11-18T00:00")),
    ("on Tuesday, on a Tuesday", "2026-11-24T15:00", "the mug on Tuesday", ("2026-11-24T00:00", "2026-11-25T00:00")),
    ("last Friday", "2026-11-24T15:00", "the mug last Friday", ("2026-11-20T00:00", "2026-11-21T00:00")),
    ("a day of 25 hours", "2026-10-26T12:00", "the mug yesterday", ("2026-10-25T00:00", "2026-10-26T00:00")),
    ("a day of 23 hours", "2026-03-30T12:00", "the mug yesterday", ("2026-03-29T00:00", "2026-03-30T00:00")),
    ("two days ago", "2026-11-24T15:00", "the mug two days ago", ("2026-11-22T00:00", "2026-11-23T00:00")),
    ("part of a day", "2026-11-24T15:00", "the mug on Monday morning", ("2026-11-23T05:00", "2026-11-23T12:00")),
    ("last week", "2026-11-24T15:00", "visitors last week", ("2026-11-16T00:00", "2026-11-23T00:00")),
    ("pm, said once", "2026-11-24T18:00", "the dog between 2:10 and 3:00 pm", ("2026-11-24T14:10", "2026-11-24T15:00")),
]


@pytest.mark.parametrize(("name", "now", "question", "span"), WALL, ids=[row[0] for row in WALL])
def test_wall_clock(name: str, now: str, question: str, span: tuple[str, str]) -> None:
    plan = plan_question(question, clock="wall", now_ns=at(now), zone=BERLIN)
    assert len(plan.ranges) == 1
    found = plan.ranges[0]
    assert found.t_start_ns == at(span[0])
    assert found.t_end_ns in (at(span[1]) - 1, at(span[1]))
    if name == "a day of 25 hours":
        assert found.t_end_ns - found.t_start_ns == 25 * 3600 * S - 1


def test_a_time_that_the_clocks_skip_is_noted_and_not_guessed() -> None:
    plan = plan_question("the cat at 02:30", clock="wall", now_ns=at("2026-03-29T12:00"), zone=BERLIN)
    assert plan.ranges == ()
    assert "never" in plan.notes[0]
    assert plan.phrase == "the cat at 02:30"


ANCHORS = [
    ("what happens before the man sits down?", Anchor("before", "the man sits down"), "what happens?"),
    ("what does the dog do right after it jumps?", Anchor("after", "it jumps"), "what does the dog do?"),
    ("who talks while the kettle boils?", Anchor("while", "the kettle boils"), "who talks?"),
    (
        "what is seen between the jump and the fall?",
        Anchor("between", "the jump", "the fall"),
        "what is seen?",
    ),
]


@pytest.mark.parametrize(("question", "anchor", "phrase"), ANCHORS)
def test_events_as_times(question: str, anchor: Anchor, phrase: str) -> None:
    plan = plan_question(question, now_ns=100 * S, t_min_ns=0, t_max_ns=100 * S)
    assert (plan.anchor, plan.phrase, plan.gate) == (anchor, phrase, "long_term")


def test_anchors_are_resolved_on_the_side_that_was_meant() -> None:
    event = (50 * S, 60 * S)
    before, after = (resolve(Anchor(side, "it"), event) for side in ("before", "after"))  # type: ignore[arg-type]
    assert before is not None and after is not None
    assert before.t_end_ns == event[0] - 1 and after.t_start_ns == event[1] + 1
    assert resolve(Anchor("before", "it"), None) is None
    between = resolve(Anchor("between", "a", "b"), event, (10 * S, 20 * S))
    assert between is not None and (between.t_start_ns, between.t_end_ns) == (20 * S, 50 * S)


ORDINALS = [
    ("when does the bird land for the second time?", 2),
    ("when was the mug last seen?", -1),
    ("the first time the door opens", 1),
    ("what happens in 10 seconds of the plastic bag?", None),  # VideoLucy's substring test fires on both words
    ("a lasting second-hand car", None),
]


@pytest.mark.parametrize(("question", "ordinal"), ORDINALS)
def test_ordinals_are_whole_words(question: str, ordinal: int | None) -> None:
    assert plan_question(question).ordinal == ordinal


GATES = [
    ("what do you see right now?", "current"),
    ("what just fell?", "short_term"),
    ("who came in 30 seconds ago?", "short_term"),
    ("did a dog pass two hours ago?", "long_term"),
    ("is there a dog?", "long_term"),
    ("where was the mug before now?", "long_term"),
]


@pytest.mark.parametrize(("question", "gate"), GATES)
def test_the_gate_has_three_outcomes(question: str, gate: str) -> None:
    assert plan_question(question, now_ns=10_000 * S, t_min_ns=0, t_max_ns=10_000 * S).gate == gate


def test_future_and_unrecorded_ranges_are_told_apart() -> None:
    media = {"now_ns": 100 * S, "t_min_ns": 0, "t_max_ns": 100 * S}
    assert plan_question("the dog between 5:00 and 6:00", **media).future  # type: ignore[arg-type]
    assert plan_question("what comes in the next 2 minutes", **media).future  # type: ignore[arg-type]
    gone = plan_question(
        "the dog 10 minutes ago", clock="wall", now_ns=10_000 * S, t_min_ns=9_990 * S, t_max_ns=9_999 * S
    )
    assert gone.empty and not gone.future


def test_banks_places_and_entities() -> None:
    plan = plan_question(
        "where is my red mug in the kitchen?", known_places=["kitchen", "kit"], known_entities=["red mug"]
    )
    assert plan.places == ("kitchen",) and plan.entities == ("red mug",)
    assert plan.banks == ("entities", "spatial", "tracks", "moments")
    assert plan_question("a dog").banks == ("moments",)
    assert "tracks" in plan_question("how many people pass?").banks
    assert plan_question("did track 3 come back?").banks == ("tracks", "entities", "moments")
    assert plan_question("how do I get to the sofa?").banks == ("spatial", "moments")
    assert plan_question("what happened before the crash?").banks[:2] == ("events", "timeline")


@given(st.integers(0, 10_000))
def test_a_fifth_of_the_budget_stays_outside(total: int) -> None:
    ranged = plan_question("the dog in the last 10 seconds", now_ns=100 * S)
    inside, outside = split_budget(total, ranged)
    assert inside + outside == total and inside >= 0
    assert abs(outside - SOFT_SHARE * total) <= 1
    assert split_budget(total, plan_question("the dog")) == (total, 0)


@given(st.text(max_size=200))
def test_any_text_has_a_plan(text: str) -> None:
    for clock in ("media", "wall"):
        plan = plan_question(text, clock=clock, now_ns=at("2026-03-29T12:00"), zone=BERLIN)  # type: ignore[arg-type]
        assert all(r.t_start_ns <= r.t_end_ns for r in plan.ranges)
