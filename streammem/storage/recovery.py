"""Opening a memory's directory: what belongs there, which version wrote it, and the catalogue from its parts.

FORMAT             {"format": 1}: marks the directory as a memory
LOCK               the writer's pid, under flock
catalog.sqlite     live segments, small state, text index
checkpoint.bin     the small state once more, for the day the catalogue is lost
journal/           what no segment holds yet
segments/          one directory each
quarantine/        copies of bytes that failed a checksum
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from streammem.errors import CorruptData, FormatVersion, MemoryNotFound, StorageError
from streammem.model import Record
from streammem.storage.catalog import Catalog, Checkpoint
from streammem.storage.files import Files
from streammem.storage.intervals import IntervalSet
from streammem.storage.segment_writer import Manifest
from streammem.storage.segments import Segment, read_manifest
from streammem.storage.words import WordIndex

FORMAT = 1
OWN_NAMES = frozenset({"FORMAT", "LOCK", "checkpoint.bin", "journal", "segments", "quarantine", "reembed"})


def is_memory(directory: Path) -> bool:
    return (directory / "FORMAT").is_file()


def check_format(directory: Path) -> None:
    """Raises FormatVersion for a directory that a newer release wrote, CorruptData for an unreadable mark."""
    path = directory / "FORMAT"
    try:
        version = msgspec.json.decode(path.read_bytes(), type=dict[str, int])["format"]
    except (msgspec.DecodeError, KeyError) as error:
        raise CorruptData(
            f"{path} can't be read: {error}", path=str(path), offset=0, hint='write {"format": 1} into it'
        ) from error
    if version > FORMAT:
        raise FormatVersion(
            f"{directory} has memory format {version}, this release reads up to {FORMAT}", hint="upgrade streammem"
        )


def prepare(directory: Path, files: Files, *, write: bool, create: bool) -> None:
    """Make sure that ``directory`` is a memory, or becomes one. Raises MemoryNotFound, StorageError, FormatVersion."""
    if is_memory(directory):
        check_format(directory)
        return
    if not (write and create):
        raise MemoryNotFound(f"there is no memory in {str(directory)!r}", hint="give the directory of a memory")
    if directory.exists() and not directory.is_dir():
        raise StorageError(f"{str(directory)!r} is a file", hint="give a directory")
    try:
        foreign = [
            path.name
            for path in (directory.iterdir() if directory.exists() else ())
            if path.name not in OWN_NAMES and not path.name.startswith(("catalog.sqlite", "FORMAT"))
        ]
        if foreign:
            raise StorageError(
                f"{str(directory)!r} holds other files ({sorted(foreign)[0]!r}) and no memory",
                hint="give an empty or a new directory",
            )
        files.mkdir(directory)
    except OSError as error:
        raise StorageError(
            f"{str(directory)!r} can't be made or read: {error.strerror}", hint="check its owner"
        ) from error


def mark(directory: Path, files: Files) -> None:
    """The last step of making a memory."""
    if not is_memory(directory):
        files.mkdir(directory / "segments")
        files.mkdir(directory / "journal")
        files.replace_file(directory / "FORMAT", msgspec.json.encode({"format": FORMAT}))


def open_catalog(directory: Path, files: Files, *, write: bool) -> tuple[Catalog, list[str]]:
    """The catalogue, rebuilt if it is lost or damaged, and notes for ``status`` on what was done.

    A reader never rebuilds: it raises CorruptData and says who can."""
    path = directory / "catalog.sqlite"
    reason = "the catalogue was missing"
    if path.exists():
        try:
            catalog = Catalog(path, write=write)
            if not (catalog.blank and is_memory(directory)):
                catalog.segments()
                return catalog, []
            catalog.close()
            reason = "the catalogue was empty"
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            reason = f"the catalogue was damaged ({error})"
    if not write:
        raise CorruptData(
            f"{reason} in {str(directory)!r}", path=str(path), offset=0, hint="open the memory once for writing"
        )
    existing = (directory / "segments").exists() and any((directory / "segments").iterdir())
    _set_aside(directory, files)
    catalog = Catalog(path, write=True)
    if not existing and not (directory / "checkpoint.bin").exists():
        return catalog, [] if not is_memory(directory) else [f"{reason}; a new one was made"]
    count = rebuild(directory, catalog)
    return catalog, [f"{reason}; it was rebuilt from {count} segments"]


def _set_aside(directory: Path, files: Files) -> None:
    for name in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"):
        path = directory / name
        if path.exists():
            files.mkdir(directory / "quarantine")
            files.rename(path, directory / "quarantine" / name)


def rebuild(directory: Path, catalog: Catalog) -> int:
    """Fill an empty catalogue from manifests and checkpoint. Returns the number of live segments."""
    manifests: dict[str, Manifest] = {}
    broken: dict[str, str] = {}
    for path in sorted((directory / "segments").iterdir()):
        if path.name.startswith("."):
            continue
        try:
            manifests[path.name] = read_manifest(path)
        except CorruptData as error:
            broken[path.name] = error.message
    replaced = {name for manifest in manifests.values() for name in manifest.replaces}
    live = [manifest for name, manifest in manifests.items() if name not in replaced]
    state = read_checkpoint(directory) or Checkpoint()
    for manifest in live:
        sealed = state.sealed_lsn.get(manifest.stream, 0)
        state.sealed_lsn[manifest.stream] = max(sealed, manifest.lsn)
        state.lsn = max(state.lsn, manifest.lsn)
        sessions = state.sequences.setdefault(manifest.stream, {})
        for session, intervals in manifest.sequences.items():
            sessions[session] = list(IntervalSet([*sessions.get(session, []), *intervals]))
    words = WordIndex(catalog.database, write=True)
    with catalog.transaction():
        for manifest in live:
            catalog.add_segment(manifest)
            words.add(manifest.name, _worded(Segment(directory / "segments" / manifest.name, manifest)))
        write_checkpoint(catalog, state)
    return len(live)


def _worded(segment: Segment) -> list[Record]:
    records = []
    for row in segment.has_words.nonzero()[0].tolist():
        try:
            records.append(segment.record(row))
        except CorruptData:
            continue  # the row stays damaged and is reported when it is read
    return records


def write_checkpoint(catalog: Catalog, state: Checkpoint) -> None:
    """The whole small state into the catalogue, inside a transaction."""
    catalog.set_fact("lsn", str(state.lsn).encode())
    for stream in {*state.sealed_lsn, *state.infos}:
        catalog.set_stream(stream, state.sealed_lsn.get(stream, 0), state.infos.get(stream))
    for stream, sessions in state.sequences.items():
        catalog.set_sequences(stream, sessions)
    for key, (lsn, value) in state.states.items():
        catalog.set_state(key, lsn, value)
    catalog.set_drops(state.drops)
    catalog.set_pins(state.pins)
    catalog.set_fact("citations", msgspec.msgpack.encode(state.citations))
    for bank, streams in state.bank_states.items():
        for stream, value in streams.items():
            catalog.set_bank_state(bank, stream, value)


def read_checkpoint(directory: Path) -> Checkpoint | None:
    """None where there is none, or it is damaged: it is a second copy."""
    try:
        return msgspec.msgpack.decode((directory / "checkpoint.bin").read_bytes(), type=Checkpoint)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def disk_version(directory: Path, catalog: Catalog) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Changes whenever the writer has moved on: the catalogue's version, names and sizes of the journal's files."""
    journal = directory / "journal"
    sizes = []
    for path in sorted(journal.glob("*.log")) if journal.exists() else ():
        try:
            sizes.append((path.name, path.stat().st_size))
        except FileNotFoundError:
            continue
    return catalog.data_version(), tuple(sizes)
