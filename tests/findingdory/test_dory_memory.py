"""Agents with a memory: what they read out of words, what they see their hands do, and what they can't get at."""

from __future__ import annotations

import gc
import json
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from three_interactions import LOG

import streammem
from nav.env import AgentPose, CameraSpec
from nav.findingdory import metrics, run
from nav.findingdory.agents import Asked
from nav.findingdory.choosing import deeds_for, entities_for
from nav.findingdory.driving import drive
from nav.findingdory.instructions import is_furniture, read
from nav.findingdory.log import InteractionLog
from nav.findingdory.memory_agents import STREAM, MemoryAgent
from nav.findingdory.model_agent import ModelAgent
from nav.findingdory.perceive import ARM, PICKED, PLACED, Perceiver
from nav.findingdory.recollection import Recollection
from nav.findingdory.tasks import Goal, Question, questions
from nav.homes.experience import Experience
from nav.homes.simulation import HomeSimulation
from nav.homes.truth import Truth
from nav.planner import GridPlanner
from nav.source import HomeSource
from perception.frames import Frame, Sensed
from streammem.errors import AccessDenied, InputError
from streammem.model import Detection, StateFact
from streammem.reason.models import Endpoint

sys.path.append(str(Path(__file__).parents[1] / "reason"))
import chat_server

CAMERA = CameraSpec(30, 40)
SECOND = 10**9
DAY = 1_767_225_600 * SECOND + 6 * 3600 * SECOND
"""06:00."""


def frame(index: int, seen: str, *, arm: bool = False, x: float = 0.0) -> Frame:
    """``seen``: tracks from left to right, "table_0" or "mug_1"; things stand in front of the furniture."""
    found = []
    for name in seen.split():
        label = name.partition("_")[0]
        box = (0.1, 0.4, 0.9, 0.95) if is_furniture(label) else (0.4, 0.3, 0.6, 0.6)
        found.append(Detection(label, 1.0, box, name))
    states = tuple(StateFact(f"#{one.track}", "color", "red", kind=one.label) for one in found if one.label == "mug")
    return Frame(
        np.zeros((40, 30, 3), np.uint8),
        index * 60 * SECOND,
        DAY + index * 60 * SECOND,
        index,
        sensed=Sensed(
            depth_m=np.full((40, 30), 0.9, np.float32),
            pose=CAMERA.pose(AgentPose(x, 0.0, 0.0, 0.0)),
            intrinsics=CAMERA.intrinsics,
            detections=tuple(found),
            states=states,
            stats={ARM: float(arm)},
        ),
    )


def day() -> list[Frame]:
    """The mug goes from the table to the bed, then the book from the shelves to the table; a ball isn't touched."""
    plan = [
        ("ball_0 stool_0", False, -5.0), ("table_0 mug_1", False, 0.0),
        ("table_0 mug_1", True, 0.0), ("table_0", True, 0.0), ("", False, 4.0),
        ("bed_0", True, 8.0), ("bed_0 mug_1", True, 8.0), ("shelves_0 book_0", False, 12.0),
        ("shelves_0 book_0", True, 12.0), ("shelves_0", True, 12.0), ("", False, 4.0), ("", False, 3.0),
        ("table_0", True, 0.0), ("table_0", True, 0.0), ("table_0 book_0", True, 0.0), ("", False, 2.0),
    ]  # fmt: skip
    return [frame(i, seen, arm=arm, x=x) for i, (seen, arm, x) in enumerate(plan)]


@pytest.fixture(scope="module")
def agent() -> MemoryAgent:
    made = MemoryAgent()
    made.reset(0)
    for one in day():
        made.see(one)
    return made


def ask(agent: MemoryAgent, text: str) -> list[int] | None:
    return agent.answer(Asked(0, text, 16))


def test_every_template_is_read_from_its_words() -> None:
    for seed in range(6):
        for one in questions(LOG, seed=seed):
            made = read(one.text)
            assert made.target == one.goal.target, one.text
            assert made.every == (one.goal.mode != "any"), one.text
    with pytest.raises(InputError, match="can't be read"):
        read("Dance.")


def test_what_the_hands_did_is_seen() -> None:
    eyes = Perceiver("r")
    observations = [one for each in day() for one in eyes.see(each)] + eyes.rest()
    assert [one.seq for one in observations] == list(range(16))
    facts = [(one.seq, fact) for one in observations for fact in one.states if fact.until_ns]
    assert [(seq, f.entity, f.attribute, f.value, f.kind) for seq, f in facts] == [
        (2, "#mug_1", PICKED, "table_0", "mug"),
        (5, "#mug_1", PLACED, "bed_0", "mug"),
        (8, "#book_0", PICKED, "shelves_0", "book"),
        (12, "#book_0", PLACED, "table_0", "book"),
    ]
    assert [f.until_ns for _, f in facts] == [DAY + s * 60 * SECOND for s in (3, 6, 9, 14)]


def test_a_day_by_hand(agent: MemoryAgent) -> None:
    expected = {
        "Go to the first object that you interacted with.": [6],  # where it is now, not where it was
        "Go to the object that you moved right after the mug.": [14],
        "Go to the object that you moved right before the book.": [6],
        "Go to a red object that you interacted with.": [6],
        "Go to a ball that you did not interact with.": [0],
        "Go to any receptacle that you did not interact with.": [0],
        "Go to the room in which you placed the mug.": [5],
        "Go to the room in which you picked the second object.": [8],
        "Go to the object that you interacted with at 6:04.": [6],
        "Go to the object that took you longest to move.": [14],
        "Revisit the objects that you moved in this order: the second, then the first.": [14, 6],
        "Go to the object that you moved 2 interactions after the book.": None,
        "Sing to the mug.": None,
    }
    assert {text: ask(agent, text) for text in expected} == expected
    assert ask(agent, "Go to the receptacle that you picked the mug from.") in ([2], [3], [12], [13], [14])
    tour = ask(agent, "Revisit all receptacles that you placed objects on.")
    assert tour is not None and len(tour) == 2 and tour[0] in (5, 6) and tour[1] in (2, 3, 12, 13, 14)


def test_short_term_and_fifo_know_less() -> None:
    for keep, budget in (("fifo", 4), ("uniform", 4), ("short_term", 0)):
        less = MemoryAgent(keep, budget)  # type: ignore[arg-type]
        less.reset(0)
        for one in day():
            less.see(one)
        first = ask(less, "Go to the first object that you interacted with.")
        assert first != [6]
        assert len(less._recollected().moments) <= max(budget, 4)
        less.close()


def test_a_memory_is_a_directory_that_others_can_ask(tmp_path: Path) -> None:
    eyes = Perceiver(STREAM)
    with streammem.open(tmp_path / "m") as memory:
        memory.write([one for each in day() for one in eyes.see(each)] + eyes.rest())
    with streammem.open(tmp_path / "m", mode="read") as memory:
        told = memory.query("entities", "history", entity="mug", attribute=PICKED)
        assert [fact["value"] for fact in told["facts"]] == ["table_0"]
        known = Recollection(memory, STREAM)
        assert [(d.thing, d.start, d.goal) for d in known.deeds] == [
            ("mug_1", "table_0", "bed_0"),
            ("book_0", "shelves_0", "table_0"),
        ]
        asked = read("Go to a table that you placed an object on.")
        assert entities_for(asked, known) == ["table_0"] and len(deeds_for(asked, known)) == 2


def test_the_truth_is_out_of_reach() -> None:
    """Everything that can be reached from an agent that watched a home, object by object: no environment, no log, no
    judge, no goal."""
    source = HomeSource("4?interactions=2&size=18x24&labels=1&draw=rays", fps=0.01)
    made = MemoryAgent()
    made.reset(0)
    for one in source.frames():
        made.see(one)
    made.answer(Asked(1, "Go to the first object that you interacted with.", 400))
    forbidden = (Experience, Truth, HomeSimulation, InteractionLog, Question, Goal, HomeSource)
    assert any(isinstance(one, forbidden) for one in reachable(source))  # the search does find such things
    assert [type(one) for one in reachable(made) if isinstance(one, forbidden)] == []
    source_free = run.memory_agent("memory", source, {})
    assert [type(one) for one in reachable(source_free) if isinstance(one, forbidden)] == []
    made.close()


def test_a_language_model_answers_from_the_diary() -> None:
    told: list[str] = []

    def answer(asked: dict[str, Any]) -> str:
        text = asked["messages"][1]["content"]
        told.append(text if isinstance(text, str) else text[0]["text"])
        # What a reader of the diary would say: the frame in the line of the mug.
        return json.dumps({"frames": [int(told[-1].split("mug_1: mug, red; frame ")[1].split(";")[0])]})

    with chat_server.chat_server(chat_server.replies(answer)) as server:
        made = ModelAgent(Endpoint(server.url, "tiny"))
        made.reset(0)
        for one in day():
            made.see(one)
        assert ask(made, "Go to the mug that you interacted with.") == [6]
        assert "1. 06:02-06:03 picked up mug_1 from table_0 (frame 2)" in told[0]
        assert "2. 06:12-06:14 put it on table_0 (frame 12)" in told[0]
        for bad in ('{"frames": [99]}', '{"frames": []}', '{"frames": ["6"]}', "the mug", '{"frames": [true]}'):
            server.script = [chat_server.says(bad)]
            assert ask(made, "Go to the mug.") is None
        server.script = [chat_server.fails(401)]
        with pytest.raises(AccessDenied):  # a wrong key is no wrong answer
            ask(made, "Go to the mug.")
        made.close()


def reachable(start: object) -> list[object]:
    """By references, stopping at modules, types and functions: what they hold, everybody holds."""
    shared = (type, type(gc), type(reachable))
    seen, queue, found = {id(start)}, deque([start]), []
    while queue and len(found) < 2_000_000:
        one = queue.popleft()
        found.append(one)
        for next_one in gc.get_referents(one):
            if id(next_one) not in seen and not isinstance(next_one, shared):
                seen.add(id(next_one))
                queue.append(next_one)
    return found


class Wheels:
    """A body on a floor with a wall of 1.2 m that isn't on the map."""

    def __init__(self) -> None:
        self.pose, self.collided = AgentPose(0.5, 0.5, 0.0, 0.0), False

    def act(self, action: str) -> None:
        from nav.env import moved

        after = moved(self.pose, action)  # type: ignore[arg-type]
        self.collided = action == "forward" and 1.5 < after.x < 1.8 and after.y < 1.2
        if not self.collided:
            self.pose = after


def test_a_drive_goes_round_what_it_bumps_into() -> None:
    planner = GridPlanner(np.ones((40, 40), np.uint8), 0.1)
    body = Wheels()
    trace = drive(body, planner, [(3.0, 0.6, 1.5), (3.0, 3.0, 0.0)], lambda pose: {"": metrics.Reading()})
    assert len(trace.stops) == 2 and trace.ended == "stopped"
    assert np.hypot(body.pose.x - 3.0, body.pose.y - 3.0) < 0.3 and abs(body.pose.yaw) < 0.1
    walled = GridPlanner(np.where(np.arange(40)[None] == 20, 2, 1).repeat(40, 0).astype(np.uint8), 0.1)
    assert drive(Wheels(), walled, [(3.0, 0.6, 0.0)], lambda pose: {}).ended == "planner_failure"


@pytest.mark.slow
def test_a_rendered_day() -> None:
    """By rays: a home of two interactions; 48 of 52 questions when this was written."""
    setting = run.Setting(draw="rays", interactions=2, size="60x80")
    memory, chance = run.run_episode(4, ["memory", "last_visible"], setting)
    rate = [sum(r["success"] for r in one.rows.values()) / len(one.rows) for one in (memory, chance)]
    assert rate[0] >= 0.85 and rate[0] > rate[1] + 0.3
