"""The memory: one directory, one writer, any number of readers.

    observation -> checks -> journal (append, group commit, fsync) -> open part and banks -> segments -> demotion

``write`` acknowledges what is synced; only then is it visible. A stream's open part is sealed at points that its
content alone decides (bytes, stream time, another embedding space), never by the wall clock, a restart or ``close``.
Opening after a kill (``storage/engine.py``): catalogue, journal's tail; the same memory, with the same digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import msgspec

from streammem.banks.arguments import checked
from streammem.banks.base import Asked, Bank, Between
from streammem.checks import check_name, refuse
from streammem.clock import Clock, SystemClock
from streammem.config import Config, RecallConfig
from streammem.errors import CorruptData, MemoryClosed, ObservationError, QueryError, StorageError, StorageFull
from streammem.model import Answer, Evidence, FrameRef, Observation, Record, StreamInfo
from streammem.spaces import EmbeddingSpace, configured_spaces
from streammem.storage.blocks import Block
from streammem.storage.engine import Engine
from streammem.storage.entries import Kind, Pending
from streammem.storage.files import Files
from streammem.storage.forgetting import interval
from streammem.storage.queue import CommitQueue, Group, Outcome
from streammem.storage.reports import ForgetReport, Status, WriteReceipt
from streammem.storage.store import STATE_BYTES
from streammem.storage.telling import contents_of, frame_refs_of, search_text_of
from streammem.storage.words import WordHit


def _banks(config: Config, short_term_bytes: int) -> dict[str, Callable[[], Bank]]:
    """Banks that are switched on, each imported when it is made. To add one, add its line here: whether it is on,
    what makes it, from what."""
    c = config
    lines: dict[str, tuple[Any, ...]] = {
        "short_term": (True, "short_term:ShortTermBank", c.memory.short_term_seconds, short_term_bytes),
        "events": (c.events.on, "events:configured", c.events),
        "clips": (c.clips.on, "clips:configured", c.clips),
        "entities": (c.entities.on, "entities:EntitiesBank", c.entities),
        "spatial": (c.spatial.on, "spatial.spatial_memory:SpatialBank", c.spatial),
        "timeline": (c.timeline.on, "timeline:TimelineBank", c.timeline.leaf_seconds),
        "tracks": (c.tracks.on, "tracks:TracksBank", c.tracks),
        "viewpoints": (c.tracks.on and c.tracks.viewpoints > 0, "viewpoints:ViewpointsBank", c.tracks),
        "perceptual_cognitive": (
            c.perceptual_cognitive.on,
            "perceptual_cognitive:PerceptualCognitiveBank",
            c.perceptual_cognitive,
        ),
    }
    return {name: partial(_make, *made) for name, (on, *made) in lines.items() if on}


def _make(where: str, *arguments: Any) -> Bank:
    module, _, maker = where.partition(":")
    made: Bank = getattr(import_module(f"streammem.banks.{module}"), maker)(*arguments)
    return made


def open(
    directory: str | Path,
    *,
    config: Config | None = None,
    mode: Literal["write", "read"] = "write",
    create: bool = True,
    clock: Clock | None = None,
    files: Files | None = None,
    spaces: Callable[[str], EmbeddingSpace] | None = None,
) -> Memory:
    """Open the memory in ``directory``, or make one there (``mode="write"`` and ``create``).

    ``clock`` stamps ``ingest_ns`` and paces group commits, nothing else. ``spaces`` finds an embedding space by name
    (default: the installed ones); it is asked for per-stream statistics when a part is sealed.
    Raises MemoryNotFound, MemoryLocked (names the writer's pid), FormatVersion, CorruptData, StorageError."""
    return Memory(
        Path(directory),
        config=config or Config(),
        mode=mode,
        create=create,
        clock=clock or SystemClock(),
        files=files or Files(),
        spaces=spaces,
    )


class Memory:
    """An open memory. Made by :func:`open`. Methods may be called from several threads; one runs at a time."""

    def __init__(
        self,
        directory: Path,
        *,
        config: Config,
        mode: Literal["write", "read"],
        create: bool,
        clock: Clock,
        files: Files,
        spaces: Callable[[str], EmbeddingSpace] | None,
    ) -> None:
        self.directory = directory
        self.config = config
        self.mode = mode
        self._clock = clock
        self._lock = RLock()
        self._closed = False
        self._engine = Engine(
            directory,
            config=config,
            write=mode == "write",
            create=create,
            files=files,
            spaces=spaces or configured_spaces(config),
            banks=_banks,
        )
        self._queue = CommitQueue(self._engine, config.memory, clock)

    # -- writing

    def write(self, observations: Observation | Iterable[Observation], *, durable: bool = True) -> WriteReceipt:
        """Remember observations. With ``durable`` they are synced when this returns; else they are queued and synced,
        and become visible, every ``sync_every`` observations or ``sync_ms`` (looked at when something is written).

        One observation that fails its checks raises ObservationError. In a list the bad ones are left out and counted
        by field in the receipt and in ``status``. Duplicates by (stream, session, seq) are dropped and counted.
        Raises StorageFull where there is no space: then nothing since the last sync is kept, and writing again works
        once there is space."""
        with self._lock:
            self._check_writable()
            if isinstance(observations, Observation):
                return self._write_group([observations], durable, single=True)
            total = WriteReceipt(0, durable=True)
            group = iter(observations)
            while chunk := list(islice(group, self.config.memory.sync_every)):
                part = self._write_group(chunk, durable, single=False)
                refused = {
                    field: total.refused.get(field, 0) + part.refused.get(field, 0)
                    for field in {**total.refused, **part.refused}
                }
                total = WriteReceipt(
                    total.written + part.written, total.duplicates + part.duplicates, refused, part.durable
                )
            return total

    def write_each(
        self,
        observations: Sequence[Observation],
        durable: Callable[[list[Outcome]], None] | None = None,
        more: Callable[[float], Group | None] | None = None,
    ) -> list[Outcome]:
        """One group commit, for a service that answers for every packet: what became of each, in order. All are
        durable when this returns. ``durable`` is called with it as soon as they are: before sealing, which takes
        0.2 s, and before anyone can look (whoever looks waits until they are visible).

        ``more(seconds)`` gives the next group, or None after so long: while a segment is being written, further groups
        become durable, and are applied after it, in order.
        Raises StorageFull and StorageError as ``write`` does; then ``durable`` wasn't called and none was kept."""
        with self._lock:
            self._check_writable()
            self._engine.make_room()
            accepted, keys, outcomes = self._queue.admit(observations)
            self._queue.on_durable = durable and (lambda: durable(outcomes))
            self._queue.more = more
            try:
                self._queue.add(accepted, keys)
                self._queue.commit_if_due(True)
                if self._queue.on_durable is not None:
                    self._queue.on_durable()  # all of them were duplicates or refused: nothing had to be synced
            finally:
                self._queue.on_durable = self._queue.more = None
        return outcomes

    def _write_group(self, chunk: Sequence[Observation], durable: bool, *, single: bool) -> WriteReceipt:
        self._engine.make_room()
        accepted, keys, outcomes = self._queue.admit(chunk, single=single)
        self._queue.add(accepted, keys)
        self._queue.commit_if_due(durable)
        refused: dict[str, int] = {}
        for outcome in outcomes:
            if isinstance(outcome, ObservationError):
                field = outcome.field.partition("[")[0]
                refused[field] = refused.get(field, 0) + 1
        return WriteReceipt(len(accepted), outcomes.count("duplicate"), refused, not self._queue)

    def flush(self) -> None:
        """Sync and show everything that is queued, counters of drops included."""
        with self._lock:
            self._check_writable()
            counters = self._engine.counters_entry()
            if counters is not None:
                self._queue.add([counters])
            if self._queue:
                self._queue.commit()

    def seal(self) -> int:
        """Flush, and turn every open part into a segment. Returns the rows sealed. Not needed for durability."""
        with self._lock:
            self.flush()
            return self._engine.seal_all()

    def set_stream(self, info: StreamInfo) -> None:
        """Describe a stream. Durable when it returns. Raises ObservationError for a name that no stream may have."""
        check_name(info.stream, "stream")
        self._record(Kind.STREAM, msgspec.msgpack.encode(info), durable=True)

    def put_state(self, key: str, value: bytes, *, durable: bool = True) -> None:
        """Keep a blob (at most 4 MB) under a key, in order with the observations: a state that is found again was put
        after everything written before it, and that is found too. ``durable=False`` waits for the next sync."""
        check_name(key, "key")
        if len(value) > STATE_BYTES:
            raise refuse("value", f"has {len(value)} bytes, the limit is {STATE_BYTES}")
        self._record(Kind.STATE, msgspec.msgpack.encode((key, bytes(value))), durable=durable)

    def pin(self, stream: str, between: Between = (None, None)) -> None:
        """Never demote what overlaps the interval (whole segments keep their detail)."""
        self._record(Kind.PIN, interval(stream, between), durable=True)

    def unpin(self, stream: str, between: Between = (None, None)) -> None:
        """Take back the pin of exactly this interval."""
        self._record(Kind.UNPIN, interval(stream, between), durable=True)

    def cite(self, stream: str, between: Between) -> None:
        """An answer rests on this interval. Kept where open for writing and if ``budget.policy`` asks for it; durable
        with the next sync."""
        if self._engine.reinforced:
            self._record(Kind.CITE, interval(stream, between), durable=False)

    def _record(self, kind: int, payload: bytes, *, durable: bool) -> None:
        with self._lock:
            self._check_writable()
            if kind == Kind.STATE:
                self._engine.make_room()  # the other kinds are small, and `unpin` is how a full memory gets room
            self._queue.add([Pending(kind, payload)])
            self._queue.commit_if_due(durable)

    def forget(self, *, stream: str | None = None, between: Between | None = None) -> ForgetReport:
        """Remove a stream, an interval, or an interval of one stream, from every bank, vector, thumbnail, text index,
        from the journal and from quarantined copies. A whole stream is forgotten with its name and its states (keys
        that hold the name); forgetting everything removes every state. Forgotten seqs of an interval stay known, so
        that a resending producer can't bring them back; a whole stream may be written anew."""
        with self._lock:
            self.flush()
            return self._engine.forget(stream, between)

    # -- reading

    def blocks(
        self, bank: str = "moments", streams: Sequence[str] | None = None, between: Between | None = None
    ) -> list[Block]:
        """Sealed and open blocks of a bank that can overlap the closed interval, in the order of sealing."""
        with self._lock:
            self._check_open()
            self._engine.banks.get(bank)  # a reader's bank makes its records of the journal's tail when it is made
            return self._engine.store.blocks(bank, streams, between)

    def record(self, record_id: int) -> Record | None:
        """A record of any bank, without its thumbnail; None if there is none. Raises CorruptData for a damaged one."""
        with self._lock:
            self._check_open()
            return self._engine.find(record_id, lambda block, row: block.record(row))

    def thumbnail(self, record_id: int) -> bytes | None:
        """The JPEG kept with a record, or None. Raises CorruptData for a damaged one."""
        with self._lock:
            self._check_open()
            return self._engine.find(record_id, lambda block, row: block.thumbnail(row))

    def search_text(
        self, query: str, *, streams: Sequence[str] | None = None, between: Between | None = None, limit: int = 100
    ) -> list[WordHit]:
        """Texts and speech that hold any word of the query, sealed (BM25 of trigrams) and open (substring), best
        first."""
        with self._lock:
            self._check_open()
            return search_text_of(self._engine, query, streams, between, limit)

    def search_words(
        self, words: Sequence[str], streams: Sequence[str] | None, between: Between | None, limit: int
    ) -> set[int] | None:
        """Ids of sealed records whose texts or speech may hold one of the words (open ones aren't indexed)."""
        with self._lock:
            self._check_open()
            hits = self._engine.store.words.search(" ".join(words), streams, between, limit)
            return {hit.record_id for hit in hits}

    def frame_refs(self, stream: str, records: Sequence[Record]) -> list[FrameRef]:
        """The frames of these records that exist now: a thumbnail here, or the source's file."""
        with self._lock:
            self._check_open()
            return frame_refs_of(self._engine, stream, records)

    def space(self, space_id: str) -> EmbeddingSpace | None:
        """The embedding space of this id, or None where it isn't installed here in this version."""
        return self._engine.find_space(space_id)

    @property
    def recall_config(self) -> RecallConfig:
        return self.config.recall

    def search(self, query: str, **options: Any) -> list[Evidence]:
        """Closest moments to a query; see :func:`streammem.recall.search.search`."""
        from streammem.recall.search import search

        return search(self, query, **options)

    def ask(self, question: str, **options: Any) -> Answer:
        """An answer with evidence; see :func:`streammem.recall.answer.ask`."""
        from streammem.recall.answer import ask

        return ask(self, question, **options)

    def bank(self, name: str) -> Bank:
        """A bank of this process. Raises QueryError for a name that no bank has, or a bank that was switched off when
        the memory was written."""
        with self._lock:
            found: Bank | None = self._engine.banks.get(name) if isinstance(name, str) else None
            if found is None:
                known = ", ".join(sorted(self._engine.banks))
                raise QueryError(f"this memory has no bank {name!r}", hint=f"it has: {known}")
            return found

    def query(self, bank: str, question: str, *, streams: Sequence[str] | None = None, **arguments: Any) -> Any:
        """Ask a bank one of its own questions, read-only: ``query("entities", "last_seen", entity="mug")``.

        The result is plain (dicts, lists, numbers, text), the same in process and from a service; ``streammem.banks``
        says what each question returns. Raises QueryError for an unknown bank, question or argument, and for one of
        another type than the question's annotations say."""
        with self._lock:
            self._check_open()
            found = self.bank(bank)
            known = found.questions() if isinstance(found, Asked) else {}
            if not isinstance(question, str) or question not in known:
                asked = ", ".join(sorted(known)) or "none"
                raise QueryError(f"the bank {bank!r} has no question {question!r}", hint=f"its questions: {asked}")
            function = known[question]
            given = checked(bank, question, function, {"streams": streams, **arguments})
            return msgspec.to_builtins(function(self, **given))

    def knows(self, bank: str) -> bool:
        """Whether a bank may hold anything; a reader needn't make it to tell."""
        return self._engine.banks.knows(bank)

    def recent(self, stream: str) -> list[Record]:
        """The short-term memory of a stream, oldest first, thumbnails included."""
        with self._lock:
            self._check_open()
            return self._engine.banks["short_term"].recent(stream)

    def streams(self) -> list[StreamInfo]:
        """Every stream that was described or written, sorted by name."""
        with self._lock:
            self._check_open()
            return self._engine.stream_infos()

    def get_state(self, key: str) -> bytes | None:
        with self._lock:
            self._check_open()
            found = self._engine.store.states.get(key)
            return None if found is None else found[1]

    @property
    def observation_count(self) -> int:
        """Observations that records stand for now; merged ones count, forgotten ones don't."""
        with self._lock:
            self._check_open()
            return sum(count for count, _ in contents_of(self._engine, "moments").values())

    def has(self, stream: str, session: str, seq: int) -> bool:
        """Whether this observation was seen and made durable (it may have been demoted since)."""
        with self._lock:
            self._check_open()
            return self._engine.store.has_seen(stream, session, seq)

    def last_seq(self, stream: str, session: str = "") -> int | None:
        """The largest seq seen, or None."""
        with self._lock:
            self._check_open()
            seen = self._engine.store.seen.get(stream, {}).get(session)
            return None if seen is None else seen.last

    def status(self) -> Status:
        """Bytes against caps, streams, drops, damage. Costs a look at the files' sizes, reads no data."""
        with self._lock:
            self._check_open()
            return self._engine.status(self.mode)

    def digest(self) -> str:
        """32 hexadecimal digits that depend on what is remembered and how detailed, not on when or in how many pieces
        it was written or sealed."""
        with self._lock:
            self._check_open()
            return self._engine.digest()

    def verify(self) -> list[CorruptData]:
        """Read every byte of every segment and check it; damaged segments are quarantined. Returns all damage known,
        the journal's included; an empty list is good news."""
        with self._lock:
            self._check_open()
            return self._engine.verify()

    # -- opening and closing

    def close(self) -> None:
        """Flush and let go of the directory. The open part stays in the journal. Closing twice is fine."""
        with self._lock:
            if self._closed:
                return
            try:
                if self.mode == "write":
                    self.flush()
            finally:
                self._closed = True
                self._engine.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Record]:
        """Every record of the bank moments, block by block in time order."""
        for block in self.blocks():
            for row in range(len(block)):
                yield block.record(row)

    def _check_open(self) -> None:
        if self._closed:
            raise MemoryClosed(f"the memory {str(self.directory)!r} is closed", hint="open it again")
        self._engine.refresh()

    def _check_writable(self) -> None:
        if self._closed:
            raise MemoryClosed(f"the memory {str(self.directory)!r} is closed", hint="open it again")
        if self.mode != "write":
            raise StorageError(
                f"the memory {str(self.directory)!r} is open for reading", hint="open it with mode='write'"
            )


__all__ = ["Between", "Memory", "StorageFull", "open"]
