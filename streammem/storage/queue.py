"""Entries that are appended to the journal and wait for their sync; and what goes on while the engine is busy.

Applying entries, writing a segment of 32 MB (0.2 s, mostly in the kernel), demoting one, shortening the journal: none
of it decides what is accepted. So further groups are made durable and acknowledged meanwhile, and applied afterwards in
the order of the journal: the memory is the same as without. What is durable and not yet applied is the backlog.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar

from streammem.checks import refuse, validate_observation
from streammem.clock import Clock
from streammem.config import MemoryConfig
from streammem.errors import ObservationError
from streammem.model import Observation
from streammem.storage.engine import Engine
from streammem.storage.entries import Kind, Pending
from streammem.storage.open_part import record_from_observation
from streammem.wire import encode_normalised, hash_pieces, pack_pieces

Key = tuple[str, str, int]
Outcome = Literal["written", "duplicate"] | ObservationError
"""What became of one observation."""
Admitted = tuple[list[Pending], set[Key], list[Outcome]]
Result = TypeVar("Result")

GROUP_BYTES = 16 << 20
"""A queue this large is synced whatever its count: 64 observations with depth pictures would be 80 MB of RAM."""

BACKLOG_BYTES = 32 << 20
"""What may be durable and not yet applied; under a disk budget a quarter of a segment, if that is less."""
TAKEN_BYTES = 256 << 20
"""What one call of ``write_each`` may take in besides its own group: then whoever wants to look gets a turn."""
PAUSE_S = 0.005


class Group(NamedTuple):
    """Observations that may be written now; ``durable`` or ``failed`` is called for them, from the writing thread."""

    observations: Sequence[Observation]
    durable: Callable[[list[Outcome]], None]
    failed: Callable[[Exception], None]
    """Nothing of the group was kept. Not a StorageError: a defect that one of the observations found."""


class CommitQueue:
    """Not thread-safe: the memory serialises. ``on_durable`` is called once, when the next group is synced."""

    def __init__(self, engine: Engine, config: MemoryConfig, clock: Clock) -> None:
        self.more: Callable[[float], Group | None] | None = None
        """Gives the next group, or None after so many seconds; set while one is being written."""
        engine.store.meanwhile = self._meanwhile
        engine.breathe = self.breathe
        self._most_waiting = min(BACKLOG_BYTES, engine.caps.seal // 4) if engine.capped else BACKLOG_BYTES
        self._engine, self._config, self._clock = engine, config, clock
        self._pending: list[Pending] = []
        self._taken = 0
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
        """The journal entry of a checked observation, in pieces that are still the caller's; the record is not."""
        validate_observation(observation)
        parts, kept = encode_normalised(observation)
        pieces = pack_pieces(parts)
        size = sum(map(len, pieces))
        if size > self._engine.caps.seal and self._engine.capped:
            raise refuse("bytes", f"are {size}, a sixteenth of the budget is {self._engine.caps.seal}")
        self._engine.shapes.check(kept)
        digest = int.from_bytes(hash_pieces(pieces)[:8], "little")
        stamp = self._clock.now_ns().to_bytes(8, "little", signed=True)
        return Pending(Kind.OBSERVATION, (stamp, *pieces), record_from_observation(kept), digest, size=size + 8)

    def _append(self, entries: Sequence[Pending]) -> list[Pending]:
        """Into the journal; the entries come back with their lsn, and records without their bytes."""
        first = self._engine.journal.append([(entry.kind, entry.payload) for entry in entries])
        return [
            entry._replace(lsn=first + at, payload=b"" if entry.record is not None else entry.payload)
            for at, entry in enumerate(entries)
        ]

    def add(self, entries: list[Pending], keys: Iterable[Key] = ()) -> None:
        """Append to the journal. Raises StorageFull, and then nothing of it waits."""
        if not entries:
            return
        if not self._pending:
            self._since = self._clock.monotonic_ns()
        self._pending += self._append(entries)
        self.keys.update(keys)

    def commit_if_due(self, durable: bool) -> None:
        waited_ms = (self._clock.monotonic_ns() - self._since) / 1e6
        heavy = sum(entry.size for entry in self._pending) >= GROUP_BYTES
        full = heavy or len(self._pending) >= self._config.sync_every
        if self._pending and (durable or full or waited_ms >= self._config.sync_ms):
            self.commit()

    def commit(self) -> None:
        """Sync the queue, then make it visible in order. After a failed sync the queue is gone, as is its journal."""
        pending, self._pending = self._pending, []
        told, self.on_durable = self.on_durable, None
        self._taken = 0
        try:
            self._engine.commit(pending, told)
        finally:
            self.keys.clear()

    def _waiting(self) -> int:
        return sum(entry.size for entry in self._engine.backlog)

    def breathe(self) -> None:
        """Between two steps of something long: make one group durable, if one waits."""
        more = self.more
        if more is not None and self._taken < TAKEN_BYTES and self._waiting() < self._most_waiting:
            group = more(0.0)
            if group is not None:
                self._make_durable(group)

    def _meanwhile(self, work: Callable[[], Result]) -> Result:
        """Do ``work`` in another thread, and make durable what arrives until it is done."""
        more, self.more = self.more, None
        if more is None or self._taken >= TAKEN_BYTES:
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
                room = self._waiting() < self._most_waiting
                group = more(PAUSE_S) if room else None
                if group is not None:
                    self._make_durable(group)
                else:
                    thread.join(0.001 if room else PAUSE_S)
        finally:
            thread.join()
            self.more = more
        if errors:
            raise errors[0]
        return results[0]

    def _make_durable(self, group: Group) -> None:
        """Never raises: who works meanwhile must not lose the result, and every packet gets an answer."""
        try:
            self._engine.check_room()
            accepted, keys, outcomes = self.admit(group.observations)
            if accepted:
                entries = self._append(accepted)
                self._engine.journal.sync()
                self.keys.update(keys)
                self._engine.backlog.extend(entries)
                self._taken += sum(entry.size for entry in entries)
        except Exception as error:  # noqa: BLE001  (handed to whoever sent the group)
            group.failed(error)
            return
        group.durable(outcomes)
