"""The text index: words seen in the scene and heard, of sealed records, in the catalogue's file (SQLite FTS5).

Trigrams, so that a part of a word, a misread letter's neighbours, and scripts without spaces can be found. Everything
that people or cameras say is bound as a parameter; no query text reaches FTS5's own query language unquoted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from streammem.errors import StorageError
from streammem.model import Record

SHORTEST = 3
"""Characters in a trigram: shorter words can't be looked up in the index."""

MOST_TERMS = 64
_COLUMNS = "SELECT w.record_id, w.stream, w.t_start_ns, w.t_end_ns, w.kind, t.text"
_TABLES = " FROM words_text t JOIN words w ON w.id = t.rowid WHERE "
_FILTERS = (
    " AND (? IS NULL OR w.stream IN (SELECT value FROM json_each(?)))"
    " AND (? IS NULL OR w.t_start_ns <= ?) AND (? IS NULL OR w.t_end_ns >= ?)"
)
INDEXED = (
    _COLUMNS + ", -bm25(words_text)" + _TABLES + "words_text MATCH ?" + _FILTERS + " ORDER BY 7 DESC, w.id LIMIT ?"
)
SCANNED = _COLUMNS + _TABLES + "instr(lower(t.text), lower(?)) > 0" + _FILTERS + " ORDER BY w.id LIMIT ?"


class WordHit(NamedTuple):
    """One text that matched. ``kind`` is text or speech; ``score`` is the share of the query's words in it."""

    record_id: int
    stream: str
    t_start_ns: int
    t_end_ns: int
    kind: str
    text: str
    score: float


class WordIndex:
    """Lives in the catalogue's connection; the writing methods belong inside the catalogue's transaction."""

    def __init__(self, database: sqlite3.Connection, *, write: bool) -> None:
        self._db = database
        if write:
            self._create()

    def _create(self) -> None:
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS words(id INTEGER PRIMARY KEY, segment TEXT, record_id INTEGER, stream TEXT,"
            " t_start_ns INTEGER, t_end_ns INTEGER, kind TEXT)"
        )
        self._db.execute("CREATE INDEX IF NOT EXISTS words_by_segment ON words(segment)")
        try:
            self._db.execute("CREATE VIRTUAL TABLE IF NOT EXISTS words_text USING fts5(text, tokenize='trigram')")
        except sqlite3.OperationalError:  # SQLite before 3.34
            try:
                self._db.execute("CREATE VIRTUAL TABLE IF NOT EXISTS words_text USING fts5(text)")
            except sqlite3.OperationalError as error:
                raise StorageError(
                    f"this Python's SQLite has no full-text search: {error}", hint="use a Python built with FTS5"
                ) from error

    def add(self, segment: str, records: Iterable[Record]) -> None:
        for record in records:
            spans = [(span.text, record.t_start_ns, record.t_end_ns, "text") for span in record.texts]
            spans += [(said.text, said.t_start_ns, said.t_end_ns, "speech") for said in record.speech]
            for text, t_start_ns, t_end_ns, kind in spans:
                row = (segment, record.record_id, record.stream, t_start_ns, t_end_ns, kind)
                cursor = self._db.execute(
                    "INSERT INTO words(segment, record_id, stream, t_start_ns, t_end_ns, kind) VALUES (?,?,?,?,?,?)",
                    row,
                )
                self._db.execute("INSERT INTO words_text(rowid, text) VALUES (?, ?)", (cursor.lastrowid, text))

    def remove(self, segment: str) -> int:
        """Texts of a segment. Returns how many."""
        ids = self._db.execute("SELECT id FROM words WHERE segment = ?", (segment,)).fetchall()
        self._db.executemany("DELETE FROM words_text WHERE rowid = ?", ids)
        self._db.execute("DELETE FROM words WHERE segment = ?", (segment,))
        return len(ids)

    def scrub(self) -> None:
        """Rewrite the index as one piece: FTS5 otherwise keeps deleted terms until a later merge."""
        self._db.execute("INSERT INTO words_text(words_text) VALUES ('optimize')")

    def search(
        self,
        query: str,
        streams: Sequence[str] | None = None,
        between: tuple[int | None, int | None] | None = None,
        limit: int = 100,
    ) -> list[WordHit]:
        """Texts that hold any word of the query: by the share of the words that they hold, then by BM25.

        Words under three characters have no trigram: they are looked for in every text, one after the other."""
        terms = list(dict.fromkeys(query.split()))[:MOST_TERMS]
        long = [term for term in terms if len(term) >= SHORTEST]
        t_start_ns, t_end_ns = between or (None, None)
        chosen = None if streams is None else msgspec.json.encode(list(streams)).decode()
        filters = (chosen, chosen, t_end_ns, t_end_ns, t_start_ns, t_start_ns, limit)
        found: dict[tuple[int, str, str], tuple[float, WordHit]] = {}
        if long:
            match = " OR ".join('"' + term.replace('"', '""') + '"' for term in long)
            for *row, rank in self._db.execute(INDEXED, (match, *filters)):
                hit = _hit(row, terms)
                found[hit.record_id, hit.kind, hit.text] = (rank, hit)
        for term in terms:
            if term not in long:
                for row in self._db.execute(SCANNED, (term, *filters)):
                    hit = _hit(row, terms)
                    found.setdefault((hit.record_id, hit.kind, hit.text), (0.0, hit))
        ordered = sorted(found.values(), key=lambda pair: (-pair[1].score, -pair[0], *pair[1][2:3], pair[1].record_id))
        return [hit for _, hit in ordered[:limit]]


def word_share(terms: Sequence[str], text: str) -> float:
    """The share of the terms that the text holds, whatever their case."""
    folded = text.casefold()
    return sum(term.casefold() in folded for term in terms) / max(len(terms), 1)


def _hit(row: Sequence[Any], terms: Sequence[str]) -> WordHit:
    record_id, stream, t_start_ns, t_end_ns, kind, text = row
    return WordHit(record_id, stream, t_start_ns, t_end_ns, kind, text, word_share(terms, text))
