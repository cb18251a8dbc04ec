"""The write-ahead log: what was acknowledged is here until a segment holds it.

    journal/00000001.log    [file header][frame][frame]...
    file header             magic, version, flags, number, first lsn, salt, crc32
    frame                   magic, type, length, lsn, crc32(salt, header, payload), payload

A frame's log sequence number (lsn) grows by one with every append, for ever. The salt is random for every file, so
that bytes inside a payload can't pass for a frame when a reader looks for the next one after damage.

A bad frame with nothing behind it, at the end of the newest file, is a torn write: it was never acknowledged, and it is
cut. Any other bad frame is damage: it is named (file, offset), its bytes are copied to ``quarantine/``, and reading
goes on at the next whole frame.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from streammem.errors import FormatVersion, StorageError, StorageFull
from streammem.storage.files import DISK_FULL, Files, crash_point

VERSION = 1
FILE_MAGIC = b"SMJRNL1\n"
FRAME_MAGIC = b"\xf1SMf"
BASE = 1
"""File flag: everything in files with a smaller number is obsolete."""
MAX_PAYLOAD = 96 << 20
"""Above the largest packed observation (64 MB and its header); a larger length is damage."""

_FILE = struct.Struct("<8sIIQQII")  # magic, version, flags, number, first lsn, salt, crc
_FRAME = struct.Struct("<4sIIQI")  # magic, type, length, lsn, crc


class Frame(NamedTuple):
    kind: int
    lsn: int
    payload: memoryview | bytes


class Damage(NamedTuple):
    """Bytes that failed their checksum. ``what`` is one line for people."""

    path: str
    offset: int
    length: int
    what: str


class _LogFile(NamedTuple):
    path: Path
    number: int


def _other_version(path: Path, version: int) -> FormatVersion:
    hint = "run: pip install --upgrade streammem"
    if version < VERSION:
        hint = "open and close the memory once with the release that wrote it: then its journal is empty"
    return FormatVersion(f"{path} has journal format {version}, this release reads {VERSION}", hint=hint)


Piece = bytes | bytearray | memoryview
Payload = Piece | Sequence[Piece]
"""A frame's payload, whole or in pieces that are written one after the other."""


def _crc(salt: int, kind: int, length: int, lsn: int, payload: Sequence[Piece]) -> int:
    crc = zlib.crc32(struct.pack("<IIQ", kind, length, lsn), salt)
    for piece in payload:
        crc = zlib.crc32(piece, crc)
    return crc


class Journal:
    """One directory of log files. ``replay`` once, to its end, before the first ``append``.

    Not thread-safe: its owner serialises. With ``write=False`` nothing on disk is ever changed."""

    def __init__(self, directory: Path, files: Files, *, file_bytes: int = 16 << 20, write: bool = True) -> None:
        self._directory = directory
        self._files = files
        self._file_bytes = file_bytes
        self._write = write
        self._handle: IO[bytes] | None = None
        self._current: _LogFile | None = None
        self._salt = 0
        self._good = 0  # bytes of the current file that hold whole frames
        self._synced = 0
        self._failed: str | None = None
        self._sizes: dict[int, int] = {}
        self._last_lsns: dict[int, int] = {}
        self._next_lsn = 1
        self.damage: list[Damage] = []
        self.torn_bytes = 0

    # -- reading

    def _list(self) -> list[_LogFile]:
        if not self._directory.exists():
            return []
        found = [_LogFile(path, int(path.stem)) for path in self._directory.glob("*.log") if path.stem.isdigit()]
        return sorted(found, key=lambda entry: entry.number)

    def replay(self) -> Iterator[Frame]:
        """Every whole frame in order. Payloads are views that keep their file's bytes alive."""
        entries = self._list()
        headers = {entry.number: self._read_header(entry) for entry in entries}
        bases = [number for number, header in headers.items() if header is not None and header[0] & BASE]
        first = max(bases, default=0)
        for entry in entries:
            if entry.number < first:
                if self._write:
                    self._files.unlink(entry.path)
                continue
            yield from self._replay_file(entry, last=entry is entries[-1])

    def _read_header(self, entry: _LogFile) -> tuple[int, int, int] | None:
        """(flags, salt, first lsn), or None where the header is torn or damaged."""
        try:
            with open(entry.path, "rb") as handle:
                data = handle.read(_FILE.size)
        except FileNotFoundError:  # a reader beside a writer that just truncated
            return None
        if len(data) < _FILE.size:
            return None
        magic, version, flags, _, first, salt, crc = _FILE.unpack(data)
        if magic != FILE_MAGIC:
            # The digit in the magic names the layout. A flipped bit in ours is damage: then the rest still checks.
            other = magic[:6] == FILE_MAGIC[:6] and magic[6:7].isdigit() and magic[7:] == FILE_MAGIC[7:]
            if other and crc != zlib.crc32(FILE_MAGIC + data[8 : _FILE.size - 4]):
                raise _other_version(entry.path, int(magic[6:7]))
            return None
        if crc != zlib.crc32(data[: _FILE.size - 4]):
            return None
        if version != VERSION:
            raise _other_version(entry.path, version)
        return flags, salt, first

    def _replay_file(self, entry: _LogFile, *, last: bool) -> Iterator[Frame]:
        try:
            data = memoryview(entry.path.read_bytes())
        except FileNotFoundError:
            return
        header = self._read_header(entry)
        if header is None:
            if len(data) >= _FILE.size or not last:
                self._note_damage(entry.path, 0, data, "the journal file's header is damaged")
            self.torn_bytes += len(data)
            self._sizes[entry.number] = len(data)
            return
        salt = header[1]
        at = _FILE.size
        self._next_lsn = max(self._next_lsn, header[2])
        end = at
        while at < len(data):
            frame = self._frame_at(data, at, salt)
            if frame is not None:
                at += _FRAME.size + len(frame.payload)
                end = at
                self._last_lsns[entry.number] = frame.lsn
                self._next_lsn = frame.lsn + 1
                yield frame
                continue
            follow = self._find_frame(data, at + 1, salt)
            if follow is None:
                self._tail(entry, data, at, last=last)
                break
            self._note_damage(entry.path, at, data[at:follow], "a journal frame failed its checksum")
            at = follow
        self._sizes[entry.number] = end
        if last and self._write:
            self._resume(entry, salt, end, len(data))

    def _frame_at(self, data: memoryview, at: int, salt: int) -> Frame | None:
        if at + _FRAME.size > len(data) or data[at : at + 4] != FRAME_MAGIC:
            return None
        _, kind, length, lsn, crc = _FRAME.unpack_from(data, at)
        if length > MAX_PAYLOAD or at + _FRAME.size + length > len(data) or lsn < self._next_lsn:
            return None
        payload = data[at + _FRAME.size : at + _FRAME.size + length]
        if crc != _crc(salt, kind, length, lsn, (payload,)):
            return None
        return Frame(kind, lsn, payload)

    def _find_frame(self, data: memoryview, at: int, salt: int) -> int | None:
        raw = bytes(data[at:])
        found = raw.find(FRAME_MAGIC)
        while found >= 0:
            if self._frame_at(data, at + found, salt) is not None:
                return at + found
            found = raw.find(FRAME_MAGIC, found + 1)
        return None

    def _tail(self, entry: _LogFile, data: memoryview, at: int, *, last: bool) -> None:
        """Nothing whole follows ``at``. Torn if the newest file ends inside this frame; else it was whole once."""
        rest = data[at:]
        torn = len(rest) < _FRAME.size or not any(rest)
        if not torn and rest[:4] == FRAME_MAGIC:
            length = _FRAME.unpack_from(rest)[2]
            torn = length <= MAX_PAYLOAD and len(rest) < _FRAME.size + length
        if last and torn:
            self.torn_bytes += len(rest)
        else:
            self._note_damage(entry.path, at, rest, "the journal's last frame failed its checksum")

    def _note_damage(self, path: Path, offset: int, data: memoryview, what: str) -> None:
        self.damage.append(Damage(str(path), offset, len(data), what))
        if self._write:
            aside = self._directory.parent / "quarantine"
            self._files.mkdir(aside)
            self._files.write_file(aside / f"{path.stem}-{offset}.journal", bytes(data))

    # -- writing

    def _resume(self, entry: _LogFile, salt: int, end: int, size: int) -> None:
        handle = self._files.open(entry.path, "ab")
        if end < size:
            self._files.truncate(handle, end)
            self._files.fsync(handle)
        self._handle, self._current, self._salt = handle, entry, salt
        self._good = self._synced = end

    def _new_file(self, *, flags: int = 0) -> None:
        """Start the next file. A base is written under another name first: it hides every older file at once."""
        self._files.mkdir(self._directory)
        number = max(self._sizes, default=0) + 1
        path = self._directory / f"{number:08d}.log"
        salt = int.from_bytes(os.urandom(4), "little")
        head = _FILE.pack(FILE_MAGIC, VERSION, flags, number, 1 if flags & BASE else self._next_lsn, salt, 0)[:-4]
        target = path.with_suffix(".new") if flags & BASE else path
        self._files.unlink(target)
        handle = self._files.open(target, "ab")
        try:
            self._files.write(handle, head + struct.pack("<I", zlib.crc32(head)))
            if not flags & BASE:
                self._files.fsync(handle)
                self._files.fsync_dir(self._directory)
        except OSError:
            handle.close()
            self._files.unlink(target)
            raise
        if self._handle is not None and not flags & BASE:
            self._handle.close()
        self._handle, self._current, self._salt = handle, _LogFile(path, number), salt
        self._good = self._synced = self._sizes[number] = _FILE.size

    def append(self, frames: Sequence[tuple[int, Payload]]) -> int:
        """Write frames; the lsn of the first is returned, the others follow. Not durable before ``sync``.

        All or nothing: without space the file is cut back and StorageFull is raised; a later append may succeed."""
        self._check()
        first = self._next_lsn
        split = [
            (kind, (payload,) if isinstance(payload, (bytes, bytearray, memoryview)) else payload)
            for kind, payload in frames
        ]
        for _, payload in split:
            size = sum(map(len, payload))
            if size > MAX_PAYLOAD:
                raise StorageError(f"a journal entry has {size} bytes, the limit is {MAX_PAYLOAD}")
        try:
            if self._handle is None or self._current is None:
                self._new_file()
            elif self._good >= self._file_bytes:
                self.sync()
                self._new_file()
            self._write_frames((kind, first + index, payload) for index, (kind, payload) in enumerate(split))
        except OSError as error:
            raise self._refused(error) from error
        assert self._current is not None
        self._next_lsn = first + len(frames)
        if frames:
            self._last_lsns[self._current.number] = self._next_lsn - 1
        self._sizes[self._current.number] = self._good
        crash_point("after_append")
        return first

    def _write_frames(self, frames: Iterable[tuple[int, int, Sequence[Piece]]]) -> None:
        """``frames``: kind, lsn and payload. Nothing of the payload is copied on its way to the system."""
        assert self._handle is not None
        pieces: list[Piece] = []
        size = 0
        for kind, lsn, payload in frames:
            length = sum(map(len, payload))
            pieces.append(_FRAME.pack(FRAME_MAGIC, kind, length, lsn, _crc(self._salt, kind, length, lsn, payload)))
            pieces += payload
            size += _FRAME.size + length
        self._files.write_pieces(self._handle, pieces)
        self._good += size

    def _refused(self, error: OSError, back_to: int | None = None) -> StorageError:
        """Cut the current file back to its last good byte and say what happened."""
        good = self._good if back_to is None else back_to
        if self._handle is not None:
            try:
                self._files.truncate(self._handle, good)
                self._good = good
                if self._current is not None:
                    self._sizes[self._current.number] = good
            except OSError as second:
                self._failed = f"{error}; then {second}"
        if error.errno in DISK_FULL:
            return StorageFull(
                f"no space left for the journal in {str(self._directory)!r}",
                hint="free some space and write again; what was acknowledged is kept",
            )
        self._failed = str(error)
        return StorageError(f"the journal can't be written: {error}", hint="check the disk, then reopen the memory")

    def sync(self) -> None:
        """Everything appended is durable afterwards. After a failed sync nothing unsynced counts as written."""
        self._check()
        if self._handle is None or self._synced == self._good:
            return
        try:
            self._files.fsync(self._handle)
        except OSError as error:
            refused = self._refused(error, back_to=self._synced)
            if not isinstance(refused, StorageFull):
                # The kernel may have dropped the dirty pages: a second fsync would succeed and mean nothing.
                self._failed = str(error)
            raise refused from error
        self._synced = self._good
        crash_point("after_sync")

    def _check(self) -> None:
        if self._failed is not None:
            raise StorageError(f"the journal failed: {self._failed}", hint="check the disk, then reopen the memory")

    # -- shortening

    def truncate_before(self, lsn: int) -> int:
        """Remove the oldest files while all they hold is older than ``lsn``. Returns the bytes removed."""
        removed = 0
        for number in sorted(self._sizes):
            if self._current is not None and number == self._current.number:
                if self._last_lsns.get(number, 0) >= lsn or self._good <= _FILE.size:
                    break
                self.sync()
                self._new_file()
            elif self._last_lsns.get(number, 0) >= lsn:
                break
            self._files.unlink(self._directory / f"{number:08d}.log")
            removed += self._sizes.pop(number)
            self._last_lsns.pop(number, None)
        if removed:
            self._files.fsync_dir(self._directory)
        return removed

    def rewrite(self, frames: Iterable[Frame]) -> None:
        """Replace everything by these frames (lsns unchanged), in one atomic step; older files are removed after.

        Without space the old files stay as they are and StorageFull is raised."""
        self._check()
        self.sync()
        before = (self._handle, self._current, self._salt, self._good, self._synced)
        old = sorted(self._sizes)
        last = 0
        try:
            self._new_file(flags=BASE)
            assert self._handle is not None and self._current is not None
            for frame in frames:
                last = frame.lsn
                self._write_frames([(frame.kind, frame.lsn, (frame.payload,))])
            self._files.fsync(self._handle)
            self._files.rename(self._current.path.with_suffix(".new"), self._current.path)
            self._files.fsync_dir(self._directory)
        except OSError as error:
            self._abandon(before)
            kind = StorageFull if error.errno in DISK_FULL else StorageError
            raise kind(f"the journal can't be compacted: {error}", hint="free some space and try again") from error
        if before[0] is not None:
            before[0].close()
        number = self._current.number
        self._synced = self._sizes[number] = self._good
        self._last_lsns[number] = last
        for obsolete in old:
            self._files.unlink(self._directory / f"{obsolete:08d}.log")
            self._sizes.pop(obsolete)
            self._last_lsns.pop(obsolete, None)
        self._files.fsync_dir(self._directory)

    def _abandon(self, before: tuple[IO[bytes] | None, _LogFile | None, int, int, int]) -> None:
        """Go on with the old file after a new one could not be finished."""
        if self._handle is not None and self._handle is not before[0] and self._current is not None:
            self._handle.close()
            self._files.unlink(self._current.path.with_suffix(".new"))
            self._sizes.pop(self._current.number, None)
        self._handle, self._current, self._salt, self._good, self._synced = before

    def start_after(self, lsn: int) -> None:
        """The catalogue has seen ``lsn``: never give a smaller one, even if the journal's files are gone."""
        self._next_lsn = max(self._next_lsn, lsn + 1)

    @property
    def last_lsn(self) -> int:
        return self._next_lsn - 1

    @property
    def failed(self) -> bool:
        """A write or a sync went wrong in a way that only reopening can mend."""
        return self._failed is not None

    @property
    def bytes(self) -> int:
        """Size of all log files."""
        return sum(self._sizes.values())

    @property
    def unsynced_bytes(self) -> int:
        return self._good - self._synced

    def close(self) -> None:
        """Doesn't sync: the owner did, or doesn't want to."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
