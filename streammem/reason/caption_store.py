"""Captions that a model was paid for, kept so that no question pays for one twice: one SQLite file in the cache.

A caption is found again by everything that made it: the recording's content, the captioner (model, revision, prompt),
the sampling, the stretch, the facts that were told and what was asked for. A different model is a different key, so
captions of two models are never mixed (VideoLucy's released code keys its cache on the video's path alone and reuses
stale captions when anything else changes).
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import msgspec

from streammem.errors import StorageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS captions (
  content TEXT NOT NULL, captioner TEXT NOT NULL, sampling TEXT NOT NULL, level TEXT NOT NULL,
  t_start_ns INTEGER NOT NULL, t_end_ns INTEGER NOT NULL, facts TEXT NOT NULL, asked TEXT NOT NULL,
  pictures TEXT NOT NULL, text TEXT NOT NULL, frames INTEGER NOT NULL, calls INTEGER NOT NULL,
  tokens INTEGER NOT NULL, seconds REAL NOT NULL,
  PRIMARY KEY (content, captioner, sampling, level, t_start_ns, t_end_ns, facts, asked, pictures)
) WITHOUT ROWID
"""
_INSERT = "INSERT OR IGNORE INTO captions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
BUSY_S = 10.0


class Key(msgspec.Struct, frozen=True):
    """What makes two captions the same. ``facts`` and ``asked`` are hashes (``asked`` empty: no question in mind);
    ``pictures`` is empty for frames of the source and a hash of the pictures where only kept ones were to be had."""

    content: str
    captioner: str
    sampling: str
    level: str
    t_start_ns: int
    t_end_ns: int
    facts: str
    asked: str = ""
    pictures: str = ""


class Kept(msgspec.Struct, frozen=True):
    """One caption and what it cost when it was made. ``frames``: pictures that the model saw."""

    key: Key
    text: str
    frames: int = 0
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0


class CaptionStore:
    """``path`` None, or a file that can't be used: captions live as long as this object, and ``note`` says why. Several
    processes may use one file at a time. What :meth:`add` returned from is on the disk."""

    def __init__(self, path: Path | None) -> None:
        self.note = ""
        self._path = path
        self._db: sqlite3.Connection | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # captions are private: the owner's alone
                self._db = self._opened(str(path))
            except (sqlite3.Error, OSError) as error:
                self.note = f"captions aren't kept: {path}: {error}"
        if self._db is None:
            self._db = self._opened(":memory:")

    @staticmethod
    def _opened(where: str) -> sqlite3.Connection:
        db = sqlite3.connect(where, timeout=BUSY_S, isolation_level=None)
        # No write-ahead log: a caption takes seconds to make, and what is forgotten must not stay in a second file.
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        db.execute(_SCHEMA)
        return db

    def add(self, kept: Kept) -> None:
        """Keep a caption; one that is there already stays. A disk that is full loses the cache, never the caption."""
        values = [*msgspec.structs.astuple(kept.key), kept.text, kept.frames, kept.calls, kept.tokens, kept.seconds]
        try:
            self._open.execute(_INSERT, values)
        except sqlite3.Error as error:
            self.note = f"a caption wasn't kept: {error}"

    def stretches(
        self, content: str, captioner: str, between: tuple[int, int], *, asked: str | None = None
    ) -> list[Kept]:
        """Everything of one recording by one captioner that touches a closed stretch, in time order; ``asked`` None:
        whatever was asked for. Empty where the file is damaged."""
        query = (
            "SELECT * FROM captions WHERE content = ? AND captioner = ? AND t_start_ns <= ? AND t_end_ns >= ? "
            "AND (? IS NULL OR asked = ?) ORDER BY t_start_ns, t_end_ns, level, asked"
        )
        try:
            rows = self._open.execute(query, (content, captioner, between[1], between[0], asked, asked)).fetchall()
        except sqlite3.Error as error:
            self.note = f"captions can't be read: {error}"
            return []
        return [Kept(Key(*row[:9]), *row[9:]) for row in rows]

    def forget(self, content: str, between: tuple[int, int] | None) -> int:
        """Remove what was written about a recording, or about a closed stretch of it, for good. Returns how many.

        Raises StorageError: what can't be removed must not be called forgotten."""
        lo, hi = between or (-(2**63), 2**63 - 1)
        query = "DELETE FROM captions WHERE content = ? AND t_start_ns <= ? AND t_end_ns >= ?"
        try:
            return self._open.execute(query, (content, hi, lo)).rowcount
        except sqlite3.Error as error:
            raise StorageError(
                f"captions in {self._path} can't be forgotten: {error}", hint="delete that file"
            ) from error

    @property
    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            raise StorageError("the captions were closed")
        return self._db

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
