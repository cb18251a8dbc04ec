"""Who a recording is (its content) and how it was looked at (its configuration), as short hashes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from streammem.config import PerceptionConfig
from streammem.errors import SourceError, SourceNotFound
from streammem.model import Producer
from streammem.paths import cache_dir

PERCEPTION_VERSION = 3
"""Raise it when the same configuration begins to give other observations: old memories are then watched again."""

_CHUNK = 4 * 1024 * 1024
_MAX_CACHE_LINES = 20_000


def content_hash(path: str | os.PathLike[str], *, cache: str | None = None) -> str:
    """64 hexadecimal digits: BLAKE2b-256 of every byte of a file, or of a folder's names, sizes and contents.

    A file's hash is remembered in the cache directory (``cache``; empty: the default) under its path, size,
    modification time and inode, so that a second question about a film doesn't read it again. Raises SourceNotFound
    or SourceError."""
    text = os.fspath(path)
    try:
        if os.path.isdir(text):
            return files_hash(sorted(_files_below(text)), root=text, cache=cache)
        found = os.stat(text)
        remembered = _Remembered(cache)
        key = f"{os.path.abspath(text)}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ino}"
        known = remembered.get(key)
        if known is not None:
            return known
        digest = hashlib.blake2b(digest_size=32)
        with open(text, "rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
        remembered.put(key, digest.hexdigest())
        return digest.hexdigest()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(f"nothing is at {text!r}", hint="check the path") from error
    except OSError as error:
        raise SourceError(f"{text!r} can't be read: {error.strerror}", hint="check its permissions") from error


def files_hash(paths: Iterable[str], *, root: str = "", cache: str | None = None) -> str:
    """The hash of a list of files: names relative to ``root``, sizes and contents, in the order given. Remembered like
    a file's, under every file's size, modification time and inode."""
    listed = [(os.path.relpath(path, root) if root else os.path.basename(path), path, os.stat(path)) for path in paths]
    seen = hashlib.blake2b(digest_size=32)
    for name, path, found in listed:
        seen.update(os.fsencode(os.path.abspath(path)) + b"\0" + os.fsencode(name))
        seen.update(f"\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ino}\0".encode())
    remembered = _Remembered(cache)
    key = seen.hexdigest()
    known = remembered.get(key)
    if known is not None:
        return known
    digest = hashlib.blake2b(digest_size=32)
    for name, path, found in listed:
        content = hashlib.blake2b(Path(path).read_bytes(), digest_size=32).digest()
        digest.update(os.fsencode(name) + b"\0" + str(found.st_size).encode() + b"\0" + content)
    remembered.put(key, digest.hexdigest())
    return digest.hexdigest()


def stream_id(name: str, content: str) -> str:
    """A short, safe, readable name: letters, digits, ``-`` and ``_`` of ``name``, then 8 digits of the hash."""
    stem = os.path.splitext(os.path.basename(name.rstrip("/\\")))[0] or name
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-_")[:40].strip("-_").lower()
    return f"{safe or 'video'}-{content[:8]}"


def configuration_hash(config: PerceptionConfig, producer: Producer) -> str:
    """12 hexadecimal digits of everything that changes what is remembered: the settings (``threads`` is none of
    them), the encoders' identity and the version of this code. It is the session of the observations."""
    # Not the detector's path: its file's hash is part of the encoders' identity.
    settings = config.model_dump(mode="json", exclude={"threads", "detector"})
    if settings["tokens"] == "off":
        del settings["tokens"]  # younger than the others: what was watched before it was there isn't watched again
    parts = [PERCEPTION_VERSION, settings, producer.module, producer.model, producer.revision, producer.parameters]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def text_hash(text: str) -> str:
    """64 hexadecimal digits of a text: the identity of what has no bytes (a scenario, an address)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def _files_below(root: str) -> list[str]:
    found = []

    def fail(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(root, onerror=fail):
        found += [os.path.join(folder, name) for name in names]
    return found


class _Remembered:
    """Known hashes, one line each, appended. A cache: whatever is wrong with it only costs reading the file again."""

    def __init__(self, cache: str | None) -> None:
        self.path = cache_dir(cache or "") / "content-hashes.tsv"

    def get(self, key: str) -> str | None:
        wanted = text_hash(key)
        try:
            lines = self.path.read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError):
            return None
        for line in reversed(lines):
            name, _, value = line.partition("\t")
            if name == wanted and re.fullmatch(r"[0-9a-f]{64}", value):
                return value
        return None

    def put(self, key: str, value: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size > _MAX_CACHE_LINES * 130:
                self.path.unlink()
            with open(self.path, "a", encoding="ascii") as file:
                # One write of under 4 kB in append mode: two processes at once don't mix their lines.
                file.write(f"{text_hash(key)}\t{value}\n")
        except OSError:
            return
