"""One attribute's history: rules, order of arrival, forgetting; against a brute-force reading of the statements."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammem.banks.history import Episode, History, Run, Statement, sight

SECOND = 10**9
SETTLE, WINDOW = SECOND // 2, 10 * SECOND


def told(t: float, value: str, confidence: float = 1.0, number: int = 0) -> Statement:
    return Statement(int(t * SECOND), number, 0, value, "", confidence)


def history_of(statements: list[Statement]) -> History:
    history = History()
    for one in statements:
        history.add(one, SETTLE, WINDOW)
    return history


def read(history: History) -> list[tuple[str, float, float, bool]]:
    runs, candidate = history.settled(SETTLE)
    both = [*runs, *([candidate] if candidate is not None else [])]
    return [(r.value, r.t_first_ns / SECOND, r.t_last_ns / SECOND, r.disputed or r is candidate) for r in both]


def value_at(history: History, t_ns: int) -> str | None:
    held = [run.value for run in history.settled(SETTLE)[0] if not run.disputed and run.t_first_ns <= t_ns]
    return held[-1] if held else None


RULES = {
    "the same value again extends": ([told(1, "a"), told(5, "a")], [("a", 1, 5, False)]),
    "a new value supersedes, the old one keeps its interval": (
        [told(1, "a"), told(2, "a"), told(5, "b")],
        [("a", 1, 2, False), ("b", 5, 5, False)],
    ),
    "a single weak claim against a certain value is disputed": (
        [told(1, "a"), told(5, "b", 0.4), told(6, "a")],
        [("a", 1, 6, False), ("b", 5, 5, True)],
    ),
    "a contradiction that is still open": (
        [told(1, "a", 0.9), told(5, "b", 0.4)],
        [("a", 1, 1, False), ("b", 5, 5, True)],
    ),
    "0.6 three times outweighs 0.9 once (1 - 0.4^3 = 0.936), back-dated to the first": (
        [told(1, "a", 0.9), told(5, "b", 0.6), told(6, "b", 0.6), told(7, "b", 0.6)],
        [("a", 1, 1, False), ("b", 5, 7, False)],
    ),
    "0.6 twice doesn't (0.84)": (
        [told(1, "a", 0.9), told(5, "b", 0.6), told(6, "b", 0.6)],
        [("a", 1, 1, False), ("b", 5, 6, True)],
    ),
    "two looks within 0.5 s are one look": (
        [told(1, "a", 0.6), told(5, "b", 0.6), told(5.1, "b", 0.6)],
        [("a", 1, 1, False), ("b", 5, 5.1, True)],
    ),
    "a flapping sensor changes nothing, and is kept once": (
        [told(1, "a", 0.8)] + [told(2 + n / 10, "ab"[n % 2 == 0], 0.8) for n in range(20)],
        [("a", 1, 3.9, False), ("b", 2, 3.8, True)],
    ),
    "a certain statement dates the change itself": (
        [told(1, "a"), told(5, "b", 0.4), told(9, "b")],
        [("a", 1, 1, False), ("b", 5, 5, True), ("b", 9, 9, False)],
    ),
}


@pytest.mark.parametrize("situation", RULES)
def test_rules(situation: str) -> None:
    statements, expected = RULES[situation]
    assert read(history_of(statements)) == expected


values = st.sampled_from("abc")
drawn = st.lists(st.tuples(st.integers(0, 300), values, st.sampled_from([0.3, 0.6, 0.8, 1.0])), max_size=40)


@settings(max_examples=60, deadline=None)
@given(drawn, st.data())
def test_order_of_arrival_changes_nothing_within_the_window(
    rows: list[tuple[int, str, float]], data: st.DataObject
) -> None:
    ordered = sorted(Statement(t * SECOND // 10, n, 0, v, "", c) for n, (t, v, c) in enumerate(rows))
    late = data.draw(st.lists(st.integers(0, 4 * SECOND), min_size=len(ordered), max_size=len(ordered)))
    arrival = sorted(zip(ordered, late, strict=True), key=lambda pair: (pair[0].t_ns + pair[1], pair[0].record_id))
    # The window is by time and by number: 10 s hold at most 32 statements here only if they are few.
    if any(sum(abs(a.t_ns - b.t_ns) <= 4 * SECOND for b in ordered) > 16 for a in ordered):
        return
    shuffled, straight = history_of([one for one, _ in arrival]), history_of(ordered)
    assert read(shuffled) == read(straight)
    assert shuffled.late == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), values), max_size=60), st.integers(0, 10_000))
def test_certain_statements_are_what_was_said_last(rows: list[tuple[int, str]], t: int) -> None:
    """B5: value at past time t, latest value; nothing is overwritten."""
    ordered = sorted(Statement(at * SECOND, n, 0, v, "", 1.0) for n, (at, v) in enumerate(rows))
    expected = [one.value for one in ordered if one.t_ns <= t * SECOND]
    assert value_at(history_of(ordered), t * SECOND) == (expected[-1] if expected else None)


@settings(max_examples=50, deadline=None)
@given(drawn, st.integers(0, 30), st.integers(0, 30))
def test_forgetting_leaves_nothing_of_the_interval(rows: list[tuple[int, str, float]], one: int, two: int) -> None:
    lo, hi = sorted((one * SECOND, two * SECOND))
    history = history_of(sorted(Statement(t * SECOND // 10, n, 0, v, "", c) for n, (t, v, c) in enumerate(rows)))
    history.add_episode(Episode(5 * SECOND, 9 * SECOND, 1, 0, "e", "", 1.0))
    history.forget(lo, hi)
    again = msgspec.msgpack.encode(history)
    runs, candidate = history.settled(SETTLE)
    for run in [*runs, *([candidate] if candidate is not None else [])]:
        assert run.t_last_ns < lo or run.t_first_ns > hi or run.n >= 2, "only a run that is said on both sides spans it"
    assert all(e.t_end_ns < lo or e.t_start_ns > hi for e in history.episodes)
    assert all(not lo <= said.t_ns <= hi for said in history.pending)
    assert all(run.t_last_ns < lo or run.t_first_ns > hi for run in history.runs)
    history.forget(lo, hi)
    assert msgspec.msgpack.encode(history) == again


def test_a_statement_from_long_before_splits_what_it_contradicts() -> None:
    history = history_of([told(0, "a"), told(100, "a"), told(200, "b"), told(300, "b")])
    history.add(told(50, "c"), SETTLE, WINDOW)
    assert [value_at(history, t * SECOND) for t in (0, 49, 50, 99, 100, 200)] == ["a", "a", "c", "c", "a", "b"]
    history.add(told(150, "b"), SETTLE, WINDOW)
    assert value_at(history, 150 * SECOND) == "b", "it began earlier than was known"
    history.add(told(160, "d", 0.4), SETTLE, WINDOW)
    assert value_at(history, 170 * SECOND) == "b"
    assert history.late == 3
    assert sum(run.n for run in history.settled(SETTLE)[0]) == 7


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=40, unique=True), st.randoms())
def test_sightings_are_the_union_whatever_the_order(times: list[int], rng: object) -> None:
    gap = 3
    shuffled = list(times)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    sightings: list[Run] = []
    for t in shuffled:
        sight(sightings, Run("", "", t, t, 1, 0.5, 0.5, t, t), gap)
    expected: list[list[int]] = []
    for t in sorted(times):
        if expected and t - expected[-1][-1] <= gap:
            expected[-1].append(t)
        else:
            expected.append([t])
    assert [(r.t_first_ns, r.t_last_ns, r.n, r.first_id, r.last_id) for r in sightings] == [
        (group[0], group[-1], len(group), group[0], group[-1]) for group in expected
    ]


def test_demoted_values_are_counted_and_the_one_that_holds_stays() -> None:
    history = history_of([told(t, f"v{t % 40}") for t in range(0, 2000, 20)])
    history.demote_before(1500 * SECOND, SETTLE)
    assert history.detail_from_ns == 1500 * SECOND
    kept = sum(older.n for older in history.older) + len(history.settled(SETTLE)[0])
    assert kept == 100
    assert len(history.older) <= 17
    assert value_at(history, 1990 * SECOND) == "v20"
