"""Caps, and what happens at them: detail of old segments is demoted until the rest fits.

Who is demoted next is a policy (``retention.py``); pins are exempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from streammem.config import Config
from streammem.errors import ConfigError, CorruptData
from streammem.storage.catalog import Pin
from streammem.storage.demotion import HEAVY_ARRAYS, LAST_LEVEL, demote, join_tombstones
from streammem.storage.reports import DamageReport
from streammem.storage.retention import NEED_VECTORS, POLICIES, Candidate, Policy
from streammem.storage.segments import Segment
from streammem.storage.store import Store

MB = 1 << 20
SMALLEST_DISK = 4 * MB
"""An empty memory takes about 0.3 MB, mostly SQLite's pages; below this a cap leaves no room to remember in."""


class Caps(NamedTuple):
    """Bytes. ``segments`` is for sealed data and catalogue; 0 there means no cap."""

    seal: int
    open: int
    journal_file: int
    segments: int
    short_term: int


def caps_of(config: Config) -> Caps:
    """How the caps of the configuration are shared out.

    Of a disk cap D, 5/8 are for segments and catalogue. The journal holds at most twice the open part (D/8) and two
    files of D/32 before it is compacted: 5/16; the last 1/16 is for a new segment beside the one it replaces.
    Raises ConfigError for a disk cap below 4 MB."""
    disk, ram = config.budget.disk_bytes, config.budget.ram_bytes
    if 0 < disk < SMALLEST_DISK:
        raise ConfigError(f"budget.disk_bytes is {disk}", hint=f"give 0 (no cap) or at least {SMALLEST_DISK}")
    seal = min(config.memory.seal_bytes, disk // 16 if disk else 1 << 62, ram // 8 if ram else 1 << 62)
    open_bytes = min(disk // 8 if disk else 1 << 62, ram // 4 if ram else 1 << 62, max(8 * seal, 256 * MB))
    short_term = min(config.memory.short_term_bytes, ram // 4) if ram else config.memory.short_term_bytes
    journal_file = max(64 * 1024, min(16 * MB, seal // 2))
    return Caps(seal, max(open_bytes, seal), journal_file, disk * 5 // 8, short_term)


def is_pinned(segment: Segment, pins: Sequence[Pin]) -> bool:
    """A segment that overlaps a pin keeps its detail as a whole."""
    manifest = segment.manifest
    return any(
        stream == manifest.stream and manifest.t_min_ns <= t_end_ns and manifest.t_max_ns >= t_start_ns
        for stream, t_start_ns, t_end_ns in pins
    )


class Budget:
    """Keeps the sealed part of a store under its cap."""

    def __init__(self, store: Store, cap_bytes: int, policy: Policy = POLICIES["graded"]) -> None:
        self._store = store
        self._cap = cap_bytes
        self._policy = policy
        self._signatures: dict[str, np.ndarray | None] = {}
        self.demotions = 0

    @property
    def used_bytes(self) -> int:
        return self._store.segment_bytes + self._store.catalog.disk_bytes

    def fits(self, extra_bytes: int = 0) -> bool:
        return self._cap == 0 or self.used_bytes + extra_bytes <= self._cap

    def enforce(self, extra_bytes: int = 0) -> bool:
        """Demote until it fits with ``extra_bytes`` to come. False if nothing is left to demote."""
        if self.fits(extra_bytes):
            return True
        self._store.catalog.compact()
        while not self.fits(extra_bytes):
            if not self._step():
                return False
            self._store.catalog.compact()
        return True

    def _step(self) -> bool:
        loose = [segment for segment in self._store.segments if not is_pinned(segment, self._store.pins)]
        candidates = [segment for segment in loose if segment.manifest.level < LAST_LEVEL and segment.manifest.rows]
        if not candidates:
            return self._join(loose)
        self.demote_one(self._store.segments[self._policy(self._described(candidates)).order])
        return True

    def _described(self, segments: Sequence[Segment]) -> list[Candidate]:
        """What a policy may know of them, in the order of sealing; ``order`` is their place among all segments."""
        places = {segment.name: at for at, segment in enumerate(self._store.segments)}
        newest: dict[str, int] = {}
        for segment in self._store.segments:
            stream = segment.stream
            newest[stream] = max(newest.get(stream, segment.manifest.t_max_ns), segment.manifest.t_max_ns)
        described = []
        for segment in segments:
            manifest = segment.manifest
            cited = self._store.citations.of(segment.stream, manifest.t_min_ns, manifest.t_max_ns)
            described.append(
                Candidate(
                    places[segment.name],
                    segment.stream,
                    manifest.t_min_ns,
                    manifest.t_max_ns,
                    newest[segment.stream],
                    manifest.level,
                    self._signature(segment) if self._policy in NEED_VECTORS else None,
                    segment.space,
                    sum(each.count for each in cited),
                    max((each.last_ns for each in cited), default=0),
                    max((each.longest_gap_ns for each in cited), default=0),
                )
            )
        return described

    def _signature(self, segment: Segment) -> np.ndarray | None:
        """Read once a segment: 30 MB of vectors are 10 ms."""
        if segment.name not in self._signatures:
            try:
                self._signatures[segment.name] = segment.signature()
            except CorruptData as error:
                self._store.note_damage(DamageReport(error.path, error.offset or 0, error.message, segment.name))
                self._signatures[segment.name] = None
        return self._signatures[segment.name]

    def demote_one(self, victim: Segment) -> None:
        """Replace a segment by the same one level further down."""
        manifest = victim.manifest
        try:
            rows = [victim.row(at) for at in range(manifest.rows)]
            statistics = victim.statistics()
        except CorruptData as error:
            self._store.quarantine(victim, error)
            return
        level = manifest.level + 1
        heavy = any(entry.name in HEAVY_ARRAYS for entry in manifest.arrays)
        if level == 1 and not heavy and not any(row.record.thumbnail for row in rows):
            level = 2  # nothing to win on level 1
        for step in range(manifest.level + 1, level + 1):
            rows = demote(rows, step)
        fresh = self._store.write(
            rows,
            like=manifest,
            generation=manifest.generation + 1,
            replaces=(manifest.name,),
            statistics=statistics if level < LAST_LEVEL else None,
            sequences=manifest.sequences,
        )
        self._signatures.pop(victim.name, None)
        self._store.swap([(fresh, [row.record for row in rows])], [victim])
        self.demotions += 1

    def _join(self, loose: Sequence[Segment]) -> bool:
        """Two tombstone segments of one stream become one."""
        first: dict[tuple[str, str], Segment] = {}
        for segment in loose:
            other = first.setdefault((segment.bank, segment.stream), segment)
            if other is segment:
                continue
            rows = [part.row(at) for part in (other, segment) for at in range(len(part))]
            sequences: dict[str, list[tuple[int, int]]] = {}
            for part in (other, segment):
                for session, spans in part.manifest.sequences.items():
                    sequences.setdefault(session, []).extend(spans)
            fresh = self._store.write(
                join_tombstones(rows),
                like=segment.manifest,
                generation=max(other.manifest.generation, segment.manifest.generation) + 1,
                replaces=(other.name, segment.name),
                sequences=sequences,
            )
            self._store.swap([(fresh, ())], [other, segment])
            self.demotions += 1
            return True
        return False
