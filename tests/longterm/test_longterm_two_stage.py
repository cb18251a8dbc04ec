"""From events over clips to moments: a scan of everything is the oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from longterm_samples import moments, scene_vectors
from sample_moments import SECOND, small_config

import streammem.memory
from streammem.banks.two_stage import ENDS, _join, _meet, _rest, default_k, search_staged
from streammem.config import ClipsConfig, Config, EventsConfig
from streammem.errors import QueryError, SpaceMismatch
from streammem.memory import Memory

LENGTHS = [12, 9, 20, 15, 7, 30, 11, 18, 25, 14]


def config() -> Config:
    return small_config().model_copy(update={"events": EventsConfig(on=True), "clips": ClipsConfig(on=True)})


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    """Two streams with tokens, sealed and open, a late moment, and moments from before the bank was on."""
    path = tmp_path_factory.mktemp("staged")
    vectors = scene_vectors(LENGTHS, seed=1, noise=0.5)
    written = [replace(one, tokens=np.ones((4, 3), np.float16)) for one in moments(vectors)]
    with streammem.memory.open(path, config=small_config()) as first:
        first.write(written[:40])
        first.seal()
    made = streammem.memory.open(path, config=config())
    made.write(written[40:])
    made.write(moments(scene_vectors([8], seed=8), start=500, stream="late", session="x"))
    made.write(moments(scene_vectors(LENGTHS[:4], seed=5), stream="other"))
    made.write(replace(moments(vectors[:1], start=900)[0], capture_ns=50 * SECOND))
    return made


def brute(memory: Memory, query: np.ndarray, top: int, streams: list[str] | None, span: tuple[int, int]) -> list[tuple]:
    asked = query / np.linalg.norm(query)
    found = []
    for block in memory.blocks("moments", streams):
        scores, rows = block.search(asked.astype(np.float32), len(block), 0, len(block))
        found += [
            (-float(s), int(block.t_start_ns[r]), block.stream, int(block.record_ids[r]))
            for s, r in zip(scores, rows, strict=True)
            if span[0] <= block.t_start_ns[r] <= span[1]
        ]
    return sorted(found)[:top]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.sampled_from([None, ["cam"], ["other", "late"]]),
    st.tuples(st.integers(0, 200), st.integers(0, 600)),
    st.sampled_from([None, 10**6]),
)
def test_with_k_covering_all_it_is_the_scan(
    memory: Memory, seed: int, top: int, streams: list[str] | None, window: tuple[int, int], clips: int | None
) -> None:
    query = np.random.default_rng(seed).normal(size=32)
    low, high = window[0] * SECOND, (window[0] + window[1]) * SECOND
    found = search_staged(
        memory, vector=query.tolist(), top=top, events=10**6, clips=clips, streams=streams, between=(low, high)
    )
    wanted = brute(memory, query, top, streams, (low, high))
    assert [(hit.t_ns, hit.stream, int(hit.id, 16)) for hit in found.hits] == [row[1:] for row in wanted]
    assert found.scanned == found.moments


def test_masked_streams_and_times_are_never_returned(memory: Memory) -> None:
    query = scene_vectors(LENGTHS, seed=1, noise=0.5)[60]
    found = memory.query(
        "events", "search", vector=query.tolist(), top=50, streams=["cam"], t_start_ns=70 * SECOND, t_end_ns=99 * SECOND
    )
    assert {hit["stream"] for hit in found["hits"]} == {"cam"}
    assert all(70 * SECOND <= hit["t_ns"] <= 99 * SECOND for hit in found["hits"])


def test_the_open_part_is_always_searched(memory: Memory) -> None:
    """With no event allowed, what none covers is still there: the open ones, and what was written without a bank."""
    for stream, second in (("other", 50), ("cam", 155), ("cam", 3)):
        record = next(
            block.record(row)
            for block in memory.blocks("moments", [stream])
            for row in range(len(block))
            if block.t_start_ns[row] == second * SECOND
        )
        assert record.vector is not None
        found = search_staged(memory, vector=record.vector.tolist(), top=1, events=0)
        assert found.hits[0].t_ns == second * SECOND
        assert found.hits[0].event == ""
        assert found.kept == 0
        assert found.scanned < found.moments


def needles(scenes: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``scenes`` scenes of 30 frames; in every fourth a thing of one frame that is unlike everything."""
    rng = np.random.default_rng(seed)
    vectors = scene_vectors([30] * scenes, dim=64, noise=0.6, seed=seed)
    places = np.arange(2, scenes, 4) * 30 + rng.integers(5, 25, size=len(range(2, scenes, 4)))
    things = rng.normal(size=(len(places), 64))
    things /= np.linalg.norm(things, axis=1, keepdims=True)
    vectors[places] = 0.3 * vectors[places] + things
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), things, places


def test_recall_over_k_and_what_medoids_are_for(tmp_path: Path) -> None:
    """The needle test: one frame of thirty. Medoids beside the mean find it with few events; the mean hides it."""
    vectors, things, places = needles(60, seed=4)
    # Scenes of 30 s each; the one strange frame must not cut them, so only marks do.
    rule = EventsConfig(on=True, gamma=100.0, least=1.9, scene_cut=0.5)
    written = [
        replace(one, stats={"change": float(i % 30 == 0)}, texts=(), speech=(), thumbnail=None)
        for i, one in enumerate(moments(vectors))
    ]
    made = small_config(seal_bytes=1 << 25).model_copy(update={"events": rule})
    with streammem.memory.open(tmp_path, config=made) as memory:
        memory.write(written)
        curve: dict[bool, list[float]] = {True: [], False: []}
        for keys in curve:
            for k in (1, 2, 4, 8, 16, 60):
                right = 0
                for thing, place in zip(things, places, strict=True):
                    hits = search_staged(memory, vector=thing.tolist(), top=1, events=k, keys=keys).hits
                    right += hits[0].t_ns == place * SECOND
                curve[keys].append(right / len(places))
        print("\nrecall@1 for k = 1 2 4 8 16 60\n  mean and medoids", curve[True], "\n  mean alone      ", curve[False])
        assert curve[True][0] >= 0.9
        assert curve[True][0] - curve[False][0] >= 0.5
        assert curve[True][-1] == curve[False][-1] == 1.0
        assert curve[False] == sorted(curve[False])


def test_k_grows_with_the_logarithm() -> None:
    assert [default_k(n) for n in (0, 3, 250, 10_000)] == [8, 8, 32, 54]


def test_questions_that_cannot_be_asked(memory: Memory) -> None:
    for wrong in ({"vector": [1.0] * 32, "top": 0}, {}, {"vector": [1.0] * 32, "events": -1}):
        with pytest.raises(QueryError):
            memory.query("events", "search", **wrong)
    with pytest.raises(SpaceMismatch):
        memory.query("events", "search", vector=[1.0] * 5)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=8),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=8),
)
def test_interval_arithmetic(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    a, b = (_join([(start, start + length) for start, length in spans]) for spans in (one, other))
    sets = [{t for lo, size in spans for t in range(lo, lo + size + 1)} for spans in (one, other)]
    assert {t for lo, hi in _meet(a, b) for t in range(lo, hi + 1)} == sets[0] & sets[1]
    rest = _meet(_rest(a), [(0, 60)])
    assert {t for lo, hi in rest for t in range(lo, hi + 1)} == set(range(61)) - sets[0]
    assert _rest([]) == [ENDS]
