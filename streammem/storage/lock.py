"""One writer a memory: ``flock`` on the file LOCK, which holds the writer's pid so that an error can name it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from streammem.errors import MemoryLocked


class WriterLock:
    """Held from construction to ``release``; the kernel releases it when the process dies, however it dies."""

    def __init__(self, path: Path) -> None:
        """Raises MemoryLocked, naming the holder's pid."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            pid = int(text) if text.isdigit() else None
            raise MemoryLocked(
                f"process {pid or '(unknown)'} writes to the memory {str(path.parent)!r}",
                pid=pid,
                hint="stop it, or open the memory with mode='read'",
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode("ascii"), 0)

    def release(self) -> None:
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1
