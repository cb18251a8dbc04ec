"""A block: records of one bank and one stream, sorted by time, read by column.

A sealed segment is a block on disk (memory-mapped); the open part of a memory is a block in RAM. Recall works on
blocks only, so that it does not know which is which.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from streammem.model import Record
from streammem.spaces import Ragged


class Block(Protocol):
    """Rows are sorted by ``(t_start_ns, record_id)``. Arrays are read-only views."""

    @property
    def bank(self) -> str: ...
    @property
    def stream(self) -> str: ...
    @property
    def space(self) -> str | None:
        """Embedding space ``name@version`` of the vectors and parts, or None where there are none."""
        ...

    def __len__(self) -> int: ...

    @property
    def record_ids(self) -> np.ndarray:
        """(n,) uint64."""
        ...

    @property
    def t_start_ns(self) -> np.ndarray:
        """(n,) int64, sorted."""
        ...

    @property
    def t_end_ns(self) -> np.ndarray:
        """(n,) int64."""
        ...

    @property
    def levels(self) -> np.ndarray:
        """(n,) uint8, place on the demotion ladder."""
        ...

    @property
    def has_thumbnail(self) -> np.ndarray:
        """(n,) bool."""
        ...

    @property
    def has_words(self) -> np.ndarray:
        """(n,) bool: the row has texts or speech."""
        ...

    def rows_between(self, t_start_ns: int | None, t_end_ns: int | None) -> tuple[int, int]:
        """The slice [lo, hi) of rows that can overlap the closed interval; the caller checks ``t_end_ns``."""
        ...

    def search(self, query: np.ndarray, k: int, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
        """The best of the float16 vectors of rows [lo, hi): ``(scores (m,) float32, rows (m,) int64)``, best first,
        m <= k, ties by row. Rows without a vector are not returned. An exact scan, but where a segment has an
        approximate index and the window is wide (a segment then takes ``exact=True``)."""
        ...

    def columns(self, lo: int, hi: int) -> dict[str, Ragged]:
        """Every array of rows [lo, hi) by name (``vector`` included, with one or no entry a row)."""
        ...

    def statistics(self) -> np.ndarray | None:
        """What ``EmbeddingSpace.statistics`` gave for this block's rows when they were written."""
        ...

    def record(self, row: int) -> Record:
        """The whole record of one row, without its thumbnail."""
        ...

    def thumbnail(self, row: int) -> bytes | None:
        """The JPEG of one row."""
        ...
