"""A file layer that runs out of space, and that forgets unsynced writes as a power cut does."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from streammem.storage.files import Files

PAGE = 4096


class SmallDisk(Files):
    """``free`` bytes are left; then every write is refused with ENOSPC, after writing what still fits."""

    def __init__(self, free: int | None = None) -> None:
        self.free = free

    def write(self, handle: IO[bytes], data: bytes) -> None:
        if self.free is None or len(data) <= self.free:
            super().write(handle, data)
            self.free = None if self.free is None else self.free - len(data)
            return
        super().write(handle, bytes(data[: self.free]))
        self.free = 0
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_pieces(self, handle: IO[bytes], pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        self.write(handle, b"".join(pieces))


class BrokenSync(Files):
    """``fsync`` fails with EIO while ``broken``."""

    broken = False

    def fsync(self, handle: IO[bytes]) -> None:
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(handle)


class PowerCut(Files):
    """Remembers what was synced. ``cut`` undoes a random part of the rest: writes are lost, torn (a prefix stays) or
    reordered (later pages stay, earlier ones read as zeros); unsynced renames and removals may not have happened."""

    def __init__(self) -> None:
        self.synced: dict[Path, bytes] = {}
        self.undo: list[tuple[Path, str, Path, Path | bytes]] = []

    def open(self, path: Path, mode: str) -> IO[bytes]:
        handle = super().open(path, mode)
        if mode == "wb":
            self.synced[path] = b""
        else:
            self.synced.setdefault(path, path.read_bytes() if path.exists() else b"")
        return handle

    def fsync(self, handle: IO[bytes]) -> None:
        super().fsync(handle)
        path = Path(handle.name)
        if path.exists():
            self.synced[path] = path.read_bytes()

    def fsync_dir(self, path: Path) -> None:
        self.undo = [entry for entry in self.undo if entry[0] != path]

    def rename(self, source: Path, target: Path) -> None:
        if target.is_file():
            self.undo.append((target.parent, "restore", target, target.read_bytes()))
        super().rename(source, target)
        self.undo.append((target.parent, "rename", source, target))
        for path in [path for path in self.synced if path == source or source in path.parents]:
            self.synced[target / path.relative_to(source) if path != source else target] = self.synced.pop(path)

    def unlink(self, path: Path) -> None:
        if path.exists():
            self.undo.append((path.parent, "restore", path, path.read_bytes()))
        self.synced.pop(path, None)
        super().unlink(path)

    def remove_tree(self, path: Path) -> None:
        for known in [known for known in self.synced if path in known.parents]:
            self.synced.pop(known)
        super().remove_tree(path)

    def cut(self, seed: int) -> None:
        rng = random.Random(seed)
        for path, durable in self.synced.items():
            if path.exists() and path.read_bytes() != durable:
                path.write_bytes(self._after(rng, durable, path.read_bytes()))
        for _, what, first, second in reversed(self.undo):
            if rng.random() < 0.5:
                continue
            if what == "rename" and isinstance(second, Path) and second.exists():
                if first.exists():
                    shutil.rmtree(first) if first.is_dir() else first.unlink()
                os.replace(second, first)
            elif what == "restore" and isinstance(second, bytes) and first.parent.exists():
                first.write_bytes(second)

    @staticmethod
    def _after(rng: random.Random, durable: bytes, written: bytes) -> bytes:
        fate = rng.choice(("lost", "torn", "reordered"))
        if fate == "lost" or not written.startswith(durable):
            return durable
        fresh = written[len(durable) :]
        if fate == "torn":
            return durable + fresh[: rng.randrange(len(fresh) + 1)]
        pages = [fresh[at : at + PAGE] for at in range(0, len(fresh), PAGE)]
        return durable + b"".join(page if rng.random() < 0.5 else bytes(len(page)) for page in pages)
