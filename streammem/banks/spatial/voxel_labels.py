"""Labels of leaves: sparse (row, label) pairs with a weight."""

from __future__ import annotations

import numpy as np

from streammem.banks.spatial.key_index import KeyIndex

_NAMES = 2**20
"""Most different names in one octree; a key is ``row * _NAMES + number``."""


class VoxelLabels:
    """Which names were put on which rows, and how heavily. Rows are those of the octree that owns this."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._index = KeyIndex()
        self._weights = np.empty(64, np.float32)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        return self._index.nbytes + self._weights.nbytes

    def add(self, rows: np.ndarray, name: str, weight: float | np.ndarray) -> None:
        """Add ``weight`` (one, or (n,)) to the name on these rows, each given once."""
        if name not in self._numbers:
            self._numbers[name] = len(self.names)
            self.names.append(name)
        keys = np.asarray(rows, np.int64) * _NAMES + self._numbers[name]
        at = self._index.find(keys)
        new = np.flatnonzero(at < 0)
        if len(new):
            start, end = len(self._index), len(self._index) + len(new)
            if end > len(self._weights):
                self._weights = np.concatenate((self._weights, np.empty(max(end, len(self._weights)), np.float32)))
            self._weights[start:end] = 0
            at[new] = np.arange(start, end)
            self._index.add(keys[new], at[new])
        self._weights[at] += np.broadcast_to(np.float32(weight), at.shape)

    def of(self, row: int) -> dict[str, float]:
        """Names on one row with their weights, heaviest first, ties by name."""
        keys, at = self._index.sorted()
        lo, hi = np.searchsorted(keys, (row * _NAMES, (row + 1) * _NAMES))
        found = {
            self.names[int(key % _NAMES)]: float(self._weights[place])
            for key, place in zip(keys[lo:hi], at[lo:hi], strict=True)
        }
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def rows(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows that carry the name, ascending, and the weights."""
        keys, at = self._index.sorted()
        chosen = keys % _NAMES == self._numbers.get(name, -1)
        return keys[chosen] // _NAMES, self._weights[at[chosen]]

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Everything, sorted: rows (m,) int64, numbers into ``names`` (m,) int32, weights (m,) float32."""
        keys, at = self._index.sorted()
        return keys // _NAMES, (keys % _NAMES).astype(np.int32), self._weights[at]
