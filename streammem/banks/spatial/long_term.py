"""Long-term memory of places: everything that was seen there, by key and by likeness.

The default is what it is: a log that is only appended to, with an exact index of its vectors. A token of fixed size
can't hold a history of any length (mechanism page, section 1.9); :mod:`reversible` keeps the published idea behind the
same protocol, for ablations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from streammem.banks.spatial.short_term import ShortTermMemory
from streammem.errors import QueryError

Key = tuple[Literal["leaf", "node"], int]
"""Leaves by their code, places by their number: two name spaces, or leaf 0 and place 0 would be one."""


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """What is known of a key: ``vectors`` (n, d) float32, oldest first; ``written`` how many were written; ``lossless``
    whether ``vectors`` are all of them, as they were."""

    vectors: np.ndarray
    written: int
    lossless: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A neighbour: its key, the number of the observation under that key (0 the oldest), cosine, record id."""

    key: Key
    number: int
    score: float
    record_id: int


class LongTermMemory(Protocol):
    """What the log and the token store both do."""

    def write(self, key: Key, vector: np.ndarray, record_id: int = 0) -> None: ...

    def read(self, key: Key) -> Read: ...

    def search(self, vector: np.ndarray, k: int = 3) -> list[Found]: ...

    def ram_bytes(self) -> int: ...


def check_key(key: Key) -> None:
    """Raises QueryError for what isn't a key."""
    if not (isinstance(key, tuple) and len(key) == 2 and key[0] in ("leaf", "node") and isinstance(key[1], int)):
        raise QueryError(f"a key is ('leaf', code) or ('node', id), got {key!r}", hint="name the kind")


class VectorIndex:
    """Live vectors by slot, searched exactly. A slot that was freed is used again, so that a key that is written for
    ever takes no more room than once."""

    def __init__(self) -> None:
        self._rows = np.empty((0, 0), np.float32)
        self._live = np.zeros(0, bool)
        self._free: list[int] = []

    def __len__(self) -> int:
        return int(self._live.sum())

    @property
    def capacity(self) -> int:
        return len(self._rows)

    def add(self, vector: np.ndarray) -> int:
        """The slot of a new vector. It is normalised for comparing. Raises QueryError for another length."""
        vector = np.asarray(vector, np.float32)
        if not self._rows.size:
            self._rows = np.empty((0, len(vector)), np.float32)
        if vector.shape != (self._rows.shape[1],):
            raise QueryError(
                f"this memory holds vectors of {self._rows.shape[1]} numbers, got {vector.shape}",
                hint="one embedding space a memory",
            )
        if not self._free:
            start = len(self._rows)
            more = max(16, start)
            self._rows = np.concatenate((self._rows, np.zeros((more, len(vector)), np.float32)))
            self._live = np.concatenate((self._live, np.zeros(more, bool)))
            self._free = list(range(start + more - 1, start - 1, -1))
        slot = self._free.pop()
        norm = float(np.linalg.norm(vector))
        self._rows[slot] = vector / norm if norm > 0 else 0.0
        self._live[slot] = True
        return slot

    def remove(self, slot: int) -> None:
        """The slot's vector is never found again."""
        if self._live[slot]:
            self._live[slot] = False
            self._free.append(slot)

    def search(self, vector: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Slots and cosines of the k best, best first, ties by slot."""
        if not len(self) or len(vector) != self._rows.shape[1]:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        norm = float(np.linalg.norm(vector))
        scores = self._rows @ (np.asarray(vector, np.float32) / (norm or 1.0))
        scores[~self._live] = -np.inf
        best = np.argsort(-scores, kind="stable")[: min(k, len(self))]
        return best, scores[best]

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes + self._live.nbytes


class AppendLog:
    """Every vector under its key, as it was written (float32). The default."""

    def __init__(self) -> None:
        self._index = VectorIndex()
        self._kept: dict[Key, list[tuple[np.ndarray, int, int]]] = {}
        self._of_slot: dict[int, tuple[Key, int]] = {}

    def write(self, key: Key, vector: np.ndarray, record_id: int = 0) -> None:
        check_key(key)
        kept = self._kept.setdefault(key, [])
        slot = self._index.add(vector)
        self._of_slot[slot] = (key, len(kept))
        kept.append((np.array(vector, np.float32), slot, record_id))

    def read(self, key: Key) -> Read:
        check_key(key)
        kept = self._kept.get(key, [])
        vectors = np.stack([vector for vector, _, _ in kept]) if kept else np.empty((0, 0), np.float32)
        return Read(vectors, len(kept), True)

    def remove(self, key: Key) -> int:
        """Forget everything under a key. Returns how many vectors that were."""
        gone = self._kept.pop(key, [])
        for _, slot, _ in gone:
            self._index.remove(slot)
            del self._of_slot[slot]
        return len(gone)

    def search(self, vector: np.ndarray, k: int = 3) -> list[Found]:
        slots, scores = self._index.search(vector, k)
        found = []
        for slot, score in zip(slots.tolist(), scores.tolist(), strict=True):
            key, number = self._of_slot[slot]
            found.append(Found(key, number, score, self._kept[key][number][2]))
        return found

    def ram_bytes(self) -> int:
        return self._index.nbytes + sum(v.nbytes + 200 for kept in self._kept.values() for v, _, _ in kept)


@dataclass(frozen=True, slots=True)
class Recalled:
    """``source`` is "short_term" or "long_term"; ``items`` are (key, score, record id), the best first."""

    source: Literal["short_term", "long_term"]
    items: list[tuple[object, float, int]]


def recall(
    short: ShortTermMemory,
    long: LongTermMemory,
    position_m: np.ndarray,
    vector: np.ndarray,
    *,
    least: float = 0.7,
    k: int = 3,
    anchor_m: np.ndarray | None = None,
) -> Recalled:
    """The short-term memory first: where something near is at least ``least`` alike, it answers. Else the long-term
    memory does. Nothing known: ``("long_term", [])``."""
    near = short.find(position_m, vector, k, anchor_m)
    if near and near[0][1] >= least:
        return Recalled("short_term", [(entry.key, score, entry.record_id) for entry, score in near])
    return Recalled("long_term", [(each.key, each.score, each.record_id) for each in long.search(vector, k)])
