"""Corrections: the wrong moment is no evidence any more, until the lesson expires or the stream is forgotten."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from word_space import JPEG, S, WordSpace, vector_of

import streammem.memory
from streammem.cli import answers
from streammem.clock import SystemClock
from streammem.config import Config
from streammem.errors import InputError, QueryError
from streammem.memory import Memory
from streammem.model import Observation, StreamInfo
from streammem.recall import lessons

DAY = 86_400 * S


class Held(SystemClock):
    def __init__(self, now_ns: int) -> None:
        self.now = now_ns

    def now_ns(self) -> int:
        return self.now


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with streammem.memory.open(tmp_path / "m", spaces=lambda _: WordSpace()) as opened:
        opened.set_stream(StreamInfo(stream="cam", clock="media"))
        for second in range(60):
            thing = "dog" if second in (10, 40) else "tree"
            opened.write(
                Observation(
                    stream="cam", seq=second, capture_ns=second * S, space="words@1", embedding=vector_of(thing),
                    thumbnail=JPEG,
                ),
                durable=False,
            )  # fmt: skip
        opened.flush()
        yield opened


def correct(memory: Memory, question: str, spans: list[tuple[int, int]], **options: float) -> lessons.Lesson:
    clock = options.pop("clock", SystemClock())
    return lessons.add(memory, "cam", question, "that is a fox", spans, clock=clock, **options)  # type: ignore[arg-type]


def test_a_corrected_moment_is_no_evidence_any_more(memory: Memory) -> None:
    before = memory.ask("is there a dog?")
    assert before.status == "found" and len(before.evidence) == 2
    correct(memory, "is there a dog?", [(10 * S, 10 * S)])
    after = memory.ask("where is the dog?")
    assert after.status == "found"
    assert [item.t_start_ns for item in after.evidence] == [40 * S]
    assert "“that is a fox”" in after.text
    correct(memory, "is there a dog?", [(40 * S, 40 * S)])
    assert memory.ask("is there a dog?").status == "unsure"
    assert memory.ask("is there a dog?").confidence <= 0.5


def test_other_questions_are_left_alone(memory: Memory) -> None:
    tree = memory.ask("a tree")
    correct(memory, "is there a dog?", [(0, 60 * S)])
    again = memory.ask("a tree")
    assert (again.status, again.text, again.evidence) == (tree.status, tree.text, tree.evidence)


def test_a_lesson_expires(memory: Memory) -> None:
    now = SystemClock().now_ns()
    correct(memory, "is there a dog?", [(0, 60 * S)], clock=Held(now - 10 * DAY), days=9.0)  # type: ignore[arg-type]
    assert memory.ask("is there a dog?").status == "found"
    correct(memory, "is there a dog?", [(0, 60 * S)], clock=Held(now - 10 * DAY), days=11.0)  # type: ignore[arg-type]
    assert memory.ask("is there a dog?").status == "unsure"


def test_the_same_again_counts(memory: Memory) -> None:
    correct(memory, "is there a dog?", [(10 * S, 10 * S)])
    lesson = correct(memory, "is there a dog?", [(40 * S, 40 * S)])
    assert (lesson.count, lesson.spans) == (2, ((10 * S, 10 * S), (40 * S, 40 * S)))
    assert lessons.read(memory, "cam") == (lesson,)


def test_forgetting_the_stream_forgets_its_lessons(memory: Memory) -> None:
    correct(memory, "is there a dog?", [(10 * S, 10 * S)])
    memory.forget(stream="cam")
    assert lessons.read(memory, "cam") == ()


def test_lessons_are_bounded(memory: Memory) -> None:
    for number in range(lessons.MOST + 20):
        lessons.add(memory, "cam", f"question {number}", "no", [], clock=SystemClock())
    assert len(lessons.read(memory, "cam")) == lessons.MOST


@pytest.mark.parametrize(("text", "days"), [("", 1.0), (" \n", 1.0), ("x", 0.0), ("x", float("nan")), ("x", 1e9)])
def test_what_is_no_lesson(memory: Memory, text: str, days: float) -> None:
    with pytest.raises(QueryError):
        lessons.add(memory, "cam", "a dog?", text, [], clock=SystemClock(), days=days)


def test_a_damaged_lesson_keeps_nobody_from_an_answer(memory: Memory) -> None:
    memory.put_state(lessons.key_of("cam"), b"\xc1 no msgpack")
    assert memory.ask("is there a dog?").status == "found"


def test_the_command_and_the_list_of_answers(memory: Memory, tmp_path: Path) -> None:
    config = Config(cache_dir=str(tmp_path / "cache"))
    answer = memory.ask("is there a dog?")
    number = answers.keep(config, "m", memory.directory, answer)
    with (tmp_path / "cache" / "answers.jsonl").open("a") as torn:
        torn.write('{"id": "beef')
    assert answers.find(config, number)["question"] == "is there a dog?"
    memory.close()
    command = [sys.executable, "-m", "streammem", "correct", number, "that is a fox", "--json"]
    environment = {"PATH": "/usr/bin:/bin", "STREAMMEM_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["streams"] == ["cam"]
    with streammem.memory.open(memory.directory, spaces=lambda _: WordSpace(), mode="read") as again:
        assert again.ask("is there a dog?").status == "unsure"
    command[4] = "00000000"
    wrong = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (wrong.returncode, len(wrong.stderr.strip().splitlines())) == (2, 1)
    with pytest.raises(InputError, match="no answer"):
        answers.find(config, "00000000")
