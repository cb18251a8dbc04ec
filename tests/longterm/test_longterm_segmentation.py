"""Where a stream is cut: B1's checks, the rule of IXC2.5-OL (its check 5), and a graph library as the oracle."""

from __future__ import annotations

import math

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from longterm_samples import scene_vectors

from streammem.banks.segmentation import (
    CosineSegmenter,
    FixedSegmenter,
    Segmenter,
    SurpriseRule,
    SurpriseSegmenter,
)
from streammem.banks.splits import best_split, similarity_graph, split_scores
from streammem.errors import ConfigError, CorruptData

S = 10**9
RULES = [
    SurpriseRule(threshold=threshold, refine=refine)  # type: ignore[arg-type]
    for threshold in ("mean_std", "median_mad")
    for refine in ("none", "modularity", "conductance")
]


def run(segmenter: Segmenter, vectors: np.ndarray, step_s: float = 1.0, finish: bool = True) -> list[int]:
    """Lengths of the segments; the last one is what was open."""
    lengths: list[int] = []
    for i, vector in enumerate(vectors):
        lengths += segmenter.push(round(i * step_s * S), vector)
    return [*lengths, *segmenter.finish()] if finish else lengths


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_b1_a_constant_stream_is_cut_by_the_clamp_only(rule: SurpriseRule) -> None:
    vectors = np.tile(np.eye(1, 8, dtype=np.float32), (200, 1))
    assert run(SurpriseSegmenter(rule), vectors) == [60, 60, 60, 20]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_b1_planted_scenes_are_found_within_a_sample(rule: SurpriseRule) -> None:
    lengths = [20, 15, 30, 12, 25, 40, 18]
    found = np.cumsum(run(SurpriseSegmenter(rule), scene_vectors(lengths, seed=3)))[:-1]
    wanted = np.cumsum(lengths)[:-1]
    assert len(found) == len(wanted)
    assert np.abs(found - wanted).max() <= 1


def test_b1_equal_surprises_never_stand_out() -> None:
    """A camera that turns evenly: every surprise is the same, the window has no spread, nothing fires."""
    angles = np.arange(120) * 0.9
    turning = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rule = SurpriseRule(threshold="mean_std", gamma=1.0, least=0.0, refine="none", forecast_s=1e-3)
    lengths = run(SurpriseSegmenter(rule), turning)
    assert lengths[0] == 60, "only the clamp; float16 noise of 1e-3 in a surprise of 0.38 stays under the threshold"


def test_b1_a_vector_that_is_not_finite_cuts_nothing() -> None:
    vectors = scene_vectors([30])
    vectors[[5, 12]] = np.nan
    vectors[20] = 0.0
    assert run(SurpriseSegmenter(), vectors) == [30]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=8),
    st.integers(0, 10**6),
    st.sampled_from(RULES),
    st.sampled_from([0.25, 1.0, 7.0]),
    st.floats(0.0, 1.5),
)
def test_segments_partition_the_frames_within_the_clamps(
    scenes: list[int], seed: int, rule: SurpriseRule, step_s: float, noise: float
) -> None:
    vectors = scene_vectors(scenes, seed=seed, noise=noise)
    plain = SurpriseSegmenter(rule)
    lag = 0
    lengths: list[int] = []
    for i, vector in enumerate(vectors):
        done = plain.push(round(i * step_s * S), vector)
        lengths += done
        # B1: the lag is bounded. What stays open is one event, or one and the shortest beginning of the next.
        lag = max(lag, i + 1 - sum(lengths))
    lengths += plain.finish()
    assert sum(lengths) == len(vectors)
    assert all(length > 0 for length in lengths)
    most = math.ceil(rule.max_s / step_s)
    assert max(lengths) <= most
    assert lag <= most
    least = math.ceil(rule.min_s / step_s)
    assert (
        all(length >= least for length in lengths[:-1] if least <= 1)
        or rule.refine != "none"
        or all(length >= least for length in lengths[:-1])
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(3, 30), min_size=2, max_size=6), st.integers(0, 10**6))
def test_b1_refinement_keeps_the_number_and_the_order(scenes: list[int], seed: int) -> None:
    """Each boundary moves at most to the shortest event after the one before it: none is lost, none overtakes."""
    vectors = scene_vectors(scenes, seed=seed, noise=0.3)
    for measure in ("modularity", "conductance"):
        segmenter = SurpriseSegmenter(SurpriseRule(refine=measure))  # type: ignore[arg-type]
        fired = 0
        lengths: list[int] = []
        for i, vector in enumerate(vectors):
            before = segmenter._pending
            lengths += segmenter.push(i * S, vector)
            fired += segmenter._pending > 0 and (before == 0 or segmenter._pending == len(segmenter._times) - 1)
        lengths += segmenter.finish()
        assert len(lengths) == fired + 1, "as many boundaries as surprises (no clamp in streams this short)"
        assert all(length > 0 for length in lengths)


@pytest.mark.parametrize("cut_at", [1, 17, 33, 47])
@pytest.mark.parametrize("make", [lambda: SurpriseSegmenter(), lambda: CosineSegmenter(), lambda: FixedSegmenter(7)])
def test_a_saved_state_goes_on_the_same(make, cut_at: int) -> None:  # type: ignore[no-untyped-def]
    vectors = scene_vectors([13, 9, 20, 18], noise=0.4)
    whole = run(make(), vectors)
    first, second = make(), make()
    lengths = [n for i, v in enumerate(vectors[:cut_at]) for n in first.push(i * S, v)]
    second.load(first.state())
    lengths += [n for i, v in enumerate(vectors[cut_at:], cut_at) for n in second.push(i * S, v)]
    assert [*lengths, *second.finish()] == whole
    with pytest.raises(CorruptData):
        second.load(b"\xc1 no state")


def test_ixc_5_the_rule_of_the_live_demo() -> None:
    """At least 3, at most 16 frames; cosine at most 0.9 with the frame before."""
    constant = np.tile(np.eye(1, 4, dtype=np.float32), (50, 1))
    assert run(CosineSegmenter(), constant) == [16, 16, 16, 2]
    a, b = np.eye(2, 4, dtype=np.float32)
    for place, expected in [(2, [16, 4]), (3, [16, 4]), (4, [3, 16, 1]), (5, [4, 16]), (17, [16, 4])]:
        frames = np.stack([a] * (place - 1) + [b] * (21 - place))
        assert run(CosineSegmenter(), frames) == expected, f"the {place}th frame differs"


def test_what_was_forgotten_leaves_no_trace() -> None:
    vectors = scene_vectors([12])
    segmenter = SurpriseSegmenter()
    for i, vector in enumerate(vectors):
        segmenter.push(i * S, vector)
    segmenter.keep([i < 4 for i in range(12)])
    state = segmenter.state()
    for vector in vectors[4:]:
        assert (vector / np.linalg.norm(vector)).astype(np.float16).tobytes() not in state
    assert segmenter.finish() == (4,)


def test_a_rule_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError):
        SurpriseRule(min_s=60, max_s=60)
    with pytest.raises(ConfigError):
        SurpriseRule(gamma=-1)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 14), st.integers(0, 10**6))
def test_split_scores_are_networkx_modularity_and_conductance(n: int, seed: int) -> None:
    vectors = scene_vectors([n // 2 or 1, n - (n // 2 or 1)], seed=seed, noise=1.0)
    weights = similarity_graph(vectors)
    graph = networkx.from_numpy_array(weights)
    if graph.number_of_edges() == 0:
        assert np.isneginf(split_scores(weights, "modularity")).all()
        return
    modularity, conductance = split_scores(weights, "modularity"), split_scores(weights, "conductance")
    for at in range(1, n):
        sides = [set(range(at)), set(range(at, n))]
        assert modularity[at] == pytest.approx(networkx.community.modularity(graph, sides), abs=1e-9)
        if all(weights[sorted(side)].sum() > 0 for side in sides):
            assert -conductance[at] == pytest.approx(networkx.conductance(graph, *sides, weight="weight"), abs=1e-9)
    assert best_split(vectors, 1, n - 1, "modularity") in range(1, n)
