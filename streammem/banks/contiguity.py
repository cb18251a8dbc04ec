"""Contiguity: what happened right before and after belongs to what was found (EM-LLM, section 3.3). Not a bank.

Of a budget of k events the share 1 - r goes to the closest ones; the rest is filled by walking those in the order of
their scores and adding the event after, then the event before, unless it is there already. All come back in the order
of time. Similarity should keep the larger part (r <= 0.5). EM-LLM's buffer persists between queries of one generation;
a question here stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from streammem.banks.base import Between, Reader
from streammem.errors import QueryError, SpaceMismatch
from streammem.model import Record, show_id

MOST = 256
"""Events that one question may ask for."""


class Contiguous(msgspec.Struct, frozen=True, kw_only=True):
    """An event and why it is here: it is close itself, or a neighbour of one that is. ``score``: the largest cosine
    with the event's mean and medoids."""

    id: str
    stream: str
    t_start_ns: int
    t_end_ns: int
    score: float
    why: Literal["similar", "neighbour"]
    open: bool = False


class _Row(msgspec.Struct, frozen=True):
    record: int
    stream: str
    t_start_ns: int
    t_end_ns: int
    score: float
    open: bool


def read_query(reader: Reader, space_id: str, query: str, vector: Sequence[float] | None, dim: int) -> np.ndarray:
    """The question as a unit vector (dim,) float32 of a space. Raises QueryError, SpaceMismatch."""
    if bool(query) == (vector is not None):
        raise QueryError("give either a query in words or a vector", hint="query='...' or vector=[...]")
    if vector is None:
        space = reader.space(space_id)
        if space is None:
            raise SpaceMismatch(f"the embedding space {space_id} isn't installed here", hint="ask with a vector")
        return space.embed_text([query])[0].astype(np.float32)
    values = np.asarray(vector, np.float32)
    length = float(np.linalg.norm(values)) if values.ndim == 1 else 0.0
    if values.shape != (dim,) or not np.isfinite(length) or length == 0.0:
        raise SpaceMismatch(
            f"the vector has shape {values.shape}, vectors of {space_id} have ({dim},)", hint="finite and not zero"
        )
    return values / length


def choose(scores: np.ndarray, streams: Sequence[str], k: int, contiguity: float) -> tuple[list[int], set[int]]:
    """Rows are sorted by (stream, time). Returns the chosen rows, sorted, and those among them that are similar
    themselves. At most ``k``; ties go to the earlier row."""
    order = np.lexsort((np.arange(len(scores)), -scores))
    similar = [int(at) for at in order[: max(1, round((1.0 - contiguity) * k))]] if k else []
    chosen = list(similar)
    for at in similar:
        for near in (at + 1, at - 1):
            inside = 0 <= near < len(scores) and streams[near] == streams[at]
            if len(chosen) < k and inside and near not in chosen:
                chosen.append(near)
    return sorted(chosen), set(similar)


def recall_with_neighbours(
    reader: Reader,
    open_events: Sequence[Record],
    streams: Sequence[str] | None,
    query: str,
    vector: Sequence[float] | None,
    k: int,
    contiguity: float,
    between: Between,
) -> list[Contiguous]:
    """See ``EventsBank``'s question ``recall``. Events of several spaces are asked each in its own."""
    if not 1 <= k <= MOST:
        raise QueryError(f"k is {k}", hint=f"1 to {MOST}")
    if not 0.0 <= contiguity <= 0.5:
        raise QueryError(f"contiguity is {contiguity}", hint="0 to 0.5: similarity keeps the larger part")
    rows: list[_Row] = []
    asked: dict[str, np.ndarray] = {}
    low, high = between

    def score(space: str, vectors: np.ndarray) -> float:
        if space not in asked:
            asked[space] = read_query(reader, space, query, vector, vectors.shape[1])
        return float((vectors.astype(np.float32) @ asked[space]).max())

    for block in reader.blocks("events", streams, between):
        if block.space is None:
            continue
        lo, hi = block.rows_between(low, high)
        columns = block.columns(lo, hi)
        for row in range(lo, hi):
            parts = [
                columns[name].rows(row - lo, row - lo + 1).values for name in ("vector", "keys") if name in columns
            ]
            both = np.concatenate(parts) if parts else np.empty((0, 0))
            if len(both):
                start, end = int(block.t_start_ns[row]), int(block.t_end_ns[row])
                rows.append(_Row(int(block.record_ids[row]), block.stream, start, end, score(block.space, both), False))
    for event in open_events:
        if event.vector is not None and event.space is not None:
            both = np.concatenate([event.vector[None], event.arrays["keys"].astype(np.float32)])
            value = score(event.space, both)
            rows.append(_Row(0, event.stream, event.t_start_ns, event.t_end_ns, value, True))
    rows = sorted(
        (row for row in rows if (low is None or row.t_end_ns >= low) and (high is None or row.t_start_ns <= high)),
        key=lambda row: (row.stream, row.t_start_ns, row.record),
    )
    chosen, similar = choose(np.array([row.score for row in rows]), [row.stream for row in rows], k, contiguity)
    return [
        Contiguous(
            id="" if rows[at].open else show_id(rows[at].record),
            stream=rows[at].stream,
            t_start_ns=rows[at].t_start_ns,
            t_end_ns=rows[at].t_end_ns,
            score=rows[at].score,
            why="similar" if at in similar else "neighbour",
            open=rows[at].open,
        )
        for at in chosen
    ]
