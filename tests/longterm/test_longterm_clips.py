"""The bank of clips. Numbers in names are the acceptance checks of the mechanism page, section 1.f."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from longterm_samples import moments, scene_vectors
from sample_moments import SECOND, small_config

import streammem.memory
from streammem.banks.clip_policies import CosineThreshold, SoftmaxThreshold, TopK
from streammem.banks.clip_questions import tokens_in_box
from streammem.banks.clips import ClipsBank
from streammem.banks.compressors import Compressor, open_compressor
from streammem.banks.compressors.base import unit
from streammem.banks.compressors.grid import cells, depth_to_space, space_to_depth
from streammem.config import ClipsConfig, Config
from streammem.errors import ConfigError, CorruptData, ObservationError, QueryError, SpaceMismatch
from streammem.model import Observation, show_id


def config(**changes: object) -> Config:
    return small_config().model_copy(update={"clips": ClipsConfig(**{"on": True, "compressor": "pool", **changes})})  # type: ignore[arg-type]


def with_tokens(
    vectors: np.ndarray, *, side: int = 4, width: int = 8, seed: int = 0, start: int = 0
) -> list[Observation]:
    rng = np.random.default_rng([seed, start])
    made = moments(vectors, start=start)
    return [replace(one, tokens=rng.normal(size=(side * side, width)).astype(np.float16)) for one in made]


def random_clip(seed: int, frames: int = 16, count: int = 64, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, count, width)).astype(np.float32)


# -- compressors


@pytest.mark.parametrize("name", ["pool", "merge"])
@pytest.mark.parametrize("count", [64, 144, 196])
def test_1_sixteen_frames_give_64_slots_and_one_summary(name: str, count: int) -> None:
    made = open_compressor(name).compress(random_clip(0, 16, count), 0, 15)
    assert made.slots.shape == (64, 12)
    assert made.summary.shape == (12,)
    assert made.counts.sum() == 16 * count
    assert (made.spans[:, 0] <= made.spans[:, 1]).all()
    assert open_compressor(name, slots=4).compress(random_clip(0, 5, count), 0, 4).slots.shape == (20, 12)


def test_2_pooling_is_exact() -> None:
    tokens = random_clip(1, 3, 64)
    made = open_compressor("pool").compress(tokens, 0, 2)
    grid = tokens.reshape(3, 8, 8, 12)
    for frame in range(3):
        for cell, (y, x) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
            expected = grid[frame, y : y + 4, x : x + 4].reshape(-1, 12).mean(axis=0)
            assert made.slots[frame * 4 + cell] == pytest.approx(expected, abs=1e-5)
    assert made.summary == pytest.approx(tokens.reshape(-1, 12).mean(axis=0), abs=1e-5)
    assert made.slots.mean(axis=0) == pytest.approx(made.summary, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 1000))
def test_3_space_to_depth_is_invertible_and_takes_neighbours(half: int, width: int, seed: int) -> None:
    tokens = np.random.default_rng(seed).normal(size=(2, 4 * half * half, width)).astype(np.float16)
    mixed = space_to_depth(tokens)
    assert mixed.shape == (2, half * half, 4 * width)
    assert np.array_equal(depth_to_space(mixed), tokens)
    side = 2 * half
    assert np.array_equal(mixed[:, 0], tokens[:, [0, 1, side, side + 1]].reshape(2, -1))


def test_3_shapes_that_cannot_be_mixed() -> None:
    for count in (15, 49):
        with pytest.raises(ObservationError):
            space_to_depth(np.zeros((count, 4)))
    with pytest.raises(ObservationError):
        depth_to_space(np.zeros((3, 4)))


@pytest.mark.parametrize("name", ["pool", "merge"])
def test_4_causality(name: str) -> None:
    compressor = open_compressor(name)
    made = [compressor.compress(random_clip(i, 4), 0, 3) for i in range(4)]
    slots, summaries = [one.slots for one in made], np.stack([one.summary for one in made])
    plain = compressor.integrate(slots, summaries)
    other = compressor.integrate([slots[0], slots[1] + 1, slots[2], slots[3]], summaries)
    assert (np.abs(other - plain).max(axis=1) > 1e-6).all(), "all see all slots"
    changed = summaries.copy()
    changed[2] *= -3
    after = compressor.integrate(slots, changed)
    assert np.array_equal(after[:2], plain[:2])
    assert (np.abs(after[2:] - plain[2:]).max(axis=1) > 1e-6).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(2, 30), st.integers(1, 6), st.integers(0, 1000))
def test_merging_conserves_the_sum_of_all_tokens(frames: int, count: int, slots: int, seed: int) -> None:
    tokens = random_clip(seed, frames, count)
    made = open_compressor("merge", slots=slots).compress(tokens, 0, 1)
    assert len(made.slots) == min(frames * slots, frames * count)
    total = (made.slots.astype(np.float64) * made.counts[:, None]).sum(axis=0)
    assert total == pytest.approx(tokens.reshape(-1, 12).sum(axis=0), abs=1e-3)


def test_cells_of_what_is_no_square() -> None:
    assert np.bincount(cells(10, 4)).tolist() == [3, 2, 3, 2]
    assert np.bincount(cells(49, 4)).tolist() == [16, 12, 12, 9]
    assert cells(4, 16).max() == 3


def needle_clips(seed: int, strength: float) -> tuple[list[np.ndarray], np.ndarray, list[int]]:
    """Section 1.d: 64 clips, 16 frames, 8 x 8 tokens; a 2 x 2 thing in 1 to 8 frames of its clip."""
    rng = np.random.default_rng(seed)
    width = 64
    things = unit(rng.normal(size=(64, width)))
    clips = []
    for number in range(64):
        scene = rng.normal(size=width)
        tokens = scene + rng.normal(size=(16, 8, 8, width))
        first, length = int(rng.integers(0, 9)), int(rng.integers(1, 9))
        y, x = rng.integers(0, 7, size=2)
        tokens[first : first + length, y : y + 2, x : x + 2] += strength * width**0.5 * things[number]
        clips.append(tokens.reshape(16, 64, width).astype(np.float32))
    return clips, things.astype(np.float32), list(range(64))


@pytest.mark.parametrize("name", ["pool", "merge"])
def test_9_a_needle_is_found_by_slots_and_not_by_the_mean(name: str) -> None:
    compressor = open_compressor(name)
    right = by_mean = 0
    clips, things, truth = needle_clips(0, strength=4.0)
    made = [compressor.compress(tokens, 0, 15) for tokens in clips]
    slots, summaries = [one.slots for one in made], np.stack([one.summary for one in made])
    for number in truth:
        right += int(compressor.score(things[number], slots, summaries).argmax()) == number
        by_mean += int((unit(summaries) @ things[number]).argmax()) == number
    print(f"\nneedle recall@1 of {name}: slots {right / 64:.2f}, summary alone {by_mean / 64:.2f}")
    assert right / 64 >= 0.9
    assert by_mean / 64 <= 0.3


# -- policies


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(-1, 1), max_size=64), st.floats(0.1, 9))
def test_8_policies(scores: list[float], scale: float) -> None:
    """In the order of time; softmax above 0.2 never more than four; the best, not the first; fallbacks are told."""
    values = np.array(scores)
    for policy in (SoftmaxThreshold(), TopK(4), CosineThreshold(0.3), CosineThreshold(0.3, most=3)):
        found = policy.select(values)
        assert list(found.chosen) == sorted(set(found.chosen))
        assert bool(found.fallback) == (not found.chosen)
        assert len(found.chosen) <= 4
    best = CosineThreshold(0.3).select(values)
    if len(values) and values.max() > 0.3:
        assert best.chosen == (int(values.argmax()),)
    compressor = open_compressor("pool")
    slots, summary = [random_clip(1)[0]], random_clip(1)[0].mean(axis=0)[None]
    q = random_clip(2)[0, 0]
    assert compressor.score(q * scale, slots, summary) == pytest.approx(compressor.score(q, slots, summary), abs=1e-6)


# -- the bank


def test_1_and_6_streaming_equals_batch_and_grows_at_boundaries(tmp_path: Path) -> None:
    written = with_tokens(np.tile(scene_vectors([1]), (40, 1)))
    with streammem.memory.open(tmp_path, config=config()) as memory:
        counts = []
        for one in written:
            memory.write(one)
            counts.append(len(memory.query("clips", "clips")))
        assert counts == [1] * 16 + [2] * 16 + [3] * 8
        clips = memory.query("clips", "clips")
        assert [clip["frames"] for clip in clips] == [16, 16, 8]
        assert [clip["slots"] for clip in clips] == [64, 64, 32]
        assert [clip["open"] for clip in clips] == [False, False, True]
        whole = open_compressor("pool").compress(np.stack([one.tokens for one in written[:16]]), 0, 15)  # type: ignore[misc]
        kept = memory.record(int(clips[0]["id"], 16))
        assert kept is not None
        assert kept.arrays["slots"] == pytest.approx(whole.slots, abs=2e-3)
        assert kept.arrays["slots"].dtype == np.float16
        assert [memory.record(parent).seq for parent in kept.parents] == list(range(16))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["pool", "merge"])
def test_restarts_kills_and_batches_change_nothing(name: str, tmp_path: Path) -> None:
    import shutil

    written = with_tokens(scene_vectors([9, 21, 4, 30], seed=2))
    memory = streammem.memory.open(tmp_path / "a", config=config(compressor=name))
    memory.write(written[:37])
    shutil.copytree(tmp_path / "a", tmp_path / "killed")
    memory.write(written[37:])
    with streammem.memory.open(tmp_path / "killed", config=config(compressor=name)) as revived:
        for one in written[37:]:
            revived.write(one)
        assert revived.query("clips", "clips") == memory.query("clips", "clips")
        assert revived.digest() == memory.digest()
    memory.close()


def test_7_a_snapshot_stands_still(tmp_path: Path) -> None:
    written = with_tokens(np.tile(scene_vectors([1]), (50, 1)))
    asked = {"vector": written[45].tokens[0].astype(float).tolist(), "policy": "top_k", "options": {"k": 3}}  # type: ignore[index]
    with streammem.memory.open(tmp_path, config=config()) as memory:
        memory.write(written[:20])
        taken = memory.query("clips", "snapshot")
        assert taken["until_ns"] == {"cam": 19 * SECOND}
        before = memory.query("clips", "select", snapshot=taken["id"], **asked)
        memory.write(written[20:])
        assert memory.query("clips", "select", snapshot=taken["id"], **asked) == before
        assert memory.query("clips", "select", **asked) != before
        earlier = memory.query("clips", "snapshot", until_ns=40 * SECOND)
        clips = memory.query("clips", "clips", snapshot=earlier["id"])
        assert max(clip["t_end_ns"] for clip in clips) <= 40 * SECOND
        memory.forget(stream="cam", between=(17 * SECOND, 17 * SECOND))
        assert [clip["frames"] for clip in memory.query("clips", "clips", snapshot=taken["id"])] == [16]
        for _ in range(8):
            memory.query("clips", "snapshot")
        with pytest.raises(QueryError, match="no snapshot"):
            memory.query("clips", "select", snapshot=taken["id"], **asked)


def test_a_thing_is_found_by_pointing_at_it(tmp_path: Path) -> None:
    """``like`` and ``box``: best are the clip asked from and the one with the same thing elsewhere in the picture."""
    written = with_tokens(scene_vectors([16, 16, 16, 16]), side=8, width=32)
    thing = np.random.default_rng(5).normal(size=32) * 6
    for at, (y, x) in ((5, (0, 0)), (40, (4, 5))):
        tokens = written[at].tokens.copy().reshape(8, 8, 32)  # type: ignore[union-attr]
        tokens[y : y + 2, x : x + 2] += thing.astype(np.float16)
        written[at] = replace(written[at], tokens=tokens.reshape(64, 32))
    with streammem.memory.open(tmp_path, config=config(compressor="merge")) as memory:
        memory.write(written)
        asked = {"like": show_id(written[40].record_id), "box": [5 / 8, 4 / 8, 7 / 8, 6 / 8]}
        found = memory.query("clips", "select", policy="top_k", options={"k": 2}, **asked)
        assert sorted(clip["t_start_ns"] // SECOND for clip in found["clips"]) == [0, 32]
        view = memory.query("clips", "view", policy="top_k", options={"k": 2}, tokens=True, **asked)
        assert len(view["frames"]) == 32
        assert len(view["overview"]) == 4
        assert [len(slots) for slots in view["slots"]] == [64, 64]
        none = memory.query("clips", "view", policy="cosine_threshold", options={"threshold": 1.0}, **asked)
        assert none["selected"]["fallback"] == "newest"
        assert len(none["frames"]) == 3
        whole = memory.query("clips", "select", policy="softmax_threshold", options={"temperature": 9}, **asked)
        assert whole["fallback"] in ("", "whole")


def test_questions_that_cannot_be_asked(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=config()) as memory:
        memory.write(with_tokens(scene_vectors([5])))
        ok = {"vector": [1.0] * 8}
        wrong = [
            {},
            {"query": "cup"},
            {**ok, "policy": "first"},
            {**ok, "options": {"nonsense": 1}},
            {**ok, "options": {"k": 0}},
            {**ok, "nonsense": 1},
            {"vector": [float("nan")] * 8},
            {"like": "zz"},
            {"like": "0000000000000001"},
            {"like": memory.query("clips", "clips")[0]["parents"][0], "box": [0.5, 0, 0.2, 1]},
            {**ok, "snapshot": "snapshot-9"},
        ]
        for arguments in wrong:
            with pytest.raises(QueryError):
                memory.query("clips", "select", **arguments)
        with pytest.raises(SpaceMismatch):
            memory.query("clips", "select", vector=[1.0, 2.0])
    with pytest.raises(ConfigError):
        open_compressor("zip")
    with pytest.raises(CorruptData):
        ClipsBank(open_compressor("pool")).load("cam", b"\xc1", lambda number: None)


def test_changed_shapes_end_a_clip_and_bytes_are_bounded(tmp_path: Path) -> None:
    """Tokens of another count begin a clip; of another width they are refused at the door, others go on."""
    vectors = np.tile(scene_vectors([1]), (12, 1))
    first, second = with_tokens(vectors[:6]), with_tokens(vectors[6:], side=6, start=6)
    with streammem.memory.open(tmp_path, config=config()) as memory:
        memory.write([*first, *second])
        assert [clip["frames"] for clip in memory.query("clips", "clips")] == [6, 6]
        with pytest.raises(ObservationError):
            memory.write(with_tokens(vectors[:1], width=9, start=20)[0])
        bad = with_tokens(vectors[:1], start=21)[0]
        bad.tokens[0, 0] = np.nan  # type: ignore[index]
        with pytest.raises(ObservationError):
            memory.write(bad)
        memory.write(with_tokens(vectors[:1], start=22))
        bank = memory.bank("clips")
        assert bank.ram_bytes() < 16 * (36 * 8 * 2 + 32 * 4 + 400)


class SlowCompressor:
    """The real one, 30 ms late."""

    def __init__(self, inner: Compressor) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def compress(self, tokens: np.ndarray, t_start_s: float, t_end_s: float) -> object:
        time.sleep(0.03)
        return self._inner.compress(tokens, t_start_s, t_end_s)


def test_10_a_slow_compressor_delays_and_drops_nothing_silently() -> None:
    """A live source at 1,000 frames a second in front of a bank that takes 30 ms a clip: the queue stays at its bound,
    what it dropped is counted, and clips carry the capture times of what went in."""
    from queue import Full, Queue

    from streammem.storage.open_part import record_from_observation

    bank = ClipsBank(SlowCompressor(open_compressor("pool")))  # type: ignore[arg-type]
    queue: Queue[Observation | None] = Queue(maxsize=8)
    clips, taken = [], []

    def consume() -> None:
        while (one := queue.get()) is not None:
            record = record_from_observation(one)
            taken.append(one.capture_ns)
            clips.extend(bank.observe(replace(record, vector=record.vector.astype(np.float32))))  # type: ignore[union-attr]

    worker = threading.Thread(target=consume)
    worker.start()
    dropped = largest = 0
    frames = with_tokens(np.tile(scene_vectors([1]), (400, 1)))
    for one in frames:
        time.sleep(0.001)
        try:
            queue.put_nowait(one)
        except Full:
            dropped += 1
        largest = max(largest, queue.qsize())
    queue.put(None)
    worker.join()
    assert largest <= 8
    assert dropped > 0
    assert len(taken) + dropped == 400
    edges = [(clip.t_start_ns, clip.t_end_ns, clip.count) for clip in clips]
    assert edges == [(taken[at], taken[at + 15], 16) for at in range(0, len(taken) - 16, 16)][: len(edges)]
    assert len(edges) == (len(taken) - 1) // 16


def test_tokens_in_a_box() -> None:
    tokens = np.zeros((16, 2), np.float32)
    tokens[5] = (4, 0)
    inside = tokens_in_box(tokens, (0.25, 0.25, 0.5, 0.5))
    assert inside == pytest.approx(np.array([4, 0]) - tokens.mean(axis=0))
    assert tokens_in_box(tokens, (0.3, 0.3, 0.31, 0.31)) == pytest.approx(inside), "at least the nearest"
