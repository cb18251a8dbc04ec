"""Contact sheets of answers, hits and stretches of a memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streammem.clock import StreamClock
from streammem.errors import QueryError
from streammem.model import Answer, Evidence, FrameRef, Label, Record, Why
from streammem.render import FrameAt, contact_sheet, tiles_of, write_png

if TYPE_CHECKING:
    from streammem.cli.watched import Opened
    from streammem.client import Client
    from streammem.memory import Memory

MOST_TILES = 24
"""Eight rows of three: a sheet of about 4,000 pixels is the longest that is still looked at whole."""

ClockOf = Callable[[str], StreamClock]


def write_answer_sheet(path: str, answer: Answer, opened: Opened, frame_at: FrameAt, clock_of: ClockOf) -> Path:
    """The question, the answer and its moments; where nothing was found, the closest ones."""
    shown = answer.evidence or answer.closest
    return write_moments_sheet(
        path, shown, opened, frame_at, clock_of, title=answer.question, subtitle=answer.text, status=answer.status
    )


def write_moments_sheet(
    path: str,
    moments: Sequence[Evidence],
    opened: Opened,
    frame_at: FrameAt,
    clock_of: ClockOf,
    *,
    title: str,
    subtitle: str = "",
    status: str = "",
    scores: bool = True,
) -> Path:
    """One tile a moment; its best frame is decoded again where the source is still there."""
    tiles = tiles_of(
        moments[:MOST_TILES],
        thumbnail=opened.memory.thumbnail,
        frame_at=frame_at,
        clock_of=clock_of,
        name_streams=len(opened.memory.streams()) > 1,
        scores=scores,
    )
    footer = f"{opened.name} · streammem"
    return write_png(path, contact_sheet(title, tiles, subtitle=subtitle, status=status, footer=footer))


def overview(memory: Memory, between: tuple[int, int] | None, streams: Sequence[str] | None, n: int) -> list[Evidence]:
    """Up to ``n`` moments spread evenly over what is remembered, each a record with a picture of its own."""
    rows: list[tuple[int, int, Any]] = []
    for block in memory.blocks("moments", streams=streams, between=between):
        lo, hi = block.rows_between(*(between or (None, None)))
        for row in np.flatnonzero(block.has_thumbnail[lo:hi]) + lo:
            t_ns = int(block.t_start_ns[row])
            if between is None or between[0] <= t_ns <= between[1]:
                rows.append((t_ns, int(row), block))
    rows.sort(key=lambda item: (item[0], int(item[2].record_ids[item[1]])))
    if len(rows) > n:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, n).round().astype(int)]
    return [as_evidence(block.record(row)) for _, row, block in rows]


def nearest(memory: Memory, t_ns: int, streams: Sequence[str] | None) -> list[Evidence]:
    """The record with a picture that is nearest to ``t_ns``, one for each stream."""
    best: dict[str, tuple[int, int, Any]] = {}
    for block in memory.blocks("moments", streams=streams):
        rows = np.flatnonzero(block.has_thumbnail)
        if not len(rows):
            continue
        distances = np.abs(block.t_start_ns[rows] - t_ns)
        row = int(rows[int(distances.argmin())])
        distance = int(distances.min())
        if block.stream not in best or distance < best[block.stream][0]:
            best[block.stream] = (distance, row, block)
    return [as_evidence(block.record(row)) for _, (_, row, block) in sorted(best.items())]


def of_records(memory: Memory | Client, ids: Sequence[str]) -> list[Evidence]:
    """The records with these ids (16 hexadecimal digits, as answers name them). Raises QueryError for one that isn't
    there, or isn't an id."""
    found = []
    for text in ids[:MOST_TILES]:
        try:
            number = int(text, 16)
        except ValueError:
            raise QueryError(
                f"{text[:40]!r} is no record's id", hint="16 hexadecimal digits, from `ask --json`"
            ) from None
        record = memory.record(number)
        if record is None:
            raise QueryError(f"no record {text[:40]!r} is remembered", hint="it may have been merged or forgotten")
        found.append(as_evidence(record))
    return found


def as_evidence(record: Record) -> Evidence:
    """A record as a moment of its own, with what was seen in it as the reason."""
    return Evidence(
        stream=record.stream,
        t_start_ns=record.t_start_ns,
        t_end_ns=record.t_end_ns,
        frames=(FrameRef(record.stream, record.t_start_ns, record.record_id, "memory"),),
        record_ids=(record.record_id,),
        score=record.confidence,
        why=_seen(record),
    )


def _seen(record: Record) -> tuple[Why, ...]:
    found: list[Why] = []
    best: list[Label] = sorted(record.labels, key=lambda label: -label.score)[:3]
    if best:
        found.append(Why("label", best[0].score, ", ".join(label.name for label in best)))
    if record.texts:
        found.append(Why("text", record.texts[0].score, " ".join(span.text for span in record.texts[:3])))
    if record.speech:
        found.append(Why("speech", record.speech[0].score, " ".join(span.text for span in record.speech[:2])))
    return tuple(found)
