"""Acceptance 10-14 with their numbers, the quirks, and what goes wrong."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from truth_table import AWAY, HERE, TruthTable

from nav.findingdory import metrics as m
from nav.findingdory import offline, routes
from nav.findingdory.predicates import FULL, MEASURES, Reading, heading_difference
from nav.findingdory.sequencing import Sequencer
from nav.findingdory.tasks import Goal
from streammem.errors import InputError

ANY = Goal(target="object", mode="any", groups=(("a", "b"),))
ALL = Goal(target="object", mode="all", groups=(("a",), ("b",)))
BAC = Goal(target="object", mode="ordered", groups=(("b",), ("a",), ("c",)))


def at(**readings: Reading) -> dict[str, Reading]:
    return readings


# ---- acceptance 10: paths


def test_10_dtw() -> None:
    expert = np.array([(0, 0), (1, 0), (2, 0), (3, 0)])
    agent = np.array([(0, 0), (1, 0), (2, 0), (2, 1)])
    assert routes.dtw(agent, expert) == pytest.approx(1.4142, abs=1e-4)
    assert routes.ndtw_mem4nav(agent, expert) == pytest.approx(0.6241, abs=1e-4)
    assert routes.ndtw_standard(agent, expert, 3.0) == pytest.approx(0.8888, abs=1e-4)
    detour = np.array([(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0)])
    expert = np.array([(0, 0), (1, 0), (2, 0)])
    assert routes.dtw(detour, expert) == pytest.approx(8.0)
    assert routes.ndtw_mem4nav(detour, expert) == pytest.approx(0.0183, abs=1e-4)
    assert routes.ndtw_standard(detour, expert) == pytest.approx(0.4111, abs=1e-4)


def test_10_spl() -> None:
    rows = [(1, 3, 3), (0, 12, math.sqrt(2)), (1, 2, 6), (1, 0, 0), (0, 0, 1)]
    assert np.mean([routes.spl_zero_is_failure(bool(s), short, p) for s, short, p in rows]) == pytest.approx(7 / 15)
    assert routes.spl(True, math.inf, 3) == 0 and routes.spl(True, 0, 0) == 1 and routes.spl(False, 0, 0) == 0


# ---- acceptance 11: predicates


@pytest.mark.parametrize(
    ("target", "change", "holds"),
    [
        ("object", {"distance_m": 2.0}, True),
        ("object", {"distance_m": 2.0001}, False),
        ("object", {"angle_rad": 0.785}, True),
        ("object", {"angle_rad": 0.786}, False),
        ("object", {"coverage": 307 / (640 * 480)}, False),
        ("object", {"coverage": 308 / (640 * 480)}, True),
        ("receptacle", {"distance_m": 0.10}, True),
        ("receptacle", {"distance_m": 0.11}, False),
        ("receptacle", {"angle_rad": 1.57}, True),
        ("receptacle", {"angle_rad": 1.58}, False),
        ("receptacle", {"coverage": 0.0}, False),
        ("object", {"distance_m": math.nan}, False),
        ("room", {"inside": True, "distance_m": 99.0, "coverage": 0.0}, True),
        ("room", {"inside": False}, False),
    ],
)
def test_11_predicates(target: str, change: dict[str, float], holds: bool) -> None:
    assert FULL.holds(target, replace(HERE, **change)) is holds  # type: ignore[arg-type]


def test_11_what_dtg_and_sc_ignore() -> None:
    unseen, far, turned = replace(HERE, coverage=0.0), replace(HERE, distance_m=50.0), replace(HERE, angle_rad=1.0)
    assert [MEASURES["dtg"].holds("object", one) for one in (unseen, far, turned)] == [True, False, False]
    assert [MEASURES["sc"].holds("object", one) for one in (unseen, far, turned)] == [False, True, False]


readings = st.builds(
    Reading,
    distance_m=st.sampled_from([0.0, 1.9, 2.0, 2.1, 30.0]),
    angle_rad=st.sampled_from([0.0, 0.785, 0.9]),
    coverage=st.sampled_from([0.0, 0.0009, 0.001, 0.3]),
)


@given(st.lists(st.fixed_dictionaries({"a": readings, "b": readings}), min_size=1, max_size=4), st.data())
@settings(max_examples=200, deadline=None)
def test_11_hl_is_at_most_dtg_and_sc(frames: list[dict[str, Reading]], data: st.DataObject) -> None:
    judge = TruthTable(frames, {(None, "a"): 2.0, (None, "b"): 5.0})
    frame = data.draw(st.integers(0, len(frames) - 1))
    result = m.high_level(ANY, [frame], judge)
    assert result.success <= min(result.dtg, result.sc)
    assert result.success == any(FULL.holds("object", frames[frame][name]) for name in "ab")
    assert (result.failure == "") == result.success


def test_heading_difference() -> None:
    assert heading_difference(0.0, 0.0, 1.0) == pytest.approx(math.pi / 2)
    assert heading_difference(math.radians(170), *(math.cos(math.radians(-170)), math.sin(math.radians(-170)))) == (
        pytest.approx(math.radians(20))
    )
    assert heading_difference(1.0, 0.0, 0.0) == 0.0


# ---- acceptance 12: several stops


def run(mode: str, stops: list[str], names: str, profile: str) -> str:
    """Each stop is the set of subgoals that hold there; ``names`` are the targets in order."""
    sequencer = Sequencer(mode, len(names), profile)  # type: ignore[arg-type]
    for stop in stops:
        sequencer.stop([name in stop for name in names])
    return sequencer.state


@pytest.mark.parametrize("profile", ["official", "strict"])
@pytest.mark.parametrize(
    ("mode", "names", "stops", "state"),
    [
        ("ordered", "BAC", ["B", "A", "C"], "done"),
        ("ordered", "BAC", ["B", "C"], "failed"),
        ("ordered", "BAC", ["B", "C", "A", "C"], "failed"),
        ("ordered", "BAC", ["A"], "failed"),
        ("ordered", "BAC", ["", "B", "A", "C"], "failed"),
        ("ordered", "BAC", ["B", "A"], "open"),
        ("all", "AB", ["B", "A"], "done"),
        ("all", "AB", ["A", "B"], "done"),
        ("all", "AB", ["A", ""], "failed"),
        ("all", "AB", ["A", "A"], "failed"),
        ("any", "A", ["A"], "done"),
        ("any", "A", ["", "A"], "failed"),
    ],
)
def test_12_sequences(mode: str, names: str, stops: list[str], state: str, profile: str) -> None:
    assert run(mode, stops, names, profile) == state


def test_12_quirk_cached_predicates() -> None:
    # Two goals at one stop: the second is locked at the next stop, wherever that is.
    assert run("all", ["AB", ""], "AB", "official") == "done"
    assert run("all", ["AB", ""], "AB", "strict") == "failed"
    assert run("ordered", ["BA", "", "C"], "BAC", "official") == "done"
    assert run("ordered", ["BA", "", "C"], "BAC", "strict") == "failed"
    # Its predecessor open, C came too early, for good; strict looks at each stop by itself.
    assert run("ordered", ["BC", "A", "C"], "BAC", "official") == "failed"
    assert run("ordered", ["BC", "A", "C"], "BAC", "strict") == "done"
    # A stop where both hold isn't spent on the wrong one.
    assert run("all", ["AB", "A"], "AB", "strict") == "done"


@given(st.integers(1, 4), st.data())
@settings(max_examples=200, deadline=None)
def test_12_strict_unordered_is_a_perfect_matching(count: int, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(st.booleans(), min_size=count, max_size=count), min_size=count, max_size=count))
    sequencer = Sequencer("all", count, "strict")
    for row in rows:
        sequencer.stop(row)
    exists = any(all(rows[i][p[i]] for i in range(count)) for p in itertools.permutations(range(count)))
    assert (sequencer.state == "done") is exists


def test_12_counts_and_order_of_frames() -> None:
    judge = TruthTable([at(a=HERE), at(b=HERE), at(c=HERE), at()])
    assert m.high_level(ALL, [0, 1, 2], judge).failure == "num_targets_error"
    assert m.high_level(ALL, [1, 0], judge).success and m.high_level(ALL, [0, 1], judge).success
    assert m.high_level(BAC, [1, 0, 2], judge).success
    assert m.high_level(BAC, [0, 1, 2], judge).failure == "misidentification"
    assert m.high_level(ALL, [0, 1], judge).spl == m.EXCLUDED


# ---- bad answers


@pytest.mark.parametrize(
    ("said", "official", "evaluator", "strict"),
    [
        (None, "misidentification", "response_error", "response_error"),
        ([-1], "misidentification", "response_error", "response_error"),
        ([], "num_targets_error", "response_error", "response_error"),
        ([99], "misidentification", "out_of_bounds_pred", "out_of_bounds_pred"),
        ([0, 1], "num_targets_error", "num_targets_error", "num_targets_error"),
        ([1], "", "", ""),
    ],
)
def test_bad_answers(said: list[int] | None, official: str, evaluator: str, strict: str) -> None:
    judge = TruthTable([at(), at(a=HERE), at()])
    assert m.high_level(ANY, said, judge, profile="official").failure == official
    assert m.high_level(ANY, said, judge, profile="official", clipped=False).failure == evaluator
    assert m.high_level(ANY, said, judge).failure == strict


def test_quirk_clipped_indices_can_win() -> None:
    """An answer that can't be read is judged as frame 0, and frame 0 may happen to be right."""
    judge = TruthTable([at(a=HERE), at(b=HERE)])
    assert m.high_level(ANY, None, judge, profile="official").success
    assert m.high_level(ANY, [7], judge, profile="official").frames == (1,)
    assert not m.high_level(ANY, None, judge).success


def test_unsolvable_and_unfinished() -> None:
    judge = TruthTable([at(a=HERE)])
    nothing = Goal(target="object", mode="any", groups=((),))
    assert m.high_level(nothing, [0], judge).excluded
    official = m.high_level(nothing, [0], judge, profile="official")
    assert (official.failure, official.excluded) == ("misidentification", False)
    assert m.high_level(ANY, [0], judge, timeout=True).failure == "oracle_agent_timeout"
    summary = m.summarise([m.high_level(nothing, [0], judge), m.high_level(ANY, [0], judge), official])
    assert (summary.count, summary.excluded, summary.hl_sr) == (2, 1, 0.5)
    assert summary.failures == {"misidentification": 1}
    assert m.summarise([]).count == 0


# ---- acceptance 13: offline


def test_13_relaxed() -> None:
    said, right = [[3, 9], [7]], [[3, 4], [7, 8]]
    assert offline.relaxed_precision(said, right) == 0.5
    assert offline.relaxed_any(said, right) == 1.0
    assert offline.exact(str(said), str(right)) == 0.0
    assert offline.relaxed_precision([[], [7]], [[3], [7]], "official") == 1.0
    assert offline.relaxed_precision([[], [7]], [[3], [7]]) == 0.0
    assert offline.exact("[[3, 4]]", "[[3,4]]", "official") == 0.0
    assert offline.exact("[[3, 4]]", "[[3,4]]") == 1.0
    assert offline.relaxed_precision([[1]], [[1], [2]]) == offline.relaxed_any([[1]], [[1], [2]]) == 0.0


@pytest.mark.parametrize("said", [[[-1]], [[]], []])
def test_13_only_abstaining_scores_where_nothing_solves_it(said: list[list[int]]) -> None:
    assert offline.relaxed_precision(said, [[-1]]) == offline.relaxed_any(said, [[-1]]) == 1.0
    assert offline.relaxed_precision([[0]], [[-1]]) == offline.relaxed_any([[0]], [[-1]]) == 0.0
    assert offline.relaxed_precision(said, [[0]]) == offline.relaxed_any(said, [[0]]) == 0.0
    assert offline.first_frames(said, [[-1]]) == 1.0 and offline.first_frames([[4]], [[-1]]) == 0.0


def test_13_random_expectation() -> None:
    right, frames = [[0, 1, 2], [5]], 12
    assert offline.random_expectation(right, frames) == pytest.approx(3 / 12 * 1 / 12)
    scores = [offline.relaxed_any([[a], [b]], right) for a in range(frames) for b in range(frames)]
    assert np.mean(scores) == pytest.approx(offline.random_expectation(right, frames))
    assert offline.random_expectation([[-1]], frames) == 0.0


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("[[3, 9], [7]]", [[3, 9], [7]]),
        ("[3, 9]", [[3], [9]]),
        ('I looked twice. ```json\n{"chain_of_thought": "a [1] b", "frame_indices": [4]}\n```', [[4]]),
        ('{"answer": {"frame_indices": [[1], [2]]}}', [[1], [2]]),
        ("first [1], no: [2]", [[2]]),
        ("[[-1]]", [[-1]]),
        ("frames 3 and 4", None),
        ("[3.5]", None),
        ("[true]", None),
        ("[" * 50_000, None),
        ("__import__('os')", None),
        ("", None),
    ],
)
def test_parsing(text: str, read: list[list[int]] | None) -> None:
    assert offline.parse_answer(text) == read
    if read is None:
        assert offline.exact(text, "[[3]]") == offline.relaxed_any(read, [[3]]) == 0.0


@pytest.mark.parametrize("text", ["", "[3]", "[]", "{}", "[[3", "[['a']]"])
def test_a_truth_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="the answer"):
        offline.read_truth(text)


def test_subsampled_answers() -> None:
    assert offline.subsample_answer([[0, 18, 19], [37]], [0, 18, 37]) == [[0, 1], [2]]
    assert offline.subsample_answer([[19], [37]], [0, 18, 37]) == [[-1]]


# ---- acceptance 14: SPL of tasks


def test_14_hl_spl() -> None:
    assert m.choice_spl({"a": 2.0, "b": 5.0}, "b") == 0.4
    assert m.choice_spl({"a": 2.0, "b": 0.0}, "b") == 1.0
    assert m.choice_spl({"a": 2.0, "b": 5.0}, "a") == 1.0
    judge = TruthTable([at(b=HERE), at(a=HERE, b=replace(HERE, distance_m=1.0))], {(None, "a"): 2.0, (None, "b"): 5.0})
    assert m.high_level(ANY, [0], judge).spl == 0.4
    assert m.high_level(ANY, [1], judge).spl == 1.0


def manhattan(points: dict[str | None, tuple[float, float]]) -> dict[tuple[str | None, str], float]:
    return {
        (a, b): abs(points[a][0] - points[b][0]) + abs(points[a][1] - points[b][1])
        for a in points
        for b in points
        if b is not None
    }


POINTS: dict[str | None, tuple[float, float]] = {None: (0, 0), "a": (2, 0), "b": (0, 3), "c": (2, 3)}


@pytest.mark.parametrize("profile", ["official", "strict"])
def test_14_ll_spl(profile: str) -> None:
    judge = TruthTable([at()], manhattan(POINTS))
    goal = Goal(target="object", mode="all", groups=(("a",), ("b",), ("c",)))
    stops = [at(a=HERE), at(c=HERE), at(b=HERE)]
    trace = m.DriveTrace([(0, 0), (0, 0)], stops, steps=40, step_m=[10.0])
    result = m.low_level(goal, trace, judge, profile=profile)  # type: ignore[arg-type]
    assert (result.shortest_m, result.spl, result.success) == (7.0, 0.7, True)
    assert m.shortest_path(BAC, judge) == 3 + 5 + 3  # start b a c


def test_14_shortest_path_of_58_goes_over_the_objects() -> None:
    judge = TruthTable([at()], manhattan(POINTS))
    goal = Goal(target="receptacle", mode="ordered", groups=(("a",),), path_groups=(("b",),))
    assert m.shortest_path(goal, judge, "official") == 3.0
    assert m.shortest_path(goal, judge, "strict") == 2.0


@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_tours_against_brute_force(goals: int, seed: int) -> None:
    points = np.random.default_rng(seed).random((goals + 1, 2))

    def distance(a: int, b: int) -> float:
        return float(np.linalg.norm(points[a] - points[b]))

    best = min(
        sum(distance(a, b) for a, b in itertools.pairwise((0, *order)))
        for order in itertools.permutations(range(1, goals + 1))
    )
    assert routes.open_tour(distance, goals) == pytest.approx(best)
    assert routes._improved_tour(distance, goals) >= best - 1e-9
    official = routes.open_tour_official(distance, goals)
    assert official == pytest.approx(best) if goals <= 6 else official > 0


def test_low_level_failures() -> None:
    judge = TruthTable([at()], {(None, "a"): 4.0, (None, "b"): 6.0})
    near, seen = replace(AWAY, distance_m=2.4), replace(AWAY, distance_m=9.0, coverage=0.2)
    rows = [
        (m.DriveTrace([(0.0, 0.0)], [at(a=HERE)], steps=m.BUDGET), ("", False, False)),
        (m.DriveTrace([(0.0, 0.0)], [at(a=HERE)], steps=m.BUDGET + 1), ("timeout", False, False)),
        (m.DriveTrace([(0.0, 0.0)], [], steps=5, ended="planner_failure"), ("planner_failure", False, False)),
        (m.DriveTrace([(0.0, 0.0)], [], steps=5), ("incorrect_stop", False, False)),
        (m.DriveTrace([(0.0, 0.0)], [at(a=near, b=AWAY)], steps=5), ("incorrect_stop", False, True)),
        (m.DriveTrace([(0.0, 0.0)], [at(a=AWAY, b=seen)], steps=5), ("incorrect_stop", True, False)),
    ]
    for trace, expected in rows:
        result = m.low_level(ANY, trace, judge)
        assert (result.failure, result.in_view, result.near) == expected
        assert result.success == (expected[0] == "")
    walked = m.DriveTrace([(0.0, 0.0), (3.0, 4.0)], [at(a=HERE)], steps=20)
    assert m.low_level(ANY, walked, judge).spl == 0.8


def test_every_quirk_is_described() -> None:
    assert all(text and "\n" not in text for text in m.QUIRKS.values()) and len(m.QUIRKS) == 12
