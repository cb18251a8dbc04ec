"""The catalogue: which segments are live, and the small state that must change together with that list.

One SQLite file (WAL, synchronous=FULL, one writer). Its transaction is the commit point of every seal, demotion and
forget. Everything in it can be found again from the segments' manifests and ``checkpoint.bin``
(storage/recovery.py), so that losing it costs time, not memories.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec

from streammem.errors import FormatVersion, StorageError, StorageFull
from streammem.model import StreamInfo
from streammem.storage.citations import Citations
from streammem.storage.reports import DamageReport
from streammem.storage.segment_writer import Manifest

FORMAT = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts(name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments(name TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL, manifest BLOB);
CREATE TABLE IF NOT EXISTS streams(stream TEXT PRIMARY KEY, sealed_lsn INTEGER NOT NULL, info BLOB);
CREATE TABLE IF NOT EXISTS sequences(stream TEXT, session TEXT, intervals BLOB, PRIMARY KEY(stream, session));
CREATE TABLE IF NOT EXISTS states(key TEXT PRIMARY KEY, lsn INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS drops(stream TEXT, reason TEXT, n INTEGER NOT NULL, PRIMARY KEY(stream, reason));
CREATE TABLE IF NOT EXISTS pins(stream TEXT, t_start_ns INTEGER, t_end_ns INTEGER,
                                PRIMARY KEY(stream, t_start_ns, t_end_ns));
CREATE TABLE IF NOT EXISTS bank_states(bank TEXT, stream TEXT, value BLOB NOT NULL, PRIMARY KEY(bank, stream));
CREATE TABLE IF NOT EXISTS damage(path TEXT, at INTEGER, what TEXT, quarantined TEXT, PRIMARY KEY(path, at));
"""

FORGET_STREAM = (
    "DELETE FROM streams WHERE stream = ?",
    "DELETE FROM sequences WHERE stream = ?",
    "DELETE FROM drops WHERE stream = ?",
    "DELETE FROM pins WHERE stream = ?",
    "DELETE FROM bank_states WHERE stream = ?",
)

Pin = tuple[str, int, int]
"""(stream, t_start_ns, t_end_ns): a closed interval whose segments are never demoted."""


class Checkpoint(msgspec.Struct, kw_only=True):
    """The small state of a memory. ``lsn`` is the last journal entry that it includes.

    ``sealed_lsn``: by stream, journal entries up to it are in segments. ``sequences``: by stream and session, closed
    intervals of the ``seq`` seen. ``states``: caller's blobs with the lsn that set them."""

    lsn: int = 0
    sealed_lsn: dict[str, int] = {}
    infos: dict[str, StreamInfo] = {}
    sequences: dict[str, dict[str, list[tuple[int, int]]]] = {}
    states: dict[str, tuple[int, bytes]] = {}
    drops: dict[str, dict[str, int]] = {}
    pins: list[Pin] = []
    bank_states: dict[str, dict[str, bytes]] = {}
    citations: Citations = msgspec.field(default_factory=Citations)


class LiveSegments(msgspec.Struct):
    """Manifests of the live segments in the order of their sealing, and the names of quarantined ones with reasons."""

    live: list[Manifest]
    quarantined: dict[str, str]


class Catalog:
    """Statements run inside ``with catalog.transaction():``. Errors of SQLite surface as StorageError or, where the
    file itself is damaged, as ``sqlite3.DatabaseError`` from the constructor: then the owner rebuilds it."""

    def __init__(self, path: Path, *, write: bool) -> None:
        self.path = path
        self._write = write
        self._db = self._connect(path, write)
        try:
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            self.blank = version == 0
            if version > FORMAT:
                raise FormatVersion(
                    f"{path} has catalogue format {version}, this release reads up to {FORMAT}",
                    hint="upgrade streammem",
                )
            if write:
                self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute("PRAGMA secure_delete=ON")
                self._db.execute("PRAGMA journal_size_limit=0")
                self._db.execute("PRAGMA wal_autocheckpoint=256")
                self._db.executescript(SCHEMA)
                self._db.execute("PRAGMA user_version=1")  # FORMAT; a PRAGMA takes no parameters
            problem = self._db.execute("PRAGMA quick_check(1)").fetchone()[0] if write else "ok"
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
        except BaseException:
            self._db.close()
            raise

    @staticmethod
    def _connect(path: Path, write: bool) -> sqlite3.Connection:
        if write:
            return sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
        uri = "file:" + quote(str(path.absolute()))
        try:
            db = sqlite3.connect(uri + "?mode=ro", uri=True, isolation_level=None, timeout=5.0, check_same_thread=False)
            db.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            # WAL needs a writable -shm file; on a read-only medium nobody writes, so the file can't change under us.
            db = sqlite3.connect(uri + "?immutable=1", uri=True, isolation_level=None, check_same_thread=False)
        return db

    @property
    def database(self) -> sqlite3.Connection:
        """The connection, for the text index that lives in the same file and the same transactions."""
        return self._db

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and durable at the end. Raises StorageFull or StorageError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                raise StorageFull(
                    f"no space left for the catalogue {str(self.path)!r}",
                    hint="free some space and write again; what was acknowledged is kept",
                ) from error
            raise StorageError(f"the catalogue {str(self.path)!r} can't be written: {error}") from error
        except BaseException:
            self._roll_back()
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything read inside is of one moment."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._roll_back()

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    # -- reading

    def fact(self, name: str) -> bytes | None:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def data_version(self) -> int:
        """Changes when another process commits."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def segments(self) -> LiveSegments:
        live: list[Manifest] = []
        quarantined: dict[str, str] = {}
        decode = msgspec.json.Decoder(Manifest).decode
        for name, state, reason, manifest in self._db.execute("SELECT name, state, reason, manifest FROM segments"):
            if state == "live":
                live.append(decode(manifest))
            else:
                quarantined[name] = reason
        live.sort(key=lambda manifest: (manifest.lsn, manifest.name))
        return LiveSegments(live, quarantined)

    def checkpoint(self) -> Checkpoint:
        result = Checkpoint(lsn=int(self.fact("lsn") or b"0"))
        for stream, sealed, info in self._db.execute("SELECT stream, sealed_lsn, info FROM streams"):
            result.sealed_lsn[stream] = sealed
            if info is not None:
                result.infos[stream] = msgspec.msgpack.decode(info, type=StreamInfo)
        for stream, session, packed in self._db.execute("SELECT stream, session, intervals FROM sequences"):
            intervals = msgspec.msgpack.decode(packed, type=list[tuple[int, int]])
            result.sequences.setdefault(stream, {})[session] = intervals
        for key, lsn, value in self._db.execute("SELECT key, lsn, value FROM states"):
            result.states[key] = (lsn, bytes(value))
        for stream, reason, n in self._db.execute("SELECT stream, reason, n FROM drops"):
            result.drops.setdefault(stream, {})[reason] = n
        result.pins = [tuple(row) for row in self._db.execute("SELECT * FROM pins ORDER BY 1, 2, 3")]
        cited = self.fact("citations")
        if cited is not None:
            result.citations = msgspec.msgpack.decode(cited, type=Citations)
        for bank, stream, value in self._db.execute("SELECT bank, stream, value FROM bank_states"):
            result.bank_states.setdefault(bank, {})[stream] = bytes(value)
        return result

    def damage(self) -> list[DamageReport]:
        rows = self._db.execute("SELECT path, at, what, quarantined FROM damage ORDER BY path, at")
        return [DamageReport(*row) for row in rows]

    @property
    def disk_bytes(self) -> int:
        """The file and its write-ahead log."""
        parts = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(part.stat().st_size for part in parts if part.exists())

    # -- writing, inside a transaction

    def set_fact(self, name: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def add_segment(self, manifest: Manifest) -> None:
        row = (manifest.name, "live", "", msgspec.json.encode(manifest))
        self._db.execute("INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?)", row)

    def remove_segment(self, name: str) -> None:
        self._db.execute("DELETE FROM segments WHERE name = ?", (name,))

    def quarantine_segment(self, name: str, reason: str) -> None:
        self._db.execute("UPDATE segments SET state = 'quarantined', reason = ? WHERE name = ?", (reason, name))

    def set_stream(self, stream: str, sealed_lsn: int, info: StreamInfo | None) -> None:
        packed = None if info is None else msgspec.msgpack.encode(info)
        self._db.execute("INSERT OR REPLACE INTO streams VALUES (?, ?, ?)", (stream, sealed_lsn, packed))

    def set_sequences(self, stream: str, sessions: dict[str, list[tuple[int, int]]]) -> None:
        rows = [(stream, session, msgspec.msgpack.encode(spans)) for session, spans in sessions.items()]
        self._db.executemany("INSERT OR REPLACE INTO sequences VALUES (?, ?, ?)", rows)

    def set_state(self, key: str, lsn: int, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (key, lsn, value))

    def set_drops(self, drops: dict[str, dict[str, int]]) -> None:
        rows = [(stream, reason, n) for stream, counts in drops.items() for reason, n in counts.items()]
        self._db.executemany("INSERT OR REPLACE INTO drops VALUES (?, ?, ?)", rows)

    def set_pins(self, pins: Iterable[Pin]) -> None:
        self._db.execute("DELETE FROM pins")
        self._db.executemany("INSERT OR REPLACE INTO pins VALUES (?, ?, ?)", list(pins))

    def set_bank_state(self, bank: str, stream: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO bank_states VALUES (?, ?, ?)", (bank, stream, value))

    def forget_stream(self, stream: str) -> None:
        """Everything but the segments, which their owner replaces."""
        for statement in FORGET_STREAM:
            self._db.execute(statement, (stream,))

    def remove_state(self, key: str) -> None:
        self._db.execute("DELETE FROM states WHERE key = ?", (key,))

    def add_damage(self, report: DamageReport) -> None:
        row = (report.path, report.offset, report.what, report.quarantined)
        self._db.execute("INSERT OR REPLACE INTO damage VALUES (?, ?, ?, ?)", row)

    def compact(self) -> None:
        """Move the write-ahead log into the file and empty it: what was deleted is then nowhere on the disk."""
        if self._write:
            self._db.execute("PRAGMA incremental_vacuum").fetchall()
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        self._db.close()
