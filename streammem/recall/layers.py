"""Views of a memory that recall can search as it does the memory itself: only some of its rows, or more than it holds.

Both leave the scale of the scores alone: per-stream statistics are always those of the whole memory, so a threshold
that was calibrated on it means the same here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from streammem.config import RecallConfig
from streammem.model import FrameRef, Record, StreamInfo
from streammem.numeric import distinct
from streammem.recall.timeline import Between, View
from streammem.spaces import EmbeddingSpace, Ragged
from streammem.storage.blocks import Block

Choose = Callable[[Block], np.ndarray]
"""Rows of a block to keep: (m,) int64, sorted."""


class SomeRows:
    """The rows of a block that were chosen, as a block. ``statistics`` stay those of the whole block, or none."""

    def __init__(self, block: Block, rows: np.ndarray, *, statistics: bool = True) -> None:
        self._block = block
        self._rows = np.asarray(rows, np.int64)
        self._statistics = statistics
        self.bank, self.stream, self.space = block.bank, block.stream, block.space
        self.record_ids = np.asarray(block.record_ids)[self._rows]
        self.t_start_ns = np.asarray(block.t_start_ns)[self._rows]
        self.t_end_ns = np.asarray(block.t_end_ns)[self._rows]
        self.levels = np.asarray(block.levels)[self._rows]
        self.has_thumbnail = np.asarray(block.has_thumbnail)[self._rows]
        self.has_words = np.asarray(block.has_words)[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def rows_between(self, t_start_ns: int | None, t_end_ns: int | None) -> tuple[int, int]:
        low, high = self._block.rows_between(t_start_ns, t_end_ns)
        return int(np.searchsorted(self._rows, low)), int(np.searchsorted(self._rows, high))

    def search(self, query: np.ndarray, k: int, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
        if lo >= hi:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        low, high = int(self._rows[lo]), int(self._rows[hi - 1]) + 1
        scores, rows = self._block.search(query, high - low, low, high)
        place = np.searchsorted(self._rows, rows)
        mine = (place < len(self._rows)) & (self._rows[np.minimum(place, len(self._rows) - 1)] == rows)
        return scores[mine][:k], place[mine][:k]

    def columns(self, lo: int, hi: int) -> dict[str, Ragged]:
        if lo >= hi:
            return {}
        low, high = int(self._rows[lo]), int(self._rows[hi - 1]) + 1
        taken = self._rows[lo:hi] - low
        return {name: column.take(taken) for name, column in self._block.columns(low, high).items()}

    def statistics(self) -> np.ndarray | None:
        return self._block.statistics() if self._statistics else None

    def record(self, row: int) -> Record:
        return self._block.record(int(self._rows[row]))

    def thumbnail(self, row: int) -> bytes | None:
        return self._block.thumbnail(int(self._rows[row]))


class _Base:
    """What every view hands through to the memory under it."""

    def __init__(self, view: View) -> None:
        self._view: Any = view

    @property
    def recall_config(self) -> RecallConfig:
        return self._view.recall_config

    def streams(self) -> list[StreamInfo]:
        return self._view.streams()

    def space(self, space_id: str) -> EmbeddingSpace | None:
        return self._view.space(space_id)

    def search_words(
        self, words: Sequence[str], streams: Sequence[str] | None, between: Between | None, limit: int
    ) -> set[int] | None:
        return self._view.search_words(words, streams, between, limit)

    def frame_refs(self, stream: str, records: Sequence[Record]) -> list[FrameRef]:
        return self._view.frame_refs(stream, records)


class Thinned(_Base):
    """A memory of which only the rows that ``choose`` names are there: a baseline that looked at less."""

    def __init__(self, view: View, choose: Choose) -> None:
        super().__init__(view)
        self._choose = choose

    def blocks(
        self, bank: str = "moments", streams: Sequence[str] | None = None, between: Between | None = None
    ) -> list[Block]:
        found = self._view.blocks(bank, streams, between)
        return list(found) if bank != "moments" else [SomeRows(block, self._choose(block)) for block in found]


class Layered(_Base):
    """A memory, and a second one beside it with further moments of the same streams (a denser look at parts of them).
    What is in both at the same instant is taken from the first."""

    def __init__(self, view: View, extra: View) -> None:
        super().__init__(view)
        self._extra: Any = extra

    def blocks(
        self, bank: str = "moments", streams: Sequence[str] | None = None, between: Between | None = None
    ) -> list[Block]:
        own: list[Block] = list(self._view.blocks(bank, streams, between))
        if bank != "moments":
            return own
        for block in self._extra.blocks(bank, streams, between):
            have = [np.asarray(b.t_start_ns) for b in own if b.stream == block.stream and b.space == block.space]
            times = np.asarray(block.t_start_ns)
            new = ~np.isin(times, np.concatenate(have)) if have else np.ones(len(times), bool)
            if new.any():
                own.append(SomeRows(block, np.flatnonzero(new), statistics=False))
        return own

    def search_words(
        self, words: Sequence[str], streams: Sequence[str] | None, between: Between | None, limit: int
    ) -> set[int] | None:
        own = self._view.search_words(words, streams, between, limit)
        if own is None:
            return None
        # The second memory is small: all of its worded rows are read.
        worded: set[int] = set()
        for block in self._extra.blocks("moments", streams, between):
            worded |= set(np.asarray(block.record_ids)[np.asarray(block.has_words, bool)].tolist())
        return own | worded

    def frame_refs(self, stream: str, records: Sequence[Record]) -> list[FrameRef]:
        """In the order of the records, from whichever memory shows them."""
        shown = {ref.record_id: ref for ref in self._view.frame_refs(stream, records)}
        for ref in self._extra.frame_refs(stream, records):
            if ref.where == "memory" or ref.record_id not in shown:
                shown[ref.record_id] = ref
        return [shown[record.record_id] for record in records if record.record_id in shown]

    def record(self, record_id: int) -> Record | None:
        found = self._view.record(record_id)
        return self._extra.record(record_id) if found is None else found

    def thumbnail(self, record_id: int) -> bytes | None:
        found = self._view.thumbnail(record_id)
        return self._extra.thumbnail(record_id) if found is None else found

    def query(self, bank: str, question: str, **arguments: Any) -> Any:
        return self._view.query(bank, question, **arguments)

    def get_state(self, key: str) -> bytes | None:
        return self._view.get_state(key)


def evenly(t_ns: np.ndarray, times_ns: np.ndarray) -> np.ndarray:
    """Rows nearest to the given instants: (m,) int64 sorted, without repeats. ``t_ns`` (n,) sorted."""
    if not len(t_ns):
        return np.zeros(0, np.int64)
    after = np.clip(np.searchsorted(t_ns, times_ns), 0, len(t_ns) - 1)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(t_ns[before] - times_ns) <= np.abs(t_ns[after] - times_ns)
    return distinct(np.where(nearer, before, after)).astype(np.int64)
