"""Rows of one stream laid out on time: what every signal scores and what moments are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streammem.config import RecallConfig
from streammem.model import FrameRef, Record, StreamInfo
from streammem.numeric import median
from streammem.spaces import EmbeddingSpace, Ragged, concatenate
from streammem.storage.blocks import Block

Between = tuple[int | None, int | None]


class View(Protocol):
    """What recall needs of a memory. ``Memory`` has it; so can anything that serves blocks."""

    @property
    def recall_config(self) -> RecallConfig: ...
    def streams(self) -> list[StreamInfo]: ...
    def space(self, space_id: str) -> EmbeddingSpace | None: ...
    def blocks(
        self, bank: str = "moments", streams: Sequence[str] | None = None, between: Between | None = None
    ) -> Sequence[Block]: ...
    def search_words(
        self, words: Sequence[str], streams: Sequence[str] | None, between: Between | None, limit: int
    ) -> set[int] | None:
        """Record ids of sealed rows whose texts or speech may hold one of the words; None: no index, scan."""
        ...

    def frame_refs(self, stream: str, records: Sequence[Record]) -> list[FrameRef]:
        """The frames of these records that exist now, in the memory or in the source."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """n rows of one stream, sorted by ``(t_start_ns, record id)``. ``block``/``row`` say where a row lives."""

    stream: str
    space: str | None
    blocks: tuple[Block, ...]
    block: np.ndarray
    row: np.ndarray
    ids: np.ndarray
    t_start_ns: np.ndarray
    t_end_ns: np.ndarray
    has_words: np.ndarray
    is_key: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def step_ns(self) -> int:
        """The usual distance between rows: the median of the positive ones, one second for a single row."""
        gaps = np.diff(self.t_start_ns)
        gaps = gaps[gaps > 0]
        return int(median(gaps)) if len(gaps) else 1_000_000_000

    def record(self, index: int) -> Record:
        return self.blocks[int(self.block[index])].record(int(self.row[index]))

    def pick(self, index: int) -> dict[str, Ragged]:
        """The arrays of one row."""
        row = int(self.row[index])
        return self.blocks[int(self.block[index])].columns(row, row + 1)

    def columns(self) -> dict[str, Ragged]:
        """Every array of every row, in timeline order."""
        groups, order = [], []
        for number, block in enumerate(self.blocks):
            mine = np.flatnonzero(self.block == number)
            if len(mine):
                rows = self.row[mine]
                lo, hi = int(rows.min()), int(rows.max()) + 1
                taken = {name: c.take(rows - lo) for name, c in block.columns(lo, hi).items()}
                groups.append(taken)
                order.append(mine)
        if not groups:
            return {}
        back = np.argsort(np.concatenate(order), kind="stable")
        joined = concatenate(groups, [len(o) for o in order])
        if np.array_equal(back, np.arange(len(back))):
            return joined
        return {name: c.take(back) for name, c in joined.items()}


def lay_out(
    blocks: Sequence[Block], between: Between | None, chosen: dict[int, np.ndarray] | None = None
) -> list[Timeline]:
    """Blocks as one timeline a (stream, space), rows outside ``between`` left out. ``chosen`` restricts block i to
    those rows (the first stage's candidates)."""
    lo_ns, hi_ns = between or (None, None)
    groups: dict[tuple[str, str | None], list[tuple[Block, np.ndarray]]] = {}
    for number, block in enumerate(blocks):
        if chosen is not None:
            rows = np.sort(chosen.get(number, np.empty(0, np.int64)))
        else:
            lo, hi = block.rows_between(lo_ns, hi_ns)
            rows = np.arange(lo, hi)
        if lo_ns is not None:
            rows = rows[block.t_end_ns[rows] >= lo_ns]
        if hi_ns is not None:
            rows = rows[block.t_start_ns[rows] <= hi_ns]
        if len(rows):
            groups.setdefault((block.stream, block.space), []).append((block, rows))
    return [_merge(stream, space, parts) for (stream, space), parts in sorted(groups.items(), key=_sort_key)]


def _sort_key(item: tuple[tuple[str, str | None], object]) -> tuple[str, str]:
    (stream, space), _ = item
    return stream, space or ""


def _merge(stream: str, space: str | None, parts: list[tuple[Block, np.ndarray]]) -> Timeline:
    number = np.concatenate([np.full(len(rows), i, np.int32) for i, (_, rows) in enumerate(parts)])
    row = np.concatenate([rows for _, rows in parts]).astype(np.int64)

    def gather(name: str) -> np.ndarray:
        return np.concatenate([np.asarray(getattr(block, name))[rows] for block, rows in parts])

    ids, start = gather("record_ids"), gather("t_start_ns")
    order = np.lexsort((ids, start))
    return Timeline(
        stream=stream,
        space=space,
        blocks=tuple(block for block, _ in parts),
        block=number[order],
        row=row[order],
        ids=ids[order],
        t_start_ns=start[order],
        t_end_ns=gather("t_end_ns")[order],
        has_words=gather("has_words")[order],
        is_key=gather("has_thumbnail")[order],
    )
