"""The few file operations that the engine's promises hang on, behind one small seam.

Tests put a layer in its place that loses, tears, reorders and refuses writes. ``crash_point`` is the other half: the
kill harness names a point in ``STREAMMEM_CRASH_AT`` and the process dies there as by ``kill -9``.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import IO

CRASH_POINTS = ("after_append", "after_sync", "before_rename", "after_rename", "after_manifest", "after_catalog")
PIECES = 1024
"""Most buffers of one ``writev`` (IOV_MAX of Linux)."""
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _armed() -> dict[str, int]:
    point, _, nth = os.environ.get("STREAMMEM_CRASH_AT", "").partition(":")
    return {point: int(nth) if nth.isdigit() else 1} if point in CRASH_POINTS else {}


_ARMED = _armed()


def crash_point(name: str) -> None:
    """Die here with SIGKILL if ``STREAMMEM_CRASH_AT=name[:n]`` says so (at the nth visit). Else: one dict look-up."""
    if name not in _ARMED:
        return
    _ARMED[name] -= 1
    if _ARMED[name] <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


class Files:
    """The real file system. Every method raises OSError as the system does."""

    def open(self, path: Path, mode: str) -> IO[bytes]:
        """A binary file; ``ab`` is unbuffered so that what was written has left the process."""
        return open(path, mode, buffering=0) if mode == "ab" else open(path, mode)

    def write(self, handle: IO[bytes], data: bytes) -> None:
        """Write all of it: a raw write may take less than it was given."""
        view = memoryview(data)
        while view:
            view = view[handle.write(view) :]

    def write_pieces(self, handle: IO[bytes], pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write them one after the other, in as few calls and copies as the system allows. A layer that refuses, loses
        or counts what goes through ``write`` gets these too."""
        if type(self).write is not Files.write:
            self.write(handle, b"".join(pieces))
            return
        handle.flush()
        for at in range(0, len(pieces), PIECES):
            batch = pieces[at : at + PIECES]
            written = os.writev(handle.fileno(), batch)
            if written < sum(map(len, batch)):
                self.write(handle, b"".join(batch)[written:])

    def fsync(self, handle: IO[bytes]) -> None:
        """Data and whatever is needed to find it are on the disk afterwards."""
        handle.flush()
        os.fdatasync(handle.fileno())

    def truncate(self, handle: IO[bytes], size: int) -> None:
        handle.truncate(size)

    def fsync_dir(self, path: Path) -> None:
        """Names created, renamed or removed in this directory are on the disk afterwards."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def mkdir(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and what is in it; nothing happens if it is gone already."""
        if path.exists():
            shutil.rmtree(path)

    def write_file(self, path: Path, data: bytes) -> None:
        """A whole new file, synced; the caller syncs the directory."""
        with self.open(path, "wb") as handle:
            self.write(handle, data)
            self.fsync(handle)

    def replace_file(self, path: Path, data: bytes) -> None:
        """Old or new content after a crash, never a mixture."""
        temporary = path.with_name(path.name + ".tmp")
        self.write_file(temporary, data)
        self.rename(temporary, path)
        self.fsync_dir(path.parent)
