"""Forgetting: an interval, a stream, or an interval of a stream leaves every place where it was kept.

Open rows go, banks drop it, the affected streams are sealed, segments that overlap are written anew without it, and
one transaction swaps them, with the text index and the small state. The caller then compacts the journal. Where a
merged row overlaps the interval, the whole row goes: rather too much than too little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from streammem.checks import check_name
from streammem.errors import CorruptData
from streammem.model import Record
from streammem.storage.catalog import Catalog
from streammem.storage.demotion import mix
from streammem.storage.open_part import statistics_of
from streammem.storage.reports import ForgetReport
from streammem.storage.segment_writer import Row, stream_hash
from streammem.storage.segments import Segment
from streammem.storage.store import Store

EVER = (-(2**63), 2**63 - 1)
SPEECH_REACH_NS = 600 * 10**9
"""Speech may outlast the moment that it was written with; segments this near are looked through for it."""


def interval(stream: str | None, between: tuple[int | None, int | None] | None) -> bytes:
    """A stream and a closed interval, as the journal holds them. Raises ObservationError for a name no stream has."""
    if stream is not None:
        check_name(stream, "stream")
    start, end = between or (None, None)
    first, last = EVER
    return msgspec.msgpack.encode((stream, first if start is None else int(start), last if end is None else int(end)))


class Forget(NamedTuple):
    """What to forget: ``stream`` None is every stream; ``lsn`` is the journal entry that says so."""

    stream: str | None
    t_start_ns: int
    t_end_ns: int
    lsn: int

    @property
    def everything(self) -> bool:
        return (self.t_start_ns, self.t_end_ns) == EVER

    def without(self, row: Row) -> Row | None:
        """The row with what remains of it; None if nothing does."""
        record = row.record
        if record.t_start_ns <= self.t_end_ns and record.t_end_ns >= self.t_start_ns:
            return None
        speech = tuple(
            said for said in record.speech if said.t_start_ns > self.t_end_ns or said.t_end_ns < self.t_start_ns
        )
        if len(speech) == len(record.speech):
            return row
        return Row(replace(record, speech=speech), mix((row.digest,), record.level))


class _Tally:
    def __init__(self) -> None:
        self.records = self.observations = self.thumbnails = self.segments = self.bytes = 0
        self.streams: set[str] = set()

    def add(self, record: Record, has_thumbnail: bool) -> None:
        self.records += 1
        self.observations += record.count if record.bank == "moments" else 0  # a bank's record stands for the same
        self.thumbnails += has_thumbnail
        self.streams.add(record.stream)


def forget_rows(store: Store, banks: Mapping[str, Any], request: Forget) -> ForgetReport:
    """Forget in open parts, banks, segments, text index and small state. Doing it twice does nothing more."""
    tally = _Tally()
    known = {*store.seen, *store.infos, *(stream for _, stream in store.parts)}
    known |= {segment.stream for segment in store.segments}
    chosen = known if request.stream is None else known & {request.stream}
    for (_, stream), part in sorted(store.parts.items()):
        if stream in chosen:
            for record in part.replace_rows(request.without):
                tally.add(record, record.thumbnail is not None)
    for stream in sorted(chosen):
        store.citations.forget(stream, request.t_start_ns, request.t_end_ns)
        for name, bank in banks.items():
            bank.forget(stream, request.t_start_ns, request.t_end_ns)
            store.bank_states.setdefault(name, {})[stream] = bank.state(stream)
        if any(len(part) for (_, name), part in store.parts.items() if name == stream):
            store.seal(stream, request.lsn)
        else:
            store.sealed_lsn[stream] = request.lsn
    _forget_sealed(store, request, chosen, tally)
    _forget_quarantined(store, request)
    if tally.records or chosen:
        store.write_checkpoint_file()
    return ForgetReport(
        tally.records,
        tally.observations,
        tally.thumbnails,
        tally.segments,
        tuple(sorted(tally.streams)),
        max(tally.bytes, 0),
    )


def _forget_sealed(store: Store, request: Forget, chosen: set[str], tally: _Tally) -> None:
    fresh: list[tuple[Segment, list[Record]]] = []
    old: list[Segment] = []
    for segment in list(store.segments):
        if segment.stream not in chosen or not _near(segment, request):
            continue
        try:
            rows = [segment.row(at) for at in range(len(segment))]
        except CorruptData as error:
            store.quarantine(segment, error)  # ... and deleted with the other quarantined ones
            continue
        kept = [row for row in map(request.without, rows) if row is not None]
        if len(kept) == len(rows) and all(new is was for new, was in zip(kept, rows, strict=True)):
            continue
        survivors = {row.record.record_id for row in kept}
        for row in rows:
            if row.record.record_id not in survivors:
                tally.add(row.record, row.record.thumbnail is not None)
        old.append(segment)
        tally.segments += 1
        tally.bytes += segment.manifest.bytes
        if not kept:
            continue
        statistics = statistics_of(kept, segment.space, store.find_space) if segment.manifest.level < 3 else None
        new = store.write(
            kept,
            like=segment.manifest,
            generation=segment.manifest.generation + 1,
            replaces=(segment.name,),
            statistics=statistics,
            sequences=segment.manifest.sequences,
        )
        tally.bytes -= new.manifest.bytes
        fresh.append((new, [row.record for row in kept]))

    def small_state(catalog: Catalog) -> None:
        for stream in sorted(chosen):
            if request.everything:
                catalog.forget_stream(stream)
                continue
            catalog.set_stream(stream, store.sealed_lsn.get(stream, 0), store.infos.get(stream))
            for name, states in store.bank_states.items():
                if stream in states:
                    catalog.set_bank_state(name, stream, states[stream])
        for key in gone_keys:
            catalog.remove_state(key)
        catalog.set_fact("citations", msgspec.msgpack.encode(store.citations))

    gone_keys = _forget_small(store, request, chosen) if request.everything else []
    store.swap(fresh, old, small_state)


def _forget_small(store: Store, request: Forget, chosen: set[str]) -> list[str]:
    """Everything by the streams' names, and states whose key holds one. Returns the keys of the states removed."""
    for stream in chosen:
        for table in (store.infos, store.seen, store.sealed_sequences, store.sealed_lsn, store.drops):
            table.pop(stream, None)
        for states in store.bank_states.values():
            states.pop(stream, None)
    store.pins = [pin for pin in store.pins if pin[0] not in chosen]
    keys = [key for key in store.states if request.stream is None or request.stream in key]
    for key in keys:
        del store.states[key]
    store.forget_dirty(chosen, keys)
    return keys


def _near(segment: Segment, request: Forget) -> bool:
    manifest = segment.manifest
    reach = SPEECH_REACH_NS if segment.has_words.any() else 0
    return manifest.t_min_ns - reach <= request.t_end_ns and manifest.t_max_ns + reach >= request.t_start_ns


def _forget_quarantined(store: Store, request: Forget) -> None:
    """Damaged copies may hold what is to be forgotten, and nobody can tell: they go."""
    mark = None if request.stream is None else f"-{stream_hash(request.stream)}-"
    names = [name for name in store.quarantined if mark is None or mark in name]
    if names:
        with store.catalog.transaction():
            for name in names:
                store.catalog.remove_segment(name)
                store.words.remove(name)
        for name in names:
            del store.quarantined[name]
            store.files.remove_tree(store.directory / "segments" / name)
    store.files.remove_tree(store.directory / "quarantine")
    store.files.remove_tree(store.directory / "reembed")  # copies with other vectors (streammem/reembedding.py)
