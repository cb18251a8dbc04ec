"""Entries that are appended to the journal and wait for their group's sync."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from streammem.clock import Clock
from streammem.config import MemoryConfig
from streammem.storage.engine import Engine, Pending

Key = tuple[str, str, int]

GROUP_BYTES = 16 << 20
"""A queue this large is synced whatever its count: 64 observations with depth pictures would be 80 MB of RAM."""


class CommitQueue:
    """Not thread-safe: the memory serialises. ``on_durable`` is called once, when the next group is synced."""

    def __init__(self, engine: Engine, config: MemoryConfig, clock: Clock) -> None:
        self._engine, self._config, self._clock = engine, config, clock
        self._pending: list[Pending] = []
        self._since = 0
        self.keys: set[Key] = set()
        """Identities of the observations that wait."""
        self.on_durable: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, entries: list[Pending], keys: Iterable[Key] = ()) -> None:
        """Append to the journal. Raises StorageFull, and then nothing of it waits."""
        if not entries:
            return
        if not self._pending:
            self._since = self._clock.monotonic_ns()
        first = self._engine.journal.append([(entry.kind, entry.payload) for entry in entries])
        self.keys.update(keys)
        for index, entry in enumerate(entries):
            self._pending.append(entry._replace(lsn=first + index))

    def commit_if_due(self, durable: bool) -> None:
        waited_ms = (self._clock.monotonic_ns() - self._since) / 1e6
        heavy = sum(len(entry.payload) for entry in self._pending) >= GROUP_BYTES
        full = heavy or len(self._pending) >= self._config.sync_every
        if self._pending and (durable or full or waited_ms >= self._config.sync_ms):
            self.commit()

    def commit(self) -> None:
        """Sync the queue, then make it visible in order. After a failed sync the queue is gone, as is its journal."""
        pending, self._pending = self._pending, []
        self.keys.clear()
        told, self.on_durable = self.on_durable, None
        self._engine.commit(pending, told)
