"""The llm reasoner over real HTTP: what it may claim, what it costs, and what becomes of a model that misbehaves."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for folder in ("recall", "reason"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
from chat_server import Asked, chat_server, fails, replies, says  # noqa: E402
from reason_samples import S, Script, filled, sparse  # noqa: E402

from streammem.errors import ConfigError, ServiceUnreachable  # noqa: E402
from streammem.memory import Memory  # noqa: E402
from streammem.reason.base import Budget, Context, Limits, Look, Period, Reasoned, SeenFrame, Task  # noqa: E402
from streammem.reason.models import Endpoint  # noqa: E402
from streammem.reason.strategies import open_reasoner  # noqa: E402

TRUTH = filled(400, [(204, "dog"), (205, "dog"), (206, "dog"), (200, "car"), (300, "car")])
TEXT = Limits(8192, 0, True)
SEES = Limits(8192, 8, True)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Memory, Script]]:
    memory = sparse(tmp_path / "m", TRUTH, 10)
    script = Script(memory, tmp_path / "deeper", TRUTH)
    yield memory, script
    script.close()
    memory.close()


def user_text(asked: Asked) -> str:
    content = asked["messages"][1]["content"]
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


def numbers_at(asked: Asked, second: int) -> list[int]:
    """Entries whose time range holds a second, as a model would read them: ``[7] cam 00:03:20–00:03:30 ...``."""
    found = []
    for line in user_text(asked).splitlines():
        row = re.match(r"\[(\d+)\]\s+cam\s+(\S+?)(?:–(\S+))? ", line)
        if row:
            start, end = (seconds(row[2]), seconds(row[3] or row[2]))
            if start <= second <= end:
                found.append(int(row[1]))
    return found


def seconds(text: str) -> float:
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + float(part)
    return total


def answer(text: str = "A dog.", **changes: Any) -> str:
    fields = {"answer": text, "confident": True, "present": True, "option": None, "entries": [1], "missing": "the dog"}
    return json.dumps({**fields, **changes})


def model_of(points: Callable[[Asked], str]) -> Callable[[Asked], str]:
    """A model that localises at 200 s and answers with ``points``."""

    def reply(asked: Asked) -> str:
        wanted = set(asked["response_format"]["json_schema"]["schema"]["required"])
        if "whole" in wanted:
            return json.dumps({"entries": numbers_at(asked, 205)[:1], "whole": False, "reason": "there"})
        if "description" in wanted:
            return json.dumps({"description": "a dog runs by"})
        return points(asked)

    return reply


def ask(
    memory: Memory,
    url: str,
    question: str,
    script: Script | None = None,
    *,
    limits: Limits = TEXT,
    budget: str = "",
    revisit: Any = None,
    **fields: Any,
) -> Reasoned:
    model = Endpoint(url, "tiny", limits=limits, timeout_s=5.0, sleep=lambda s: None)
    context = Context(view=memory, deepener=script, model=model, revisit=revisit)
    try:
        return open_reasoner("llm").reason(Task(question=question, **fields), context, Budget.parse(budget))
    finally:
        model.close()


def test_it_finds_by_looking_where_the_model_points(world: tuple[Memory, Script]) -> None:
    memory, script = world

    def points(asked: Asked) -> str:
        return answer(entries=numbers_at(asked, 205))

    with chat_server(replies(model_of(points))) as server:
        found = ask(memory, server.url, "when is there a dog?", script, budget="rounds=6")
    assert found.answer.status == "found"
    assert found.answer.evidence and found.answer.evidence[0].frames
    assert any(why.signal == "evidence" for why in found.answer.evidence[0].why)
    assert found.spent.calls == len(server.asked) == found.answer.cost.calls
    assert found.spent.tokens == 107 * len(server.asked)
    assert [step.action for step in found.steps][:2] == ["plan", "coarse"]


@pytest.mark.parametrize("claims", [{}, {"entries": [1, 2, 3]}, {"entries": []}, {"entries": [999, -1, 0]}])
def test_a_model_s_word_alone_is_never_found(world: tuple[Memory, Script], claims: dict[str, Any]) -> None:
    memory, script = world
    with chat_server(replies(model_of(lambda asked: answer("A boat, certainly!", **claims)))) as server:
        found = ask(memory, server.url, "is there a boat?", script, budget="rounds=3")
    assert found.answer.status in ("unsure", "not_seen")
    assert found.answer.evidence == ()
    assert found.answer.confidence <= 0.5


class Pictures:
    """A second look that shows red where the dog is and grey elsewhere."""

    def look_again(self, stream: str, t_start_ns: int, t_end_ns: int, fps: float, *, limit: int = 32) -> Look:
        there = t_start_ns <= 206 * S and t_end_ns >= 204 * S
        image = np.full((16, 16, 3), (255, 0, 0) if there else (90, 90, 90), np.uint8)
        times = np.linspace(t_start_ns, t_end_ns, min(limit, 3)).astype(int).tolist()
        return Look(Period(stream, t_start_ns, t_end_ns), tuple(SeenFrame(t, image) for t in times), "source")


def picture_is_red(asked: Asked) -> bool:
    import base64

    import cv2

    parts = asked["messages"][1]["content"]
    url = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(url.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    return bool(pixels[8, 8, 2] > 200)


@pytest.mark.parametrize(("honest", "status"), [(True, "found"), (False, "unsure")])
def test_a_model_that_sees_is_held_against_a_control(world: tuple[Memory, Script], honest: bool, status: str) -> None:
    """A zebra is no word of the space: only the model can see it. One that says yes to everything proves nothing."""
    memory, script = world

    def points(asked: Asked) -> str:
        if "visible" in asked["response_format"]["json_schema"]["schema"]["required"]:
            return json.dumps({"visible": picture_is_red(asked) or not honest, "reason": ""})
        return answer("A zebra.", entries=numbers_at(asked, 205))

    with chat_server(replies(model_of(points))) as server:
        found = ask(
            memory, server.url, "where is the zebra?", script, limits=SEES, budget="rounds=2", revisit=Pictures()
        )
    assert found.answer.status == status
    if honest:
        (why,) = [why for why in found.answer.evidence[0].why if why.signal == "model"]
        assert "not calibrated" in why.detail


def test_replies_that_can_t_be_read_are_repaired_once_then_counted(world: tuple[Memory, Script]) -> None:
    memory, _ = world
    with chat_server(says("I would say yes"), says(answer(present=False, confident=False))) as server:
        repaired = ask(memory, server.url, "a boat?")
    assert (repaired.spent.parse_failures, len(server.asked)) == (0, 3)  # coarse twice, and forced
    assert "can't be read" in server.asked[1]["messages"][-1]["content"]
    with chat_server(says('{"confident": "False"}')) as server:
        failed = ask(memory, server.url, "a boat?")
    assert failed.spent.parse_failures == 2
    assert failed.answer.status == memory.ask("a boat?").status


def test_an_endpoint_that_is_down_is_said_at_once(world: tuple[Memory, Script]) -> None:
    with pytest.raises(ServiceUnreachable):
        ask(world[0], "http://127.0.0.1:9", "a dog?")
    with pytest.raises(ConfigError, match="needs a model"):
        open_reasoner("llm").reason(Task(question="a dog?"), Context(view=world[0]), Budget())


def test_one_that_fails_in_the_middle_leaves_a_partial_answer(world: tuple[Memory, Script]) -> None:
    memory, script = world
    with chat_server(says(answer(confident=False, entries=[])), fails(500)) as server:
        found = ask(memory, server.url, "is there a dog?", script, budget="rounds=40")
    assert found.partial and "the model failed" in found.why
    assert found.answer.status == "found"  # the embedded agents went on


@pytest.mark.parametrize("budget", ["calls=0", "calls=1", "tokens=100", "tokens=1500", "calls=3,rounds=9"])
def test_the_budget_of_calls_and_tokens_holds(world: tuple[Memory, Script], budget: str) -> None:
    memory, script = world
    with chat_server(replies(model_of(lambda asked: answer(confident=False)))) as server:
        found = ask(memory, server.url, "is there a boat?", script, budget=budget)
    limits = Budget.parse(budget)
    assert limits.calls is None or found.spent.calls <= limits.calls
    assert limits.tokens is None or found.spent.tokens <= limits.tokens
    assert len(server.asked) == found.spent.calls


def test_multiple_choice(world: tuple[Memory, Script]) -> None:
    memory, script = world

    def points(asked: Asked) -> str:
        return answer("The dog.", option=2, entries=numbers_at(asked, 205))

    with chat_server(replies(model_of(points))) as server:
        found = ask(
            memory, server.url, "what is seen?", script, options=("a boat", "a dog", "a cup"), budget="rounds=4"
        )
    assert found.option == 1
    assert found.option_scores[1] == max(found.option_scores)
    assert sum(found.option_scores) == pytest.approx(1.0)
    assert "1. a boat\n2. a dog" in user_text(server.asked[0])
