"""Small segments become larger ones: bounded in number, nothing changed, whatever happens in the middle."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from sample_moments import SECOND, observation, small_config

import streammem.memory
from streammem.memory import Memory
from streammem.storage.files import Files
from streammem.storage.merging import FAN, tier_of

CONFIG = small_config(seal_bytes=1 << 20)


def sealed(memory: Memory, first: int, count: int, size: int = 5, streams: tuple[str, ...] = ("cam",)) -> None:
    """``count`` segments of ``size`` rows a stream: as idle streams, restarts and small banks make them."""
    for at in range(count):
        numbers = range(first + at * size, first + (at + 1) * size)
        memory.write([observation(n, stream) for n in numbers for stream in streams])
        memory.seal()


def test_sizes() -> None:
    assert [tier_of(size) for size in (0, 65_536, 65_537, 8 << 16, (8 << 16) + 1, 64 << 16)] == [0, 0, 1, 1, 2, 2]


def test_few_remain_and_nothing_changed(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path / "one", config=CONFIG) as memory:
        memory.write([observation(n) for n in range(600)])
        expected = memory.digest()
    with streammem.memory.open(tmp_path / "many", config=CONFIG) as memory:
        sealed(memory, 0, 40, 15)
        assert memory.status().segments <= 2 * (FAN - 1) + 1
        assert memory.digest() == expected
        assert memory.observation_count == 600 and memory.verify() == []
        assert [r.seq for r in memory] == list(range(600))
        assert memory.search_text("GATE 33")[0].text == "GATE 33"
        kept = memory.record(observation(7).record_id)
        assert kept is not None and kept.vector is not None
        np.testing.assert_allclose(kept.vector, observation(7).embedding, atol=1e-3)
        assert memory.thumbnail(observation(7).record_id) == observation(7).thumbnail
        ids = {path.name for path in (tmp_path / "many" / "segments").iterdir()}
        assert len(ids) == memory.status().segments, "what was replaced is gone"
    with streammem.memory.open(tmp_path / "many", config=CONFIG) as memory:
        assert memory.digest() == expected
        assert memory.write([observation(n) for n in range(600)]).duplicates == 600


def test_a_lost_catalogue_finds_the_merged_ones(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=CONFIG) as memory:
        sealed(memory, 0, 20)
        digest = memory.digest()
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with streammem.memory.open(tmp_path, config=CONFIG) as memory:
        assert memory.digest() == digest and memory.observation_count == 100


def test_pins_dont_widen_and_forgetting_reaches_in(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=CONFIG) as memory:
        memory.pin("cam", (11 * SECOND, 12 * SECOND))
        sealed(memory, 0, 16)
        pinned = [block for block in memory.blocks() if block.t_start_ns[0] <= 12 * SECOND <= block.t_start_ns[-1]]
        assert [len(block) for block in pinned] == [5]
        sealed(memory, 80, 8)
        report = memory.forget(between=(20 * SECOND, 29 * SECOND))
        assert report.observations == 10
        assert memory.observation_count == 110
        assert memory.search_text("GATE 24")[0].text != "GATE 24"


class NoMerges(Files):
    """No segment with a generation above 0 can be begun."""

    error: OSError | None = OSError(errno.ENOSPC, "full")

    def mkdir(self, path: Path) -> None:
        if self.error is not None and path.name.startswith(".tmp-") and not path.name.endswith("-0"):
            raise self.error
        super().mkdir(path)


def test_without_space_it_waits_and_is_made_up_for(tmp_path: Path) -> None:
    files = NoMerges()
    with streammem.memory.open(tmp_path, config=CONFIG, files=files) as memory:
        sealed(memory, 0, 30)
        assert memory.status().segments == 30
        files.error = None
        sealed(memory, 150, 1)
        assert memory.status().segments <= 2 * (FAN - 1)
        assert memory.observation_count == 155


@pytest.mark.parametrize("point", ["before_rename", "after_rename"])
def test_killed_in_the_middle(tmp_path: Path, point: str) -> None:
    """A directory that no transaction made live is what a kill leaves; the merge is made again."""

    class Killed(Files):
        armed = True

        def rename(self, source: Path, target: Path) -> None:
            if self.armed and source.name.startswith(".tmp-") and not source.name.endswith("-0"):
                if point == "after_rename":
                    super().rename(source, target)
                raise KeyboardInterrupt
            super().rename(source, target)

    memory = streammem.memory.open(tmp_path, config=CONFIG, files=Killed())
    with pytest.raises(KeyboardInterrupt):
        sealed(memory, 0, 8)
    memory._engine._lock.release()  # type: ignore[union-attr]
    memory._engine.catalog.close()
    memory._engine.journal.close()
    with streammem.memory.open(tmp_path, config=CONFIG) as again:
        assert again.status().segments == 1 and again.observation_count == 40
        assert len(list((tmp_path / "segments").iterdir())) == 1


def test_a_damaged_neighbour_is_quarantined(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=CONFIG) as memory:
        sealed(memory, 0, 7)
        victim = sorted((tmp_path / "segments").iterdir())[3] / "meta.bin"
        data = bytearray(victim.read_bytes())
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
        sealed(memory, 35, 1)
        assert memory.status().quarantined_segments == 1
        assert memory.observation_count == 35
