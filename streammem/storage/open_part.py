"""The open part: records that are durable in the journal and not yet in a segment. A ``Block`` in RAM.

Rows arrive almost always in time order; then a block is a view of growing arrays and costs nothing. A late row makes
the next block a sorted copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from streammem.model import Observation, Record, record_id
from streammem.spaces import EmbeddingSpace, Ragged
from streammem.storage.segment_writer import (
    HAS_THUMBNAIL,
    HAS_VECTOR,
    HAS_WORDS,
    Row,
    columns_of,
    flags_of,
)
from streammem.storage.segments import clamp64, slice_between
from streammem.storage.vectors import scan
from streammem.storage.words import WordHit, word_share

ROW_OVERHEAD = 3600
"""Bytes of RAM that a row costs besides its content: Python objects, columns, the second copy of its vector. Measured
with tracemalloc: 3,500-3,600 for a row with a 384-d vector, labels, a detection, words and a pose."""
SpaceFinder = Callable[[str], EmbeddingSpace | None]


def _spoken_ns(observation: Observation) -> int:
    """How long an observation lasts: a picture is an instant whatever was said meanwhile, words alone last; and it
    lasts as long as what it states, so that whoever forgets a part of that forgets the statement."""
    stated = max((fact.until_ns or observation.capture_ns for fact in observation.states), default=0)
    if observation.states and stated > observation.capture_ns:
        return stated - observation.capture_ns
    if observation.embedding is not None or observation.thumbnail is not None or observation.depth_m is not None:
        return 0
    return max((said.t_end_ns - said.t_start_ns for said in observation.speech), default=0)


def record_from_observation(observation: Observation, bank: str = "moments") -> Record:
    """An observation as a record of level 0, as a segment would give it back: the vector in float16 precision, no
    empty arrays. Arrays are copied: a view would keep the whole packet in RAM (23 KB a row measured instead of 12)."""
    named = {**observation.parts, "tokens": observation.tokens, "depth_m": observation.depth_m}
    arrays = {name: array.copy() for name, array in named.items() if array is not None and len(array)}
    return Record(
        record_id=record_id(bank, observation.stream, observation.session, observation.seq),
        bank=bank,
        stream=observation.stream,
        t_start_ns=observation.capture_ns,
        t_end_ns=int(clamp64(observation.capture_ns + _spoken_ns(observation))),
        session=observation.session,
        seq=observation.seq,
        producer=observation.producer,
        media_ns=observation.media_ns,
        space=observation.space,
        labels=observation.labels,
        detections=observation.detections,
        texts=observation.texts,
        speech=observation.speech,
        states=observation.states,
        pose=observation.pose,
        intrinsics=observation.intrinsics,
        stats=observation.stats,
        vector=None if observation.embedding is None else observation.embedding.astype(np.float16),
        arrays=arrays,
        thumbnail=None if observation.thumbnail is None else bytes(observation.thumbnail),
    )


def content_bytes(record: Record) -> int:
    """What a record adds to a segment, as the seal rule counts it: arrays, picture, words, 100 bytes of columns."""
    arrays = sum(array.nbytes for array in record.arrays.values())
    vector = 0 if record.vector is None else record.vector.nbytes
    words = sum(len(span.text) for span in record.texts) + sum(len(said.text) for said in record.speech)
    words += sum(len(fact.entity) + len(fact.attribute) + len(fact.value) for fact in record.states)
    small = 24 * (len(record.labels) + len(record.detections) + len(record.texts) + len(record.speech))
    small += 24 * len(record.states)
    return arrays + vector + len(record.thumbnail or b"") + words + small + 100


def record_digest(record: Record) -> int:
    """64-bit content hash of a record that a bank made (an observation's is the hash of its packet)."""
    small = (
        record.record_id,
        record.t_start_ns,
        record.t_end_ns,
        record.level,
        record.count,
        record.status,
        record.confidence,
        record.parents,
        record.producer,
        record.labels,
        record.detections,
        record.texts,
        record.speech,
        record.pose,
        sorted(record.stats.items()),
        *((record.states,) if record.states else ()),
    )
    state = hashlib.blake2b(msgspec.msgpack.encode(small), digest_size=8)
    arrays = dict(record.arrays)
    if record.vector is not None:
        arrays["vector"] = record.vector.astype(np.float16)  # as it is kept
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {array.dtype.str} {array.shape}".encode())
        state.update(array.tobytes())
    state.update(record.thumbnail or b"")
    return int.from_bytes(state.digest(), "little")


class RamBlock:
    """A frozen view of an open part: rows added later don't show."""

    def __init__(
        self,
        bank: str,
        stream: str,
        space: str | None,
        rows: Sequence[Row],
        columns: np.ndarray,
        marks: np.ndarray,
        vectors: np.ndarray | None,
        longest_ns: int,
        spaces: SpaceFinder,
        likes: Mapping[str, np.ndarray],
    ) -> None:
        """``columns`` (3, n) int64: id, t_start, t_end. ``marks`` (2, n) uint8: level, flags. ``vectors`` (m, d)
        float16 of the m rows that have one, in row order. ``likes`` names every array of the part."""
        self.bank = bank
        self.stream = stream
        self.space = space
        self._rows = rows
        self._columns = columns
        self._marks = marks
        self._vectors = vectors
        self._longest_ns = longest_ns
        self._spaces = spaces
        self._likes = likes
        self._vector_rows: np.ndarray | None = None
        if vectors is not None and len(vectors) < len(self):
            self._vector_rows = np.flatnonzero(marks[1] & HAS_VECTOR)

    def __len__(self) -> int:
        return self._columns.shape[1]

    @property
    def record_ids(self) -> np.ndarray:
        return self._columns[0].view(np.uint64)

    @property
    def t_start_ns(self) -> np.ndarray:
        return self._columns[1]

    @property
    def t_end_ns(self) -> np.ndarray:
        return self._columns[2]

    @property
    def levels(self) -> np.ndarray:
        return self._marks[0]

    @property
    def has_thumbnail(self) -> np.ndarray:
        return (self._marks[1] & HAS_THUMBNAIL) != 0

    @property
    def has_words(self) -> np.ndarray:
        return (self._marks[1] & HAS_WORDS) != 0

    def rows_between(self, t_start_ns: int | None, t_end_ns: int | None) -> tuple[int, int]:
        return slice_between(self.t_start_ns, self._longest_ns, t_start_ns, t_end_ns)

    def search(self, query: np.ndarray, k: int, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
        if self._vectors is None or lo >= hi:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        if self._vector_rows is None:
            return scan(self._vectors, query, k, lo, hi)
        first, last = (int(at) for at in np.searchsorted(self._vector_rows, (lo, hi)))
        if first >= last:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        scores, found = scan(self._vectors, query, k, first, last)
        return scores, self._vector_rows[found]

    def columns(self, lo: int, hi: int) -> dict[str, Ragged]:
        return columns_of(self._rows[lo:hi], self._likes)

    def statistics(self) -> np.ndarray | None:
        return statistics_of(self._rows, self.space, self._spaces)

    def record(self, row: int) -> Record:
        record = self._rows[row].record
        vector = None if record.vector is None else record.vector.astype(np.float32)
        return replace(record, vector=vector, thumbnail=None)

    def thumbnail(self, row: int) -> bytes | None:
        return self._rows[row].record.thumbnail

    def full(self, row: int) -> Record:
        """The record with its thumbnail."""
        return replace(self.record(row), thumbnail=self.thumbnail(row))

    def find(self, record_id: int) -> int | None:
        """Row of a record, or None."""
        found = np.flatnonzero(self._columns[0] == record_id)
        return int(found[0]) if len(found) else None


def statistics_of(rows: Sequence[Row], space_id: str | None, spaces: SpaceFinder) -> np.ndarray | None:
    """What the rows' embedding space says of them; None without rows, space, or the space's weights."""
    space = spaces(space_id) if rows and space_id is not None else None
    return space.statistics(columns_of(rows)) if space is not None else None


class OpenPart:
    """Records of one bank and one stream, in the order of their arrival."""

    def __init__(self, bank: str, stream: str, spaces: SpaceFinder) -> None:
        self.bank = bank
        self.stream = stream
        self._spaces = spaces
        self.clear()

    def clear(self) -> None:
        self.rows: list[Row] = []
        self.bytes = 0
        self.count = 0
        self.digest = 0
        self.space: str | None = None
        self.t_min_ns = 0
        self.t_max_ns = 0
        self._longest_ns = 0
        self._in_order = True
        self._sizes: list[int] = []
        self.lsns: list[int] = []
        self.likes: dict[str, np.ndarray] = {}
        self._columns = np.empty((3, 64), np.int64)
        self._marks = np.empty((2, 64), np.uint8)
        self._vectors: np.ndarray | None = None
        self._vector_count = 0
        self._block: RamBlock | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, row: Row, lsn: int, size: int) -> None:
        """``size`` is the record's content in bytes, as the seal rule counts it."""
        record = row.record
        at = len(self.rows)
        if at == self._columns.shape[1]:
            self._columns = np.concatenate((self._columns, np.empty_like(self._columns)), axis=1)
            self._marks = np.concatenate((self._marks, np.empty_like(self._marks)), axis=1)
        if at:
            before = self.rows[-1].record
            if (record.t_start_ns, record.record_id) < (before.t_start_ns, before.record_id):
                self._in_order = False
        self._columns[:, at] = (record.record_id, record.t_start_ns, record.t_end_ns)
        self._marks[:, at] = (record.level, flags_of(record))
        if not self.likes.keys() >= record.arrays.keys():
            self.likes = {**{name: array[:0] for name, array in record.arrays.items()}, **self.likes}
        if record.vector is not None:
            self._add_vector(record.vector)
            if "vector" not in self.likes:
                self.likes = {**self.likes, "vector": np.empty((0, len(record.vector)), np.float16)}
        self.t_min_ns = min(self.t_min_ns, record.t_start_ns) if at else record.t_start_ns
        self.t_max_ns = max(self.t_max_ns, record.t_end_ns) if at else record.t_end_ns
        self._longest_ns = max(self._longest_ns, record.t_end_ns - record.t_start_ns)
        self.space = self.space or record.space
        self.rows.append(row)
        self._sizes.append(size)
        self.lsns.append(lsn)
        self.bytes += size
        self.count += record.count
        self.digest = (self.digest + row.digest) % 2**64
        self._block = None

    def _add_vector(self, vector: np.ndarray) -> None:
        if self._vectors is None:
            self._vectors = np.empty((64, len(vector)), np.float16)
        if self._vector_count == len(self._vectors):
            self._vectors = np.concatenate((self._vectors, np.empty_like(self._vectors)))
        self._vectors[self._vector_count] = vector
        self._vector_count += 1

    def block(self) -> RamBlock:
        """The rows as they are now."""
        if self._block is None:
            count = len(self.rows)
            columns, marks = self._columns[:, :count], self._marks[:, :count]
            vectors = None if self._vectors is None else self._vectors[: self._vector_count]
            rows = self.rows[:]
            if not self._in_order:
                order = np.lexsort((columns[0], columns[1]))
                if vectors is not None:
                    has = (marks[1] & HAS_VECTOR) != 0
                    place = np.cumsum(has) - 1
                    vectors = vectors[place[order[has[order]]]]
                columns, marks = columns[:, order], marks[:, order]
                rows = [rows[at] for at in order]
            self._block = RamBlock(
                self.bank,
                self.stream,
                self.space,
                rows,
                columns,
                marks,
                vectors,
                self._longest_ns,
                self._spaces,
                self.likes,
            )
        return self._block

    def sorted_rows(self) -> list[Row]:
        """Rows by (t_start_ns, record_id), as a segment wants them."""
        return sorted(self.rows, key=lambda row: (row.record.t_start_ns, row.record.record_id))

    def replace_rows(self, change: Callable[[Row], Row | None]) -> list[Record]:
        """Let ``change`` rewrite every row, or drop it by returning None; the records dropped are returned."""
        rows, sizes, lsns = self.rows, self._sizes, self.lsns
        changed = [change(row) for row in rows]
        if all(new is old for new, old in zip(changed, rows, strict=True)):
            return []
        self.clear()
        gone: list[Record] = []
        for old, new, size, lsn in zip(rows, changed, sizes, lsns, strict=True):
            if new is None:
                gone.append(old.record)
            else:
                self.add(new, lsn, size)
        return gone

    def search_text(self, terms: Sequence[str], between: tuple[int | None, int | None] | None) -> list[WordHit]:
        """Texts and speech that hold a term, scored by the share of terms that they hold."""
        t_start_ns, t_end_ns = between or (None, None)
        hits: list[WordHit] = []
        for row in self.rows:
            record = row.record
            spans = [(span.text, record.t_start_ns, record.t_end_ns, "text") for span in record.texts]
            spans += [(said.text, said.t_start_ns, said.t_end_ns, "speech") for said in record.speech]
            for text, start, end, kind in spans:
                if (t_end_ns is not None and start > t_end_ns) or (t_start_ns is not None and end < t_start_ns):
                    continue
                share = word_share(terms, text)
                if share:
                    hits.append(WordHit(record.record_id, self.stream, start, end, kind, text, share))
        return hits

    @property
    def lsn_first(self) -> int:
        return self.lsns[0] if self.lsns else 0

    @property
    def lsn_last(self) -> int:
        return self.lsns[-1] if self.lsns else 0

    @property
    def ram_bytes(self) -> int:
        return self.bytes + len(self.rows) * ROW_OVERHEAD
