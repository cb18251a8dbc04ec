"""``status``, ``digest`` and frames: what a memory says of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from streammem.model import FrameRef, Record
from streammem.storage import recovery
from streammem.storage.reports import BankStatus, Status, StreamStatus
from streammem.storage.words import MOST_TERMS, WordHit

if TYPE_CHECKING:
    from streammem.storage.engine import Engine


def digest_of(engine: Engine) -> str:
    """Over (bank, stream, count, sum of row digests): a sum, so that neither order nor segment borders matter."""
    state = hashlib.blake2b(digest_size=16)
    store = engine.store
    engine.banks.make_all()
    names = {segment.bank for segment in store.segments} | {bank for bank, _ in store.parts}
    for bank in sorted(names):
        for stream, (count, digest) in sorted(contents_of(engine, bank).items()):
            state.update(repr((bank, stream, count, digest)).encode("utf-8", "surrogatepass"))
    for _, bank_object in sorted(engine.banks.items()):
        for stream in sorted({*store.seen}):
            state.update(bank_object.digest(stream))
    return state.hexdigest()


def status_of(engine: Engine, mode: str) -> Status:
    store = engine.store
    engine.banks.make_all()
    ram = {name: bank.ram_bytes() for name, bank in engine.banks.items()}
    disk: dict[str, int] = {}
    rows: dict[str, int] = {}
    for segment in store.segments:
        disk[segment.bank] = disk.get(segment.bank, 0) + segment.manifest.bytes
        rows[segment.bank] = rows.get(segment.bank, 0) + segment.manifest.rows
    for (bank, _), part in store.parts.items():
        ram[bank] = ram.get(bank, 0) + part.ram_bytes
        rows[bank] = rows.get(bank, 0) + len(part)
    caps = {name: int(getattr(bank, "cap_bytes", 0)) for name, bank in engine.banks.items()}
    caps |= {"moments": engine.caps.segments, "short_term": engine.caps.short_term}
    banks = tuple(
        BankStatus(name, rows.get(name, 0), disk.get(name, 0), ram.get(name, 0), caps.get(name, 0))
        for name in sorted({"moments", *ram, *disk})
    )
    totals: dict[str, int] = {}
    for counts in store.drops.values():
        for reason, n in counts.items():
            totals[reason] = totals.get(reason, 0) + n
    spaces = {segment.space for segment in store.segments} | {part.space for part in store.parts.values()}
    streams = tuple(_stream(engine, info.stream) for info in engine.stream_infos())
    catalog_bytes = store.catalog.disk_bytes
    return Status(
        directory=str(engine.directory),
        mode=mode,
        format=recovery.FORMAT,
        observations=sum(stream.observations for stream in streams),
        records=sum(rows.values()),
        segments=len(store.segments),
        disk_bytes=store.segment_bytes + engine.journal.bytes + catalog_bytes,
        disk_cap_bytes=engine.config.budget.disk_bytes,
        ram_bytes=sum(ram.values()),
        ram_cap_bytes=engine.config.budget.ram_bytes,
        journal_bytes=engine.journal.bytes,
        journal_unsynced_bytes=engine.journal.unsynced_bytes,
        catalog_bytes=catalog_bytes,
        banks=banks,
        streams=streams,
        spaces=tuple(sorted(space for space in spaces if space)),
        drops=dict(sorted(totals.items())),
        corruption=tuple(store.damage),
        quarantined_segments=len(store.quarantined),
        notes=tuple(engine.notes),
    )


def _stream(engine: Engine, stream: str) -> StreamStatus:
    store = engine.store
    segments = [entry for entry in store.segments if entry.stream == stream and entry.bank == "moments"]
    part = store.parts.get(("moments", stream))
    open_rows = len(part) if part is not None else 0
    levels: dict[int, int] = {}
    for segment in segments:
        level = segment.manifest.level
        levels[level] = levels.get(level, 0) + segment.manifest.rows
    if open_rows:
        levels[0] = levels.get(0, 0) + open_rows
    times = [(entry.manifest.t_min_ns, entry.manifest.t_max_ns) for entry in segments if entry.manifest.rows]
    if part is not None and open_rows:
        times.append((part.t_min_ns, part.t_max_ns))
    return StreamStatus(
        stream=stream,
        observations=sum(entry.manifest.count for entry in segments) + (part.count if part is not None else 0),
        records=sum(entry.manifest.rows for entry in segments) + open_rows,
        open_records=open_rows,
        segments=len(segments),
        t_min_ns=min((start for start, _ in times), default=None),
        t_max_ns=max((end for _, end in times), default=None),
        bytes=sum(entry.manifest.bytes for entry in segments) + (part.bytes if part is not None else 0),
        drops=dict(sorted(store.drops.get(stream, {}).items())),
        levels=dict(sorted(levels.items())),
    )


def frame_refs_of(engine: Engine, stream: str, records: Sequence[Record]) -> list[FrameRef]:
    """In the order of the records; a merged record is shown by its first moment."""
    info = engine.store.infos.get(stream)
    in_source = info is not None and bool(info.source) and Path(info.source).exists()
    refs: list[FrameRef] = []
    for record in records:
        kept = False
        for block in engine.store.blocks(record.bank, [stream], (record.t_start_ns, record.t_end_ns)):
            row = block.find(record.record_id)  # type: ignore[attr-defined]
            if row is not None:
                kept = bool(block.has_thumbnail[row])
                break
        if kept or in_source:
            where: Literal["memory", "source"] = "memory" if kept else "source"
            refs.append(FrameRef(stream, record.t_start_ns, record.record_id, where))
    return refs


def contents_of(engine: Engine, bank: str) -> dict[str, tuple[int, int]]:
    """Observations and digest sum by stream."""
    totals: dict[str, tuple[int, int]] = {}
    for segment in engine.store.segments:
        if segment.bank == bank:
            count, digest = totals.get(segment.stream, (0, 0))
            manifest = segment.manifest
            totals[segment.stream] = (count + manifest.count, (digest + int(manifest.digest, 16)) % 2**64)
    for (part_bank, stream), part in engine.store.parts.items():
        if part_bank == bank and len(part):
            count, digest = totals.get(stream, (0, 0))
            totals[stream] = (count + part.count, (digest + part.digest) % 2**64)
    return totals


def search_text_of(
    engine: Engine, query: str, streams: Sequence[str] | None, between: tuple[int | None, int | None] | None, limit: int
) -> list[WordHit]:
    sealed = engine.store.words.search(query, streams, between, limit)
    terms = list(dict.fromkeys(query.split()))[:MOST_TERMS]
    open_hits: list[WordHit] = []
    for (bank, stream), part in engine.store.parts.items():
        if bank == "moments" and len(part) and (streams is None or stream in streams):
            open_hits += part.search_text(terms, between)
    hits = sorted([*open_hits, *sealed], key=lambda hit: (-hit.score, hit.t_start_ns, hit.record_id))
    return hits[:limit]
