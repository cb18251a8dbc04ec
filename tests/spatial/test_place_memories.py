"""Short-term and long-term memory of places (mechanism page, acceptance 4 to 9)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammem.banks.spatial.long_term import AppendLog, recall
from streammem.banks.spatial.reversible import ReversibleTokenStore, round_trip_error
from streammem.banks.spatial.short_term import ShortTermMemory
from streammem.errors import QueryError, SpaceMismatch

X, Y = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
PLACE = ("node", 0)


def held(weight: float) -> ShortTermMemory:
    memory = ShortTermMemory(3, weight)
    for name, frequency, tau in (("a", 1, 0), ("b", 3, 2), ("c", 1, 9)):
        memory.write(name, np.zeros(3), X, tau)
        memory.entries[-1].frequency = frequency
    return memory


def test_8_eviction() -> None:
    memory = held(0.5)
    assert memory.scores(10).tolist() == [-4.5, -2.5, 0.0]
    evicted = memory.write("d", np.zeros(3), X, 10)
    assert evicted is not None and evicted.key == "a" and len(memory) == 3
    assert held(1.0).write("d", np.zeros(3), X, 10).key == "a"  # type: ignore[union-attr]  # least frequent, the first
    assert held(0.0).write("d", np.zeros(3), X, 10).key == "a"  # type: ignore[union-attr]  # oldest
    assert memory.write("b", np.ones(3), Y, 11) is None and len(memory) == 3
    again = next(entry for entry in memory.entries if entry.key == "b")
    assert (again.frequency, again.tau, again.position_m.tolist()) == (4, 11, [1, 1, 1])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.floats(-50, 50)] * 3), st.tuples(*[st.floats(-2, 2)] * 3))
def test_9_a_moved_anchor_and_a_moved_world_change_nothing(seed: int, shift: tuple, anchor: tuple) -> None:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    here, moved = ShortTermMemory(50), ShortTermMemory(50)
    for number in range(30):
        position, vector = rng.normal(scale=3, size=3), rng.normal(size=4)
        here.write(number, position, vector, number, anchor=number % 5)
        moved.write(number, position + shift, vector, number, anchor=(number + 1) % 5)
    query, vector = rng.normal(size=3), rng.normal(size=4).astype(np.float32)
    plain = [entry.key for entry, _ in here.find(query, vector, 30)]
    assert [entry.key for entry, _ in moved.find(query + shift, vector, 30)] == plain
    relative = here.find(query - np.array(anchor), vector, 30, anchor_m=np.array(anchor))
    assert [entry.key for entry, _ in relative] == plain


def test_9_short_term_first() -> None:
    short, long = ShortTermMemory(), AppendLog()
    assert recall(short, long, np.zeros(3), X) == recall(ShortTermMemory(), AppendLog(), np.ones(3), Y)
    assert recall(short, long, np.zeros(3), X).source == "long_term"
    short.write(("leaf", 0), np.array([3.0, 0, 0]), X, 0, record_id=7)
    long.write(("node", 0), Y, 8)
    assert len(short.find(np.zeros(3), X)) == 1, "at exactly 3 m it is found"
    alike = np.array([0.8, 0.6], np.float32)
    score = short.find(np.zeros(3), alike)[0][1]
    assert recall(short, long, np.zeros(3), alike, least=score).items == [(("leaf", 0), score, 7)]
    below = recall(short, long, np.zeros(3), alike, least=np.nextafter(score, 2))
    assert below.source == "long_term" and below.items[0][0] == ("node", 0)
    assert recall(short, long, np.array([-0.001, 0, 0]), X).source == "long_term"


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("dim", [16, 64, 384])
def test_4_round_trip(dtype: str, bound: float, dim: int) -> None:
    store = ReversibleTokenStore(dim, "slot", dtype=dtype)  # type: ignore[arg-type]
    vector = np.random.default_rng(dim).normal(size=dim)
    for training in (True, False):
        store.stack.train(training)
        store.write(PLACE, vector)
        assert np.abs(store.read(PLACE).vectors[0] - vector).max() <= bound
    assert round_trip_error(dim, 6, dtype) <= bound


def test_4_other_weights_are_an_error() -> None:
    store = ReversibleTokenStore(16)
    store.write(PLACE, np.ones(16))
    parameter = next(each for each in store.stack.parameters() if each.ndim == 2)
    parameter.data.add_(0.01)
    with pytest.raises(SpaceMismatch, match="was written with weights"):
        store.read(PLACE)
    parameter.data.sub_(0.01)
    parameter.data.copy_(parameter.data.round(decimals=3))
    with pytest.raises(SpaceMismatch):
        store.write(PLACE, np.ones(16))


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-3), ("float64", 1e-10)])
def test_5_chain_slot_fold(dtype: str, bound: float) -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 64))
    stores = {mode: ReversibleTokenStore(64, mode, dtype=dtype, spill=100) for mode in ("chain", "slot", "fold")}  # type: ignore[arg-type]
    sizes = []
    for vector in vectors:
        for store in stores.values():
            store.write(PLACE, vector)
        sizes.append(stores["chain"].token_bytes(PLACE))
    read = stores["chain"].read(PLACE)
    assert read.lossless and read.written == 50 and np.abs(read.vectors - vectors).max() <= bound
    assert set(np.diff(sizes)) == {64 * np.dtype(dtype).itemsize}, "no compression: bytes grow by a vector a write"
    last = stores["slot"].read(PLACE)
    assert len(last.vectors) == 1 and not last.lossless and np.abs(last.vectors[0] - vectors[-1]).max() <= bound
    assert stores["slot"].token_bytes(PLACE) == stores["fold"].token_bytes(PLACE)


def test_5_fold_loses_more_and_more() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 64))
    errors = []
    for count in (1, 5, 20):
        store = ReversibleTokenStore(64, "fold")
        for vector in vectors[:count]:
            store.write(PLACE, vector)
        read = store.read(PLACE)
        assert not read.lossless and not store.lossless
        errors.append(float(np.sqrt(((read.vectors - vectors[:count]) ** 2).mean())))
    assert errors[0] < 1e-4 < errors[1] < errors[2]


def test_5_a_long_chain_is_spilled_and_stays_exact() -> None:
    vectors = np.random.default_rng(1).normal(size=(90, 16))
    store = ReversibleTokenStore(16, "chain", spill=20)
    for vector in vectors:
        store.write(PLACE, vector)
    assert np.abs(store.read(PLACE).vectors - vectors).max() < 1e-3


def test_6_weights_that_lose_are_noticed_when_writing() -> None:
    vector = np.random.default_rng(0).normal(size=64)
    for on_loss in ("raw", "refuse"):
        store = ReversibleTokenStore(64, tolerance=1e-5, on_loss=on_loss)  # type: ignore[arg-type]
        for parameter in store.stack.parameters():
            parameter.data.mul_(30 if parameter.ndim == 2 else 1)
        if on_loss == "refuse":
            with pytest.raises(QueryError, match="would lose"):
                store.write(PLACE, vector)
            assert store.read(PLACE).written == 0
            continue
        store.write(PLACE, vector)
        assert store.refused == 1 and np.array_equal(store.read(PLACE).vectors[0], vector.astype(np.float32))
    with pytest.raises(QueryError, match="finite"):
        store.write(PLACE, np.full(64, np.nan))


def test_7_the_index() -> None:
    rng = np.random.default_rng(0)
    store = ReversibleTokenStore(8, "slot", blocks=1)
    for _ in range(1000):
        store.write(PLACE, rng.normal(size=8))
    assert store._index.capacity == 16, "one key is one slot, however often it is written"
    log = AppendLog()
    vectors = rng.normal(size=(500, 8))
    for number, vector in enumerate(vectors):
        log.write(("leaf" if number % 2 else "node", number // 2), vector, number)
    query = rng.normal(size=8)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert [found.record_id for found in log.search(query, 5)] == np.argsort(-(unit @ query))[:5].tolist()
    best = log.search(query, 1)[0]
    assert log.remove(best.key) == 1
    assert best.record_id not in [found.record_id for found in log.search(query, 500)]
    assert log.read(("leaf", 0)).vectors[0].tolist() != log.read(("node", 0)).vectors[0].tolist()
    with pytest.raises(QueryError, match="name the kind"):
        log.write(0, vectors[0])  # type: ignore[arg-type]
