"""A bank that keeps records of its own: sealed, replayed, forgotten and digested with the moments they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sample_moments import SECOND, observation, small_config

import streammem.memory
from streammem.banks.base import Recall
from streammem.model import Record, record_id


class Tens:
    """Every ten moments of a stream become one record."""

    name = "tens"

    def __init__(self) -> None:
        self._open: dict[str, list[Record]] = {}

    def observe(self, record: Record) -> Sequence[Record]:
        group = self._open.setdefault(record.stream, [])
        group.append(record)
        if len(group) < 10:
            return ()
        first = group[0]
        made = replace(
            first,
            bank=self.name,
            record_id=record_id(self.name, first.stream, first.session, first.seq),
            t_end_ns=record.t_end_ns,
            count=10,
            parents=tuple(one.record_id for one in group),
            thumbnail=None,
            arrays={},
        )
        group.clear()
        return [made]

    def state(self, stream: str) -> bytes:
        return b"".join(one.record_id.to_bytes(8, "little") for one in self._open.get(stream, ()))

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        ids = [int.from_bytes(state[at : at + 8], "little") for at in range(0, len(state), 8)]
        self._open[stream] = [record for record in map(recall, ids) if record is not None]

    def ram_bytes(self) -> int:
        return 0

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        group = self._open.get(stream, [])
        kept = [one for one in group if one.t_start_ns > t_end_ns or one.t_end_ns < t_start_ns]
        self._open[stream] = kept
        return len(group) - len(kept)

    def digest(self, stream: str) -> bytes:
        return self.state(stream)


@pytest.fixture(autouse=True)
def with_tens(monkeypatch: pytest.MonkeyPatch) -> None:
    original = streammem.memory._banks
    monkeypatch.setattr(streammem.memory, "_banks", lambda *given: {**original(*given), "tens": Tens})


def groups(memory: streammem.memory.Memory) -> list[tuple[int, int, int]]:
    found = [block.record(row) for block in memory.blocks(bank="tens") for row in range(len(block))]
    return sorted((record.seq, record.count, record.t_end_ns // SECOND) for record in found)


@pytest.mark.parametrize("step", [7, 40, 300])
def test_restarts_change_nothing(step: int, tmp_path: Path) -> None:
    """The bank's state is saved with the seal and fed with the tail: the same records however often it is reopened."""
    for start in range(0, 300, step):
        with streammem.memory.open(tmp_path, config=small_config()) as memory:
            memory.write([observation(n) for n in range(start, min(300, start + step))])
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        assert groups(memory) == [(n, 10, n + 9) for n in range(0, 300, 10)]
        assert memory.status().segments > 10
        assert {bank.bank: bank.records for bank in memory.status().banks}["tens"] == 30
        first = memory.record(record_id("tens", "cam", "s", 0))
        assert first is not None
        assert [memory.record(parent).seq for parent in first.parents] == list(range(10))  # type: ignore[union-attr]
        assert memory.digest() == _undisturbed(tmp_path.with_name("undisturbed"))


def _undisturbed(directory: Path) -> str:
    with streammem.memory.open(directory, config=small_config()) as memory:
        memory.write([observation(n) for n in range(300)])
        return memory.digest()


def test_forgetting_reaches_every_bank(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        memory.write([observation(n) for n in range(105)])
        memory.forget(stream="cam", between=(42 * SECOND, 42 * SECOND))
        assert (40, 10, 49) not in groups(memory)
        assert len(groups(memory)) == 9
        memory.forget(stream="cam", between=(101 * SECOND, 103 * SECOND))
        memory.write([observation(n) for n in range(105, 113)])
        assert groups(memory)[-1] == (100, 10, 112), "the open group went on without what was forgotten"
    with streammem.memory.open(tmp_path, mode="read", config=small_config()) as memory:
        assert len(groups(memory)) == 10
