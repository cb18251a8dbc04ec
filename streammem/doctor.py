"""What works on this machine and in this memory, line by line, each with the next thing to do.

Only what lies inside ``streammem`` is looked at here; ``cli/doctor.py`` adds the encoders and decoders.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from streammem.errors import CorruptData, StreammemError
from streammem.paths import cache_dir

if TYPE_CHECKING:
    from streammem.config import Config

Level = Literal["ok", "warn", "fail"]

MB = 1 << 20
# The converted models take 190 MB; an hour of video at one look a second takes about 40 MB.
_LITTLE_SPACE = 2048 * MB
_NO_SPACE = 256 * MB

PACKAGES = ("numpy", "opencv-python-headless", "av", "onnxruntime", "faiss-cpu", "msgspec", "pydantic", "rapidocr")
OPTIONAL = {
    "transformers": "CLIP and SigLIP2 as embedding spaces: pip install 'streammem[models]'",
    "faster-whisper": "speech: pip install 'streammem[speech]'",
    "decord": "the decoder decord",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line. ``hint`` is the next action where the level isn't ``ok``."""

    section: str
    name: str
    level: Level
    detail: str
    hint: str = ""


def worst(checks: Sequence[Check]) -> Level:
    """The level of the whole: the worst one."""
    levels: tuple[Level, ...] = ("fail", "warn", "ok")
    return next((level for level in levels if any(check.level == level for check in checks)), "ok")


def machine_checks(config: Config) -> Iterator[Check]:
    """Python, packages, the build of torch, cores, the cache directory and its disk."""
    here = "machine"
    yield Check(here, "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if config.perception.threads > cores:
        hint = f"--set perception.threads={cores}"
        yield Check(here, "cores", "warn", f"{cores}, but perception.threads is {config.perception.threads}", hint)
    else:
        yield Check(here, "cores", "ok", f"{cores}, {config.perception.threads} used for encoding")
    yield from cache_checks(config)
    yield from _package_checks()
    yield _torch_check()


def _package_checks() -> Iterator[Check]:
    for name in PACKAGES:
        found = _version(name)
        if found:
            yield Check("packages", name, "ok", found)
        else:
            yield Check("packages", name, "fail", "not installed", "pip install streammem")
    for name, gives in OPTIONAL.items():
        yield Check("packages", name, "ok", _version(name) or f"not installed (optional: {gives})")


def _torch_check() -> Check:
    """From the version's label alone: importing torch takes two seconds and answering a question never needs it."""
    found = _version("torch")
    if not found:
        return Check("packages", "torch", "fail", "not installed", "pip install streammem")
    local = found.partition("+")[2]
    gpu = Path("/proc/driver/nvidia/version").exists()
    if local.startswith("cu") or (not local and sys.platform == "linux"):
        if gpu:
            return Check("packages", "torch", "ok", f"{found}, CUDA build, an NVIDIA driver is loaded")
        hint = "fine, but the CPU build saves gigabytes: pip install torch --index-url https://download.pytorch.org/whl/cpu"
        return Check("packages", "torch", "warn", f"{found}, CUDA build without an NVIDIA driver", hint)
    return Check("packages", "torch", "ok", f"{found}, CPU build" + (", although there is a GPU" if gpu else ""))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def cache_checks(config: Config) -> Iterator[Check]:
    """The cache directory: whether it can be written, and how much room is left."""
    folder = cache_dir(config.cache_dir)
    elsewhere = "set STREAMMEM_CACHE to a directory that can be written"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"streammem")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield Check("machine", "cache", "fail", f"{folder}: {error.strerror}", elsewhere)
        return
    memories = sum(1 for _ in (folder / "memories").glob("*.json")) if (folder / "memories").is_dir() else 0
    yield Check("machine", "cache", "ok", f"{folder}, {memories} watched")
    free = shutil.disk_usage(folder).free
    level: Level = "fail" if free < _NO_SPACE else "warn" if free < _LITTLE_SPACE else "ok"
    hint = "" if level == "ok" else "free some space, or move the cache with STREAMMEM_CACHE"
    yield Check("machine", "disk", level, f"{free / MB / 1024:.1f} GB free", hint)


def memory_checks(directory: Path) -> Iterator[Check]:
    """Every checksum of a memory: its mark, catalogue, journal and segments. Only reads; another process may write
    to the memory meanwhile."""
    from streammem.storage.recovery import check_format

    here = "memory"
    try:
        check_format(directory)
        yield Check(here, "format", "ok", str(directory))
    except StreammemError as error:
        yield Check(here, "format", "fail", error.message, error.hint)
        return
    yield from _opening(directory)
    yield from _segments(directory)


def _opening(directory: Path) -> Iterator[Check]:
    """Open it as a reader does: that replays the journal and checks the catalogue."""
    import streammem.memory

    here = "memory"
    try:
        with streammem.memory.open(directory, mode="read") as memory:
            status = memory.status()
    except StreammemError as error:
        yield Check(here, "opens", "fail", error.message, error.hint)
        return
    yield Check(here, "opens", "ok", f"{status.observations:,} observations, {status.segments} segments")
    for damage in status.corruption:
        where = f"{damage.path} at byte {damage.offset}: {damage.what}"
        kept = f"a copy is in {damage.quarantined}; " if damage.quarantined else ""
        yield Check(
            here, "damage", "fail", where, f"{kept}what is left still answers; watch the source again to mend it"
        )
    journal = f"{status.journal_bytes:,} bytes"
    if not any("journal" in damage.path for damage in status.corruption):
        yield Check(here, "journal", "ok", journal)
    for note in status.notes:
        yield Check(here, "note", "warn", note, "nothing to do if it was expected")


def _segments(directory: Path) -> Iterator[Check]:
    from streammem.storage.segments import Segment, read_manifest

    folder = directory / "segments"
    names = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    sound, rows = 0, 0
    for path in names:
        if path.name.startswith((".", "tmp")):
            continue
        try:
            segment = Segment(path, read_manifest(path))
            damage = segment.verify()
            rows += len(segment)
            segment.close()
        except CorruptData as error:
            damage = [error]
        except StreammemError as error:
            yield Check("memory", path.name, "fail", error.message, error.hint)
            continue
        sound += not damage
        for found in damage:
            hint = found.hint or "the other segments still answer; watch the source again to mend it"
            yield Check("memory", path.name, "fail", found.message, hint)
    if names:
        yield Check("memory", "segments", "ok", f"{sound} of {len(names)} sound, {rows:,} records, every byte checked")
    else:
        yield Check("memory", "segments", "ok", "none yet: everything is in the journal, which was checked")
