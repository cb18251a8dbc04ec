"""What a question to the bank ``entities`` gets: facts with intervals, and the frames that support them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np

from streammem.banks.base import Between, Reader
from streammem.errors import QueryError
from streammem.model import FrameRef, Record, Status
from streammem.storage.blocks import Block

MOST = 1000
FRAMES = 8
"""Facts of one answer whose frames are looked up: 0.3 ms each among 85 streams."""


class Fact(msgspec.Struct, frozen=True):
    """``value`` of one attribute of one thing. It held from ``t_start_ns`` to ``t_end_ns`` (None: it holds still, as
    far as is known) and was last confirmed at ``t_last_ns``. ``record_ids``: the first and last moment that said so."""

    stream: str
    entity: str
    attribute: str
    t_start_ns: int
    t_last_ns: int
    t_end_ns: int | None = None
    value: str = ""
    relation: str = ""
    kind: str = ""
    n: int = 1
    confidence: float = 1.0
    status: Status = "active"
    record_ids: tuple[int, ...] = ()


class Told(msgspec.Struct, frozen=True):
    """An answer. ``total`` counts what there is, ``facts`` are the first ``limit`` of it; ``demoted`` of the total are
    known as a number only. ``closest``: names that resemble one that isn't known."""

    status: Literal["found", "not_seen", "unsure"]
    total: int = 0
    facts: tuple[Fact, ...] = ()
    frames: tuple[FrameRef, ...] = ()
    demoted: int = 0
    t_first_ns: int | None = None
    t_last_ns: int | None = None
    closest: tuple[str, ...] = ()
    note: str = ""


def frames_of(reader: Reader, facts: Sequence[Fact]) -> Iterator[FrameRef]:
    """The frames of the facts' moments that exist: by id, or, where that moment was merged, by time."""
    shown: set[int] = set()
    for fact in facts:
        times = (fact.t_start_ns, fact.t_last_ns)
        for number, t_ns in zip(fact.record_ids, times, strict=False):
            record = moment_at(reader, fact.stream, t_ns, number)
            if record is not None and record.record_id not in shown:
                shown.add(record.record_id)
                yield from reader.frame_refs(fact.stream, [record])


def moment_at(reader: Reader, stream: str, t_ns: int, number: int) -> Record | None:
    """The moment with this id, or whatever stands for that time now. Looked for by time: a look-up by id alone reads
    every segment's ids (5 ms among 85 streams)."""
    other: tuple[Block, int] | None = None
    for block in reader.blocks("moments", [stream], (t_ns, t_ns)):
        lo, hi = block.rows_between(t_ns, t_ns)
        ids, ends = block.record_ids[lo:hi], block.t_end_ns[lo:hi]
        for row in np.flatnonzero(ends >= t_ns).tolist():
            if int(ids[row]) == number:
                return block.record(lo + row)
            other = other or (block, lo + row)
    return None if other is None else other[0].record(other[1])


def by_time(fact: Fact) -> tuple[int, int, str, str, str]:
    return (fact.t_start_ns, fact.t_last_ns, fact.stream, fact.entity, fact.attribute)


def overlaps(start: int, end: int | None, between: Between | None) -> bool:
    lo, hi = between or (None, None)
    return (hi is None or start <= hi) and (lo is None or end is None or end >= lo)


def check(between: Between | None, limit: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST:
        raise QueryError(f"limit is {limit!r}", hint=f"give a number from 1 to {MOST}")
    lo, hi = between or (None, None)
    if lo is not None and hi is not None and lo > hi:
        raise QueryError("the time range ends before it starts", hint="give the earlier time first")
