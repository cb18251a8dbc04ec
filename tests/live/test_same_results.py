"""One suite for both: whatever holds for a memory in the process holds for one behind a service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from live_samples import fake_space, moment
from live_serve import Running

import streammem.memory
from streammem.client import Client
from streammem.errors import ObservationError, QueryError
from streammem.memory import Memory
from streammem.model import Label, Observation, StreamInfo


@pytest.fixture(params=["process", "service"])
def memory(request: pytest.FixtureRequest, tmp_path: Path, serve: Callable[..., Running]) -> Iterator[Memory | Client]:
    if request.param == "process":
        with streammem.memory.open(tmp_path / "memory", spaces=fake_space) as opened:
            yield opened
    else:
        with serve().connect() as client:
            yield client


def test_write_and_receipts(memory: Memory | Client) -> None:
    receipt = memory.write([moment(i) for i in range(10)])
    assert (receipt.written, receipt.duplicates, receipt.refused, receipt.durable) == (10, 0, {}, True)
    again = memory.write([moment(i) for i in range(5, 12)])
    assert (again.written, again.duplicates) == (2, 5)
    assert memory.observation_count == 12


def test_queued_writes_are_there_after_a_flush(memory: Memory | Client) -> None:
    memory.write([moment(i) for i in range(20)], durable=False)
    memory.flush()
    assert memory.observation_count == 20


def test_one_bad_observation_raises_and_names_the_field(memory: Memory | Client) -> None:
    bad = Observation(stream="kitchen", seq=1, capture_ns=0, labels=(Label("mug", 2.0),))
    with pytest.raises(ObservationError, match=r"labels is 2\.0, outside \[0, 1\]") as caught:
        memory.write(bad)
    assert caught.value.field == "labels"


def test_bad_ones_in_a_list_are_left_out_and_counted(memory: Memory | Client) -> None:
    bad = Observation(stream="kitchen", seq=100, capture_ns=0, thumbnail=b"not a jpeg")
    receipt = memory.write([moment(1), bad, moment(2)])
    assert (receipt.written, receipt.refused) == (2, {"thumbnail": 1})


def test_what_only_the_memory_can_refuse(memory: Memory | Client) -> None:
    """An array that changes its shape within a stream passes every check of a packet."""
    memory.write(moment(1))
    changed = Observation(
        stream="kitchen", seq=2, capture_ns=5, space="words@1", parts={"classes": np.zeros((3, 9), np.float16)}
    )
    with pytest.raises(ObservationError, match="changed from") as caught:
        memory.write(changed)
    assert caught.value.field == "parts"
    receipt = memory.write([changed, moment(3)])
    assert (receipt.written, receipt.refused) == (1, {"parts": 1})


def test_search_and_ask(memory: Memory | Client) -> None:
    memory.write([moment(i) for i in range(30)])
    found = memory.search("EXIT 10", k=3)
    assert 1 <= len(found) <= 3
    assert found[0].stream == "kitchen"
    assert found[0].frames[0].where == "memory"
    answer = memory.ask("is there an EXIT sign?", k=5)
    assert answer.question == "is there an EXIT sign?"
    assert answer.status in ("found", "unsure", "not_seen")
    assert len(answer.closest) == 5
    assert memory.search("mug", between=(0, 10**8), streams=["kitchen"])[0].t_start_ns <= 10**8


@pytest.mark.parametrize("question", ["", "   ", "x" * 10_000])
def test_questions_that_cannot_be_asked(memory: Memory | Client, question: str) -> None:
    with pytest.raises(QueryError):
        memory.ask(question)


def test_an_unknown_stream(memory: Memory | Client) -> None:
    memory.write(moment(1))
    with pytest.raises(QueryError, match="no stream is called 'garage'") as caught:
        memory.search("mug", streams=["garage"])
    assert caught.value.hint == "known: kitchen"


def test_records_and_pictures(memory: Memory | Client) -> None:
    written = moment(0)
    memory.write([written, moment(1)])
    record = memory.record(written.record_id)
    assert record is not None
    assert (record.stream, record.seq, record.session, record.labels) == ("kitchen", 0, "s1", written.labels)
    assert (record.texts, record.speech) == (written.texts, written.speech)
    assert record.vector is not None and written.embedding is not None
    assert np.array_equal(record.vector, written.embedding.astype(np.float16).astype(np.float32))
    assert np.array_equal(record.arrays["classes"], written.parts["classes"])
    assert memory.thumbnail(written.record_id) == written.thumbnail
    assert memory.record(12345) is None
    assert memory.thumbnail(12345) is None
    assert [found.seq for found in memory.recent("kitchen")] == [0, 1]


def test_states_and_streams(memory: Memory | Client) -> None:
    assert memory.get_state("watch/kitchen/s1") is None
    memory.put_state("watch/kitchen/s1", b"\x00\xff state")
    assert memory.get_state("watch/kitchen/s1") == b"\x00\xff state"
    info = StreamInfo(stream="kitchen", source="cam:0", clock="wall", width=640, height=480, fps=29.97)
    memory.set_stream(info)
    assert memory.streams() == [info]
    with pytest.raises(ObservationError):
        memory.set_stream(StreamInfo(stream="bad\nname"))
    with pytest.raises(ObservationError, match="the limit is 4194304"):
        memory.put_state("large", b"x" * (4 << 20) + b"x")


def test_identity(memory: Memory | Client) -> None:
    memory.write([moment(i) for i in (0, 1, 2, 7)])
    assert memory.has("kitchen", "s1", 2)
    assert not memory.has("kitchen", "s1", 3)
    assert memory.last_seq("kitchen", "s1") == 7
    assert memory.last_seq("garage") is None


def test_status_and_digest(memory: Memory | Client, tmp_path: Path) -> None:
    memory.write([moment(i) for i in range(40)])
    status = memory.status()
    assert status.observations == 40
    assert [stream.stream for stream in status.streams] == ["kitchen"]
    with streammem.memory.open(tmp_path / "other", spaces=fake_space) as other:
        for i in range(40):
            other.write(moment(i))
        assert memory.digest() == other.digest()


def test_pins_seals_and_forgetting(memory: Memory | Client) -> None:
    memory.write([moment(i) for i in range(10)] + [moment(i, "garage") for i in range(10)])
    memory.pin("kitchen", (0, 10**9))
    memory.unpin("kitchen", (0, 10**9))
    assert memory.seal() == 20
    report = memory.forget(stream="garage")
    assert (report.observations, report.streams) == (10, ("garage",))
    assert [info.stream for info in memory.streams()] == ["kitchen"]
    assert memory.record(moment(1, "garage").record_id) is None
    partial = memory.forget(stream="kitchen", between=(0, 100_000_000))
    assert partial.observations == 4
    assert memory.observation_count == 6


def test_questions_of_a_bank(memory: Memory | Client) -> None:
    memory.write([moment(i) for i in range(5)])
    (held,) = memory.query("short_term", "held")
    assert (held["stream"], held["moments"]) == ("kitchen", 5)
    assert held["t_start_ns"] < held["t_end_ns"]
    assert memory.query("short_term", "held", streams=["kitchen"]) == [held]


@pytest.mark.parametrize(
    ("bank", "question", "arguments", "message"),
    [
        ("attic", "held", {}, "no bank 'attic'"),
        ("short_term", "lost", {}, "no question 'lost'"),
        ("short_term", "held", {"colour": "red"}, "unexpected keyword argument 'colour'"),
    ],
)
def test_questions_that_no_bank_has(
    memory: Memory | Client, bank: str, question: str, arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        memory.query(bank, question, **arguments)
