"""From sorted integer keys to row numbers, without a Python object a key.

A large sorted array and a small one for what came lately, like two levels of a log-structured merge tree: adding m
keys costs a merge with the small one, and now and then one with the large one. 300,000 keys are 4.8 MB; a dict of them
would be 30 MB.
"""

from __future__ import annotations

import numpy as np

_LEAST_TAIL = 4096


class KeyIndex:
    """Keys (int64, unique) in any order of arrival; row numbers are given by the owner."""

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int64)
        self._tail_keys = np.empty(0, np.int64)
        self._tail_rows = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys) + len(self._tail_keys)

    @property
    def nbytes(self) -> int:
        return 16 * len(self)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Rows of the keys (n,), -1 where one isn't known."""
        rows = np.full(len(keys), -1, np.int64)
        for known, places in ((self._keys, self._rows), (self._tail_keys, self._tail_rows)):
            if len(known):
                at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
                same = known[at] == keys
                rows[same] = places[at[same]]
        return rows

    def add(self, keys: np.ndarray, rows: np.ndarray) -> None:
        """Keys that aren't known yet, sorted or not, each once."""
        self._tail_keys, self._tail_rows = _merged(self._tail_keys, self._tail_rows, keys, rows)
        if len(self._tail_keys) > max(_LEAST_TAIL, len(self._keys) // 8):
            self._flush()

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """All keys, ascending, and their rows."""
        if len(self._tail_keys):
            self._flush()
        return self._keys, self._rows

    def _flush(self) -> None:
        self._keys, self._rows = _merged(self._keys, self._rows, self._tail_keys, self._tail_rows)
        self._tail_keys, self._tail_rows = np.empty(0, np.int64), np.empty(0, np.int64)


def _merged(
    keys: np.ndarray, rows: np.ndarray, more_keys: np.ndarray, more_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    joined = np.concatenate((keys, more_keys))
    order = np.argsort(joined, kind="stable")  # two sorted runs: timsort merges them in linear time
    return joined[order], np.concatenate((rows, more_rows))[order]
