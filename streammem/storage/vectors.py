"""Vectors of one block: a flat float16 file in time order, and the exact scan over any slice of it.

File, little-endian::

    header  64 bytes   magic, version, dim, rows, CRC-32 of the header
    data    rows * dim * 2 bytes, row after row
    footer  32 bytes   largest row norm, CRC-32 of the data, CRC-32 of the footer

A time range is a slice of rows, so a filter costs nothing and a narrow window reads only its own bytes.

Two kernels, one answer. Faiss's fp16 list scanner runs straight over the mapped bytes: no index object, no id
selector, nothing copied (1,000,000 x 384 on one thread: 35 ms, reading the bytes 28; through ``IndexScalarQuantizer``
with an id-range selector a 1 % window takes 1.9 ms, here 0.5; streammem bench search). NumPy needs 20 times as long,
but importing faiss costs 0.13 s, so a process that asks one question about a short video never pays for it. Whichever
ran, its float32 sums only choose candidates: all rows that its rounding error leaves in doubt are scored again in
float64. So the result is the exact top k, with ties by row, and does not depend on the processor, on the kernel or on
where a segment was cut.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np

from streammem.errors import CorruptData, FormatVersion, MemoryClosed, ObservationError, QueryError, SpaceMismatch

MAGIC = b"SMVEC16\n"
VERSION = 1
HEADER = struct.Struct("<8sIIQ36xI")
FOOTER = struct.Struct("<dI16xI")
CHUNK_ROWS = 8192  # 6 MB of float16 at 384 dimensions: writing and checking stay small whatever the file
MAX_DIM = 65_536
TINY = float(np.finfo(np.float32).tiny)

# NumPy scans about 400 rows in the time that faiss scans 20,000, and 55,000 in the time of faiss's import (0.13 s).
# So a process stays with NumPy until it has scanned this many rows in all: never more than twice the best choice.
NUMPY_BUDGET_ROWS = 50_000
NUMPY_ALWAYS_ROWS = 128
# Above this many candidates the heap of the compiled kernel is slower than a partition of all scores.
HEAP_LIMIT = 16_384


class FileLayer(Protocol):
    """What writing needs from the file system; the fault tests put a faulty one here."""

    def open(self, path: Path, mode: str) -> IO[bytes]: ...
    def fsync(self, handle: IO[bytes]) -> None: ...


class _OsFiles:
    def open(self, path: Path, mode: str) -> IO[bytes]:
        return open(path, mode)

    def fsync(self, handle: IO[bytes]) -> None:
        handle.flush()
        os.fsync(handle.fileno())


class Hits(NamedTuple):
    """``scores`` (m,) float32 inner products, best first; ``rows`` (m,) int64; equal scores are in order of row."""

    scores: np.ndarray
    rows: np.ndarray


def write_vectors(path: str | os.PathLike[str], vectors: np.ndarray, files: FileLayer | None = None) -> None:
    """Write ``vectors`` (n, d) float32 or float16 to ``path`` as float16, and fsync the file (not its folder).

    n may be 0. Raises ObservationError for another shape or dtype and for values that are not finite in float16;
    OSError (disk full, say) comes through, and what was written so far does not open."""
    _check_matrix(vectors, (np.float16, np.float32))
    layer: FileLayer = files if files is not None else _OsFiles()
    rows, dim = vectors.shape
    crc, largest = 0, 0.0
    handle = layer.open(Path(path), "wb")
    try:
        handle.write(_sealed(HEADER, MAGIC, VERSION, dim, rows))
        for start, chunk in _chunks(vectors):
            with np.errstate(over="ignore"):
                half = np.ascontiguousarray(chunk, dtype="<f2")
            norms = np.linalg.norm(half.astype(np.float64), axis=1)
            if not np.isfinite(norms).all():
                bad = start + int(np.flatnonzero(~np.isfinite(norms))[0])
                raise ObservationError(f"vector {bad} has values that are not finite in float16")
            data = half.tobytes()
            largest, crc = max(largest, float(norms.max())), zlib.crc32(data, crc)
            handle.write(data)
        handle.write(_sealed(FOOTER, largest, crc))
        layer.fsync(handle)
    finally:
        handle.close()


class VectorFile:
    """A file of :func:`write_vectors`, memory-mapped and read-only. Threads may search it at the same time.

    Opening checks header, footer and length, not the data (``verify`` does: it reads the file once).
    Raises CorruptData for a missing, truncated or damaged file, FormatVersion for one of a newer release."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._map: mmap.mmap | None = None
        try:
            with open(self.path, "rb") as handle:
                size = os.fstat(handle.fileno()).st_size
                if size < HEADER.size + FOOTER.size:
                    raise self._corrupt(f"{size} bytes are too few for a vector file", size)
                self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise self._corrupt("the vector file is missing", 0) from error
        try:
            self._read_frame(size)
        except (CorruptData, FormatVersion):
            self._map.close()
            raise

    def _read_frame(self, size: int) -> None:
        assert self._map is not None
        magic, version, dim, rows, crc = HEADER.unpack_from(self._map, 0)
        if magic != MAGIC:
            raise self._corrupt("this is no vector file", 0)
        if crc != zlib.crc32(self._map[: HEADER.size - 4]):
            raise self._corrupt("the header's checksum differs", 0)
        if version > VERSION:
            raise FormatVersion(
                f"{self.path} has vector format {version}, this release reads up to {VERSION}",
                hint="upgrade streammem",
            )
        if not 1 <= dim <= MAX_DIM:
            raise self._corrupt(f"the dimension is {dim}", 12)
        end = HEADER.size + rows * dim * 2
        if size != end + FOOTER.size:
            raise self._corrupt(f"the file has {size} bytes instead of {end + FOOTER.size}", min(size, end))
        largest, data_crc, crc = FOOTER.unpack_from(self._map, end)
        if crc != zlib.crc32(self._map[end : end + FOOTER.size - 4]):
            raise self._corrupt("the footer's checksum differs", end)
        self.n, self.dim = int(rows), int(dim)
        self.max_norm, self._data_crc = float(largest), int(data_crc)
        self._array: np.ndarray | None = np.frombuffer(
            self._map, dtype="<f2", count=rows * dim, offset=HEADER.size
        ).reshape(rows, dim)

    def __len__(self) -> int:
        return self.n

    def as_array(self) -> np.ndarray:
        """(n, d) float16, a read-only view of the mapped file; it stays valid after :meth:`close`.

        Raises MemoryClosed after that."""
        if self._array is None:
            raise MemoryClosed(f"{self.path} is closed")
        return self._array

    def search(self, query: np.ndarray, k: int, lo: int = 0, hi: int | None = None) -> Hits:
        """The ``k`` rows of [lo, hi) with the largest inner product with ``query`` (d,); see :func:`scan`."""
        return scan(self.as_array(), query, k, lo, hi, max_norm=self.max_norm)

    def verify(self) -> None:
        """Read all data once. Raises CorruptData where the checksum differs."""
        crc = 0
        for _, chunk in _chunks(self.as_array()):
            crc = zlib.crc32(chunk.reshape(-1).view(np.uint8).data, crc)
        if crc != self._data_crc:
            raise self._corrupt("the checksum of the data differs", HEADER.size)

    def close(self) -> None:
        """Release the file. A view that is still held keeps the mapping alive until it is gone."""
        self._array = None
        if self._map is not None:
            with contextlib.suppress(BufferError):  # a caller holds a view: the mapping goes with its last view
                self._map.close()
            self._map = None

    def __enter__(self) -> VectorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _corrupt(self, what: str, offset: int) -> CorruptData:
        return CorruptData(
            f"{self.path}: {what} (at byte {offset})",
            path=str(self.path),
            offset=offset,
            hint="the segment is damaged; run `streammem doctor` on the memory",
        )


def scan(
    array: np.ndarray, query: np.ndarray, k: int, lo: int = 0, hi: int | None = None, *, max_norm: float = 1.01
) -> Hits:
    """Exact top ``k`` of ``array[lo:hi] @ query``, best first, ties by row; fewer where the slice is shorter.

    ``array`` (n, d) float16, C-contiguous, finite; ``query`` (d,) real, finite. A score is the float64 inner product
    rounded to float32. ``rows`` count from the start of ``array``. ``max_norm`` must be no less than the longest row:
    it bounds the rounding error (the default is that of L2-normalised vectors).
    Raises QueryError for a bad query, ``k`` or range, SpaceMismatch where the dimensions differ."""
    _check_matrix(array, (np.float16,))
    rows, dim = array.shape
    hi = rows if hi is None else hi
    if k <= 0:
        raise QueryError(f"k is {k}", hint="ask for at least one result")
    if lo < 0 or hi > rows:
        raise QueryError(f"rows {lo} to {hi} are outside 0 to {rows}")
    query = np.ascontiguousarray(query, dtype=np.float32)
    if query.ndim != 1 or query.shape[0] != dim:
        raise SpaceMismatch(f"the query has shape {query.shape}, the vectors have {dim} dimensions")
    wide = query.astype(np.float64)
    length = math.sqrt(float(wide @ wide))
    if not math.isfinite(length) or length * max_norm > 1e30:
        raise QueryError("the query vector has values that are not finite or too large")
    count = hi - lo
    if count <= 0:
        return Hits(np.empty(0, np.float32), np.empty(0, np.int64))
    # Any order of float32 sums of d products errs by at most d * 2^-24 * |q| * |v|, plus what underflows; the 8 pays
    # for the rounding of the float64 score to float32.
    slack = (dim + 8) * 2.0**-24 * length * max_norm + dim * TINY
    part = array[lo:hi]
    wanted = k + 8  # enough unless rows are equal or nearly so; every row more costs 1 us of scoring again
    while wanted < count and wanted <= HEAP_LIMIT and _compiled(count):
        found = _scan_faiss(part, query, wanted)
        hits = _rescored(part, wide, found.rows, k)
        if float(found.scores.min()) + 2 * slack < float(hits.scores[-1]):
            return Hits(hits.scores, hits.rows + lo)  # whatever was left out is certainly lower than the last hit
        wanted *= 16  # many equal or nearly equal rows: a frozen camera
    scores = _scan_numpy(part, query)
    candidates = np.arange(count)
    if k < count:
        kth = float(np.partition(scores, count - k)[count - k])
        candidates = np.flatnonzero(scores >= kth - 2 * slack)
    hits = _rescored(part, wide, candidates, k)
    return Hits(hits.scores, hits.rows + lo)


def rescored(vectors: np.ndarray, query: np.ndarray, rows: np.ndarray, k: int) -> Hits:
    """The best ``k`` of these ``rows`` of ``vectors`` (n, d) float16, with exact scores, as :func:`scan` gives them."""
    return _rescored(vectors, query.astype(np.float64), rows, k)


def _rescored(part: np.ndarray, wide: np.ndarray, rows: np.ndarray, k: int) -> Hits:
    """The best ``k`` of ``rows`` by inner product with ``wide`` (d,) float64, rounded to float32, ties by row."""
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        # add.reduce sums every row by itself in one fixed order; a BLAS product may not.
        products = part[rows[start : start + CHUNK_ROWS]].astype(np.float64) * wide
        scores[start : start + CHUNK_ROWS] = np.add.reduce(products, axis=1)
    best = np.lexsort((rows, -scores))[:k]
    return Hits(scores[best], rows[best].astype(np.int64))


def _scan_numpy(part: np.ndarray, query: np.ndarray) -> np.ndarray:
    """All scores, (n,) float32. einsum and not ``@``: BLAS would start a second thread."""
    scores = np.empty(len(part), np.float32)
    for start in range(0, len(part), 1024):
        np.einsum("ij,j->i", part[start : start + 1024].astype(np.float32), query, out=scores[start : start + 1024])
    return scores


_scanned_by_numpy = 0


@cache
def _has_faiss() -> bool:
    return importlib.util.find_spec("faiss") is not None


def _compiled(count: int) -> bool:
    """Whether these rows go to faiss: see NUMPY_BUDGET_ROWS. A lost update between threads does no harm."""
    global _scanned_by_numpy
    if count <= NUMPY_ALWAYS_ROWS or not _has_faiss():
        return False
    if _scanned_by_numpy + count <= NUMPY_BUDGET_ROWS:
        _scanned_by_numpy += count
        return False
    _scanned_by_numpy = NUMPY_BUDGET_ROWS  # from now on faiss is loaded: even a short scan is faster there
    return True


def _scan_faiss(part: np.ndarray, query: np.ndarray, wanted: int) -> Hits:
    """The ``wanted`` best rows by float32 sums, in no order."""
    import faiss

    idle = _idle.setdefault(part.shape[1], [])
    try:
        scanner = idle.pop()
    except IndexError:
        scanner = _new_scanner(part.shape[1])
    scores = np.full(wanted, -np.inf, np.float32)  # a valid, empty min-heap
    rows = np.full(wanted, -1, np.int64)
    codes = part.reshape(-1).view(np.uint8)
    scanner.set_query(faiss.swig_ptr(query))
    scanner.set_list(0, 0.0)  # list 0: the ids are the positions
    scanner.scan_codes(len(part), faiss.swig_ptr(codes), None, faiss.swig_ptr(scores), faiss.swig_ptr(rows), wanted)
    idle.append(scanner)
    return Hits(scores, rows)


# A scanner holds its query, so two threads never share one; as many exist as ran at once. Faiss does not give up the
# ownership of a scanner (and `thisown = True` corrupts its type table), so one that is not kept would be a leak.
_idle: dict[int, list[Any]] = {}
_kept: list[Any] = []  # what the scanners point into


def _new_scanner(dim: int) -> Any:
    import faiss

    quantizer: Any = faiss.ScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16)
    coarse = faiss.IndexFlatIP(dim)  # empty and never asked: the interface wants one
    _kept.append((quantizer, coarse))
    return quantizer.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, coarse, True, None, False)


def _check_matrix(vectors: np.ndarray, dtypes: tuple[type, ...]) -> None:
    if vectors.ndim != 2 or not 1 <= vectors.shape[1] <= MAX_DIM:
        raise ObservationError(f"vectors have shape {vectors.shape}, not (n, d) with d from 1 to {MAX_DIM}")
    if vectors.dtype not in dtypes:
        names = " or ".join(np.dtype(t).name for t in dtypes)
        raise ObservationError(f"vectors are {vectors.dtype}, not {names}")


def _chunks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(vectors), CHUNK_ROWS):
        yield start, vectors[start : start + CHUNK_ROWS]


def _sealed(layout: struct.Struct, *fields: Any) -> bytes:
    """The fields, and at their end the CRC-32 of what comes before it."""
    body = layout.pack(*fields, 0)[:-4]
    return body + struct.pack("<I", zlib.crc32(body))
