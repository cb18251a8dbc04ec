"""Whatever a question of a bank is given, it answers or raises a typed error: no TypeError, no OverflowError."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_moments import observation

import streammem.memory
from streammem.banks.base import Asked
from streammem.config import ClipsConfig, Config, MemoryConfig
from streammem.errors import QueryError, StreammemError
from streammem.memory import Memory
from streammem.model import Intrinsics, Pose, StateFact


def full(number: int) -> Any:
    """Something for every bank: a walk with depth, patch tokens, a followed cup whose place is stated."""
    rng = np.random.default_rng(number)
    return observation(
        number,
        tokens=rng.normal(size=(16, 8)).astype(np.float16),
        depth_m=np.full((12, 16), 2.0, np.float32),
        pose=Pose((0.3 * number, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)),
        intrinsics=Intrinsics(16.0, 16.0, 8.0, 6.0, 16, 12),
        states=(StateFact("cup", "place", ("table", "shelf")[number // 20 % 2]),),
    )


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memory]:
    config = Config(memory=MemoryConfig(seal_bytes=200_000), clips=ClipsConfig(on=True, compressor="pool", slots=4))
    with streammem.memory.open(tmp_path_factory.mktemp("m"), config=config) as opened:
        opened.write([full(number) for number in range(90)])
        yield opened


def questions(memory: Memory) -> list[tuple[str, str, list[inspect.Parameter]]]:
    found = []
    for bank in ("short_term", "events", "clips", "entities", "spatial", "timeline", "tracks"):
        made = memory.bank(bank)
        assert isinstance(made, Asked)
        for name, question in made.questions().items():
            found.append((bank, name, list(inspect.signature(question).parameters.values())[1:]))
    return found


NUMBERS = st.one_of(st.integers(-5, 200), st.integers(), st.floats(), st.sampled_from([2**63, -(2**63), 10**40, 10**9]))
WORDS = st.one_of(
    st.sampled_from(["cup", "t1", "place", "table", "coarse", "top_k", "", "last", "cam"]), st.text(max_size=8)
)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.binary(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=8,
)


def likely(parameter: inspect.Parameter) -> st.SearchStrategy[Any]:
    """Mostly what the annotation says, so that the fuzz gets past the check and into the question."""
    said = str(parameter.annotation)
    right: st.SearchStrategy[Any] = PLAIN
    if "Sequence[float]" in said:
        few = st.floats(-1e6, 1e6) | st.integers(-3, 30)
        right = st.lists(few, min_size=3, max_size=3) | st.lists(few, max_size=4) | st.just([0.5] * 32)
    elif "Sequence[str]" in said:
        right = st.none() | st.lists(WORDS, max_size=3)
    elif "Between" in said or "Sequence[int]" in said:
        right = st.lists(st.integers(0, 10**11) | st.none(), min_size=2, max_size=2)
    elif "Mapping" in said:
        right = st.dictionaries(WORDS, st.floats(-10, 10), max_size=2)
    elif "int" in said:
        right = st.integers(-3, 120) | st.integers(0, 10**11) | st.integers(-(2**63), 2**63 - 1)
    elif "float" in said:
        right = st.floats(-1, 10) | st.floats(allow_nan=False, allow_infinity=False)
    elif "str" in said or "Literal" in said:
        right = WORDS
    elif "bool" in said:
        right = st.booleans()
    return st.one_of(right, right, right, right, PLAIN)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_only_typed_errors_whatever_is_asked(memory: Memory, data: st.DataObject) -> None:
    bank, name, parameters = data.draw(st.sampled_from(questions(memory)), "question")
    given_ = {
        part.name: data.draw(likely(part), part.name)
        for part in parameters
        if part.default is inspect.Parameter.empty or data.draw(st.integers(0, 2)) == 0
    }
    try:
        memory.query(bank, name, **given_)
    except StreammemError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("bank", "question", "arguments", "said"),
    [
        ("events", "events", {"limit": "ten"}, "events.events: the argument limit is 'ten', not int"),
        ("events", "recall", {"vector": "abc"}, "the argument vector is 'abc', not Sequence[float] | None"),
        ("entities", "last_seen", {"entity": 7}, "the argument entity is 7, not str"),
        ("entities", "was_at", {"entity": "cup", "t_ns": 2**63}, "an integer beyond 64 bits"),
        ("spatial", "near", {"position": [0, 0, float("nan")]}, "not a number"),
        ("spatial", "where", {"text": "a\ud800"}, "no Unicode"),
        ("spatial", "where", {}, "missing a required argument: 'text'"),
        ("spatial", "where", {"reader": 1, "text": "cup"}, "unexpected keyword argument 'reader'"),
        ("timeline", "timeline", {"streams": "cam"}, "the argument streams is 'cam', not Sequence[str] | None"),
    ],
)
def test_the_error_names_what_was_wrong(
    memory: Memory, bank: str, question: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(QueryError) as caught:
        memory.query(bank, question, **arguments)
    assert said in caught.value.message and caught.value.hint.startswith("its arguments: (*, streams")


def test_numpys_numbers_and_tuples_are_plain_enough(memory: Memory) -> None:
    plain = memory.query("spatial", "near", position=[1.0, 0.0, 2.0], radius_m=5)
    assert memory.query("spatial", "near", position=np.array([1, 0, 2], np.float32), radius_m=np.float64(5)) == plain
    assert memory.query("spatial", "near", position=(1, 0, 2), radius_m=5.0) == plain != []


@pytest.mark.parametrize("name", [["cup"], {}, None, 3, b"events"])
def test_names_that_are_no_text(memory: Memory, name: Any) -> None:
    with pytest.raises(QueryError, match="has no bank"):
        memory.query(name, "events")
    with pytest.raises(QueryError, match="has no question"):
        memory.query("events", name)


@pytest.mark.parametrize(("start", "end"), [(-447, 2), (38, 2**63 - 2), (-(2**63), 2**63 - 1)])
def test_a_stretch_of_any_length_is_answered_at_once(memory: Memory, start: int, end: int) -> None:
    """Over the instant 0 no grid holds a stretch in one cell, and the future is empty: both ran for ever."""
    found = memory.query("timeline", "scene", streams=["cam"], t_start_ns=start, t_end_ns=end)
    assert len(found) == 1
    assert memory.query("timeline", "at", streams=["cam"], t_start_ns=start, t_end_ns=end)
