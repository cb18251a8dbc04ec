"""From what a person names (a video, a folder, a memory) to an open memory of it.

The composition root: the one place where the command line meets ``perception``, imported when it is needed. A source's
memory is kept in the cache as ``memories/<content hash>-<configuration hash>``, so that a second question about the
same content is instant, under whatever name the file goes by now. Beside it lies ``<name>.json``, which says what was
watched and with which settings.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from streammem.cli.remote import connect_to, is_address
from streammem.clock import format_duration, format_time
from streammem.errors import InputError, MemoryNotFound, SourceError, StorageFull, StreammemError
from streammem.paths import cache_dir
from streammem.printable import printable
from streammem.redact import redact

if TYPE_CHECKING:
    from perception.frames import Source
    from perception.pipeline import WatchReport
    from streammem.cli.output import Output
    from streammem.client import Client
    from streammem.config import Config
    from streammem.memory import Memory
    from streammem.spaces import EmbeddingSpace


@dataclass(slots=True)
class Opened:
    """An open memory and where it came from. ``report`` is set when something was watched just now."""

    memory: Memory | Client
    directory: Path | str
    name: str
    report: WatchReport | None = None
    watched: dict[str, Any] = field(default_factory=dict)


def is_memory(path: str | Path) -> bool:
    """Whether ``path`` is a directory that holds a memory."""
    from streammem.storage import recovery

    return recovery.is_memory(Path(path))


def open_memory(directory: str | Path, config: Config, *, mode: Literal["read", "write"] = "read") -> Memory:
    """Open a memory that must exist. Raises MemoryNotFound."""
    import streammem.memory

    if not is_memory(directory):
        raise MemoryNotFound(f"{directory}: no memory is here", hint="streammem watch SOURCE --memory DIR makes one")
    return streammem.memory.open(directory, config=config, mode=mode, create=False, spaces=_spaces(config))


def warm_words(target: str, config: Config) -> None:
    """Begin to open what turns a question into numbers, while the memory is looked for: 0.1 s of a second question."""
    if not is_address(target) and _is_default(config.perception.space):
        from perception.encoders.minilm import MiniLM

        MiniLM(cache=cache_dir(config.cache_dir)).prefetch()


def _spaces(config: Config) -> Callable[[str], EmbeddingSpace]:
    """The default space without asking every installed package for its entry points (20 ms), and with the cache of
    this configuration; the others as the memory finds them."""
    from streammem.spaces import configured_spaces

    installed = configured_spaces(config)

    def find(space_id: str) -> EmbeddingSpace:
        if not _is_default(space_id):
            return installed(space_id)
        from perception.encoders.imagenet import ImageNetSpace

        return ImageNetSpace(cache=cache_dir(config.cache_dir))

    return find


def _is_default(space_id: str) -> bool:
    return space_id.split("@", 1)[0] == "imagenet-conse"


@contextmanager
def open_target(
    target: str,
    config: Config,
    out: Output,
    *,
    directory: str | None = None,
    rewatch: bool = False,
    key: str | None = None,
) -> Iterator[Opened]:
    """The memory of ``target``, read-only. A memory's directory is opened as it is, the address of a service is
    connected to; anything else is a source, which is watched first unless its memory is complete.

    Raises the typed errors of sources and memories; KeyboardInterrupt after an interrupted watch has been made
    durable."""
    report: WatchReport | None = None
    facts: dict[str, Any] = {}
    if is_address(target):
        if directory is not None or rewatch:
            raise InputError(f"{target}: is a service", hint="--memory and --rewatch go with a source such as a video")
        with connect_to(target, key) as client:
            yield Opened(client, target, target)
        return
    if is_memory(target):
        found, name = Path(target), Path(target).resolve().name
        if directory is not None or rewatch:
            raise InputError(f"{target}: is a memory", hint="--memory and --rewatch go with a source such as a video")
    else:
        found, facts = ensure_watched(target, config, out, directory=directory, rewatch=rewatch)
        report, name = facts.pop("report", None), _short_name(target)
    memory = open_memory(found, config)
    try:
        yield Opened(memory, found, name, report, facts)
    finally:
        memory.close()


def existing_memory(target: str, config: Config) -> Path:
    """The directory of a memory, or of the memory of a source that was watched before; nothing is watched here.

    Raises MemoryNotFound."""
    if is_memory(target):
        return Path(target)
    known: list[Path] = []
    if os.path.isfile(target):
        from perception.identity import content_hash

        content = content_hash(target, cache=config.cache_dir)
        known = [path for path in _siblings(config, content) if is_memory(path)]
    else:
        known = _watched_as(config, os.path.abspath(target))
    if known:
        return max(known, key=lambda path: path.stat().st_mtime)
    if not os.path.lexists(target):
        raise MemoryNotFound(f"{target}: nothing is here", hint="name a memory's directory or a source watched before")
    raise MemoryNotFound(f"{target}: no memory is here, and it wasn't watched yet", hint=f"streammem watch {target}")


def ensure_watched(
    target: str,
    config: Config,
    out: Output,
    *,
    directory: str | None = None,
    rewatch: bool = False,
    speed: float | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Watch ``target`` unless that was done: the memory's directory and what is known of the watch. ``speed`` plays a
    recording at so many times its own pace; None: as fast as it can be watched.

    ``report`` is among the facts when something was watched now."""
    from perception.encoders.suite import EncoderSuite
    from perception.identity import configuration_hash, content_hash

    suite = EncoderSuite(config.perception, cache=config.cache_dir)
    suite.require()
    session = configuration_hash(config.perception, suite.identity())
    if directory is None and not rewatch and os.path.isfile(target):
        # The short way: neither the video nor a decoder is opened for what is complete.
        place = _place(config, content_hash(target, cache=config.cache_dir), session)
        facts = _read_facts(place)
        if facts.get("complete") and is_memory(place):
            return place, facts
    from perception.sources import open_source

    source = open_source(target, config)
    try:
        if speed is not None:
            from perception.sources.paced import Paced

            source = Paced(source, speed)
        info = source.info
        if info.live and directory is None:
            raise SourceError(
                f"{target}: a live source has no end", hint="streammem watch SOURCE --memory DIR, then ask DIR"
            )
        place = Path(directory) if directory else _place(config, info.content_hash, session)
        facts = {
            "source": redact(target) if "://" in target else os.path.abspath(target),
            "stream": info.stream,
            "content_hash": info.content_hash,
            "session": session,
            "perception": config.perception.model_dump(mode="json"),
            "complete": False,
        }
        if directory is None:
            _prepare_cached(place, facts, config, out, rewatch=rewatch)
        report = _watch(
            source, suite, place, config, out, session=session, shared=directory is not None, rewatch=rewatch
        )
    finally:
        source.close()
    if report.interrupted:
        out.note(f"stopped at {format_time(report.media_ns, info.clock, 0)}; the next run goes on from there")
        raise KeyboardInterrupt
    facts["complete"] = True
    if directory is None:
        _write_facts(place, facts)
    return place, facts | {"report": report}


def _place(config: Config, content: str, session: str) -> Path:
    # 16 digits are 64 bits: two of a million different recordings collide with a chance of 3e-8.
    return cache_dir(config.cache_dir) / "memories" / f"{content[:16]}-{session}"


def _siblings(config: Config, content: str) -> list[Path]:
    folder = cache_dir(config.cache_dir) / "memories"
    return sorted(path for path in folder.glob(f"{content[:16]}-*") if path.is_dir())


def _watched_as(config: Config, source: str) -> list[Path]:
    """Memories in the cache of a folder, a glob or a scenario, by the name under which it was watched."""
    folder = cache_dir(config.cache_dir) / "memories"
    places = [path.with_suffix("") for path in sorted(folder.glob("*.json"))]
    return [place for place in places if _read_facts(place).get("source") == source and is_memory(place)]


def _prepare_cached(place: Path, facts: dict[str, Any], config: Config, out: Output, *, rewatch: bool) -> None:
    """Make room for the memory in the cache, and say what an earlier watch means for this one."""
    before = _read_facts(place)
    if is_memory(place) and (rewatch or before.get("stream", facts["stream"]) != facts["stream"]):
        # A half-watched file that has another name now: its stream would be called differently.
        remove_memory(place)
    others = [path for path in _siblings(config, facts["content_hash"]) if path != place and is_memory(path)]
    if others and not is_memory(place):
        changes = _changes(_read_facts(others[-1]).get("perception", {}), facts["perception"])
        out.note(f"watched before with other settings ({changes}); watching again with these")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFull(
            f"{place}: {error.strerror}", hint="--memory DIR keeps the memory elsewhere; so does --set cache_dir=DIR"
        ) from None
    _write_facts(place, facts)


def unwatch(place: Path) -> None:
    """Say that nothing of the recording is remembered any more: a question about it watches it again."""
    facts = _read_facts(place)
    if facts.pop("complete", False):
        _write_facts(place, facts)


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    changed = [f"{key} {before[key]} -> {now[key]}" for key in now if key in before and before[key] != now[key]]
    return ", ".join(changed) or "another version of the encoders"


def remove_memory(place: Path) -> None:
    """Delete a memory in the cache, also a damaged one. Raises MemoryLocked while another process writes to it."""
    from streammem.storage.lock import WriterLock

    lock = WriterLock(place / "LOCK")
    try:
        _facts_path(place).unlink(missing_ok=True)
        shutil.rmtree(place)
    finally:
        lock.release()


def _watch(
    source: Source, suite: Any, place: Path, config: Config, out: Output, *, session: str, shared: bool, rewatch: bool
) -> WatchReport:
    import streammem.memory
    from perception.pipeline import checkpoint_key, read_checkpoint, watch
    from streammem.cli.progress import WatchProgress

    info = source.info
    with streammem.memory.open(place, config=config, mode="write") as memory:
        if shared:
            _check_shared(memory, info.stream, session, rewatch, checkpoint_key)
        before = read_checkpoint(memory, info.stream, session)
        if before is not None and before.next_ns and not before.done:
            out.note(f"Resuming at {format_time(before.next_ns, info.clock, 0)}")
        if shared:
            memory.put_state(_session_key(info.stream), session.encode())
        try:
            with WatchProgress(out, _short_name(info.text), info.duration_ns, info.clock) as progress:
                report = watch(source, memory, suite, config, progress=progress.update)
        except StorageFull as error:
            raise StorageFull(
                error.message, hint=error.hint or f"free space at {place}; the next run goes on"
            ) from error
        memory.flush()
    if report.frames == 0 and not report.interrupted and (before is None or not before.frames):
        raise SourceError(
            f"{info.text}: no picture could be decoded", hint="streammem doctor; try --set perception.decoder=opencv"
        )
    describe_watch(report, info.clock, out)
    return report


def _session_key(stream: str) -> str:
    return f"cli/session/{stream}"


def _check_shared(memory: Memory, stream: str, session: str, rewatch: bool, checkpoint_key: Any) -> None:
    """A memory that the user named may hold this stream already, looked at in another way."""
    known = memory.get_state(_session_key(stream))
    if known is None or (known.decode() == session and not rewatch):
        return
    if not rewatch:
        raise InputError(
            f"this memory holds {stream} as watched with other settings",
            hint="--rewatch replaces that; another --memory keeps both",
        )
    memory.forget(stream=stream)
    memory.put_state(checkpoint_key(stream, known.decode()), b"")
    memory.put_state(checkpoint_key(stream, session), b"")


def describe_watch(report: WatchReport, clock: Any, out: Output) -> None:
    """One grey line: how much was watched, how quickly, and where the time went."""
    if not report.frames:
        return
    shares = sorted(report.shares.items(), key=lambda item: -item[1])
    where = ", ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.01)
    length = format_duration(report.media_ns - report.resumed_at_ns)
    out.note(
        f"watched {length} in {format_duration(int(report.wall_s * 1e9))} ({report.rate:.0f}x real time): "
        f"{report.frames} looks, {report.keyframes} in full" + (f" · {where}" if where else "")
    )
    health = report.health
    troubles = [
        f"{count} {words}"
        for count, words in (
            (health.bad_packets, "damaged packets"),
            (health.corrupt_frames, "damaged frames"),
            (health.pts_resets, "jumps in the time stamps"),
            (health.missing_pts, "frames without time stamps"),
            (health.frozen_frames, "frozen frames"),
        )
        if count
    ]
    for line in [*([", ".join(troubles)] if troubles else []), *health.notes]:
        out.note(f"the source: {line}")


def _short_name(target: str) -> str:
    return printable(redact(target) if "://" in target else os.path.basename(target.rstrip("/")) or target, 80)


def _facts_path(place: Path) -> Path:
    return place.with_name(place.name + ".json")


def _read_facts(place: Path) -> dict[str, Any]:
    try:
        facts = json.loads(_facts_path(place).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # Missing or damaged: only the shortcut is lost; the memory's own checkpoint still knows what was watched.
        return {}
    return facts if isinstance(facts, dict) else {}


def _write_facts(place: Path, facts: dict[str, Any]) -> None:
    path = _facts_path(place)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StorageFull(f"{path}: {error.strerror}", hint="free some space; the next run goes on") from None


class Frames:
    """Frames decoded again from the sources of a memory's streams, where those still are what was watched."""

    def __init__(self, opened: Opened, config: Config) -> None:
        self._infos = {info.stream: info for info in opened.memory.streams()}
        self._config = config
        self._sources: dict[str, Source | None] = {}
        known = opened.watched
        self._moved = {known["stream"]: known["source"]} if "stream" in known and "source" in known else {}

    def frame_at(self, stream: str, t_ns: int) -> Any:
        """(h, w, 3) uint8 RGB of the frame that was showing at ``t_ns``, or None where it can't be had again."""
        if stream not in self._sources:
            self._sources[stream] = self._open(stream)
        source = self._sources[stream]
        if source is None:
            return None
        try:
            frames = source.look_again(t_ns, t_ns, self._config.perception.fps)
        except StreammemError:
            return None
        return frames[0].image if frames else None

    def _open(self, stream: str) -> Source | None:
        from perception.sources import open_source

        info = self._infos.get(stream)
        if info is None or info.clock != "media":
            return None
        try:
            source = open_source(self._moved.get(stream) or info.source, self._config)
        except StreammemError:
            return None
        if source.info.content_hash != info.content_hash:
            # Another file has that name now: its frames would prove nothing.
            source.close()
            return None
        return source

    def close(self) -> None:
        for source in self._sources.values():
            if source is not None:
                source.close()
