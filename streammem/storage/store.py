"""What is sealed and what is open: segments, open parts, small state, and the steps that move one into the other.

``Store`` knows no banks and no journal entries; ``streammem.memory`` drives it. Every change of the set of segments is
one catalogue transaction (``swap``), after which the old directories are garbage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streammem.errors import CorruptData, StreammemError
from streammem.model import Record, StreamInfo
from streammem.storage.approximate import WORDS
from streammem.storage.blocks import Block
from streammem.storage.catalog import Catalog, Checkpoint, Pin
from streammem.storage.files import Files, crash_point
from streammem.storage.intervals import IntervalSet
from streammem.storage.open_part import OpenPart, SpaceFinder, statistics_of
from streammem.storage.reports import DamageReport
from streammem.storage.segment_writer import Manifest, Row, write_segment
from streammem.storage.segments import Segment
from streammem.storage.words import WordIndex

STATE_BYTES = 4 << 20
"""Largest blob of ``put_state``: it is kept in RAM and written again at every checkpoint."""


class Store:
    """Not thread-safe: its owner serialises. A reader's store never writes."""

    def __init__(self, directory: Path, files: Files, catalog: Catalog, *, write: bool, spaces: SpaceFinder) -> None:
        self.directory = directory
        self.files = files
        self.catalog = catalog
        self.words = WordIndex(catalog.database, write=write)
        self.find_space = spaces
        self.meanwhile: Callable[[Callable[[], Segment]], Segment] = lambda work: work()
        """Runs what takes long and touches new files only; its owner may do something else until it is done."""
        self.index_rows = 0
        """Vectors from which a new segment gets an approximate index; 0 is never."""
        self._write = write
        self.parts: dict[tuple[str, str], OpenPart] = {}
        self.damage: list[DamageReport] = []
        self.reload()

    def reload(self) -> None:
        """Segments and small state as the catalogue has them; open parts start empty."""
        found = self.catalog.segments()
        known = {segment.name: segment for segment in getattr(self, "segments", [])}
        root = self.directory / "segments"
        self.segments = [known.get(entry.name) or Segment(root / entry.name, entry) for entry in found.live]
        self.quarantined = found.quarantined
        state = self.catalog.checkpoint()
        self.lsn = state.lsn
        self.sealed_lsn = state.sealed_lsn
        self.infos: dict[str, StreamInfo] = state.infos
        self.states = state.states
        self.drops = state.drops
        self.pins: list[Pin] = state.pins
        self.bank_states = state.bank_states
        self.citations = state.citations
        self.seen = {
            stream: {session: IntervalSet(spans) for session, spans in sessions.items()}
            for stream, sessions in state.sequences.items()
        }
        self.sealed_sequences = state.sequences  # what a crash would leave: never ahead of the segments
        self._dirty: set[tuple[str, str]] = set()
        self.damage = self.catalog.damage()
        self.parts.clear()

    # -- open parts

    def part(self, bank: str, stream: str) -> OpenPart:
        part = self.parts.get((bank, stream))
        if part is None:
            part = self.parts[bank, stream] = OpenPart(bank, stream, self.find_space)
        return part

    def note_seen(self, stream: str, session: str, seq: int) -> None:
        self.seen.setdefault(stream, {}).setdefault(session, IntervalSet()).add(seq)

    def has_seen(self, stream: str, session: str, seq: int) -> bool:
        sessions = self.seen.get(stream)
        return sessions is not None and session in sessions and seq in sessions[session]

    def count_drop(self, stream: object, reason: str) -> None:
        """Count by known stream and kind of reason; what an unknown stream calls itself is counted under the empty
        name. So the counters stay few, whatever is sent."""
        reason = reason.partition("[")[0]
        known = isinstance(stream, str) and (stream in self.seen or stream in self.infos)
        counts = self.drops.setdefault(str(stream) if known else "", {})
        counts[reason] = counts.get(reason, 0) + 1

    def put_state(self, key: str, lsn: int, value: bytes) -> None:
        self.states[key] = (lsn, value)
        self._dirty.add(("state", key))

    def cite(self, stream: str, t_start_ns: int, t_end_ns: int, lsn: int) -> None:
        """An answer rests on the interval. Dated by the newest capture time of the stream, sealed or open."""
        times = [entry.manifest.t_max_ns for entry in self.segments if entry.stream == stream and entry.manifest.rows]
        times += [part.t_max_ns for (_, name), part in self.parts.items() if name == stream and len(part)]
        if times:
            self.citations.add(stream, t_start_ns, t_end_ns, now_ns=max(times), lsn=lsn)

    def set_info(self, info: StreamInfo) -> None:
        self.infos[info.stream] = info
        self._dirty.add(("info", info.stream))

    def forget_dirty(self, streams: set[str], keys: Sequence[str]) -> None:
        """What was forgotten need not be saved any more."""
        self._dirty -= {("info", stream) for stream in streams} | {("state", key) for key in keys}

    @property
    def open_bytes(self) -> int:
        return sum(part.ram_bytes for part in self.parts.values())

    def oldest_open_lsn(self) -> int | None:
        """First journal entry that no segment holds, or None where nothing is open."""
        return min((part.lsn_first for part in self.parts.values() if len(part)), default=None)

    # -- blocks

    def blocks(
        self, bank: str, streams: Sequence[str] | None, between: tuple[int | None, int | None] | None
    ) -> list[Block]:
        """Sealed and open, oldest seal first. Damaged segments are quarantined on the way and left out."""
        wanted = None if streams is None else set(streams)
        t_start_ns, t_end_ns = between or (None, None)

        def overlaps(t_min_ns: int, t_max_ns: int) -> bool:
            return (t_end_ns is None or t_min_ns <= t_end_ns) and (t_start_ns is None or t_max_ns >= t_start_ns)

        result: list[Block] = []
        for segment in list(self.segments):
            manifest = segment.manifest
            if manifest.bank != bank or (wanted is not None and manifest.stream not in wanted):
                continue
            if manifest.rows and overlaps(manifest.t_min_ns, manifest.t_max_ns) and self.usable(segment):
                result.append(segment)
        for (part_bank, stream), part in sorted(self.parts.items()):
            chosen = part_bank == bank and len(part) and (wanted is None or stream in wanted)
            if chosen and overlaps(part.t_min_ns, part.t_max_ns):
                result.append(part.block())
        return result

    def all_blocks(self) -> list[Any]:
        """Open parts, then segments, newest first: the order in which a record is most likely found."""
        parts = [part.block() for _, part in sorted(self.parts.items()) if len(part)]
        return [*parts, *reversed(self.segments)]

    def usable(self, segment: Segment) -> bool:
        """Open the segment's files; quarantine it if they are damaged."""
        try:
            segment.open()
        except CorruptData as error:
            self.quarantine(segment, error)
            return False
        return True

    def verify(self, segment: Segment) -> None:
        """Read every byte of a segment; quarantine it if one is damaged."""
        for error in segment.verify()[:1]:
            self.quarantine(segment, error)

    def quarantine(self, segment: Segment, error: CorruptData) -> None:
        """Take a damaged segment out of every answer. Its files stay where they are, for repair."""
        self.segments = [other for other in self.segments if other is not segment]
        self.quarantined[segment.name] = error.message
        self.note_damage(DamageReport(error.path, error.offset or 0, error.message, segment.name))
        if self._write:
            with self.catalog.transaction():
                self.catalog.quarantine_segment(segment.name, error.message)

    def note_damage(self, report: DamageReport) -> None:
        if report in self.damage:
            return
        self.damage.append(report)
        if self._write:
            with self.catalog.transaction():
                self.catalog.add_damage(report)

    # -- sealing and swapping

    def write(
        self,
        rows: Sequence[Row],
        *,
        like: Manifest | None = None,
        bank: str = "",
        stream: str = "",
        lsn_first: int = 0,
        lsn: int = 0,
        generation: int = 0,
        replaces: tuple[str, ...] = (),
        statistics: np.ndarray | None = None,
        sequences: dict[str, list[tuple[int, int]]] | None = None,
    ) -> Segment:
        """A new segment on disk, not yet live. ``like``: take bank, stream and journal range from there."""
        if like is not None:
            bank, stream, lsn_first, lsn = like.bank, like.stream, like.lsn_first, like.lsn
        manifest = write_segment(
            self.directory / "segments",
            rows,
            files=self.files,
            bank=bank,
            stream=stream,
            lsn_first=lsn_first,
            lsn=lsn,
            generation=generation,
            replaces=replaces,
            statistics=statistics,
            sequences=sequences,
            index_rows=self.index_rows,
            words=self._words,
        )
        return Segment(self.directory / "segments" / manifest.name, manifest)

    def _words(self, space_id: str | None) -> np.ndarray | None:
        """Questions in words as vectors of a space; None where it, or its model of text, isn't installed here."""
        space = None if space_id is None else self.find_space(space_id)
        try:
            return None if space is None else space.embed_text(WORDS)
        except StreammemError:
            return None

    def seal(self, stream: str, lsn: int) -> int:
        """All open parts of a stream become segments in one transaction. Returns the rows sealed."""
        parts = [part for (_, name), part in sorted(self.parts.items()) if name == stream and len(part)]
        if not parts:
            return 0
        fresh: list[tuple[Segment, list[Record]]] = []
        for part in parts:
            rows = part.sorted_rows()
            statistics = statistics_of(rows, part.space, self.find_space)
            write = partial(self.write, bank=part.bank, stream=stream, lsn_first=part.lsn_first, lsn=lsn)
            segment = self.meanwhile(partial(write, rows, statistics=statistics))
            fresh.append((segment, [row.record for row in rows]))
        sealed = sum(len(part) for part in parts)

        sequences = {session: list(spans) for session, spans in self.seen.get(stream, {}).items()}

        def small_state(catalog: Catalog) -> None:
            self._save_common(catalog, lsn)
            catalog.set_stream(stream, lsn, self.infos.get(stream))
            catalog.set_sequences(stream, sequences)
            for bank, streams in self.bank_states.items():
                if stream in streams:
                    catalog.set_bank_state(bank, stream, streams[stream])

        self.swap(fresh, (), small_state)
        self.sealed_lsn[stream] = lsn
        self.sealed_sequences[stream] = sequences
        self.lsn = max(self.lsn, lsn)
        self._dirty.clear()
        for part in parts:
            part.clear()
        return sealed

    def _save_common(self, catalog: Catalog, lsn: int) -> None:
        for kind, name in sorted(self._dirty):
            if kind == "state":
                catalog.set_state(name, *self.states[name])
            elif kind == "info":
                catalog.set_stream(name, self.sealed_lsn.get(name, 0), self.infos[name])
        catalog.set_drops(self.drops)
        catalog.set_pins(self.pins)
        catalog.set_fact("citations", msgspec.msgpack.encode(self.citations))
        catalog.set_fact("lsn", str(max(self.lsn, lsn)).encode())

    def swap(
        self,
        fresh: Iterable[tuple[Segment, Iterable[Record]]],
        old: Iterable[Segment],
        also: Callable[[Catalog], None] | None = None,
    ) -> None:
        """Make ``fresh`` live and ``old`` garbage, with whatever ``also`` writes, in one transaction."""
        fresh = list(fresh)
        gone = list(old)
        with self.catalog.transaction():
            for segment in gone:
                self.catalog.remove_segment(segment.name)
                self.words.remove(segment.name)
            for segment, records in fresh:
                self.catalog.add_segment(segment.manifest)
                self.words.add(segment.name, records)
            if also is not None:
                also(self.catalog)
        crash_point("after_catalog")
        names = {segment.name for segment in gone}
        kept = [segment for segment in self.segments if segment.name not in names]
        self.segments = sorted(
            [*kept, *(segment for segment, _ in fresh)], key=lambda segment: (segment.manifest.lsn, segment.name)
        )
        for segment in gone:
            self.files.remove_tree(segment.directory)
        if gone:
            self.files.fsync_dir(self.directory / "segments")

    def save_small_state(self, lsn: int) -> None:
        """Catalogue and ``checkpoint.bin``; afterwards the journal isn't needed for it."""
        with self.catalog.transaction():
            self._save_common(self.catalog, lsn)
        self._dirty.clear()
        self.lsn = max(self.lsn, lsn)
        self.write_checkpoint_file()

    def write_checkpoint_file(self) -> None:
        state = Checkpoint(
            lsn=self.lsn,
            sealed_lsn=self.sealed_lsn,
            infos=self.infos,
            sequences=self.sealed_sequences,
            states=self.states,
            drops=self.drops,
            pins=self.pins,
            bank_states=self.bank_states,
            citations=self.citations,
        )
        self.files.replace_file(self.directory / "checkpoint.bin", msgspec.msgpack.encode(state))

    def collect_garbage(self) -> int:
        """Remove what a crash left behind: temporary directories, and segments that no transaction made live."""
        keep = {segment.name for segment in self.segments} | set(self.quarantined)
        removed = 0
        root = self.directory / "segments"
        for path in sorted(root.iterdir()) if root.exists() else ():
            if path.name not in keep:
                self.files.remove_tree(path)
                removed += 1
        return removed

    @property
    def segment_bytes(self) -> int:
        return sum(segment.manifest.bytes for segment in self.segments)
