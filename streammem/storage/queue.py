"""Entries that are appended to the journal and wait for their sync; and what goes on while a segment is written.

Writing a segment of 32 MB takes 0.2 s, mostly in the kernel. Its content is decided, and nobody else needs the writing
thread's hands, so that further groups are made durable meanwhile and applied afterwards, in their order: the journal,
and with it the memory, is the same as without.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar

from streammem.checks import refuse, validate_observation
from streammem.clock import Clock
from streammem.config import MemoryConfig
from streammem.errors import ObservationError, StorageError
from streammem.model import Observation
from streammem.storage.engine import Engine
from streammem.storage.entries import Kind, Pending
from streammem.wire import encode_observation, hash_blob, observation_from_blob, pack

Key = tuple[str, str, int]
Outcome = Literal["written", "duplicate"] | ObservationError
"""What became of one observation."""
Admitted = tuple[list[Pending], set[Key], list[Outcome]]
Result = TypeVar("Result")

GROUP_BYTES = 16 << 20
"""A queue this large is synced whatever its count: 64 observations with depth pictures would be 80 MB of RAM."""

BACKLOG_BYTES = 32 << 20
"""What may be durable and not yet applied: it is in RAM twice, as a packet and as its journal entry."""
ROUNDS = 8
"""How often a backlog may grow while the last one is applied: then the budget and the journal get their turn."""
PAUSE_S = 0.005


class Group(NamedTuple):
    """Observations that may be written now; ``durable`` or ``failed`` is called for them, from the writing thread."""

    observations: Sequence[Observation]
    durable: Callable[[list[Outcome]], None]
    failed: Callable[[StorageError], None]


class CommitQueue:
    """Not thread-safe: the memory serialises. ``on_durable`` is called once, when the next group is synced."""

    def __init__(self, engine: Engine, config: MemoryConfig, clock: Clock) -> None:
        self.more: Callable[[float], Group | None] | None = None
        """Gives the next group, or None after so many seconds; set while one is being written."""
        engine.store.meanwhile = self._meanwhile
        self._engine, self._config, self._clock = engine, config, clock
        self._pending: list[Pending] = []
        self._since = 0
        self.keys: set[Key] = set()
        """Identities of the observations that wait."""
        self.on_durable: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._pending)

    def admit(self, chunk: Sequence[Observation], *, single: bool = False) -> Admitted:
        """Check each observation, and make journal entries of those that are good and new. What is refused is counted;
        with ``single`` it is raised as ObservationError."""
        accepted: list[Pending] = []
        keys: set[Key] = set()
        outcomes: list[Outcome] = []
        for observation in chunk:
            try:
                entry = self._entry(observation)
            except ObservationError as error:
                self._engine.count_drop(observation.stream, error.field or "observation")
                if single:
                    raise
                outcomes.append(error)
                continue
            key = observation.key
            if key in keys or key in self.keys or self._engine.store.has_seen(*key):
                self._engine.count_drop(observation.stream, "duplicate")
                outcomes.append("duplicate")
                continue
            keys.add(key)
            accepted.append(entry)
            outcomes.append("written")
        return accepted, keys, outcomes

    def _entry(self, observation: Observation) -> Pending:
        """The journal entry of a checked observation. What is kept is decoded from it: a private copy of the arrays."""
        validate_observation(observation)
        blob = pack(encode_observation(observation, ingest=False))
        if len(blob) > self._engine.caps.seal and self._engine.capped:
            raise refuse("bytes", f"are {len(blob)}, a sixteenth of the budget is {self._engine.caps.seal}")
        kept = observation_from_blob(blob)
        self._engine.shapes.check(kept)
        digest = int.from_bytes(hash_blob(blob)[:8], "little")
        stamp = self._clock.now_ns().to_bytes(8, "little", signed=True)
        return Pending(Kind.OBSERVATION, stamp + blob, kept, digest)

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
        told, self.on_durable = self.on_durable, None
        try:
            self._engine.commit(pending, told)
        finally:
            self.keys.clear()

    def _meanwhile(self, work: Callable[[], Result]) -> Result:
        """Do ``work`` in another thread, and make durable what arrives until it is done."""
        more, self.more = self.more, None
        if more is None or self._engine.rounds >= ROUNDS:
            self.more = more
            return work()
        results: list[Result] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(work())
            except BaseException as error:  # noqa: BLE001  (raised again below, in the thread that waits)
                errors.append(error)

        thread = threading.Thread(target=run, name="streammem-seal")
        thread.start()
        try:
            while thread.is_alive():
                waiting = sum(len(entry.payload) for entry in self._engine.backlog)
                group = more(PAUSE_S) if waiting < BACKLOG_BYTES else None
                if group is not None:
                    self._make_durable(group)
                else:
                    thread.join(0.001 if waiting < BACKLOG_BYTES else PAUSE_S)
        finally:
            thread.join()
            self.more = more
        if errors:
            raise errors[0]
        return results[0]

    def _make_durable(self, group: Group) -> None:
        journal = self._engine.journal
        try:
            accepted, keys, outcomes = self.admit(group.observations)
            if accepted:
                first = journal.append([(entry.kind, entry.payload) for entry in accepted])
                journal.sync()
                self.keys.update(keys)
                self._engine.backlog += [entry._replace(lsn=first + at) for at, entry in enumerate(accepted)]
        except StorageError as error:
            group.failed(error)
            return
        group.durable(outcomes)
