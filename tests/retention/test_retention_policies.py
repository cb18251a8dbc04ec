"""Policies of retention: the acceptance checks of LazyEviction (B6) and MemoryBank's decay (B7), and their pull on a
real memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_moments import OFF, SECOND, observation

import streammem.memory
from streammem.config import BudgetConfig, Config, MemoryConfig
from streammem.storage.citations import MOST, SESSION_NS, Citations
from streammem.storage.retention import DAY_NS, GRACE, POLICIES, Candidate, Policy, recurring, retained, strength

LAST = 4


def made(order: int, level: int = 0, **fields: object) -> Candidate:
    start = order * DAY_NS
    values: dict[str, object] = {"t_min_ns": start, "t_max_ns": start + DAY_NS, "now_ns": 100 * DAY_NS, **fields}
    return Candidate(order, "cam", level=level, **values)  # type: ignore[arg-type]


def runs_out(candidates: list[Candidate], policy: Policy, steps: int) -> list[Candidate]:
    """Let a policy demote so many times; tombstones leave the list."""
    for _ in range(steps):
        chosen = policy(candidates)
        at = candidates.index(chosen)
        lower = chosen._replace(level=chosen.level + 1)
        candidates = [*candidates[:at], *([lower] if lower.level < LAST else []), *candidates[at + 1 :]]
    return candidates


def test_b7_the_two_numeric_cases() -> None:
    """t = 1 day: S = 1 gives 0.37, S = 7 gives 0.87 (the released code has 0.82 and 0.25: the strong fade faster)."""
    assert retained(DAY_NS, 1, DAY_NS) == pytest.approx(0.37, abs=0.005)
    assert retained(DAY_NS, 7, DAY_NS) == pytest.approx(0.87, abs=0.005)


@given(st.floats(0, 1e20), st.floats(0, 1e20), st.integers(0, 1000), st.integers(0, 1000))
def test_b7_monotone_in_time_and_strength(dt: float, more: float, recalls: int, further: int) -> None:
    assert retained(dt + more, strength(recalls), DAY_NS) <= retained(dt, strength(recalls), DAY_NS)
    assert retained(dt, strength(recalls + further), DAY_NS) >= retained(dt, strength(recalls), DAY_NS)


def test_b7_a_clock_that_jumps_back_is_safe() -> None:
    assert retained(-5.0, 1, DAY_NS) == 1.0
    back = [made(0, now_ns=0), made(1, now_ns=0)]
    assert POLICIES["decay"](back).order == 0
    cited = Citations()
    cited.add("cam", 0, 10, now_ns=50 * SESSION_NS, lsn=1)
    cited.add("cam", 0, 10, now_ns=0, lsn=2)
    (one,) = cited.of("cam", 0, 10)
    assert (one.last_ns, one.count) == (50 * SESSION_NS, 1)


def test_b7_what_was_cited_fades_slower() -> None:
    segments = [made(0), made(1, recalls=3, recalled_ns=2 * DAY_NS), made(2)]
    assert POLICIES["decay"](segments).order == 0
    assert [each.order for each in runs_out(segments, POLICIES["decay"], 2) if each.level == 0] == [1]


def test_b6_h1_golden_numbers() -> None:
    assert recurring(10, 10, 5) == 1.0
    assert recurring(15, 10, 5) == pytest.approx(0.538, abs=0.001)
    assert recurring(1e9, 0, 5) == pytest.approx(0.0)
    assert recurring(15, 10, 0) == 0.0, "never used again: no division by zero, worth nothing"


def test_b6_what_comes_back_survives_where_the_oldest_go() -> None:
    """Every seventh segment shows the same place; the budget keeps fewer than seven in detail."""
    place = np.eye(64, dtype=np.float32)
    segments = [made(n, signature=place[0] if n % 7 == 0 else place[1 + n % 60], space="s@1") for n in range(42)]
    kept = runs_out(segments, POLICIES["recurrence"], 4 * 28)
    assert [each.order for each in kept if each.order % 7 == 0 and each.level < LAST], "the place is still there"
    gone = runs_out(segments, POLICIES["fifo"], 4 * 28)
    assert min(each.order for each in gone) == 28
    assert sum(each.order % 7 == 0 for each in kept) > sum(each.order % 7 == 0 for each in gone)


def test_b6_the_newest_window_is_left_alone() -> None:
    segments = [made(n) for n in range(3 * GRACE)]
    kept = runs_out(segments, POLICIES["recurrence"], 2 * GRACE)
    assert all(each.level == 0 for each in kept if each.order >= 2 * GRACE)


def test_diversity_takes_from_what_is_alike() -> None:
    one, other = np.eye(2, dtype=np.float32)
    segments = [made(n, signature=other if n == 3 else one, space="s@1") for n in range(10)]
    kept = runs_out(segments, POLICIES["diversity"], 12)
    assert next(each for each in kept if each.order == 3).level == 0


def test_uniform_keeps_evenly_spaced_ones() -> None:
    kept = runs_out([made(n) for n in range(32)], POLICIES["uniform"], 4 * 24)
    assert [each.order for each in kept] == list(range(0, 32, 4)) and all(each.level == 0 for each in kept)


@pytest.mark.parametrize("name", sorted(POLICIES))
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_any_list_is_used_up(name: str, shapes: list[tuple[int, int, bool]]) -> None:
    """Whatever the levels: a policy always names one of its candidates, the same each time, and all are demoted in the
    end; equal ones go oldest first."""
    vectors = np.eye(3, dtype=np.float32)
    segments = [
        made(n, level, signature=vectors[n % 3] if has else None, space="s@1", recalls=recalls)
        for n, (level, recalls, has) in enumerate(shapes)
    ]
    policy = POLICIES[name]
    assert policy(segments) is policy(list(segments))
    assert runs_out(segments, policy, sum(LAST - each.level for each in segments)) == []
    assert policy([made(0), made(1), made(2)]).order in (0, 1)


def config(policy: str, disk: int = 4 << 20) -> Config:
    return Config(
        memory=MemoryConfig(seal_bytes=100_000),
        budget=BudgetConfig(disk_bytes=disk, policy=policy),  # type: ignore[arg-type]
        **OFF,  # type: ignore[arg-type]
    )


def lived(directory: Path, policy: str, *, ask: Callable[[streammem.memory.Memory, int], None], step: int = 50) -> str:
    with streammem.memory.open(directory, config=config(policy)) as memory:
        for start in range(0, 900, 50):
            for first in range(start, start + 50, step):
                memory.write(
                    [observation(n, capture_ns=n * 60 * SECOND, jpeg=8000) for n in range(first, first + step)]
                )
            ask(memory, start)
    with streammem.memory.open(directory, config=config(policy), mode="read") as memory:
        return memory.digest()


@pytest.mark.slow
def test_a_cited_stretch_outlives_its_neighbours_and_a_replay_agrees(tmp_path: Path) -> None:
    """Moments 100 to 110 are asked about all the time. The state is the same whatever the batches."""

    def cite(memory: streammem.memory.Memory, start: int) -> None:
        if start >= 150:
            memory.cite("cam", (100 * 60 * SECOND, 110 * 60 * SECOND))

    digests = {lived(tmp_path / f"step-{step}", "decay", ask=cite, step=step) for step in (50, 10)}
    assert len(digests) == 1
    with streammem.memory.open(tmp_path / "step-50", config=config("decay"), mode="read") as memory:
        levels = {
            n: min(int(block.levels[0]) for block in memory.blocks(between=(n * 60 * SECOND, n * 60 * SECOND)))
            for n in (40, 105, 250)
        }
    assert levels[105] < levels[40] and levels[105] <= levels[250]
    without = lived(tmp_path / "without", "decay", ask=lambda memory, start: None)
    assert without not in digests


def test_citations_survive_reopening_and_are_forgotten(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=config("decay")) as memory:
        memory.write([observation(n) for n in range(20)])
        memory.cite("cam", (0, SECOND))
        memory.flush()
    for _ in range(2):
        with streammem.memory.open(tmp_path, config=config("decay")) as memory:
            assert [each.count for each in memory._engine.store.citations.of("cam", 0, 0)] == [1]
            memory.seal()
    with streammem.memory.open(tmp_path, config=config("decay")) as memory:
        memory.forget(between=(0, 5 * SECOND))
        assert memory._engine.store.citations.of("cam", 0, 0) == []


def test_citations_are_bounded() -> None:
    cited = Citations()
    for at in range(3 * MOST):
        cited.add("cam", at, at, now_ns=at, lsn=at + 1)
    assert len(cited.streams["cam"]) == MOST
    cited.add("cam", 0, 0, now_ns=0, lsn=5)
    assert len(cited.of("cam", 0, 0)) == 0, "an entry that is replayed isn't counted again"
