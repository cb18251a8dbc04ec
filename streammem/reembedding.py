"""Another encoder for what is already remembered: new vectors beside the old ones, one switch, and the way back.

    stage      every sealed segment of moments gets a twin with vectors of the new space, made from the pictures that
               are kept (or decoded again), in ``reembed/staged``. It only reads the memory: whoever writes and asks
               goes on, in the old space. A kill loses the segment in work; what is staged is found again.
    switch     under the writer's lock: what is still open is sealed and staged, then one catalogue transaction puts
               all twins in the place of the old segments. Records of other banks that were computed from the old
               vectors stay, marked ``stale``: not wrong, but no longer comparable. The old segments are kept as hard
               links.
    roll back  the old segments, byte for byte, in one transaction again.

A moment without a picture (it looked like the one before) takes the new vector of the picture whose old vector is
nearest to its own; where none is near it loses its vector, never its words. A segment without any picture stays in the
old space. ``forget`` removes both copies: forgetting is real, rolling back what was forgotten is not.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from streammem.errors import CorruptData, InputError, SpaceMismatch
from streammem.memory import Memory
from streammem.model import Producer, Record
from streammem.spaces import EmbeddingSpace
from streammem.storage.catalog import Catalog
from streammem.storage.files import Files
from streammem.storage.open_part import record_digest
from streammem.storage.segment_writer import Manifest, Row, columns_of, write_segment
from streammem.storage.segments import Segment, read_manifest

FOLDER = "reembed"
NEAR = 0.9
"""Least cosine, in the old space, at which a moment without a picture takes another one's new vector. Adaptive
sampling leaves a frame light below a distance of about 0.1 to the last one kept."""
BATCH = 8

Picture = Callable[[Record], np.ndarray | None]
"""(h, w, 3) uint8 RGB of a moment (its thumbnail is set where one is kept), or None where it is gone."""


class Switch(msgspec.Struct, frozen=True):
    """What was switched, for the way back: (new segment, old segment) by name."""

    space: str
    pairs: list[tuple[str, str]]


class Staged(msgspec.Struct):
    """What was done. ``segments`` were made now, ``found`` by an earlier run. ``lent``: moments that took a neighbour's
    vector; ``bare``: moments that lost theirs; ``kept``: segments that stay in the old space for want of pictures;
    ``stale``: records of other banks."""

    space: str
    segments: int = 0
    found: int = 0
    embedded: int = 0
    lent: int = 0
    bare: int = 0
    kept: int = 0
    stale: int = 0


def old_segments(directory: Path, space_id: str) -> list[Segment]:
    """Sealed segments of moments whose vectors are of another space, oldest first."""
    catalog = Catalog(directory / "catalog.sqlite", write=False)
    try:
        live = catalog.segments().live
    finally:
        catalog.close()
    return [Segment(directory / "segments" / m.name, m) for m in live if _is_old(m, space_id)]


def _is_old(manifest: Manifest, space_id: str) -> bool:
    return manifest.bank == "moments" and manifest.vectors > 0 and manifest.space not in (None, space_id)


class Reembedding:
    """One change of space of one memory directory. ``cpu`` is the share of one core that may be used: after each batch
    the process sleeps in proportion. ``old_parts``: names of parts that belong to the old space and go with it."""

    def __init__(
        self,
        directory: Path,
        space: EmbeddingSpace,
        picture: Picture,
        *,
        cpu: float = 1.0,
        old_parts: frozenset[str] = frozenset(),
        files: Files | None = None,
        progress: Callable[[int, int], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 < cpu <= 1:
            raise InputError(f"the share of a core is {cpu}", hint="give a number above 0 and up to 1")
        self._directory = directory
        self._root = directory / FOLDER
        self._space = space
        self._picture = picture
        self._sleep = sleep
        self._cpu = cpu
        self._old_parts = old_parts
        self._files = files or Files()
        self._progress = progress or (lambda done, total: None)
        self.report = Staged(space.id)
        self._made: set[str] = set()

    def stage(self) -> Staged:
        """Make the twins that are missing. Nothing of the memory changes. Raises OSError where the disk is full."""
        todo = old_segments(self._directory, self._space.id)
        self._drop_unfit({segment.name for segment in todo})
        for done, segment in enumerate(todo):
            self._progress(done, len(todo))
            self._twin(segment)
        self._progress(len(todo), len(todo))
        return self.report

    def switch(self, memory: Memory) -> Staged:
        """Stage what is left and put all twins in place. ``memory`` is open for writing."""
        memory.seal()
        self.stage()
        store = memory._engine.store  # the switch is a step of the engine that only this module needs
        pairs: list[tuple[Segment, Segment]] = []
        for old in store.segments:
            staged = self._staged(old)
            if staged is not None:
                pairs.append((staged, old))
        spaces = {old.space for _, old in pairs}
        for old in [s for s in store.segments if s.bank != "moments" and s.space in spaces and s.space is not None]:
            pairs.append((self._stale(old), old))
        if not pairs:
            return self.report
        self._files.remove_tree(self._root / "previous")
        self._files.mkdir(self._root / "previous")
        for fresh, old in pairs:
            _link_tree(old.directory, self._root / "previous" / old.name)
            target = self._directory / "segments" / fresh.name
            self._files.remove_tree(target)
            _link_tree(fresh.directory, target)
            self._files.fsync_dir(target)
        for folder in (self._directory / "segments", self._root / "previous", self._root):
            self._files.fsync_dir(folder)
        note = Switch(self._space.id, [(fresh.name, old.name) for fresh, old in pairs])
        self._files.replace_file(self._root / "switch.json", msgspec.json.encode(note))
        live = [Segment(self._directory / "segments" / fresh.name, fresh.manifest) for fresh, _ in pairs]
        store.swap([(segment, _worded(segment)) for segment in live], [old for _, old in pairs])
        memory._engine.shapes.clear()
        self._files.remove_tree(self._root / "staged")
        return self.report

    # -- one segment

    def _staged(self, old: Segment) -> Segment | None:
        for path in sorted((self._root / "staged").glob(f"{old.name.rsplit('-', 1)[0]}-*")):
            try:
                manifest = read_manifest(path)
            except CorruptData:
                continue
            if manifest.replaces == (old.name,) and manifest.space == self._space.id:
                return Segment(path, manifest)
        return None

    def _drop_unfit(self, names: set[str]) -> None:
        """Twins of segments that are gone (forgotten, demoted, merged), and what a kill left half done."""
        for path in sorted((self._root / "staged").glob("*")) + sorted((self._root / "staged").glob(".tmp-*")):
            try:
                manifest = read_manifest(path)
                if manifest.replaces[0] in names and manifest.space == self._space.id:
                    continue
            except (CorruptData, IndexError):
                pass
            self._files.remove_tree(path)

    def _twin(self, segment: Segment) -> None:
        if self._staged(segment) is not None:
            self.report.found += segment.name not in self._made
            self._made.add(segment.name)
            return
        try:
            rows = [segment.row(at) for at in range(len(segment))]
        except (FileNotFoundError, CorruptData):
            return  # demoted or merged by the writer meanwhile, or damaged: then it is no worse off as it is
        made = self._embed([row.record for row in rows])
        if made is None:
            self.report.kept += 1
            return
        fresh = sorted(
            (Row(record, record_digest(record)) for record in made),
            key=lambda row: (row.record.t_start_ns, row.record.record_id),
        )
        manifest = write_segment(
            self._root / "staged",
            fresh,
            files=self._files,
            bank=segment.bank,
            stream=segment.stream,
            lsn_first=segment.manifest.lsn_first,
            lsn=segment.manifest.lsn,
            generation=segment.manifest.generation + 1,
            replaces=(segment.name,),
            statistics=self._space.statistics(columns_of(fresh)),
            sequences=segment.manifest.sequences,
        )
        if segment.name not in {other.name for other in old_segments(self._directory, self._space.id)}:
            # Forgotten while its twin was made: nothing of it may stay.
            self._files.remove_tree(self._root / "staged" / manifest.name)
            return
        self.report.segments += 1
        self._made.add(segment.name)

    def _embed(self, records: Sequence[Record]) -> list[Record] | None:
        """The records with new vectors, or None where there is no picture among them."""
        made: dict[int, Record] = {}
        wanted = [index for index, record in enumerate(records) if record.vector is not None]
        for index, image in self._pictures(records, wanted):
            made[index] = self._renew(records[index], *image)
        if not made:
            return None
        known = sorted(made)
        old = np.stack([np.asarray(records[index].vector, np.float32) for index in known])
        result: list[Record] = []
        for index, record in enumerate(records):
            if index in made:
                self.report.embedded += 1
                result.append(made[index])
            elif record.vector is None:
                result.append(record)
            else:
                near = old @ np.asarray(record.vector, np.float32)
                best = int(near.argmax())
                lent = float(near[best]) >= NEAR
                giver = made[known[best]]
                self.report.lent += lent
                self.report.bare += not lent
                parts = {n: a for n, a in giver.arrays.items() if n not in records[known[best]].arrays} if lent else {}
                result.append(self._renew(record, giver.vector if lent else None, parts))
        return result

    def _pictures(
        self, records: Sequence[Record], wanted: Sequence[int]
    ) -> Iterator[tuple[int, tuple[np.ndarray, dict[str, np.ndarray]]]]:
        for at in range(0, len(wanted), BATCH):
            start = time.monotonic()
            found = [(index, self._picture(records[index])) for index in wanted[at : at + BATCH]]
            batch = [(index, image) for index, image in found if image is not None]
            if batch:
                embedded = self._space.embed_frames([image for _, image in batch])
                for (index, _), one in zip(batch, embedded, strict=True):
                    yield index, (one.vector, dict(one.parts))
            spent = time.monotonic() - start
            if self._cpu < 1 and batch:
                self._sleep(spent * (1 - self._cpu) / self._cpu)

    def _renew(self, record: Record, vector: np.ndarray | None, parts: dict[str, np.ndarray]) -> Record:
        made_by = record.producer
        kept = {name: array for name, array in record.arrays.items() if name not in self._old_parts}
        return replace(
            record,
            vector=None if vector is None else np.asarray(vector, np.float32).astype(np.float16),
            space=self._space.id if vector is not None else None,
            arrays={**kept, **{name: array for name, array in parts.items() if len(array)}},
            producer=Producer(
                "streammem.reembedding",
                self._space.name,
                self._space.version,
                f"before: {made_by.module} {made_by.model}@{made_by.revision} {made_by.parameters}"[:200],
            ),
        )

    def _stale(self, segment: Segment) -> Segment:
        """The same records, marked."""
        rows = []
        for at in range(len(segment)):
            row = segment.row(at)
            marked = replace(row.record, status="stale")
            rows.append(Row(marked, record_digest(marked)))
        self.report.stale += len(rows)
        write = partial(write_segment, self._root / "staged", rows, files=self._files, replaces=(segment.name,))
        manifest = write(
            bank=segment.bank,
            stream=segment.stream,
            lsn_first=segment.manifest.lsn_first,
            lsn=segment.manifest.lsn,
            generation=segment.manifest.generation + 1,
            statistics=segment.statistics(),
            sequences=segment.manifest.sequences,
        )
        return Segment(self._root / "staged" / manifest.name, manifest)


def _worded(segment: Segment) -> list[Record]:
    """The records that the text index wants."""
    return [segment.record(int(row)) for row in np.flatnonzero(segment.has_words)]


def _link_tree(source: Path, target: Path) -> None:
    """The same files under another name: hard links, or copies where the file system has none."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copy2(path, target / path.name)


def last_switch(directory: Path) -> Switch | None:
    """The switch that can be taken back, or None."""
    try:
        return msgspec.json.decode((directory / FOLDER / "switch.json").read_bytes(), type=Switch)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def roll_back(memory: Memory) -> int:
    """Put the old segments back where their twins still are. Returns how many; what was demoted, merged or forgotten
    since then stays as it is. Raises InputError where there is nothing to take back, CorruptData where a kept segment
    is damaged: then nothing changes."""
    root = memory.directory / FOLDER
    note = last_switch(memory.directory)
    if note is None:
        raise InputError(f"{memory.directory}: no change of space is kept", hint="streammem reembed MEMORY makes one")
    store = memory._engine.store
    live = {segment.name: segment for segment in store.segments}
    back: list[Segment] = []
    gone: list[Segment] = []
    for new, old in note.pairs:
        kept = root / "previous" / old
        if new not in live or not kept.is_dir():
            continue
        segment = Segment(kept, read_manifest(kept))
        damage = segment.verify()
        if damage:
            raise damage[0]
        target = memory.directory / "segments" / old
        store.files.remove_tree(target)
        _link_tree(kept, target)
        store.files.fsync_dir(target)
        back.append(Segment(target, segment.manifest))
        gone.append(live[new])
    store.files.fsync_dir(memory.directory / "segments")
    store.swap([(segment, _worded(segment)) for segment in back], gone)
    memory._engine.shapes.clear()
    store.files.remove_tree(root)
    return len(back)


def discard(directory: Path) -> int:
    """Remove the old segments that are kept, and what was staged. Returns the bytes that are free afterwards."""
    root = directory / FOLDER
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and path.stat().st_nlink == 1)
    shutil.rmtree(root, ignore_errors=True)
    return size


def check_target(space: EmbeddingSpace, directory: Path) -> None:
    """Raises SpaceMismatch where another change of space is half done: its twins would be thrown away."""
    for path in sorted((directory / FOLDER / "staged").glob("*")):
        try:
            manifest = read_manifest(path)
        except CorruptData:
            continue
        if manifest.space != space.id:
            raise SpaceMismatch(
                f"{directory} is being changed to {manifest.space} already",
                hint="finish that, or --discard what was staged",
            )
