"""Reading a segment: a ``Block`` on disk, memory-mapped, opened at first use.

Opening costs a size check of every file and, where the columns are small, their checksum; nothing else is read. Meta
and thumbnails carry a checksum a row that is checked whenever they are read. ``verify`` checks every byte.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from streammem.errors import CorruptData, FormatVersion
from streammem.model import Record
from streammem.spaces import Ragged
from streammem.storage.approximate import ApproximateIndex
from streammem.storage.segment_writer import (
    CHUNK,
    COLUMNS,
    FORMAT,
    HAS_SPACE,
    HAS_THUMBNAIL,
    HAS_VECTOR,
    HAS_WORDS,
    Manifest,
    Row,
    RowMeta,
)
from streammem.storage.vectors import VectorFile

EAGER_BYTES = 4 << 20
"""Columns up to this size (about 60,000 rows) are checksummed when a segment is opened: 1.5 ms at 3 GB/s."""

_metas = msgspec.msgpack.Decoder(RowMeta)
_manifests = msgspec.json.Decoder(Manifest)


def read_manifest(directory: Path) -> Manifest:
    """Raises CorruptData where there is none or it can't be read, FormatVersion for a newer format."""
    path = directory / "manifest.json"
    try:
        data = path.read_bytes()
        version = msgspec.json.decode(data, type=dict[str, msgspec.Raw])["format"]
        if int(bytes(version)) > FORMAT:
            raise FormatVersion(
                f"{path} has segment format {int(bytes(version))}, this release reads up to {FORMAT}",
                hint="upgrade streammem",
            )
        return _manifests.decode(data)
    except (OSError, msgspec.DecodeError, KeyError, ValueError) as error:
        raise CorruptData(f"the segment's manifest {path} can't be read: {error}", path=str(path), offset=0) from error


def clamp64(value: int) -> np.int64:
    return np.int64(min(max(value, -(2**63)), 2**63 - 1))


def slice_between(starts: np.ndarray, longest_ns: int, t_start_ns: int | None, t_end_ns: int | None) -> tuple[int, int]:
    """The slice [lo, hi) of rows, sorted by start and at most ``longest_ns`` long, that can overlap the interval."""
    lo, hi = 0, len(starts)
    if t_start_ns is not None:
        lo = int(np.searchsorted(starts, clamp64(t_start_ns - longest_ns), "left"))
    if t_end_ns is not None:
        hi = int(np.searchsorted(starts, clamp64(t_end_ns), "right"))
    return lo, max(lo, hi)


class Segment:
    """One sealed segment. Implements ``Block``; every array is a read-only view of the mapped file."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def bank(self) -> str:
        return self.manifest.bank

    @property
    def stream(self) -> str:
        return self.manifest.stream

    @property
    def space(self) -> str | None:
        return self.manifest.space

    def __len__(self) -> int:
        return self.manifest.rows

    # -- files

    def _corrupt(self, name: str, offset: int, what: str) -> CorruptData:
        path = str(self.directory / name)
        return CorruptData(
            f"{what} in {path} at byte {offset}",
            path=path,
            offset=offset,
            hint="run `streammem doctor` on the memory; the other segments still answer",
        )

    @cached_property
    def _checked(self) -> bool:
        """Sizes of all files, checksums of small columns. Raises CorruptData."""
        for entry in self.manifest.files:
            try:
                size = (self.directory / entry.name).stat().st_size
            except FileNotFoundError:
                raise self._corrupt(entry.name, 0, "the file is missing") from None
            if size != entry.size:
                raise self._corrupt(entry.name, min(size, entry.size), f"expected {entry.size} bytes, found {size}")
            if entry.name in ("columns.npy", "marks.npy", "crcs.npy") and entry.size <= EAGER_BYTES:
                self._verify_file(entry.name, entry.crcs)
        return True

    def _verify_file(self, name: str, crcs: tuple[int, ...]) -> None:
        with open(self.directory / name, "rb") as handle:
            for index, expected in enumerate(crcs):
                if zlib.crc32(handle.read(CHUNK)) != expected:
                    raise self._corrupt(name, index * CHUNK, "a checksum failed")

    def _load(self, name: str) -> np.ndarray:
        assert self._checked
        try:
            return np.load(self.directory / name, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise self._corrupt(name, 0, f"the array can't be read ({error})") from error

    def open(self) -> None:
        """Check sizes and small columns now. Raises CorruptData."""
        assert self._checked

    def verify(self) -> list[CorruptData]:
        """Check every byte. Returns what is damaged, first damage of each file; an empty list is good news."""
        damage: list[CorruptData] = []
        for entry in self.manifest.files:
            try:
                size = (self.directory / entry.name).stat().st_size
                if size != entry.size:
                    raise self._corrupt(entry.name, min(size, entry.size), f"expected {entry.size} bytes, found {size}")
                self._verify_file(entry.name, entry.crcs)
            except CorruptData as error:
                damage.append(error)
            except OSError as error:
                damage.append(self._corrupt(entry.name, 0, f"the file can't be read ({error})"))
        return damage

    def close(self) -> None:
        """Let go of the maps; they are opened again at the next use."""
        vectors = self.__dict__.pop("_vectors", None)
        if vectors is not None:
            vectors.close()
        for name in ("_columns", "_marks", "_crcs", "_meta", "_vector_rows", "_index", "_checked"):
            self.__dict__.pop(name, None)
        self.__dict__.pop("_arrays", None)

    @cached_property
    def _columns(self) -> np.ndarray:
        return self._load("columns.npy")

    @cached_property
    def _marks(self) -> np.ndarray:
        return self._load("marks.npy")

    @cached_property
    def _crcs(self) -> np.ndarray:
        return self._load("crcs.npy")

    @cached_property
    def _meta(self) -> np.ndarray:
        assert self._checked
        path = self.directory / "meta.bin"
        return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)

    @cached_property
    def _vectors(self) -> VectorFile | None:
        assert self._checked
        return VectorFile(self.directory / "vectors.bin") if self.manifest.vectors else None

    @cached_property
    def _vector_rows(self) -> np.ndarray | None:
        """Row of each vector, or None where every row has one."""
        if self.manifest.vectors == len(self):
            return None
        return np.flatnonzero(self._marks[1] & HAS_VECTOR)

    @cached_property
    def _arrays(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {
            entry.name: (self._load(f"{entry.file}.npy"), self._load(f"{entry.file}.offsets.npy"))
            for entry in self.manifest.arrays
        }

    # -- Block

    def _column(self, name: str) -> np.ndarray:
        return self._columns[COLUMNS.index(name)]

    @property
    def record_ids(self) -> np.ndarray:
        return self._column("record_id").view(np.uint64)

    @property
    def t_start_ns(self) -> np.ndarray:
        return self._column("t_start_ns")

    @property
    def t_end_ns(self) -> np.ndarray:
        return self._column("t_end_ns")

    @property
    def levels(self) -> np.ndarray:
        return self._marks[0]

    @property
    def digests(self) -> np.ndarray:
        """(n,) uint64, the content hash of each row."""
        return self._column("digest").view(np.uint64)

    @property
    def has_thumbnail(self) -> np.ndarray:
        return (self._marks[1] & HAS_THUMBNAIL) != 0

    @property
    def has_words(self) -> np.ndarray:
        return (self._marks[1] & HAS_WORDS) != 0

    def rows_between(self, t_start_ns: int | None, t_end_ns: int | None) -> tuple[int, int]:
        return slice_between(self.t_start_ns, self.manifest.longest_ns, t_start_ns, t_end_ns)

    @cached_property
    def _index(self) -> ApproximateIndex | None:
        entry = self.manifest.index
        if entry is None:
            return None
        crcs = next((file.crcs for file in self.manifest.files if file.name == entry.name), ())
        return ApproximateIndex(self.directory / entry.name, entry, crcs)

    @property
    def approximate(self) -> bool:
        """It has an approximate index."""
        return self.manifest.index is not None

    def _nearest(self, query: np.ndarray, k: int, lo: int, hi: int, exact: bool) -> tuple[np.ndarray, np.ndarray]:
        assert self._vectors is not None
        if not exact and self._index is not None and self._index.useful(k, lo, hi, len(self._vectors)):
            return self._index.search(self._vectors.as_array(), query, k, lo, hi)
        return self._vectors.search(query, k, lo, hi)

    def search(self, query: np.ndarray, k: int, lo: int, hi: int, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
        if self._vectors is None or lo >= hi:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        rows_of = self._vector_rows
        if rows_of is None:
            return self._nearest(query, k, lo, hi, exact)
        first, last = (int(at) for at in np.searchsorted(rows_of, (lo, hi)))
        if first >= last:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        scores, found = self._nearest(query, k, first, last, exact)
        return scores, rows_of[found]

    def columns(self, lo: int, hi: int) -> dict[str, Ragged]:
        result = {
            name: Ragged(values, offsets).rows(lo, hi) if len(offsets) > 1 else Ragged(values, offsets)
            for name, (values, offsets) in self._arrays.items()
        }
        if self._vectors is not None:
            has = (self._marks[1][lo:hi] & HAS_VECTOR) != 0
            offsets = np.zeros(len(has) + 1, np.int64)
            np.cumsum(has, out=offsets[1:])
            rows_of = self._vector_rows
            first = lo if rows_of is None else int(np.searchsorted(rows_of, lo))
            result["vector"] = Ragged(self._vectors.as_array()[first : first + int(offsets[-1])], offsets)
        return result

    def signature(self) -> np.ndarray | None:
        """The mean of all vectors, (d,) float32, normalised; None where there are none. Raises CorruptData.

        Reads through a mapping of its own, so that a look at every segment doesn't keep all of them in RAM."""
        if not self.manifest.vectors:
            return None
        with VectorFile(self.directory / "vectors.bin") as file:
            array = file.as_array()
            total = np.zeros(array.shape[1], np.float64)
            for at in range(0, len(array), 8192):
                total += array[at : at + 8192].sum(axis=0, dtype=np.float64)
            del array  # else the mapping stays as long as this view
        norm = float(np.linalg.norm(total))
        return (total / norm).astype(np.float32) if norm > 0 else None

    def statistics(self) -> np.ndarray | None:
        names = {entry.name for entry in self.manifest.files}
        return np.array(self._load("statistics.npy")) if "statistics.npy" in names else None

    def _row_meta(self, row: int) -> RowMeta:
        ends = self._column("meta_end")
        start, end = (int(ends[row - 1]) if row else 0), int(ends[row])
        if not 0 <= start <= end <= len(self._meta):
            raise self._corrupt("columns.npy", 0, f"row {row} points outside meta.bin")
        data = self._meta[start:end].tobytes()
        if zlib.crc32(data) != int(self._crcs[0][row]):
            raise self._corrupt("meta.bin", start, f"row {row} failed its checksum")
        try:
            return _metas.decode(data)
        except msgspec.DecodeError as error:
            raise self._corrupt("meta.bin", start, f"row {row} can't be read ({error})") from error

    def record(self, row: int) -> Record:
        meta = self._row_meta(row)
        columns = self._columns[:, row]
        arrays = {name: column.values for name, column in self.columns(row, row + 1).items() if len(column.values)}
        vector = arrays.pop("vector", None)
        return Record(
            record_id=int(columns[0]),
            bank=self.bank,
            stream=self.stream,
            t_start_ns=int(columns[1]),
            t_end_ns=int(columns[2]),
            session=meta.session,
            seq=int(columns[3]),
            level=int(self._marks[0][row]),
            count=int(columns[4]),
            status=meta.status,
            confidence=meta.confidence,
            parents=meta.parents,
            producer=self.manifest.producers[meta.producer],
            media_ns=meta.media_ns,
            space=self.space if int(self._marks[1][row]) & HAS_SPACE else None,
            labels=meta.labels,
            detections=meta.detections,
            texts=meta.texts,
            speech=meta.speech,
            pose=meta.pose,
            intrinsics=meta.intrinsics,
            stats=meta.stats,
            states=meta.states,
            vector=None if vector is None else vector[0].astype(np.float32),
            arrays=arrays,
        )

    def thumbnail(self, row: int) -> bytes | None:
        ends = self._column("thumb_end")
        start, end = (int(ends[row - 1]) if row else 0), int(ends[row])
        if end <= start:
            return None
        with open(self.directory / "thumbs.bin", "rb") as handle:
            handle.seek(start)
            data = handle.read(end - start)
        if zlib.crc32(data) != int(self._crcs[1][row]):
            raise self._corrupt("thumbs.bin", start, f"the thumbnail of row {row} failed its checksum")
        return data

    def find(self, record_id: int) -> int | None:
        """Row of a record, or None."""
        found = np.flatnonzero(self._column("record_id") == record_id)
        return int(found[0]) if len(found) else None

    def row(self, row: int) -> Row:
        """The whole row with thumbnail, to be written into another segment."""
        record = self.record(row)
        thumbnail = self.thumbnail(row)
        if thumbnail is not None:
            record = replace(record, thumbnail=thumbnail)
        return Row(record, int(self.digests[row]))

    def full(self, row: int) -> Record:
        """The record with its thumbnail."""
        return self.row(row).record
