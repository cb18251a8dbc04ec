"""The agent from pixels: which works of the arm were at one receptacle, and the colour of what was handled."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_dory_memory import frame

from nav.env import AgentPose, CameraSpec
from nav.findingdory import pixel_agent
from nav.findingdory.memory_agents import STREAM
from nav.findingdory.pixel_agent import same_place
from nav.findingdory.recollection import View

CAMERA = CameraSpec(30, 40)


def worked(point: tuple[float, float, float], yaw: float = 0.0) -> View:
    return View(0, 0, 0.5, 0.2, point, CAMERA.pose(AgentPose(point[0] - 0.9, point[1], 0.0, yaw)))


@pytest.mark.parametrize(
    ("point", "yaw", "one"),
    [
        ((1.0, 0.5, 0.7), 1.5, True),  # near: however it was faced
        ((1.1, 1.2, 0.72), 0.1, True),  # beside, faced the same way
        ((1.1, 1.2, 0.72), 0.6, False),  # ... from another side
        ((1.1, 1.2, 0.9), 0.0, False),  # ... of another height
        ((1.6, 1.2, 0.7), 0.0, False),  # ... half a metre behind
        ((1.0, 1.5, 0.7), 0.0, False),  # ... too far along
    ],
)
def test_a_table_has_several_places(point: tuple[float, float, float], yaw: float, one: bool) -> None:
    assert same_place(worked((1.0, 0.0, 0.7)), worked(point, yaw)) is one
    assert same_place(worked(point, yaw), worked((1.0, 0.0, 0.7))) is one


def test_the_colour_of_what_the_hands_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A red thing is gone after the first work of the arm, a blue one is new after the fourth; frames that aren't
    encoded need no weights."""
    monkeypatch.setattr(pixel_agent, "EncoderSuite", lambda config: None)
    agent = pixel_agent.PixelAgent()
    agent.reset(0)
    colours = {2: (220, 20, 20), 23: (30, 60, 220)}
    works = {2, 3, 6, 7, 10, 11, 22, 23}  # four works: a pick, a put, a pick, a put
    for index in (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 22, 23, 25):
        image = np.full((40, 30, 3), 128, np.uint8)
        if index in colours:
            image[10:20, 8:16] = colours[index]
        agent.see(dataclasses.replace(frame(index, "", arm=index in works), image=image))
    agent.rest()
    told = agent.memory.query("entities", "history", entity="thing 0", attribute="color", streams=[STREAM])
    assert [fact["value"] for fact in told["facts"]] == ["red"]
    told = agent.memory.query("entities", "history", entity="thing 1", attribute="color", streams=[STREAM])
    assert [fact["value"] for fact in told["facts"]] == ["blue"]
    agent.close()
