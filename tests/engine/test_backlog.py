"""Groups that become durable while the engine is busy: every crash point and every error path of the backlog."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sample_moments import observation, small_config

import streammem.memory
from streammem.banks.short_term import ShortTermBank
from streammem.errors import StorageError, StorageFull
from streammem.memory import Memory
from streammem.model import Observation, Record
from streammem.storage.files import Files
from streammem.storage.queue import Group, Outcome

CONFIG = small_config(seal_bytes=20_000)


class Feeder:
    """What arrives while a group is written: gives the next group whenever the memory asks."""

    def __init__(self, groups: Sequence[Sequence[Observation]], seen: Callable[[], None] = lambda: None) -> None:
        self.groups = list(groups)
        self.seen = seen
        self.acknowledged: list[tuple[str, str, int]] = []
        self.outcomes: list[Outcome] = []
        self.errors: list[Exception] = []
        self.meanwhile = 0

    def durable(self, group: Sequence[Observation], outcomes: list[Outcome]) -> None:
        self.outcomes += outcomes
        self.acknowledged += [made.key for made, what in zip(group, outcomes, strict=True) if what == "written"]
        self.seen()

    def more(self, seconds: float) -> Group | None:
        if not self.groups:
            return None
        group = self.groups.pop(0)
        self.meanwhile += 1
        return Group(group, lambda outcomes: self.durable(group, outcomes), self.errors.append)

    def run(self, memory: Memory) -> None:
        while self.groups:
            group = self.groups.pop(0)
            memory.write_each(group, lambda outcomes, group=group: self.durable(group, outcomes), self.more)  # type: ignore[misc]


def groups_of(count: int, size: int = 10, streams: Sequence[str] = ("a", "b")) -> list[list[Observation]]:
    made = [observation(at, stream) for at in range(count) for stream in streams]
    return [made[at : at + size] for at in range(0, len(made), size)]


def plain_digest(directory: Path, count: int) -> str:
    with streammem.memory.open(directory, config=CONFIG) as memory:
        for group in groups_of(count):
            memory.write(group)
        return memory.digest()


def test_the_memory_is_the_same_as_without(tmp_path: Path) -> None:
    feeder = Feeder(groups_of(150))
    with streammem.memory.open(tmp_path / "fed", config=CONFIG) as memory:
        feeder.run(memory)
        digest = memory.digest()
        assert memory.observation_count == 300 == len(feeder.acknowledged)
    assert feeder.meanwhile > 10, "most groups came in while a segment was written or entries were applied"
    with streammem.memory.open(tmp_path / "fed", config=CONFIG) as memory:
        assert memory.digest() == digest == plain_digest(tmp_path / "plain", 150)


def test_killed_at_every_acknowledgement(tmp_path: Path) -> None:
    """A copy of the directory at the instant of each acknowledgement is what ``kill -9`` leaves."""
    copies: list[tuple[Path, int]] = []

    def copy() -> None:
        target = tmp_path / f"copy-{len(copies)}"
        for path in sorted((tmp_path / "live").rglob("*")):
            place = target / path.relative_to(tmp_path / "live")
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file() and path.name != "LOCK":
                with contextlib.suppress(FileNotFoundError):  # of a segment that is just being written
                    shutil.copyfile(path, place)
        copies.append((target, len(feeder.acknowledged)))

    feeder = Feeder(groups_of(60), copy)
    with streammem.memory.open(tmp_path / "live", config=CONFIG) as memory:
        feeder.run(memory)
    assert len(copies) == 12
    for directory, count in copies:
        with streammem.memory.open(directory, config=CONFIG) as memory:
            assert memory.observation_count == count
            assert all(memory.has(*key) for key in feeder.acknowledged[:count])
            rest = Feeder(groups_of(60))
            rest.run(memory)
            assert rest.outcomes.count("duplicate") == count
            assert memory.observation_count == 120
            assert memory.digest() == plain_digest(tmp_path / f"{directory.name}-plain", 60)


def test_what_waits_is_known_as_duplicate(tmp_path: Path) -> None:
    again = groups_of(40)
    feeder = Feeder([group for group in again for _ in (0, 1)])
    with streammem.memory.open(tmp_path, config=CONFIG) as memory:
        feeder.run(memory)
        assert (feeder.outcomes.count("written"), feeder.outcomes.count("duplicate")) == (80, 80)
        assert memory.observation_count == 80


class NoSegments(Files):
    """Segments can't be begun while ``error`` is set."""

    error: Exception | None = None

    def mkdir(self, path: Path) -> None:
        if self.error is not None and path.name.startswith(".tmp-"):
            raise self.error
        super().mkdir(path)


def test_a_seal_that_fails_for_space_loses_nothing(tmp_path: Path) -> None:
    files = NoSegments()
    files.error = OSError(errno.ENOSPC, "full")
    feeder = Feeder(groups_of(100))
    with streammem.memory.open(tmp_path / "fed", config=CONFIG, files=files) as memory:
        feeder.run(memory)
        assert memory.observation_count == 200 and memory.status().segments == 0
        assert any("sealing failed" in note for note in memory.status().notes)
        files.error = None
        memory.write(observation(100, "a"))
        memory.seal()
        assert memory.status().segments > 0
        assert memory.observation_count == 201


def test_a_defect_in_the_middle_stops_the_memory_and_loses_nothing(tmp_path: Path) -> None:
    """A seal after an entry that was not applied would hide that entry from every later replay."""
    files = NoSegments()
    feeder = Feeder(groups_of(100))
    memory = streammem.memory.open(tmp_path, config=CONFIG, files=files)
    files.error = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        feeder.run(memory)
    files.error = None
    with pytest.raises(StorageError, match="applying what is durable failed"):
        memory.write(observation(500, "a"))
    acknowledged = list(feeder.acknowledged)
    memory.close()
    with streammem.memory.open(tmp_path, config=CONFIG) as memory:
        assert memory.observation_count == len(acknowledged)
        assert all(memory.has(*key) for key in acknowledged)


class FullJournal(Files):
    """The n-th write to a journal file from now finds no space."""

    refuse_in = -1

    def write_pieces(self, handle, pieces) -> None:  # type: ignore[no-untyped-def]
        if str(handle.name).endswith(".log"):
            self.refuse_in -= 1
            if self.refuse_in == 0:
                super().write_pieces(handle, pieces[:3])
                raise OSError(errno.ENOSPC, "full")
        super().write_pieces(handle, pieces)


@pytest.mark.parametrize("at", range(2, 12))
def test_a_full_disk_refuses_one_group_and_keeps_the_others(tmp_path: Path, at: int) -> None:
    files = FullJournal()
    feeder = Feeder(groups_of(60))
    offered = len(feeder.groups)
    with streammem.memory.open(tmp_path / "fed", config=CONFIG, files=files) as memory:
        files.refuse_in = at
        refused = 0
        while feeder.groups:
            try:
                feeder.run(memory)
            except StorageFull:
                refused += 1
        assert refused + len(feeder.errors) == 1
        assert all(isinstance(error, StorageFull) for error in feeder.errors)
        assert len(feeder.acknowledged) == (offered - 1) * 10 == memory.observation_count
        digest = memory.digest()
    with streammem.memory.open(tmp_path / "fed", config=CONFIG) as memory:
        assert memory.digest() == digest
        assert all(memory.has(*key) for key in feeder.acknowledged)


def test_a_group_with_a_defect_is_told_and_harms_nobody(tmp_path: Path) -> None:
    made = groups_of(60)
    made[4][3] = object()  # type: ignore[call-overload]
    feeder = Feeder(made)
    with streammem.memory.open(tmp_path, config=CONFIG) as memory:
        while feeder.groups:
            try:
                feeder.run(memory)
            except AttributeError as error:
                feeder.errors.append(error)
        assert [type(error) for error in feeder.errors] == [AttributeError]
        assert memory.observation_count == 110


def test_a_bank_that_fails_is_noted_and_the_moment_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ShortTermBank, record: Record) -> Sequence[Record]:
        raise KeyError("a defect of the bank")

    monkeypatch.setattr(ShortTermBank, "observe", fail)
    with streammem.memory.open(tmp_path, config=CONFIG) as memory:
        Feeder(groups_of(20)).run(memory)
        assert memory.observation_count == 40
        assert any("bank short_term failed" in note for note in memory.status().notes)


def test_a_caller_may_change_its_arrays_after_writing(tmp_path: Path) -> None:
    made = observation(1)
    assert made.embedding is not None
    with streammem.memory.open(tmp_path, config=CONFIG) as memory:
        memory.write(made, durable=False)
        made.embedding[:] = 0
        memory.flush()
        kept = memory.record(made.record_id)
        assert kept is not None and kept.vector is not None and kept.vector.any()
