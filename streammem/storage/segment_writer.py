"""Writing a segment: the immutable directory that holds one bank's records of one stream for one stretch of time.

    columns.npy    (8, n) int64     record id, t_start, t_end, seq, count, digest, end of meta, end of thumbnail
    marks.npy      (2, n) uint8     level, flags
    crcs.npy       (2, n) uint32    crc32 of each row's meta and thumbnail
    meta.bin       MessagePack of each row's small fields, one after the other
    thumbs.bin     JPEGs, one after the other
    vectors.bin    the float16 vectors (storage/vectors.py), for the rows that have one
    index.bin      an approximate index of them, where one is wanted (storage/approximate.py)
    a0.npy, a0.offsets.npy, ...     the ragged arrays, in the order of the manifest
    statistics.npy what the embedding space wants to know of these rows
    manifest.json  the last file: counts, time range, producers, sequences, sizes and checksums of all the others

Everything is written to a temporary directory, synced, and renamed. The catalogue's transaction makes it live.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from streammem.model import (
    Detection,
    Intrinsics,
    Label,
    Pose,
    Producer,
    Record,
    Speech,
    StateFact,
    TextSpan,
)
from streammem.model import Status as RecordStatus
from streammem.spaces import Ragged
from streammem.storage.approximate import IndexEntry, available, build
from streammem.storage.files import Files, crash_point
from streammem.storage.vectors import write_vectors

FORMAT = 1
CHUNK = 1 << 20
"""Bytes under one checksum: damage is located to within 1 MB, at 4 bytes of manifest each."""
COLUMNS = ("record_id", "t_start_ns", "t_end_ns", "seq", "count", "digest", "meta_end", "thumb_end")
HAS_THUMBNAIL, HAS_WORDS, HAS_VECTOR, HAS_SPACE = 1, 2, 4, 8


class Row(NamedTuple):
    """A record on its way into a segment, with the 64-bit hash of what it says."""

    record: Record
    digest: int


class RowMeta(msgspec.Struct, array_like=True):
    """The fields of a record that have no column of their own."""

    session: str = ""
    media_ns: int | None = None
    producer: int = 0
    confidence: float = 1.0
    status: RecordStatus = "active"
    parents: tuple[int, ...] = ()
    labels: tuple[Label, ...] = ()
    detections: tuple[Detection, ...] = ()
    texts: tuple[TextSpan, ...] = ()
    speech: tuple[Speech, ...] = ()
    pose: Pose | None = None
    intrinsics: Intrinsics | None = None
    stats: dict[str, float] = {}
    states: tuple[StateFact, ...] = ()  # since 1.1: rows of older segments end before it


class FileEntry(msgspec.Struct, frozen=True):
    """One file's size and the crc32 of each megabyte."""

    name: str
    size: int
    crcs: tuple[int, ...]


class ArrayEntry(msgspec.Struct, frozen=True):
    """One ragged array: ``file`` holds the values (m, *tail), ``file``.offsets the (n + 1) offsets."""

    name: str
    file: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a segment without opening its columns. ``sequences`` are closed intervals of ``seq`` by session.

    ``lsn`` is the journal position up to which this stream was sealed; ``replaces`` names the segments that this one
    stands for, so that the catalogue can be rebuilt from manifests alone."""

    format: int
    name: str
    bank: str
    stream: str
    space: str | None
    rows: int
    count: int
    level: int
    generation: int
    t_min_ns: int
    t_max_ns: int
    longest_ns: int
    lsn_first: int
    lsn: int
    digest: str
    replaces: tuple[str, ...] = ()
    vectors: int = 0
    producers: tuple[Producer, ...] = ()
    sequences: dict[str, list[tuple[int, int]]] = {}
    arrays: tuple[ArrayEntry, ...] = ()
    files: tuple[FileEntry, ...] = ()
    index: IndexEntry | None = None

    @property
    def bytes(self) -> int:
        """Space on disk: every file rounded up to a 4 KB page, the manifest counted as two."""
        return sum((entry.size + 4095) // 4096 * 4096 for entry in self.files) + 8192


def stream_hash(stream: str) -> str:
    """How a stream's name appears in paths: names are data, and may hold ``../`` or quotes."""
    return hashlib.blake2b(stream.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def segment_name(bank: str, stream: str, lsn: int, generation: int) -> str:
    return f"{bank}-{stream_hash(stream)}-{lsn:012x}-{generation}"


class _Output:
    """The files of one segment, with their checksums."""

    def __init__(self, directory: Path, files: Files) -> None:
        self._directory = directory
        self._files = files
        self.entries: list[FileEntry] = []

    def blob(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        """One file of these pieces. Large ones are checksummed and written where they lie, a megabyte at a time."""
        crcs: list[int] = []
        size = filled = crc = 0
        waiting: list[bytes | memoryview] = []
        with self._files.open(self._directory / name, "wb") as handle:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    part, rest = rest[: CHUNK - filled], rest[CHUNK - filled :]
                    crc = zlib.crc32(part, crc)
                    waiting.append(part)
                    filled += len(part)
                    if filled == CHUNK:
                        self._files.write_pieces(handle, waiting)
                        crcs.append(crc)
                        size += filled
                        waiting, filled, crc = [], 0, 0
            if filled:
                self._files.write_pieces(handle, waiting)
                crcs.append(crc)
                size += filled
            self._files.fsync(handle)
        self.entries.append(FileEntry(name, size, tuple(crcs)))

    def array(self, name: str, array: np.ndarray) -> None:
        plain = np.ascontiguousarray(array)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(plain))
        flat = plain.reshape(-1).view(np.uint8) if plain.size else np.empty(0, np.uint8)
        body = (flat[at : at + CHUNK].data for at in range(0, len(flat), CHUNK))
        self.blob(name, (piece for part in ((header.getvalue(),), body) for piece in part))

    def vectors(self, name: str, vectors: np.ndarray) -> None:
        path = self._directory / name
        write_vectors(path, vectors, self._files)
        self.entries.append(checksums(path))


def checksums(path: Path) -> FileEntry:
    """Size and crc32 per megabyte of a file on disk."""
    crcs: list[int] = []
    size = 0
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK):
            crcs.append(zlib.crc32(chunk))
            size += len(chunk)
    return FileEntry(path.name, size, tuple(crcs))


def ragged_of(rows: Sequence[np.ndarray | None], like: np.ndarray) -> Ragged:
    """One entry list a row; None is an empty one. ``like`` gives dtype and trailing shape."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([0 if part is None else len(part) for part in rows], out=offsets[1:])
    present = [part for part in rows if part is not None and len(part)]
    values = np.concatenate(present) if present else np.empty((0, *like.shape[1:]), like.dtype)
    return Ragged(values, offsets)


def columns_of(rows: Sequence[Row], likes: Mapping[str, np.ndarray] | None = None) -> dict[str, Ragged]:
    """The columns of rows in RAM, as ``Block.columns`` gives them. ``likes``: an array of the right dtype and trailing
    shape for every column, also for those that these rows don't have."""
    if likes is None:
        names: dict[str, np.ndarray] = {}
        for row in rows:
            for name, array in row.record.arrays.items():
                names.setdefault(name, array)
            if row.record.vector is not None and "vector" not in names:
                names["vector"] = np.empty((0, len(row.record.vector)), np.float16)
        likes = names
    columns = {
        name: ragged_of([row.record.arrays.get(name) for row in rows], likes[name])
        for name in sorted(likes)
        if name != "vector"
    }
    if "vector" in likes:
        vectors = [row.record.vector for row in rows]
        halves = [None if vector is None else vector[None].astype(np.float16) for vector in vectors]
        columns["vector"] = ragged_of(halves, likes["vector"])
    return columns


def _intervals(rows: Sequence[Row]) -> dict[str, list[tuple[int, int]]]:
    by_session: dict[str, list[int]] = {}
    for row in rows:
        by_session.setdefault(row.record.session, []).append(row.record.seq)
    result: dict[str, list[tuple[int, int]]] = {}
    for session in sorted(by_session):
        spans: list[tuple[int, int]] = []
        for seq in sorted(by_session[session]):
            if spans and seq <= spans[-1][1] + 1:
                spans[-1] = (spans[-1][0], seq)
            else:
                spans.append((seq, seq))
        result[session] = spans
    return result


def write_segment(
    root: Path,
    rows: Sequence[Row],
    *,
    files: Files,
    bank: str,
    stream: str,
    lsn_first: int,
    lsn: int,
    generation: int = 0,
    replaces: tuple[str, ...] = (),
    statistics: np.ndarray | None = None,
    sequences: dict[str, list[tuple[int, int]]] | None = None,
    index_rows: int = 0,
    words: Callable[[str | None], np.ndarray | None] = lambda space: None,
) -> Manifest:
    """Write a segment below ``root`` and rename it into place. ``rows`` are sorted by (t_start_ns, record_id).

    ``index_rows`` is the number of vectors from which an approximate index is built; 0 is never. Its recall is measured
    with ``words(space)``, questions in words of that space, among others (``approximate.py``). ``sequences`` is given
    where rows no longer are single observations (demotion). Raises OSError; what was begun is removed by the caller's
    recovery (names that start with a dot are never read)."""
    name = segment_name(bank, stream, lsn, generation)
    temporary = root / f".tmp-{name}"
    files.remove_tree(temporary)
    files.mkdir(temporary)
    out = _Output(temporary, files)
    producers: dict[Producer, int] = {}
    columns = np.zeros((len(COLUMNS), len(rows)), np.int64)
    marks = np.zeros((2, len(rows)), np.uint8)
    crcs = np.zeros((2, len(rows)), np.uint32)
    encode = msgspec.msgpack.Encoder().encode
    meta: list[bytes] = []
    meta_end = thumb_end = total = 0
    space: str | None = None
    for index, (record, digest) in enumerate(rows):
        row_meta = encode(
            RowMeta(
                record.session,
                record.media_ns,
                producers.setdefault(record.producer, len(producers)),
                record.confidence,
                record.status,
                record.parents,
                record.labels,
                record.detections,
                record.texts,
                record.speech,
                record.pose,
                record.intrinsics,
                dict(record.stats),
                record.states,
            )
        )
        meta.append(row_meta)
        thumbnail = record.thumbnail or b""
        meta_end += len(row_meta)
        thumb_end += len(thumbnail)
        total += digest
        space = space or record.space
        columns[:, index] = (
            record.record_id,
            record.t_start_ns,
            record.t_end_ns,
            record.seq,
            record.count,
            signed(digest),
            meta_end,
            thumb_end,
        )
        marks[:, index] = (record.level, flags_of(record))
        crcs[:, index] = (zlib.crc32(row_meta), zlib.crc32(thumbnail))
    out.array("columns.npy", columns)
    out.array("marks.npy", marks)
    out.array("crcs.npy", crcs)
    out.blob("meta.bin", [b"".join(meta)])
    if thumb_end:
        out.blob("thumbs.bin", (row.record.thumbnail for row in rows if row.record.thumbnail))
    arrays: list[ArrayEntry] = []
    vectors = 0
    made: IndexEntry | None = None
    for array_name, column in columns_of(rows).items():
        if array_name == "vector":
            vectors = len(column.values)
            out.vectors("vectors.bin", column.values)
            if 0 < index_rows <= vectors and available():
                built = build(np.ascontiguousarray(column.values, np.float16), "index.bin", words(space))
                if built is not None:
                    made = built[0]
                    out.blob(made.name, [built[1]])
            continue
        entry = ArrayEntry(array_name, f"a{len(arrays)}")
        out.array(f"{entry.file}.npy", column.values)
        out.array(f"{entry.file}.offsets.npy", column.offsets)
        arrays.append(entry)
    if statistics is not None:
        out.array("statistics.npy", statistics)
    manifest = Manifest(
        format=FORMAT,
        name=name,
        bank=bank,
        stream=stream,
        space=space,
        rows=len(rows),
        count=int(columns[4].sum()),
        level=int(marks[0].max()) if len(rows) else 0,
        generation=generation,
        t_min_ns=int(columns[1].min()) if len(rows) else 0,
        t_max_ns=int(columns[2].max()) if len(rows) else 0,
        longest_ns=max((row.record.t_end_ns - row.record.t_start_ns for row in rows), default=0),
        lsn_first=lsn_first,
        lsn=lsn,
        digest=f"{total % 2**64:016x}",
        replaces=replaces,
        vectors=vectors,
        producers=tuple(producers),
        sequences=_intervals(rows) if sequences is None else sequences,
        arrays=tuple(arrays),
        files=tuple(out.entries),
        index=made,
    )
    files.write_file(temporary / "manifest.json", msgspec.json.encode(manifest))
    crash_point("after_manifest")
    files.fsync_dir(temporary)
    crash_point("before_rename")
    files.remove_tree(root / name)  # left behind by a crash between rename and catalogue
    files.rename(temporary, root / name)
    files.fsync_dir(root)
    crash_point("after_rename")
    return manifest


def signed(digest: int) -> int:
    """A 64-bit pattern as int64."""
    return digest - 2**64 if digest >= 2**63 else digest


def flags_of(record: Record) -> int:
    return (
        (HAS_THUMBNAIL if record.thumbnail else 0)
        | (HAS_WORDS if record.texts or record.speech else 0)
        | (HAS_VECTOR if record.vector is not None else 0)
        | (HAS_SPACE if record.space is not None else 0)
    )
