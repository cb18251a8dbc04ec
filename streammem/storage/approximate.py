"""The approximate index of a large segment: inverted lists beside the exact vectors, with its recall measured.

    index.bin     a faiss ``IndexIVFScalarQuantizer`` (8 bits a dimension, inner product) of the segment's vectors

It is built when a segment is written with ``memory.index_rows`` rows or more, and says in the manifest how often its
answers are the exact ones: on rows of this very segment with some noise, at the ``nprobe`` that is then used. What it
finds is scored again on the float16 vectors, so that scores are exact and only a miss is possible. A window that is
narrower than a quarter is scanned: there the lists hold mostly rows that nobody asked for.

Needs faiss; without it nothing is built, and segments that have an index are scanned.
"""

from __future__ import annotations

import importlib.util
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streammem.storage.vectors import Hits, rescored, scan

GOAL = 0.99
"""Recall at ten that ``nprobe`` is chosen for."""
K = 10
QUESTIONS = 100
NOISE = 0.2
"""Length of the noise on a question of norm 1: cosine 0.98 to the row it was made of."""
PROBES = (1, 2, 4, 8, 16, 32, 64, 128)
NARROW = 4
MORE = 4
"""Candidates for each wanted row: the 8-bit scores are off by about 0.002."""


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifest says of an index. ``recall``: the share of the exact ``k`` best that it gave, over
    ``questions`` questions, at ``nprobe`` of ``lists`` lists."""

    name: str
    lists: int
    nprobe: int
    recall: float
    k: int = K
    questions: int = QUESTIONS


def available() -> bool:
    return importlib.util.find_spec("faiss") is not None


def build(vectors: np.ndarray, name: str) -> tuple[IndexEntry, bytes]:
    """The index of ``vectors`` (n, d) float16 as bytes, and what to say of it. The same input gives the same index.

    Costs about 20 s of one core for a million rows of 384 dimensions, 0.3 s for 40,000."""
    import faiss

    rows, dim = vectors.shape
    lists = max(1, round(rows**0.5))
    quantizer = faiss.IndexFlatIP(dim)
    index: Any = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    chosen = np.sort(np.random.default_rng(0).permutation(rows)[: 64 * lists])
    index.train(vectors[chosen].astype(np.float32))
    for at in range(0, rows, 50_000):
        index.add(vectors[at : at + 50_000].astype(np.float32))
    nprobe, recall = _measured(index, vectors, lists)
    data = faiss.serialize_index(index).tobytes()
    return IndexEntry(name=name, lists=lists, nprobe=nprobe, recall=recall), data


def _measured(index: Any, vectors: np.ndarray, lists: int) -> tuple[int, float]:
    """The smallest ``nprobe`` whose recall reaches the goal (else the largest tried), and that recall."""
    rng = np.random.default_rng(1)
    asked = vectors[rng.integers(0, len(vectors), QUESTIONS)].astype(np.float32)
    noise = rng.standard_normal(asked.shape).astype(np.float32)
    asked += NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    wanted = [set(scan(vectors, query, K, max_norm=2.0).rows.tolist()) for query in asked]
    recall = 0.0
    for nprobe in PROBES:
        found = (_search(index, vectors, query, K, 0, len(vectors), nprobe).rows for query in asked)
        right = sum(len(exact & set(rows.tolist())) for exact, rows in zip(wanted, found, strict=True))
        recall = right / sum(map(len, wanted))
        if recall >= GOAL or nprobe >= lists:
            return min(nprobe, lists), round(recall, 4)
    return PROBES[-1], round(recall, 4)


def _search(index: Any, vectors: np.ndarray, query: np.ndarray, k: int, lo: int, hi: int, nprobe: int) -> Hits:
    import faiss

    options: dict[str, Any] = {"nprobe": nprobe}
    if (lo, hi) != (0, len(vectors)):
        options["sel"] = faiss.IDSelectorRange(lo, hi)
    plain = np.ascontiguousarray(query, np.float32)
    parameters: Any = faiss.SearchParametersIVF
    _, found = index.search(plain[None], min(MORE * k, hi - lo), params=parameters(**options))
    return rescored(vectors, plain, np.sort(found[0][found[0] >= 0]), k)


class ApproximateIndex:
    """An index on disk, read at its first use. Threads may search it at the same time."""

    def __init__(self, path: Path, entry: IndexEntry, crcs: tuple[int, ...]) -> None:
        self.path, self.entry, self._crcs = path, entry, crcs

    @cached_property
    def _index(self) -> Any:
        """None where it can't be used: no faiss, or a file that isn't what was written (faiss never sees it)."""
        if not available():
            return None
        data = self.path.read_bytes()
        whole = tuple(zlib.crc32(data[at : at + (1 << 20)]) for at in range(0, len(data), 1 << 20))
        if whole != self._crcs:
            return None
        import faiss

        return faiss.deserialize_index(np.frombuffer(data, np.uint8))

    def useful(self, k: int, lo: int, hi: int, rows: int) -> bool:
        """Whether this question goes to the index: a wide window, few results, and the index can be read."""
        return (hi - lo) * NARROW >= rows and k * 100 <= rows and self._index is not None

    def search(self, vectors: np.ndarray, query: np.ndarray, k: int, lo: int, hi: int) -> Hits:
        """Up to ``k`` rows of [lo, hi) with exact scores, best first."""
        return _search(self._index, vectors, query, k, lo, hi, self.entry.nprobe)
