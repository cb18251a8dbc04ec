"""Small segments become larger ones, so that months of stream are hundreds of segments and not tens of thousands.

A segment costs about ten open files and memory maps, and a look at every search; Linux allows a process 65,530 maps.
So whenever eight neighbours of one bank and stream are of about the same size, they become one: a segment is rewritten
once for each factor of eight that it grows by, and there are at most seven of a size. What is merged depends on the
segments alone, never on a clock, and it happens in ``tidy``, right after a seal: there is no daemon.

A merge is one swap: the new segment is written beside the old ones, and one catalogue transaction puts it in their
place. A kill before it leaves a directory that the next opening removes, and the same merge is due again. Rows keep
their digests, so that the memory's digest doesn't change.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from heapq import merge
from typing import TYPE_CHECKING

import numpy as np

from streammem.errors import CorruptData
from streammem.storage.budget import is_pinned
from streammem.storage.intervals import IntervalSet
from streammem.storage.segment_writer import Row
from streammem.storage.segments import Segment

if TYPE_CHECKING:
    from streammem.storage.store import Store

FAN = 8
"""Neighbours that become one. Fewer would rewrite more often, more would leave more segments: 8 writes every byte three
times on its way from 64 KB to 32 MB and leaves at most 7 of each size."""
SMALLEST = 64 << 10
"""Below this all sizes count as one."""
MERGES = 4
"""In one ``tidy``: a memory with thousands of small segments is mended over many seals."""


def tier_of(size: int) -> int:
    """0 up to 64 KB, 1 up to 512 KB, and so on."""
    tier = 0
    while size > SMALLEST * FAN**tier:
        tier += 1
    return tier


def due(store: Store, most_bytes: int) -> list[Segment] | None:
    """The oldest eight neighbours that should become one of at most ``most_bytes``; None where there are none.

    Neighbours are of the same bank, stream, embedding space and demotion level; what is pinned isn't mixed with what
    isn't, because a pin keeps a segment as a whole."""
    runs: dict[tuple[str, str], list[Segment]] = {}
    kinds: dict[tuple[str, str], tuple[object, ...]] = {}
    for segment in store.segments:
        manifest = segment.manifest
        place = (manifest.bank, manifest.stream)
        kind = (manifest.space, manifest.level, tier_of(manifest.bytes), is_pinned(segment, store.pins))
        if kinds.get(place) != kind:
            kinds[place], runs[place] = kind, []
        run = runs[place]
        run.append(segment)
        if len(run) == FAN:
            if sum(each.manifest.bytes for each in run) <= most_bytes:
                return run
            del run[0]
    return None


def merge_segments(store: Store, run: Sequence[Segment]) -> bool:
    """Replace neighbours by one segment. False where one of them is damaged: it is quarantined."""
    for segment in run:
        if not store.usable(segment):
            return False
    try:
        fresh = store.meanwhile(partial(_written, store, run))
        records = [fresh.record(int(row)) for row in np.flatnonzero(fresh.has_words)]
    except CorruptData as error:
        damaged = next((segment for segment in run if segment.name in error.path), None)
        if damaged is None:
            raise
        store.quarantine(damaged, error)
        return False
    store.swap([(fresh, records)], run)
    return True


def _written(store: Store, run: Sequence[Segment]) -> Segment:
    """The new segment on disk. Touches no state of the store: it runs beside the writer."""
    rows: list[Row] = list(
        merge(*(_rows(segment) for segment in run), key=lambda row: (row.record.t_start_ns, row.record.record_id))
    )
    sequences: dict[str, list[tuple[int, int]]] = {}
    for segment in run:
        for session, spans in segment.manifest.sequences.items():
            sequences.setdefault(session, []).extend(spans)
    known = [found for segment in run if (found := segment.statistics()) is not None]
    last = run[-1].manifest
    return store.write(
        rows,
        bank=last.bank,
        stream=last.stream,
        lsn_first=run[0].manifest.lsn_first,
        lsn=last.lsn,
        generation=max(segment.manifest.generation for segment in run) + 1,
        replaces=tuple(segment.name for segment in run),
        statistics=np.sum(known, axis=0) if known else None,
        sequences={session: _joined(spans) for session, spans in sequences.items()},
    )


def _rows(segment: Segment) -> list[Row]:
    return [segment.row(at) for at in range(len(segment))]


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return list(IntervalSet(sorted(spans)))


def merge_small(store: Store, most_bytes: int) -> int:
    """What is due, at most ``MERGES`` of them. Returns how many were made."""
    made = 0
    while made < MERGES and (run := due(store, most_bytes)) is not None:
        if not merge_segments(store, run):
            break
        made += 1
    return made
