"""A reader makes its banks when they are asked for, as the memory was written: the same records, digest and answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sample_moments import observation

import streammem.memory
from streammem.config import (
    Config,
    EntitiesConfig,
    EventsConfig,
    MemoryConfig,
    SpatialConfig,
    TimelineConfig,
    TracksConfig,
)
from streammem.errors import QueryError
from streammem.storage.bank_set import settings_of, with_settings

DEFAULT = Config(memory=MemoryConfig(seal_bytes=65536), timeline=TimelineConfig(leaf_seconds=5))
NO_BANKS = Config(
    events=EventsConfig(on=False),
    entities=EntitiesConfig(on=False),
    spatial=SpatialConfig(on=False),
    timeline=TimelineConfig(on=False),
    tracks=TracksConfig(on=False),
)


def written(place: Path, config: Config = DEFAULT) -> tuple[str, dict[str, int]]:
    """A memory with segments and a tail: its digest and its records by bank, as the writer has them."""
    with streammem.memory.open(place, config=config) as memory:
        memory.write([observation(n) for n in range(300)])
        rows = {item.bank: item.records for item in memory.status().banks}
        return memory.digest(), rows


def test_a_reader_finds_what_the_writer_had(tmp_path: Path) -> None:
    digest, rows = written(tmp_path)
    with streammem.memory.open(tmp_path, mode="read") as reader:
        assert reader.digest() == digest
        assert {item.bank: item.records for item in reader.status().banks} == rows


@pytest.mark.parametrize("other", [NO_BANKS, Config(), Config(timeline=TimelineConfig(leaf_seconds=77))])
def test_a_reader_with_other_settings_has_the_writers_banks(other: Config, tmp_path: Path) -> None:
    digest, rows = written(tmp_path)
    with streammem.memory.open(tmp_path, config=other, mode="read") as reader:
        assert reader.digest() == digest
        assert {item.bank: item.records for item in reader.status().banks} == rows


def test_what_was_off_when_it_was_written_is_no_bank_of_a_reader(tmp_path: Path) -> None:
    digest, _ = written(tmp_path, NO_BANKS)
    with streammem.memory.open(tmp_path, mode="read") as reader:
        with pytest.raises(QueryError, match="no bank 'entities'"):
            reader.query("entities", "last_seen", entity="mug")
        assert reader.digest() == digest


def test_records_of_the_tail_are_found_by_bank_and_by_id(tmp_path: Path) -> None:
    """Each way alone is enough for a bank to be made: its blocks, and the id of one of its records."""
    with streammem.memory.open(tmp_path, config=DEFAULT) as memory:
        memory.write([observation(n) for n in range(300)])
        blocks = memory.blocks("timeline")
        ids = [int(block.record(row).record_id) for block in blocks for row in range(len(block))]
    assert ids
    with streammem.memory.open(tmp_path, mode="read") as reader:
        found = [int(b.record(row).record_id) for b in reader.blocks("timeline") for row in range(len(b))]
        assert sorted(found) == sorted(ids)
    with streammem.memory.open(tmp_path, mode="read") as reader:
        assert all(reader.record(number) is not None for number in ids)
        assert reader.record(max(ids) ^ 12345) is None


def test_asking_for_moments_imports_no_bank(tmp_path: Path) -> None:
    written(tmp_path)
    code = (
        "import sys, streammem.memory\n"
        f"with streammem.memory.open({str(tmp_path)!r}, mode='read') as memory:\n"
        "    assert memory.blocks() and memory.streams() and memory.observation_count == 300\n"
        "print(sorted(name for name in sys.modules if name.startswith('streammem.banks.')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['streammem.banks.arguments', 'streammem.banks.base']"


def test_settings_that_a_newer_release_wrote_are_left_alone() -> None:
    config = Config(timeline=TimelineConfig(leaf_seconds=20))
    told = settings_of(config)
    assert with_settings(Config(), told).timeline == config.timeline
    assert with_settings(Config(), told.replace(b'"leaf_seconds"', b'"leaf_hours"')).timeline == TimelineConfig()
    assert with_settings(config, None) is config
