"""The disk budget is never exceeded, detail goes before memories, pins are exempt, and it is all deterministic."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_moments import OFF, SECOND, observation, small_config

import streammem.memory
from streammem.config import BudgetConfig, Config, MemoryConfig
from streammem.errors import StorageFull
from streammem.memory import Memory

CAP = 4 << 20


def bytes_on_disk(directory: Path) -> int:
    return sum((path.stat().st_size + 4095) // 4096 * 4096 for path in directory.rglob("*") if path.is_file())


def fill(memory: Memory, count: int, streams: tuple[str, ...] = ("cam",), jpeg: int = 8000, start: int = 0) -> None:
    for first in range(start, start + count, 25):
        numbers = range(first, min(first + 25, start + count))
        memory.write([observation(n, stream, jpeg=jpeg) for n in numbers for stream in streams])


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.integers(1, 120), st.sampled_from([300, 4000, 20000]), st.booleans()), min_size=4, max_size=9)
)
@pytest.mark.slow
def test_never_exceeded(tmp_path_factory: pytest.TempPathFactory, bursts: list[tuple[int, int, bool]]) -> None:
    """Measured on the disk itself after every write: files, catalogue, journal, rounded up to pages."""
    directory = tmp_path_factory.mktemp("budget")
    number = 0
    with streammem.memory.open(directory, config=small_config(1 << 20, CAP)) as memory:
        for count, jpeg, reopen in bursts:
            fill(memory, count, ("a", "b"), jpeg, number)
            number += count
            status = memory.status()
            assert status.disk_bytes <= status.disk_cap_bytes == CAP
            assert bytes_on_disk(directory) <= CAP
            assert memory.observation_count == 2 * number, "demotion merges, it never loses count"
            if reopen:
                memory.seal()


def test_old_detail_goes_first(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=small_config(1 << 20, CAP)) as memory:
        fill(memory, 1500)
        levels = [int(block.levels[0]) for block in memory.blocks()]
        assert levels == sorted(levels, reverse=True), "the older, the less detail"
        assert levels[0] >= 2 and levels[-1] == 0
        assert memory.thumbnail(observation(1499).record_id) is not None
        assert memory.thumbnail(observation(0).record_id) is None
        assert memory.observation_count == 1500
        assert memory.has("cam", "s", 0)
        moments = next(bank for bank in memory.status().banks if bank.bank == "moments")
        assert 0 < moments.disk_bytes <= moments.cap_bytes
        digest = memory.digest()
    with streammem.memory.open(tmp_path, mode="read", config=small_config()) as memory:
        assert memory.digest() == digest
        assert memory.search_text("word number 0")[0].text == "word number 0"


def test_the_same_stream_is_demoted_in_the_same_way(tmp_path: Path) -> None:
    digests = set()
    for name, step in (("one", 600), ("two", 50), ("three", 130)):
        for start in range(0, 600, step):
            with streammem.memory.open(tmp_path / name, config=small_config(1 << 20, CAP)) as memory:
                fill(memory, min(step, 600 - start), start=start)
        with streammem.memory.open(tmp_path / name, mode="read", config=small_config()) as memory:
            assert max(memory.status().streams[0].levels) >= 1
            digests.add(memory.digest())
    assert len(digests) == 1


def test_pins_keep_their_detail(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=small_config(1 << 20, CAP)) as memory:
        memory.pin("cam", (10 * SECOND, 20 * SECOND))
        fill(memory, 800)
        assert all(memory.thumbnail(observation(n).record_id) for n in range(10, 21))
        assert memory.thumbnail(observation(200).record_id) is None
    with streammem.memory.open(tmp_path, config=small_config(1 << 20, CAP)) as memory:
        memory.unpin("cam", (10 * SECOND, 20 * SECOND))
        fill(memory, 800, start=800)
        assert memory.thumbnail(observation(10).record_id) is None


def test_everything_pinned_is_full(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=small_config(1 << 20, CAP)) as memory:
        memory.pin("cam")
        with pytest.raises(StorageFull, match="nothing is left to demote") as caught:
            fill(memory, 5000)
        assert "remove pins" in caught.value.hint
        assert bytes_on_disk(tmp_path) <= CAP
        memory.unpin("cam")
        fill(memory, 100, start=5000)


@pytest.mark.slow
def test_a_long_stream_stays_flat(tmp_path: Path) -> None:
    """Down to tombstones and their joining: the number of segments and the bytes stop growing."""
    with streammem.memory.open(tmp_path, config=small_config(100_000, CAP)) as memory:
        seen = []
        for start in range(0, 6000, 1500):
            fill(memory, 1500, jpeg=3000, start=start)
            status = memory.status()
            seen.append((status.segments, status.disk_bytes))
            assert bytes_on_disk(tmp_path) <= CAP
        assert memory.observation_count == 6000
        assert 4 in memory.status().streams[0].levels
        assert seen[-1][0] <= 2 * seen[1][0]


def test_ram_is_bounded_by_sealing_early(tmp_path: Path) -> None:
    config = Config(memory=MemoryConfig(seal_bytes=1 << 30), budget=BudgetConfig(ram_bytes=2 << 20), **OFF)
    with streammem.memory.open(tmp_path, config=config) as memory:
        for number in range(150):
            memory.write([observation(number, f"cam {index}", jpeg=2000) for index in range(10)])
            assert memory.status().ram_bytes <= 2 << 20
        assert memory.status().segments > 0


def test_an_idle_stream_doesnt_keep_the_journal(tmp_path: Path) -> None:
    """One old observation of another stream must not keep months of journal alive."""
    with streammem.memory.open(tmp_path, config=small_config(200_000)) as memory:
        memory.write(observation(0, "idle"))
        for _ in range(3):
            fill(memory, 500, start=memory.observation_count)
            assert memory.status().journal_bytes < 1_000_000
        digest = memory.digest()
    with streammem.memory.open(tmp_path, mode="read", config=small_config()) as memory:
        assert memory.digest() == digest
        assert memory.has("idle", "s", 0)
