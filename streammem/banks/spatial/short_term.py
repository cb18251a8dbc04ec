"""Short-term memory of places: the last few surroundings at full detail, found by where they are and what they show.

Capacity K; when it is full, the entry with the lowest ``lambda * f - (1 - lambda) * (now - tau)`` goes (f: how often it
was written, tau: when last, in steps), ties: the first in the list. Entries hold absolute positions and the place that
they were written at, and are compared relative to a place only when asked: a place whose mean drifts moves nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from streammem.errors import QueryError


@dataclass(slots=True)
class Entry:
    """``position_m`` (3,) in the map, ``vector`` (d,) float32, ``tau`` the step of its last writing, ``frequency`` how
    often it was written, ``anchor`` the place at which it was written."""

    key: Hashable
    anchor: int | None
    position_m: np.ndarray
    vector: np.ndarray
    tau: int
    frequency: int
    record_id: int


class ShortTermMemory:
    """At most ``capacity`` entries. Steps are counted by the owner: there is no clock."""

    def __init__(self, capacity: int = 128, weight: float = 0.5, radius_m: float = 3.0) -> None:
        """``weight`` is lambda: 1 keeps the most frequent, 0 the newest. ``radius_m`` is how far entries are found."""
        if capacity < 1 or not 0 <= weight <= 1:
            raise QueryError(
                f"a short-term memory can't have {capacity} entries and lambda {weight}", hint="1 or more, 0 to 1"
            )
        self.capacity, self.weight, self.radius_m = capacity, weight, radius_m
        self.entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self.entries)

    def write(
        self,
        key: Hashable,
        position_m: np.ndarray,
        vector: np.ndarray,
        now: int,
        *,
        anchor: int | None = None,
        record_id: int = 0,
    ) -> Entry | None:
        """A new entry, or an old one again (its content is replaced, its frequency grows). Returns what was evicted."""
        position, vector = np.asarray(position_m, np.float64), np.asarray(vector, np.float32)
        for entry in self.entries:
            if entry.key == key:
                entry.position_m, entry.vector, entry.anchor = position, vector, anchor
                entry.tau, entry.record_id = now, record_id
                entry.frequency += 1
                return None
        evicted = self._evict(now) if len(self.entries) >= self.capacity else None
        self.entries.append(Entry(key, anchor, position, vector, now, 1, record_id))
        return evicted

    def scores(self, now: int) -> np.ndarray:
        """(n,) float64: the eviction score of every entry."""
        f = np.array([entry.frequency for entry in self.entries], np.float64)
        tau = np.array([entry.tau for entry in self.entries], np.float64)
        return self.weight * f - (1.0 - self.weight) * (now - tau)

    def _evict(self, now: int) -> Entry:
        return self.entries.pop(int(np.argmin(self.scores(now))))

    def find(
        self, position_m: np.ndarray, vector: np.ndarray | None, k: int = 3, anchor_m: np.ndarray | None = None
    ) -> list[tuple[Entry, float]]:
        """Entries within ``radius_m``, the most alike first (cosine; without a vector: the nearest first, as minus
        metres). ``anchor_m``: ``position_m`` is relative to this point; entries are then compared relative to it."""
        if not self.entries:
            return []
        origin = np.zeros(3) if anchor_m is None else np.asarray(anchor_m, np.float64)
        relative = np.stack([entry.position_m for entry in self.entries]) - origin
        away = np.sqrt(((relative - np.asarray(position_m, np.float64)) ** 2).sum(axis=1))
        found = []
        for number in np.flatnonzero(away <= self.radius_m).tolist():
            entry = self.entries[number]
            found.append((entry, -float(away[number]) if vector is None else cosine(entry.vector, vector)))
        return sorted(found, key=lambda pair: -pair[1])[:k]

    def ram_bytes(self) -> int:
        return sum(entry.vector.nbytes + 300 for entry in self.entries)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """-1 for vectors that can't be compared (another length, or all zero)."""
    if len(a) != len(b):
        return -1.0
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    norm = float(np.sqrt((a64 @ a64) * (b64 @ b64)))
    return float(a64 @ b64) / norm if norm > 0 else -1.0
