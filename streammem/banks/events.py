"""Events: stretches of a stream that belong together, cut where the picture surprised (EM-LLM adapted to video).

A finished event is one record: the mean of its moments' vectors, two to four medoid vectors beside it in the array
``keys`` (a mean hides what was there for a second), its labels, its words (array ``words``), and the ids of its moments
as parents. The event that is still open is in the bank's state; ``events`` shows it with ``open``, and nothing is
searched without it.

A cut is forced by a new session or embedding space, by a pause longer than ``max_seconds``, and by ``stats["mark"]``,
which whoever writes may set; a scene cut (``stats["change"]``, measured by perception) counts as a surprise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from streammem.banks.base import Between, Question, Reader, Recall, digest_of, outside
from streammem.banks.contiguity import Contiguous, recall_with_neighbours
from streammem.banks.segmentation import SurpriseRule, SurpriseSegmenter, decode_state
from streammem.banks.summaries import medoids, merged_labels, merged_texts, unit_mean
from streammem.banks.two_stage import Staged, search_staged
from streammem.config import EventsConfig
from streammem.errors import QueryError
from streammem.model import Label, Pose, Producer, Record, Speech, TextSpan, record_id, show_id

NS = 1_000_000_000
MOST_WORDS = 64
"""Texts and utterances that a moment brings into the open event, and an event into its record."""
MOST_EVENTS = 1000
"""Events that one question lists."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event. ``id`` is empty while it is ``open``. Times in ns of capture time; ``surprise`` is the cosine
    distance that began it (NaN is given as None)."""

    id: str
    stream: str
    t_start_ns: int
    t_end_ns: int
    moments: int
    open: bool = False
    labels: tuple[Label, ...] = ()
    texts: tuple[str, ...] = ()
    speech: tuple[str, ...] = ()
    surprise: float | None = None
    parents: tuple[str, ...] = ()


class _Member(msgspec.Struct, array_like=True):
    """What the open event knows of one moment. ``vector``: float16 bytes, empty where it has none."""

    record_id: int
    session: str
    seq: int
    t_start_ns: int
    t_end_ns: int
    vector: bytes
    surprise: float
    labels: tuple[Label, ...]
    texts: tuple[TextSpan, ...]
    speech: tuple[Speech, ...]
    pose: Pose | None


class _State(msgspec.Struct, array_like=True):
    version: int
    session: str
    space: str | None
    newest_ns: int
    members: list[_Member]
    segmenter: bytes


class _Open:
    """The open event of one stream."""

    def __init__(self, rule: SurpriseRule) -> None:
        self.segmenter = SurpriseSegmenter(rule)
        self.members: list[_Member] = []
        self.session = ""
        self.space: str | None = None
        self.newest_ns = -(2**63)


class EventsBank:
    """Events of all streams. Bounded: at most ``rule.max_frames`` moments with a vector and as many without are open a
    stream; 0.6 MB of state at 384-d and 256 frames. On the write path it costs about 0.1 ms a moment."""

    name = "events"

    def __init__(self, rule: SurpriseRule | None = None, *, scene_cut: float = 40.0, keys: int = 4) -> None:
        """``scene_cut``: ``stats["change"]`` (gray levels) from which on a moment begins an event, the minimum length
        allowing. ``keys``: medoid vectors an event keeps at most."""
        self.rule = rule or SurpriseRule()
        self._scene_cut = scene_cut
        self._keys = keys
        self._open: dict[str, _Open] = {}
        settings = repr((self.rule, scene_cut, keys))
        digest = hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()
        self._producer = Producer("streammem.banks.events", "surprise", "1", digest)

    # writing

    def observe(self, record: Record) -> Sequence[Record]:
        held = self._open.setdefault(record.stream, _Open(self.rule))
        vector = None if record.vector is None else np.asarray(record.vector, np.float32)
        late = record.t_start_ns < held.newest_ns and (vector is None or record.session == held.session)
        if vector is None or late:
            return self._add_aside(held, record, vector)
        changed = bool(held.members) and (record.session, record.space) != (held.session, held.space)
        pause = bool(held.members) and record.t_start_ns - held.newest_ns > self.rule.max_s * NS
        force = changed or pause or record.stats.get("mark", 0.0) > 0
        hint = record.stats.get("change", 0.0) > self._scene_cut
        lengths = held.segmenter.push(record.t_start_ns, vector, force=force, hint=hint)
        done = self._take(record.stream, held, lengths)
        if changed or pause:
            done += self._take_all(record.stream, held)
        held.session, held.space, held.newest_ns = record.session, record.space, record.t_start_ns
        held.members.append(_member(record, vector, held.segmenter.surprise))
        return done

    def _add_aside(self, held: _Open, record: Record, vector: np.ndarray | None) -> list[Record]:
        """Words without a picture, and moments that come late: they belong to the open event and cut nothing."""
        if not held.members and vector is not None:
            return []  # later than its event's end: the event was told already
        done: list[Record] = []
        if held.members and (
            len(held.members) >= 2 * self.rule.max_frames
            or record.t_start_ns - held.members[0].t_start_ns >= 2 * self.rule.max_s * NS
        ):
            done = self._take(record.stream, held, held.segmenter.finish()) + self._take_all(record.stream, held)
        if held.members and record.t_end_ns < held.members[0].t_start_ns:
            return done
        held.members.append(_member(record, None, math.nan))
        return done

    def _take(self, stream: str, held: _Open, lengths: Sequence[int]) -> list[Record]:
        """Finished events: the next ``length`` members with a vector and what lies between them, each."""
        done = []
        for length in lengths:
            seen = at = 0
            for at, member in enumerate(held.members):  # noqa: B007 - used after the loop
                seen += bool(member.vector)
                if seen > length:
                    break
            else:
                at = len(held.members)
            done.append(self._record(stream, held, held.members[:at]))
            held.members = held.members[at:]
        return done

    def _take_all(self, stream: str, held: _Open) -> list[Record]:
        done = [self._record(stream, held, held.members)] if held.members else []
        held.members = []
        return done

    def _record(self, stream: str, held: _Open, members: list[_Member]) -> Record:
        seen = [member for member in members if member.vector]
        vectors = np.stack([np.frombuffer(m.vector, np.float16) for m in seen]).astype(np.float32) if seen else None
        chosen = medoids(vectors, self._keys) if vectors is not None else []
        first = seen[0] if seen else members[0]
        surprise = seen[0].surprise if seen else math.nan
        return Record(
            record_id=record_id(self.name, stream, first.session, first.seq),
            bank=self.name,
            stream=stream,
            t_start_ns=min(member.t_start_ns for member in members),
            t_end_ns=max(member.t_end_ns for member in members),
            session=first.session,
            seq=first.seq,
            count=len(members),
            parents=tuple(member.record_id for member in members),
            producer=self._producer,
            space=held.space if seen else None,
            labels=merged_labels([member.labels for member in members]),
            pose=seen[chosen[0]].pose if seen else first.pose,
            stats={} if math.isnan(surprise) else {"surprise": round(surprise, 6)},
            vector=None if vectors is None else unit_mean(vectors),
            arrays={
                **({} if vectors is None else {"keys": vectors[chosen].astype(np.float16)}),
                **_words(members, max(member.t_end_ns for member in members)),
            },
        )

    # state

    def state(self, stream: str) -> bytes:
        held = self._open.get(stream)
        if held is None:
            return b""
        return msgspec.msgpack.encode(
            _State(1, held.session, held.space, held.newest_ns, held.members, held.segmenter.state())
        )

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        self._open.pop(stream, None)
        if not state:
            return
        read = decode_state(state, _State, f"the saved open event of {stream!r}")
        held = _Open(self.rule)
        held.segmenter.load(read.segmenter)
        held.members, held.session = read.members, read.session
        held.space, held.newest_ns = read.space, read.newest_ns
        self._open[stream] = held

    def ram_bytes(self) -> int:
        """The open events: their vectors three times (bank, segmentation, its context), 400 bytes a moment besides."""
        return sum(
            3 * len(member.vector) + 400 + 100 * (len(member.labels) + len(member.texts) + len(member.speech))
            for held in self._open.values()
            for member in held.members
        )

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        held = self._open.get(stream)
        if held is None:
            return 0
        kept = outside(held.members, t_start_ns, t_end_ns)
        held.segmenter.keep([keep for keep, member in zip(kept, held.members, strict=True) if member.vector])
        held.members = [member for keep, member in zip(kept, held.members, strict=True) if keep]
        if not held.members:
            del self._open[stream]
        return kept.count(False)

    def digest(self, stream: str) -> bytes:
        return digest_of(self.state(stream))

    # questions

    def questions(self) -> Mapping[str, Question]:
        return {"events": self._events, "around": self._around, "recall": self._recall, "search": self._search}

    def _events(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        t_start_ns: int | None = None,
        t_end_ns: int | None = None,
        limit: int = 100,
    ) -> list[Event]:
        """Events that overlap the closed interval, oldest first, the open one last; at most ``limit`` of each stream,
        the newest. Parents are ids of moments."""
        if not 1 <= limit <= MOST_EVENTS:
            raise QueryError(f"limit is {limit}", hint=f"1 to {MOST_EVENTS}")
        return [
            event
            for name in self._names(reader, streams)
            for event in self._of(reader, name, (t_start_ns, t_end_ns))[-limit:]
        ]

    def _around(
        self, reader: Reader, *, streams: Sequence[str] | None, event: str, before: int = 1, after: int = 1
    ) -> list[Event]:
        """An event (its id) with up to ``before`` events before and ``after`` after it in its stream, in order."""
        if not (0 <= before <= MOST_EVENTS and 0 <= after <= MOST_EVENTS):
            raise QueryError(f"before is {before}, after is {after}", hint=f"0 to {MOST_EVENTS}")
        for name in self._names(reader, streams):
            found = self._of(reader, name, (None, None))
            for at, each in enumerate(found):
                if each.id == event and event:
                    return found[max(0, at - before) : at + after + 1]
        raise QueryError(f"no event has the id {event!r}", hint="list them with the question 'events'")

    def _recall(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        query: str = "",
        vector: Sequence[float] | None = None,
        k: int = 8,
        contiguity: float = 0.3,
        t_start_ns: int | None = None,
        t_end_ns: int | None = None,
    ) -> list[Contiguous]:
        """``k`` events in the order of time: the closest to a text or a vector, and, as the share ``contiguity`` of
        them, the events right after and before those (EM-LLM's contiguity buffer). 0 is a plain look-up."""
        return recall_with_neighbours(
            reader, self._open_vectors(streams), streams, query, vector, k, contiguity, (t_start_ns, t_end_ns)
        )

    def _search(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        query: str = "",
        vector: Sequence[float] | None = None,
        top: int = 5,
        events: int | None = None,
        clips: int | None = None,
        t_start_ns: int | None = None,
        t_end_ns: int | None = None,
    ) -> Staged:
        """The ``top`` moments for a text or a vector, searched from events (the ``events`` best) over clips (the
        ``clips`` best; None: without that level) to moments; what no event covers is always searched."""
        return search_staged(
            reader,
            streams=streams,
            between=(t_start_ns, t_end_ns),
            query=query,
            vector=vector,
            top=top,
            events=events,
            clips=clips,
        )

    def _open_vectors(self, streams: Sequence[str] | None) -> list[Record]:
        """The open events as records, so that a search sees them too."""
        return [
            self._record(name, held, held.members)
            for name, held in sorted(self._open.items())
            if held.members and (streams is None or name in streams)
        ]

    def _names(self, reader: Reader, streams: Sequence[str] | None) -> list[str]:
        names = {info.stream for info in reader.streams()}
        return sorted(names if streams is None else names & set(streams))

    def _of(self, reader: Reader, stream: str, between: Between) -> list[Event]:
        low, high = between
        found = []
        for block in reader.blocks(self.name, [stream], between):
            lo, hi = block.rows_between(low, high)
            found += [_event(block.record(row)) for row in range(lo, hi)]
        found += [msgspec.structs.replace(_event(r), id="", open=True) for r in self._open_vectors([stream])]
        kept = [e for e in found if (low is None or e.t_end_ns >= low) and (high is None or e.t_start_ns <= high)]
        return sorted(kept, key=lambda e: (e.t_start_ns, e.open, e.id))


def configured(config: EventsConfig) -> EventsBank:
    """The bank of a configuration."""
    rule = SurpriseRule(
        threshold=config.threshold,
        gamma=config.gamma,
        window_s=config.window_seconds,
        forecast_s=config.forecast_seconds,
        least=config.least,
        min_s=config.min_seconds,
        max_s=config.max_seconds,
        refine=config.refine,
    )
    return EventsBank(rule, scene_cut=config.scene_cut)


def _member(record: Record, vector: np.ndarray | None, surprise: float) -> _Member:
    return _Member(
        record.record_id,
        record.session,
        record.seq,
        record.t_start_ns,
        record.t_end_ns,
        b"" if vector is None else vector.astype(np.float16).tobytes(),
        surprise,
        record.labels[:MOST_WORDS],
        record.texts[:MOST_WORDS],
        record.speech[:MOST_WORDS],
        record.pose,
    )


def _words(members: Sequence[_Member], t_end_ns: int) -> dict[str, np.ndarray]:
    """Texts and utterances as an array of bytes: as words of the record they would be found a second time, beside the
    moments that they are from. What is said beyond the event's end isn't kept: ``forget`` goes by intervals."""
    texts = [span.text for span in merged_texts([member.texts for member in members], MOST_WORDS)]
    spoken = [said.text for member in members for said in member.speech if said.t_end_ns <= t_end_ns]
    if not texts and not spoken:
        return {}
    return {"words": np.frombuffer(msgspec.msgpack.encode((texts, spoken[:MOST_WORDS])), np.uint8)}


def _event(record: Record) -> Event:
    blob = record.arrays.get("words")
    texts: list[str] = []
    spoken: list[str] = []
    if blob is not None:
        texts, spoken = msgspec.msgpack.decode(blob.tobytes(), type=tuple[list[str], list[str]])
    return Event(
        id=show_id(record.record_id),
        stream=record.stream,
        t_start_ns=record.t_start_ns,
        t_end_ns=record.t_end_ns,
        moments=record.count,
        labels=record.labels,
        texts=tuple(texts),
        speech=tuple(spoken),
        surprise=record.stats.get("surprise"),
        parents=tuple(show_id(parent) for parent in record.parents),
    )
