"""The approximate index of a large segment: inverted lists beside the exact vectors, with its recall measured.

    index.bin     a faiss ``IndexIVFScalarQuantizer`` (8 bits a dimension, inner product) of the segment's vectors

It is built when a segment is written with ``memory.index_rows`` rows or more, and says in the manifest how often its
answers are the exact ones, for questions that are none of its rows (:func:`questions_of`): pictures that differ much
from all of them, mixtures of two, and sentences as people ask them. ``nprobe`` must reach more than the goal on one
half of each kind and the goal on the other half; the manifest says the other half's recall, of the worst kind. Where
half of the lists aren't enough, a scan is as quick: then there is no index. What it finds is scored again on the
float16 vectors, so that scores are exact and only a miss is possible. A window that is narrower than a quarter is
scanned: there the lists hold mostly rows that nobody asked for.

Needs faiss; without it nothing is built, and segments that have an index are scanned.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streammem.storage.vectors import Hits, rescored, scan

GOAL = 0.99
"""Recall at ten that ``nprobe`` is chosen for."""
K = 10
MARGIN = 0.005
"""``nprobe`` must do so much better than the goal on the first half; what is said is the other half's recall."""
QUESTIONS = 80
"""Of each kind, half to choose by and half to measure with."""
NOISE = 0.75
"""Length of the noise on a row of norm 1: cosine 0.8 to the row it was made of. The same camera's next look has 0.9."""
WORDS: tuple[str, ...] = (
    "a person", "a red car", "a dog on the grass", "a cup on the table", "a bicycle", "the kitchen", "an open door",
    "a woman with a bag", "someone is cooking", "a train", "a white truck on the road", "a bird", "a chair",
    "two people are talking", "a computer screen", "a bottle of water", "a street at night", "a bed", "a boat",
    "a child with a ball", "a plant in a pot", "a traffic light", "a robot arm picks up a block", "shoes on the floor",
    "a knife", "a cat", "a book on a shelf", "a bus", "snow", "a man in a blue shirt", "a clock", "a sink", "a horse",
    "a box", "an airplane", "a window", "keys", "a lamp", "a phone in a hand", "the sea",
)  # fmt: skip
WORDS += tuple(f"{one} and {other}" for one, other in zip(WORDS, WORDS[7:] + WORDS[:7], strict=True))
"""Questions of people, :data:`QUESTIONS` of them: what is asked of a memory is text, far from every picture."""
NARROW = 4
MORE = 4
"""Candidates for each wanted row: the 8-bit scores are off by about 0.002."""


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What the manifest says of an index. ``recall``: the share of the exact ``k`` best that it gave at ``nprobe`` of
    ``lists`` lists, over ``questions`` questions of the kind where it is lowest; ``recalls``: of each kind."""

    name: str
    lists: int
    nprobe: int
    recall: float
    k: int = K
    questions: int = QUESTIONS // 2
    recalls: dict[str, float] = {}


def available() -> bool:
    return importlib.util.find_spec("faiss") is not None


def questions_of(vectors: np.ndarray, words: np.ndarray | None) -> dict[str, np.ndarray]:
    """By kind, (q, d) float32 unit vectors that are no rows of ``vectors`` (n, d): ``unlike`` are rows with as much
    noise, ``mixed`` sums of two rows, ``words`` (q, d) the space's vectors of :data:`WORDS`, where they are given."""
    rng = np.random.default_rng(1)
    one, two, three = (vectors[rng.integers(0, len(vectors), QUESTIONS)].astype(np.float32) for _ in range(3))
    asked = {"unlike": one + NOISE * _unit(rng.standard_normal(one.shape).astype(np.float32)), "mixed": two + three}
    if words is not None:
        asked["words"] = np.asarray(words, np.float32)
    return {kind: _unit(queries) for kind, queries in asked.items()}


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def build(vectors: np.ndarray, name: str, words: np.ndarray | None = None) -> tuple[IndexEntry, bytes] | None:
    """The index of ``vectors`` (n, d) float16 as bytes, and what to say of it; None where it would be no quicker than a
    scan. ``words``: see :func:`questions_of`. The same input gives the same index.

    Costs about 30 s of one core for a million rows of 384 dimensions, 0.5 s for 40,000."""
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
    chosen_by, said_by = {}, {}
    for kind, queries in questions_of(vectors, words).items():
        wanted = [set(scan(vectors, query, K, max_norm=2.0).rows.tolist()) for query in queries]
        asked = list(zip(queries, wanted, strict=True))
        chosen_by[kind], said_by[kind] = asked[::2], asked[1::2]
    nprobe = 1
    while any(
        _recall(index, vectors, chosen_by[kind], nprobe) < GOAL + MARGIN
        or _recall(index, vectors, said_by[kind], nprobe) < GOAL
        for kind in chosen_by
    ):
        nprobe = nprobe + max(1, nprobe // 2)
        if nprobe > lists // 2:
            return None
    recalls = {kind: round(_recall(index, vectors, asked, nprobe), 4) for kind, asked in said_by.items()}
    data = faiss.serialize_index(index).tobytes()
    entry = IndexEntry(name=name, lists=lists, nprobe=nprobe, recall=min(recalls.values()), recalls=recalls)
    return entry, data


def _recall(index: Any, vectors: np.ndarray, asked: Sequence[tuple[np.ndarray, set[int]]], nprobe: int) -> float:
    """The share of the rows that are wanted by these questions which the index finds."""
    found = (_search(index, vectors, query, K, 0, len(vectors), nprobe).rows for query, _ in asked)
    right = sum(len(exact & set(rows.tolist())) for (_, exact), rows in zip(asked, found, strict=True))
    return right / sum(len(exact) for _, exact in asked)


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
