"""From a question to moments, over a real memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_space import THINGS, S, WordSpace, said, scene

import streammem.memory
from streammem.config import Config, RecallConfig
from streammem.errors import QueryError
from streammem.memory import Memory


def remember(path: Path, *, recall: RecallConfig | None = None) -> Memory:
    config = Config(recall=recall or RecallConfig())
    return streammem.memory.open(path, config=config, spaces=lambda name: WordSpace())


def test_the_right_moment_comes_first_with_its_range_and_frames(tmp_path: Path) -> None:
    with remember(tmp_path) as memory:
        memory.write(scene(["tree"] * 10 + ["dog"] * 3 + ["tree"] * 10))
        first, *_ = memory.search("a dog", k=2)
        assert (first.t_start_ns, first.t_end_ns) == (10 * S, 13 * S)
        assert first.frames[0].where == "memory"
        assert 10 * S <= first.frames[0].t_ns <= 12 * S
        assert len(first.record_ids) == 3
        assert {why.signal for why in first.why} >= {"vision", "evidence"}


def test_sealed_and_open_rows_are_one_timeline(tmp_path: Path) -> None:
    with remember(tmp_path) as memory:
        frames = scene(["tree"] * 5 + ["dog"] * 4 + ["tree"] * 5)
        memory.write(frames[:7])
        memory.seal()
        memory.write(frames[7:])
        (first,) = memory.search("dog", k=1)
        assert (first.t_start_ns, first.t_end_ns) == (5 * S, 9 * S)


def test_text_in_the_scene_outranks_the_picture(tmp_path: Path) -> None:
    with remember(tmp_path) as memory:
        memory.write(scene(["dog"] * 5 + ["tree"] * 20, texts={20: "HOT DOG STAND"}))
        (first,) = memory.search('where does it say "hot dog stand"', k=1)
        assert first.t_start_ns == 20 * S
        assert first.why[0].signal == "text"
        assert first.why[0].detail == "HOT DOG STAND"


def test_speech_supports_what_was_seen_meanwhile_and_is_found_once(tmp_path: Path) -> None:
    with remember(tmp_path) as memory:
        memory.write(scene(["tree"] * 30))
        memory.write([said("the kettle is boiling over", 11.2, 13.4)])
        hits = memory.search("boiling kettle", k=5)
        assert abs(hits[0].t_start_ns - 11 * S) <= S
        assert hits[0].why[0].signal == "speech"
        assert sum(any(w.signal == "speech" for w in hit.why) for hit in hits) == 1


def test_speech_is_found_where_no_picture_was(tmp_path: Path) -> None:
    with remember(tmp_path) as memory:
        memory.write(scene(["tree"] * 5))
        memory.write([said("goodbye everyone", 100.0, 102.0)])
        (first,) = memory.search("who says goodbye", k=1)
        assert (first.t_start_ns, first.t_end_ns) == (100 * S, 102 * S)


def test_time_and_stream_filters(tmp_path: Path) -> None:
    with remember(tmp_path) as memory:
        memory.write(scene(["dog"] * 3 + ["tree"] * 20 + ["dog"] * 3))
        memory.write(scene(["dog"] * 30, stream="other"))
        hits = memory.search("dog", between=(10 * S, None), streams=["cam"], k=5)
        assert {hit.stream for hit in hits} == {"cam"}
        assert hits[0].t_start_ns == 23 * S
        assert all(hit.t_start_ns >= 10 * S for hit in hits)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"k": 0}, "k is 0"),
        ({"streams": ["nowhere"]}, "no stream is called 'nowhere'"),
        ({"between": (5, 1)}, "the time range ends before it starts"),
    ],
)
def test_a_search_that_cannot_be_made_says_why(tmp_path: Path, options: dict[str, object], what: str) -> None:
    with remember(tmp_path) as memory:
        memory.write(scene(["dog"]))
        with pytest.raises(QueryError, match=what):
            memory.search("dog", **options)


def test_an_empty_memory_has_no_moments(tmp_path: Path) -> None:
    with remember(tmp_path) as memory:
        assert memory.search("dog") == []


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), lo=st.integers(0, 90), length=st.integers(1, 60))
def test_first_stage_candidates_change_nothing_that_is_found(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lo: int, length: int
) -> None:
    """With few candidates the best moment is still that of scoring every row, inside any time window."""
    rng = np.random.default_rng(seed)
    frames = scene([THINGS[i] for i in rng.integers(0, len(THINGS), 100)])
    between = (lo * S, (lo + length) * S)
    best = []
    for candidates in (16, 10_000):
        path = tmp_path_factory.mktemp("memory")
        with remember(path, recall=RecallConfig(candidates=candidates)) as memory:
            memory.write(frames)
            hits = memory.search("a boat", between=between, k=1)
            best.append([(hit.stream, hit.score) for hit in hits])
    assert best[0] == best[1]
