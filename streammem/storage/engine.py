"""The moving parts behind ``Memory``: recovery, applying journal entries, sealing, trimming the journal.

Everything that happens to a memory is a journal entry first. ``apply`` is the one place where an entry takes effect,
when it is written and when it is replayed, so that both give the same memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from streammem.config import Config
from streammem.errors import CorruptData, StorageError, StorageFull, StreammemError
from streammem.model import Record, StreamInfo
from streammem.spaces import EmbeddingSpace, open_space
from streammem.storage import recovery
from streammem.storage.bank_set import BankSet, Makers, settings_of, with_settings
from streammem.storage.budget import Budget, caps_of
from streammem.storage.entries import Kind, Pending
from streammem.storage.files import DISK_FULL, Files
from streammem.storage.forgetting import Forget, forget_rows, interval
from streammem.storage.journal import Frame, Journal
from streammem.storage.lock import WriterLock
from streammem.storage.merging import merge_small
from streammem.storage.open_part import content_bytes, record_from_observation
from streammem.storage.reports import DamageReport, ForgetReport, Status
from streammem.storage.retention import POLICIES, REINFORCED
from streammem.storage.segment_writer import Row
from streammem.storage.segments import Segment
from streammem.storage.shapes import Shapes
from streammem.storage.shortening import shorten_journal
from streammem.storage.store import Store
from streammem.storage.telling import digest_of, status_of
from streammem.wire import hash_blob, observation_from_blob

BREATH = 32
"""Entries applied between two looks at what arrived meanwhile: 2 to 3 ms."""
SEAL_ROWS = 64
"""A part is never sealed for its time span with fewer rows: a jumping clock must not make a segment a row."""
VERIFIED_AFTER_CRASH = 4
"""Newest segments that are read in full after an unclean end; older ones were synced long before it."""
READER_TRIES = 50
Found = TypeVar("Found")


class Engine:
    """Owned by one ``Memory``, which serialises every call."""

    def __init__(
        self,
        directory: Path,
        *,
        config: Config,
        write: bool,
        create: bool,
        files: Files,
        spaces: Callable[[str], EmbeddingSpace] | None,
        banks: Callable[[Config, int], Makers],
    ) -> None:
        self.directory = directory
        self.config = config
        self.files = files
        self.write = write
        self.caps = caps_of(config)
        self.capped = config.budget.disk_bytes > 0
        self.reinforced = write and POLICIES[config.budget.policy] in REINFORCED
        self.notes: list[str] = []
        self.backlog: deque[Pending] = deque()
        """Durable, and not applied yet, in the order of the journal."""
        self.breathe: Callable[[], None] = lambda: None
        """Called between the steps of what takes long; its owner may add to the backlog."""
        self._broken = ""
        self._open_space = spaces or open_space
        self._spaces: dict[str, EmbeddingSpace | None] = {}
        self._make_banks = banks
        self._drops_dirty = False
        self._seal_failed = False
        self._sealed = False
        self._forgot = False
        self._full = False
        recovery.prepare(directory, files, write=write, create=create)
        self._lock = WriterLock(directory / "LOCK") if write else None
        try:
            self.catalog, self.notes = recovery.open_catalog(directory, files, write=write)
            try:
                self._recover()
            except BaseException:
                self.catalog.close()
                raise
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise

    # -- opening

    def _recover(self) -> None:
        self.store = Store(self.directory, self.files, self.catalog, write=self.write, spaces=self.find_space)
        self.store.index_rows = self.config.memory.index_rows
        self.budget = Budget(self.store, self.caps.segments, POLICIES[self.config.budget.policy])
        self.shapes = Shapes(self.store)
        if self.write:
            self.banks_config = self.config
            clean = self.catalog.fact("clean") == b"1"
            with self.catalog.transaction():
                self.catalog.set_fact("clean", b"0")
                self.catalog.set_fact("banks", settings_of(self.config))
            recovery.mark(self.directory, self.files)
            self.store.collect_garbage()
            if not clean:
                for segment in self.store.segments[-VERIFIED_AFTER_CRASH:]:
                    self.store.verify(segment)
            self._replay()
            self.after_change()
        else:
            self._read_tail()

    def _replay(self) -> None:
        makers = self._make_banks(self.banks_config, self.caps.short_term)
        self.banks = BankSet(makers, self.store, late=not self.write, recall=self._recall, note=self.note)
        self.journal = Journal(
            self.directory / "journal", self.files, file_bytes=self.caps.journal_file, write=self.write
        )
        segments = -1
        for frame in self.journal.replay():
            if self.write and len(self.store.segments) != segments:
                self._noted("keeping the bounds", self._keep_bounds)
                segments = len(self.store.segments)
            self._replay_frame(frame)
        self.journal.start_after(self.store.lsn)
        for damage in self.journal.damage:
            self.store.note_damage(DamageReport(damage.path, damage.offset, damage.what, "quarantine/"))

    def _replay_frame(self, frame: Frame) -> None:
        if frame.kind != Kind.OBSERVATION:
            self.apply(Pending(frame.kind, bytes(frame.payload), lsn=frame.lsn))
            return
        try:
            observation = observation_from_blob(frame.payload[8:])
        except StreammemError as error:
            self.store.note_damage(
                DamageReport(str(self.directory / "journal"), frame.lsn, f"entry {frame.lsn}: {error}")
            )
            return
        if frame.lsn <= self.store.sealed_lsn.get(observation.stream, 0) or self.store.has_seen(*observation.key):
            return
        digest = hash_blob(frame.payload[8:])
        record = record_from_observation(observation)
        self.apply(Pending(Kind.OBSERVATION, b"", record, int.from_bytes(digest[:8], "little"), frame.lsn))

    def _read_tail(self) -> None:
        """A reader's view: one state of the catalogue, and the journal behind it. If the writer commits a seal in
        between, the journal may already lack what the new segment holds: then look again."""
        for _ in range(READER_TRIES):
            self._seen_version = recovery.disk_version(self.directory, self.catalog)
            with self.catalog.snapshot():
                self.store.reload()
                # As the memory was written: a reader that has other settings must find the same banks and digest.
                self.banks_config = with_settings(self.config, self.catalog.fact("banks"))
            self._replay()
            if self._seen_version[0] == self.catalog.data_version():
                return
        self.note("the writer seals faster than this reader can follow: moments may be missing")

    def refresh(self) -> None:
        """A reader looks whether the writer has moved on; costs a directory listing."""
        if not self.write and recovery.disk_version(self.directory, self.catalog) != self._seen_version:
            self._read_tail()

    def find_space(self, space_id: str) -> EmbeddingSpace | None:
        """The space of this id, or None where it isn't installed here, in this version, with its weights."""
        if space_id not in self._spaces:
            try:
                space = self._open_space(space_id)
                if space.id != space_id:
                    raise StorageError(f"the memory's vectors are of {space_id}, installed is {space.id}")
                self._spaces[space_id] = space
            except (StreammemError, ImportError, OSError) as error:
                self._spaces[space_id] = None
                self.note(f"no statistics for the space {space_id}: {error}")
        return self._spaces[space_id]

    # -- applying

    def commit(self, pending: list[Pending], durable: Callable[[], None] | None = None) -> None:
        """Sync the journal, tell ``durable``, then apply what was appended to it, and what became durable meanwhile."""
        self._check_whole()
        if self._drops_dirty:
            counters = self.counters_entry()
            try:
                if counters is not None:
                    self.journal.append([(counters.kind, counters.payload)])
            except StorageFull:
                self._drops_dirty = True  # the observations fit and matter more; the counters follow later
        self.journal.sync()
        self.backlog.extend(pending)
        if durable is not None:
            durable()
        try:
            while self.backlog:
                self.apply(self.backlog[0])
                self.backlog.popleft()
                self.after_change()  # after every seal, wherever the group ends: demotion depends on content alone
                if len(self.backlog) % BREATH == BREATH - 1:
                    self.breathe()
        except BaseException as error:  # a later seal would hide what wasn't applied from every replay
            self._broken = f"{type(error).__name__}: {error}"
            raise
        self.after_change()

    def check_room(self) -> None:
        """Raises StorageFull while nothing is left to demote, StorageError where only reopening helps."""
        self._check_whole()
        if self._full:
            raise self._no_room()

    def _check_whole(self) -> None:
        if self._broken:
            raise StorageError(
                f"applying what is durable failed ({self._broken})",
                hint="open the memory again: nothing acknowledged is lost",
            )

    def apply(self, entry: Pending) -> None:
        """Let a durable journal entry take effect."""
        store = self.store
        if entry.record is not None:
            self._apply_observation(entry, entry.record)
            return
        assert isinstance(entry.payload, bytes)
        if entry.kind == Kind.STATE:
            key, value = msgspec.msgpack.decode(entry.payload, type=tuple[str, bytes])
            if entry.lsn > store.states.get(key, (0, b""))[0]:
                store.put_state(key, entry.lsn, value)
        elif entry.kind == Kind.STREAM:
            store.set_info(msgspec.msgpack.decode(entry.payload, type=StreamInfo))
        elif entry.kind in (Kind.PIN, Kind.UNPIN):
            pin = msgspec.msgpack.decode(entry.payload, type=tuple[str, int, int])
            others = [other for other in store.pins if other != pin]
            store.pins = sorted([*others, pin]) if entry.kind == Kind.PIN else others
        elif entry.kind == Kind.CITE:
            store.cite(*msgspec.msgpack.decode(entry.payload, type=tuple[str, int, int]), entry.lsn)
        elif entry.kind == Kind.DROPS:
            store.drops = msgspec.msgpack.decode(entry.payload, type=dict[str, dict[str, int]])
        elif entry.kind == Kind.FORGET and self.write:
            stream, t_start_ns, t_end_ns = msgspec.msgpack.decode(entry.payload, type=tuple[str | None, int, int])
            self._forget_rows(stream, t_start_ns, t_end_ns, entry.lsn)

    def _apply_observation(self, entry: Pending, record: Record) -> None:
        stream = record.stream
        part = self.store.part("moments", stream)
        if len(part) and record.space is not None and part.space not in (None, record.space):
            self._seal(stream)
        size = content_bytes(record)
        part.add(Row(record, entry.digest), entry.lsn, size)
        self.store.note_seen(stream, record.session, record.seq)
        shown = record if record.vector is None else replace(record, vector=record.vector.astype(np.float32))
        self.banks.observe(entry.lsn, shown)
        span = part.t_max_ns - part.t_min_ns
        long = span >= self.config.memory.seal_seconds * 1e9 and len(part) >= SEAL_ROWS
        if part.bytes >= self.caps.seal or long:
            self._seal(stream)
        elif self.store.open_bytes > self.caps.open:
            parts = self.store.parts.values()
            self._seal(max(parts, key=lambda other: (other.ram_bytes, other.stream)).stream)

    def _seal(self, stream: str) -> None:
        """Seal a stream's open parts. Without space they stay open: they are durable in the journal."""
        if not self.write or self._seal_failed:
            return
        last = max(part.lsn_last for (_, name), part in self.store.parts.items() if name == stream and len(part))
        states = {name: bank.state(stream) for name, bank in self.banks.items()}
        for name, state in states.items():
            self.store.bank_states.setdefault(name, {})[stream] = state
        try:
            self.store.seal(stream, last)
            self._sealed = True
        except (OSError, StorageError) as error:
            self._seal_failed = True
            self.note(f"sealing failed and will be tried again: {error}")

    def seal_all(self) -> int:
        """Seal every open part now. Raises StorageFull if there is no space."""
        rows = sum(len(part) for part in self.store.parts.values())
        self._seal_failed = False
        for stream in sorted({stream for (_, stream), part in self.store.parts.items() if len(part)}):
            self._seal(stream)
        self.after_change()
        if self._seal_failed:
            raise StorageFull(self.notes[-1], hint="free some space; nothing acknowledged is lost")
        return rows

    def after_change(self) -> None:
        """After a group: keep the budget, and shorten the journal where segments took over. What fails for want of
        space is tried again after the next group: the group itself is durable already."""
        if self._sealed:
            self._noted("tidying up", self.tidy)

    def tidy(self) -> None:
        """Small segments, budget, small state, journal; after ``forget`` also what deleted rows leave behind."""
        self._keep_bounds()
        shorten_journal(self, rewrite=self._forgot)
        if self._forgot:
            self.store.words.scrub()
            self.catalog.compact()
        self._sealed = self._forgot = False

    def _keep_bounds(self) -> None:
        """After every seal, when it is replayed too: what is merged and demoted depends on the content alone."""
        merge_small(self.store, self.caps.seal)
        self.breathe()
        self._full = not self.budget.enforce()

    def _noted(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (OSError, StorageError) as error:
            self.note(f"{what} failed and will be tried again: {error}")

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes = [*self.notes[-49:], text]

    def make_room(self) -> None:
        """Before a write. Raises StorageFull if the budget or the disk leaves no room."""
        self._seal_failed = False
        if self._full and not self.budget.enforce():
            raise self._no_room()
        self._full = False
        self._check_whole()
        if self.store.open_bytes > 2 * self.caps.open:
            self.seal_all()

    def _no_room(self) -> StorageFull:
        return StorageFull(
            f"the memory {str(self.directory)!r} is full: {self.budget.used_bytes} of {self.caps.segments} bytes"
            " for segments, and nothing is left to demote",
            hint="raise budget.disk_bytes, remove pins, or forget something",
        )

    # -- counting

    def count_drop(self, stream: object, reason: str) -> None:
        self.store.count_drop(stream, reason)
        self._drops_dirty = True

    def counters_entry(self) -> Pending | None:
        if not self._drops_dirty:
            return None
        self._drops_dirty = False
        return Pending(Kind.DROPS, msgspec.msgpack.encode(self.store.drops))

    # -- answering

    def find(self, record_id: int, read: Callable[[Any, int], Found]) -> Found | None:
        """Apply ``read`` to the block and row of a record of any bank. Raises CorruptData, noted in ``status``."""
        found = self._find(record_id, read)
        if found is None and not self.write:
            self.banks.make_all()  # it may be one that a bank makes of the journal's tail
            found = self._find(record_id, read)
        return found

    def _find(self, record_id: int, read: Callable[[Any, int], Found]) -> Found | None:
        for block in self.store.all_blocks():
            if isinstance(block, Segment) and not self.store.usable(block):
                continue
            row = block.find(record_id)
            if row is not None:
                try:
                    return read(block, row)
                except CorruptData as error:
                    self.store.note_damage(DamageReport(error.path, error.offset or 0, error.message, "row"))
                    raise
        return None

    def _recall(self, record_id: int) -> Record | None:
        try:
            return self._find(record_id, lambda block, row: block.full(row))
        except CorruptData:
            return None  # noted by ``find``; a short-term memory without this row is still one

    def stream_infos(self) -> list[StreamInfo]:
        names = {*self.store.infos, *self.store.seen}
        return [self.store.infos.get(name) or StreamInfo(stream=name) for name in sorted(names)]

    def digest(self) -> str:
        return digest_of(self)

    def status(self, mode: str) -> Status:
        return status_of(self, mode)

    def verify(self) -> list[CorruptData]:
        """All known damage, after looking at every byte."""
        for segment in list(self.store.segments):
            self.store.verify(segment)
        return [CorruptData(known.what, path=known.path, offset=known.offset) for known in self.store.damage]

    # -- forgetting

    def forget(self, stream: str | None, between: tuple[int | None, int | None] | None) -> ForgetReport:
        """The journal learns it first, so that a kill in the middle is finished when the memory is opened again.
        Raises StorageFull if there is no room to write what remains; asking again goes on with it."""
        payload = interval(stream, between)
        _, t_start_ns, t_end_ns = msgspec.msgpack.decode(payload, type=tuple[str | None, int, int])
        lsn = self.journal.append([(Kind.FORGET, payload)])
        self.journal.sync()
        try:
            report = self._forget_rows(stream, t_start_ns, t_end_ns, lsn)
            self.tidy()
        except OSError as error:
            kind = StorageFull if error.errno in DISK_FULL else StorageError
            raise kind(f"forgetting isn't finished: {error}", hint="free some space and ask again") from error
        return report

    def _forget_rows(self, stream: str | None, t_start_ns: int, t_end_ns: int, lsn: int) -> ForgetReport:
        request = Forget(stream, t_start_ns, t_end_ns, lsn)
        report = forget_rows(self.store, self.banks, request)
        self.shapes.clear()
        self._sealed = self._forgot = True
        return report

    def close(self) -> None:
        self.journal.close()
        for segment in self.store.segments:
            segment.close()
        try:
            if self.write and not self.journal.failed:
                with self.catalog.transaction():
                    self.catalog.set_fact("clean", b"1")
        except StorageFull:
            pass  # then the next opening verifies the newest segments: that is all that the mark is for
        finally:
            self.catalog.close()
            if self._lock is not None:
                self._lock.release()
