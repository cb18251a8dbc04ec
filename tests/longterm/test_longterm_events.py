"""The bank of events: records, restarts, forgetting, words, neighbours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from longterm_samples import moments, scene_vectors
from sample_moments import SECOND, SPACE, observation, small_config

import streammem.memory
from streammem.banks.contiguity import choose
from streammem.banks.events import EventsBank
from streammem.banks.summaries import medoids
from streammem.config import Config
from streammem.errors import CorruptData, QueryError, SpaceMismatch
from streammem.model import Record, Speech, TextSpan, record_id, show_id
from streammem.storage.open_part import record_from_observation

SCENES = [20, 15, 30, 12, 25, 40, 18]
STARTS = [0, 20, 35, 65, 77, 102, 142]


def config(**changes: object) -> Config:
    made = small_config()
    return made.model_copy(update={"events": made.events.model_copy(update={"on": True, **changes})})


def asked(memory: streammem.memory.Memory, **arguments: object) -> list[dict]:
    return memory.query("events", "events", **arguments)


def test_scenes_become_events_with_parents_and_keys(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=config()) as memory:
        memory.write(moments(scene_vectors(SCENES, seed=3)))
        found = asked(memory)
        assert [event["t_start_ns"] // SECOND for event in found] == STARTS
        assert [event["open"] for event in found] == [False] * 6 + [True]
        second = memory.record(int(found[1]["id"], 16))
        assert second is not None
        assert second.count == 15
        assert [memory.record(parent).seq for parent in second.parents] == list(range(20, 35))  # type: ignore[union-attr]
        assert np.linalg.norm(second.vector) == pytest.approx(1, abs=1e-3)  # type: ignore[arg-type]
        assert 1 <= len(second.arrays["keys"]) <= 4
        assert second.record_id == record_id("events", "cam", "s", 20)
        assert [event["id"] for event in asked(memory, t_start_ns=40 * SECOND, t_end_ns=70 * SECOND)] == [
            found[2]["id"],
            found[3]["id"],
        ]
        assert asked(memory, streams=["other"]) == []


@pytest.mark.parametrize("step", [7, 31, 160])
def test_restarts_and_batches_change_nothing(step: int, tmp_path: Path) -> None:
    written = moments(scene_vectors(SCENES, seed=3, noise=0.3))
    for start in range(0, len(written), step):
        with streammem.memory.open(tmp_path / "a", config=config(refine="modularity")) as memory:
            memory.write(written[start : start + step])
    with streammem.memory.open(tmp_path / "a", config=config(refine="modularity")) as memory:
        assert memory.status().segments > 3
        with streammem.memory.open(tmp_path / "b", config=config(refine="modularity")) as other:
            for one in written:
                other.write(one)
            assert asked(memory) == asked(other)
            assert memory.digest() == other.digest()


def test_a_kill_between_two_writes_changes_nothing(tmp_path: Path) -> None:
    """The memory isn't closed: what a killed process leaves is the journal and what was sealed."""
    import shutil

    written = moments(scene_vectors(SCENES, seed=3, noise=0.3))
    memory = streammem.memory.open(tmp_path / "a", config=config())
    memory.write(written[:90])
    shutil.copytree(tmp_path / "a", tmp_path / "killed")
    memory.write(written[90:])
    with streammem.memory.open(tmp_path / "killed", config=config()) as revived:
        revived.write(written[90:])
        assert revived.digest() == memory.digest()
        assert asked(revived) == asked(memory)
    memory.close()


def test_forgetting_takes_the_event_and_the_open_moments(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=config()) as memory:
        memory.write(moments(scene_vectors(SCENES, seed=3)))
        memory.forget(stream="cam", between=(40 * SECOND, 41 * SECOND))
        assert [event["t_start_ns"] // SECOND for event in asked(memory)] == [0, 20, 65, 77, 102, 142]
        memory.forget(stream="cam", between=(144 * SECOND, 150 * SECOND))
        last = asked(memory)[-1]
        assert last["open"]
        assert last["moments"] == 18 - 7
        memory.write(moments(scene_vectors([20, 20], seed=9), start=160))
        assert asked(memory)[-1]["t_start_ns"] // SECOND == 180, "what is usual is learned anew, then it cuts again"
        memory.forget(stream="cam")
        assert asked(memory) == []


def test_words_travel_with_the_event_and_are_found_once(tmp_path: Path) -> None:
    vectors = scene_vectors([10, 10])
    written = moments(vectors)
    written[3] = replace(written[3], texts=(TextSpan("EXIT 7", 0.9),), speech=())
    spoken = Speech("hello there", 4 * SECOND, 6 * SECOND)
    words = observation(
        0, session="s/speech", embedding=None, space=None, thumbnail=None, parts={}, capture_ns=4 * SECOND
    )
    words = replace(words, speech=(spoken,), texts=(), labels=(), detections=(), pose=None, intrinsics=None)
    written = [replace(one, texts=one.texts if i == 3 else (), speech=()) for i, one in enumerate(written)]
    with streammem.memory.open(tmp_path, config=config()) as memory:
        memory.write([*written[:5], words, *written[5:]])
        first, second = asked(memory)
        assert list(first["texts"]) == ["EXIT 7"]
        assert list(first["speech"]) == ["hello there"]
        assert first["moments"] == 11
        assert not second["texts"]
        memory.seal()
        assert len(memory.search_text("EXIT")) == 1


def test_what_cuts_by_force_and_what_never_does(tmp_path: Path) -> None:
    """A mark, a pause, another session cut; a change of the picture counts as a surprise; late moments cut nothing."""
    same = np.tile(scene_vectors([1]), (60, 1))
    written = moments(same)
    written[10] = replace(written[10], stats={"mark": 1.0})
    written[25] = replace(written[25], stats={"change": 90.0})
    written[26] = replace(written[26], stats={"change": 90.0})  # within the shortest event
    written[40:] = [replace(one, session="t") for one in written[40:]]
    written[50:] = [replace(one, capture_ns=one.capture_ns + 100 * SECOND) for one in written[50:]]
    late = observation(99, embedding=same[0], session="t", capture_ns=43 * SECOND, space=SPACE)
    with streammem.memory.open(tmp_path, config=config()) as memory:
        memory.write([*written[:48], late, *written[48:]])
        found = asked(memory)
        assert [event["t_start_ns"] // SECOND for event in found] == [0, 10, 25, 40, 150]
        assert [event["moments"] for event in found] == [10, 15, 15, 11, 10]


def test_around_and_recall_bring_the_neighbours(tmp_path: Path) -> None:
    vectors = scene_vectors(SCENES, seed=3)
    with streammem.memory.open(tmp_path, config=config()) as memory:
        memory.write(moments(vectors))
        found = asked(memory)
        around = memory.query("events", "around", event=found[2]["id"], before=1, after=2)
        assert [event["id"] for event in around] == [event["id"] for event in found[1:5]]
        query = vectors[70].tolist()  # scene 3
        plain = memory.query("events", "recall", vector=query, k=1, contiguity=0)
        assert [event["id"] for event in plain] == [found[3]["id"]]
        near = memory.query("events", "recall", vector=query, k=2, contiguity=0.5)
        assert [(event["id"], event["why"]) for event in near] == [
            (found[3]["id"], "similar"),
            (found[4]["id"], "neighbour"),
        ]
        last = memory.query("events", "recall", vector=vectors[150].tolist(), k=1, contiguity=0)
        assert last[0]["open"], "the open event is part of every search"
        for wrong in (
            {"vector": query, "k": 0},
            {"vector": query, "contiguity": 0.6},
            {},
            {"query": "a", "vector": query},
        ):
            with pytest.raises(QueryError):
                memory.query("events", "recall", **wrong)
        with pytest.raises(SpaceMismatch):
            memory.query("events", "recall", vector=[1.0, 2.0])
        with pytest.raises(QueryError):
            memory.query("events", "around", event="0000000000000000")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.integers(1, 12), st.sampled_from([0.0, 0.3, 0.5]))
def test_contiguity_takes_the_best_and_then_their_neighbours(scores: list[float], k: int, share: float) -> None:
    values = np.array(scores)
    chosen, similar = choose(values, ["a"] * len(values), k, share)
    assert len(chosen) <= k
    assert chosen == sorted(set(chosen))
    best = sorted(range(len(values)), key=lambda at: (-values[at], at))[: max(1, round((1 - share) * k))]
    assert similar == set(best)
    for at in set(chosen) - similar:
        assert {at - 1, at + 1} & similar, "whatever isn't similar is next to what is"


def test_a_brief_object_is_in_the_keys_and_not_in_the_mean() -> None:
    """HCAM's pitfall: one frame of forty barely moves the mean; a medoid far away is kept."""
    rng = np.random.default_rng(77)
    scene = scene_vectors([40], dim=64, noise=0.2)
    thing = rng.normal(size=64).astype(np.float32)
    thing /= np.linalg.norm(thing)
    scene[17] = thing
    mean = scene.mean(axis=0) / np.linalg.norm(scene.mean(axis=0))
    assert mean @ thing < 0.3
    assert 17 in medoids(scene, 4)


def test_a_damaged_state_is_an_error_and_bytes_are_bounded() -> None:
    bank = EventsBank()
    with pytest.raises(CorruptData):
        bank.load("cam", b"\xc1\xc1", lambda number: None)
    newer = msgspec.msgpack.decode(saved_state())
    newer[0] = 2
    with pytest.raises(CorruptData, match="version 2"):
        bank.load("cam", msgspec.msgpack.encode(newer), lambda number: None)
    for one in moments(np.tile(scene_vectors([1], dim=384), (700, 1))):
        fast = replace(one, capture_ns=one.capture_ns // 1000, labels=(), texts=(), speech=())
        bank.observe(_as_record(fast))
    assert len(bank.state("cam")) < 0.6e6
    assert bank.ram_bytes() < 1.5e6
    assert show_id(record_id("events", "cam", "s", 0))


def saved_state() -> bytes:
    bank = EventsBank()
    bank.observe(_as_record(moments(scene_vectors([1]))[0]))
    return bank.state("cam")


def _as_record(one: streammem.Observation) -> Record:
    made = record_from_observation(one)
    return replace(made, vector=made.vector.astype(np.float32))  # type: ignore[union-attr]
