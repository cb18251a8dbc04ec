"""Search from coarse to fine: events, then clips, then moments (HCAM, Lampinen et al. 2021, untrained). Not a bank.

Stage 1 compares the question with what stands for each event (its mean and its medoids, the best counts) and keeps the
``k`` best; every further level keeps the best among what is left; the last stage scans the moments inside exactly. What
no event covers is always scanned: the open event, moments from before the bank was on, gaps. So with k covering all
events the result is that of a scan of everything, and with less it only ever misses what a summary hid.

HCAM's softmax over the chosen chunks isn't applied: it would weigh a moment by its neighbours, and no k would give the
scan's order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from streammem.banks.base import Between, Reader
from streammem.banks.contiguity import read_query
from streammem.errors import QueryError, SpaceMismatch
from streammem.model import show_id
from streammem.storage.blocks import Block

ENDS = (-(2**63), 2**63 - 1)
MOST = 1000
Spans = list[tuple[int, int]]
"""Closed intervals of time in ns, sorted, disjoint."""


class Level(NamedTuple):
    """A bank whose records stand for stretches of time, and how many of them to keep."""

    bank: str
    k: int


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A moment. ``event`` is the event that it is in, empty where none covers it."""

    id: str
    stream: str
    t_ns: int
    score: float
    event: str = ""


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """Hits best first. ``scanned`` of ``moments`` were compared in the last stage; ``kept`` of ``events`` in the
    first."""

    hits: tuple[Hit, ...]
    scanned: int
    moments: int
    kept: int
    events: int


class _Stood(NamedTuple):
    """One record of a level."""

    stream: str
    start: int
    end: int
    score: float
    record: int


def default_k(count: int) -> int:
    """Events to keep of ``count``: with a fixed number recall falls as the memory grows, so it grows with its logarithm
    (32 of 250, 53 of 10,000)."""
    return max(8, math.ceil(4 * math.log2(count + 1)))


def search_staged(
    reader: Reader,
    *,
    streams: Sequence[str] | None = None,
    between: Between = (None, None),
    query: str = "",
    vector: Sequence[float] | None = None,
    top: int = 5,
    events: int | None = None,
    clips: int | None = None,
    keys: bool = True,
) -> Staged:
    """The ``top`` moments by cosine with a text or a vector. ``events``, ``clips``: how many of each to keep (default:
    :func:`default_k`, and no clip level); ``keys=False`` compares with the means alone. Raises QueryError,
    SpaceMismatch."""
    if not 1 <= top <= MOST or (events is not None and events < 0) or (clips is not None and clips < 0):
        raise QueryError(f"top is {top}, events {events}, clips {clips}", hint=f"top 1 to {MOST}, the others from 0")
    moments = [block for block in reader.blocks("moments", streams, between) if len(block) and block.space]
    spaces = sorted({block.space for block in moments if block.space})
    hits: list[Hit] = []
    scanned = total = kept = known = 0
    refused: SpaceMismatch | None = None
    for space in spaces:
        own = [block for block in moments if block.space == space]
        try:
            asked = read_query(reader, space, query, vector, _width(own))
        except SpaceMismatch as error:
            refused = error
            continue
        scope: dict[str, Spans] = {block.stream: [_closed(between)] for block in own}
        stood = _records(reader, "events", space, streams, between, asked, keys)
        levels = [(stood, default_k(len(stood)) if events is None else events)]
        if clips is not None:
            levels.append((_records(reader, "clips", space, streams, between, asked, keys), clips))
        known += len(stood)
        for number, (records, k) in enumerate(levels):
            chosen = _narrow(scope, records, k)
            kept += chosen if number == 0 else 0
        found, count = _scan(own, scope, asked, top, stood)
        hits += found
        scanned += count
        total += sum(_count(block, _closed(between)) for block in own)
    if spaces and refused is not None and not total:
        raise refused
    hits.sort(key=lambda hit: (-hit.score, hit.t_ns, hit.stream, hit.id))
    return Staged(hits=tuple(hits[:top]), scanned=scanned, moments=total, kept=kept, events=known)


def _closed(between: Between) -> tuple[int, int]:
    low, high = between
    return (ENDS[0] if low is None else low, ENDS[1] if high is None else high)


def _width(blocks: Sequence[Block]) -> int:
    for block in blocks:
        column = block.columns(0, 0).get("vector")
        if column is not None:
            return int(column.values.shape[1])
    return 0


def _records(
    reader: Reader,
    bank: str,
    space: str,
    streams: Sequence[str] | None,
    between: Between,
    asked: np.ndarray,
    keys: bool,
) -> list[_Stood]:
    """Every record of a level with its score: the best cosine with its mean, and its medoids if ``keys``."""
    found = []
    low, high = between
    for block in reader.blocks(bank, streams, between):
        if block.space != space:
            continue
        lo, hi = block.rows_between(low, high)
        if lo >= hi:
            continue
        columns = block.columns(lo, hi)
        scores = np.full(hi - lo, -np.inf)
        for name in ("vector", "keys") if keys else ("vector",):
            column = columns.get(name)
            if column is not None and len(column.values):
                np.maximum.at(scores, column.row_of, column.values.astype(np.float32) @ asked)
        starts, ends, ids = block.t_start_ns[lo:hi], block.t_end_ns[lo:hi], block.record_ids[lo:hi]
        found += [
            _Stood(block.stream, int(a), int(b), float(s), int(n))
            for a, b, s, n in zip(starts, ends, scores, ids, strict=True)
        ]
    return found


def _narrow(scope: dict[str, Spans], records: Sequence[_Stood], k: int) -> int:
    """Leave in scope the ``k`` best records that overlap it, and what no record covers. Returns how many were kept."""
    inside = [record for record in records if _meet([(record.start, record.end)], scope.get(record.stream, []))]
    best = sorted(inside, key=lambda record: (-record.score, record.start, record.record))[:k]
    for stream, spans in scope.items():
        covered = _join([(record.start, record.end) for record in records if record.stream == stream])
        wanted = [(record.start, record.end) for record in best if record.stream == stream]
        scope[stream] = _meet(spans, _join([*wanted, *_rest(covered)]))
    return len(best)


def _scan(
    blocks: Sequence[Block], scope: dict[str, Spans], asked: np.ndarray, top: int, events: Sequence[_Stood]
) -> tuple[list[Hit], int]:
    hits: list[Hit] = []
    count = 0
    for block in blocks:
        for low, high in scope[block.stream]:
            lo = int(np.searchsorted(block.t_start_ns, low, "left"))
            hi = int(np.searchsorted(block.t_start_ns, high, "right"))
            if lo >= hi:
                continue
            count += hi - lo
            scores, rows = block.search(asked, top, lo, hi)
            hits += [
                Hit(
                    id=show_id(int(block.record_ids[row])),
                    stream=block.stream,
                    t_ns=int(block.t_start_ns[row]),
                    score=float(score),
                )
                for score, row in zip(scores, rows, strict=True)
            ]
    hits = sorted(hits, key=lambda hit: (-hit.score, hit.t_ns, hit.stream, hit.id))[:top]
    return [msgspec.structs.replace(hit, event=_event_at(hit, events)) for hit in hits], count


def _event_at(hit: Hit, events: Sequence[_Stood]) -> str:
    for event in events:
        if event.stream == hit.stream and event.start <= hit.t_ns <= event.end:
            return show_id(event.record)
    return ""


def _count(block: Block, span: tuple[int, int]) -> int:
    return int(np.searchsorted(block.t_start_ns, span[1], "right") - np.searchsorted(block.t_start_ns, span[0], "left"))


def _join(spans: Sequence[tuple[int, int]]) -> Spans:
    """Union."""
    joined: Spans = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _rest(spans: Spans) -> Spans:
    """Complement."""
    rest, at = [], ENDS[0]
    for start, end in spans:
        if start > at:
            rest.append((at, start - 1))
        at = end + 1
    return [*rest, (at, ENDS[1])] if at <= ENDS[1] else rest


def _meet(one: Spans, other: Spans) -> Spans:
    """Intersection."""
    met: Spans = []
    a = b = 0
    while a < len(one) and b < len(other):
        start, end = max(one[a][0], other[b][0]), min(one[a][1], other[b][1])
        if start <= end:
            met.append((start, end))
        if one[a][1] < other[b][1]:
            a += 1
        else:
            b += 1
    return met
