"""Entities: which things there were, what was known of them, and from when to when.

Fed by what every observation brings: statements (``Observation.states``), detections with and without a track, text in
the scene. A thing is an entity of one stream:

    a statement        the name that the speaker gave it
    a tracked thing    ``#track`` or ``#track@session`` (a tracker counts anew in every session); its ``label`` is an
                       attribute like any other, so a tracker whose label flickers doesn't make two things
    an untracked one   its label: one entity for "some cup", of which only sightings are known
    text in the scene  the text in quotation marks, of the kind ``text``: a sign that reads "mug" is no mug. It is
                       found without the marks, too

A statement with the attribute ``same_as`` joins two names for good. Everything else never overwrites: values are
superseded and keep their interval (``history.py``), sightings are intervals too. Facts are ordered by capture time,
never by arrival.

The whole bank is its state, one blob a stream, saved with every seal; it returns no records, because a late statement
may still change what a record would have said for good. Its cap is by stream, not over all of them: what is dropped
must not depend on which stream was replayed first after a restart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from streammem.banks.base import Question, Recall, digest_of
from streammem.banks.entity_questions import Questions
from streammem.banks.history import Episode, History, Run, Statement, cut, sight
from streammem.config import EntitiesConfig
from streammem.errors import CorruptData
from streammem.model import Record, StateFact

ITEM_BYTES, ENTITY_BYTES, HISTORY_BYTES = 260, 700, 420
"""RAM of a run, statement or episode, of an entity, and of one attribute, without their texts: measured with
tracemalloc (``streammem bench entities``), rounded up."""
TEXT_CHARS = 200
SAME_AS = "same_as"
MOST_ALIASES = 4096
"""Names of a stream that stand for another; then the oldest is no name any more. What it named stays."""
KEEP = 0.75
"""At the cap a stream is demoted to this share of it, so that the work is done seldom."""


class Entity(msgspec.Struct, array_like=True):
    """What is known of one thing of one stream."""

    name: str
    kind: str = ""
    sightings: list[Run] = []
    attributes: dict[str, History] = {}
    seen_before: int = 0
    """Sightings whose detail was demoted ..."""
    seen_from_ns: int | None = None
    """... and when the first of them began."""

    @property
    def items(self) -> int:
        return len(self.sightings) + sum(history.size for history in self.attributes.values())

    @property
    def bytes(self) -> int:
        return ENTITY_BYTES + HISTORY_BYTES * len(self.attributes) + ITEM_BYTES * self.items + 2 * len(self.name)

    @property
    def span(self) -> tuple[int, int] | None:
        """First and last moment that anything is known of."""
        spans = [span for history in self.attributes.values() if (span := history.span) is not None]
        if self.sightings:
            spans.append((self.sightings[0].t_first_ns, self.sightings[-1].t_last_ns))
        if self.seen_from_ns is not None:
            spans.append((self.seen_from_ns, self.seen_from_ns))
        return (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None


class Things(msgspec.Struct, array_like=True):
    """The entities of one stream: its saved state."""

    entities: dict[str, Entity] = {}
    aliases: dict[str, str] = {}
    bytes: int = 0
    gone: int = 0
    """Entities that were dropped whole for want of room."""


def _found_by(entity: Entity) -> set[str]:
    names = {entity.kind.casefold(), entity.name.casefold()}
    return (names | {entity.name.casefold().strip("“”")} if entity.kind == "text" else names) - {""}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Things).decode


class EntitiesBank:
    """See the module. ``config`` gives times, the least score and the cap by stream."""

    name = "entities"

    def __init__(self, config: EntitiesConfig) -> None:
        self._settle_ns = int(config.settle_seconds * 1e9)
        self._window_ns = int(config.late_seconds * 1e9)
        self._gap_ns = int(config.absent_seconds * 1e9)
        self._least = config.least_score
        self._cap = config.stream_bytes
        self._streams: dict[str, Things] = {}
        self._kinds: dict[str, dict[str, dict[str, None]]] = {}
        self._questions = Questions(self)

    @property
    def cap_bytes(self) -> int:
        """The cap of every stream there is."""
        return self._cap * max(1, len(self._streams))

    # -- what the questions read

    @property
    def settle_ns(self) -> int:
        return self._settle_ns

    def known(self, streams: Sequence[str] | None) -> Iterator[tuple[str, Things]]:
        for stream in sorted(self._streams):
            if streams is None or stream in streams:
                yield stream, self._streams[stream]

    def of_kind(self, stream: str, kind: str) -> list[Entity]:
        """Entities of a kind, in the order of their names."""
        entities = self._streams[stream].entities
        return [entities[name] for name in sorted(self._kinds.get(stream, {}).get(kind.casefold(), ()))]

    def kinds(self, stream: str) -> Iterator[str]:
        """Every name and kind of a stream, in lower case, unsorted."""
        return (kind for kind, names in self._kinds.get(stream, {}).items() if names)

    def questions(self) -> Mapping[str, Question]:
        return self._questions.table()

    # -- Bank

    def observe(self, record: Record) -> Sequence[Record]:
        if not (record.states or record.detections or record.texts):
            return ()
        things = self._streams.setdefault(record.stream, Things())
        for index, fact in enumerate(record.states):
            self._state(things, record, index, fact)
        for index, found in enumerate(record.detections):
            if found.score < self._least or not found.label:
                continue
            name = found.label if found.track is None else f"#{found.track}"
            if found.track is not None and record.session:
                name = f"{name}@{record.session}"
            entity = self._entity(things, record.stream, name, found.label)
            self._sight(things, entity, record, found.score)
            if found.track is not None:
                self._say(things, entity, "label", record, index, found.label, "", found.score)
                self._rename(record.stream, entity)
        for span in record.texts:
            text = " ".join(span.text.split())[:TEXT_CHARS]
            if span.score >= self._least and len(text) >= 2:
                self._sight(things, self._entity(things, record.stream, f"“{text}”", "text"), record, span.score)
        if things.bytes > self._cap:
            self._demote(record.stream, things)
        return ()

    def _entity(self, things: Things, stream: str, name: str, kind: str) -> Entity:
        name = things.aliases.get(name, name)
        entity = things.entities.get(name)
        if entity is None:
            entity = things.entities[name] = Entity(name, kind)
            things.bytes += entity.bytes
            self._index(stream, entity)
        elif kind and not entity.kind:
            entity.kind = kind
            self._index(stream, entity)
        return entity

    def _index(self, stream: str, entity: Entity) -> None:
        kinds = self._kinds.setdefault(stream, {})
        for kind in _found_by(entity):
            kinds.setdefault(kind, {})[entity.name] = None

    def _unindex(self, stream: str, entity: Entity) -> None:
        for kind in _found_by(entity):
            self._kinds.get(stream, {}).get(kind, {}).pop(entity.name, None)

    def _rename(self, stream: str, entity: Entity) -> None:
        """A tracked thing is of the kind that its label says now."""
        runs = entity.attributes["label"].runs
        label = next((run.value for run in reversed(runs) if not run.disputed), entity.kind)
        if label != entity.kind:
            self._unindex(stream, entity)
            entity.kind = label
            self._index(stream, entity)

    def _sight(self, things: Things, entity: Entity, record: Record, score: float) -> None:
        before = len(entity.sightings)
        start, end, number = record.t_start_ns, record.t_start_ns, record.record_id
        last = entity.sightings[-1] if entity.sightings else None
        if last is not None and 0 <= start - last.t_last_ns <= self._gap_ns:
            # By far the usual case; the same as ``sight``, without a search.
            last.t_last_ns, last.last_id, last.n = end, number, last.n + 1
            last.confidence = max(last.confidence, score)
            return
        sight(entity.sightings, Run("", "", start, end, 1, score, score, number, number), self._gap_ns)
        things.bytes += ITEM_BYTES * (len(entity.sightings) - before)

    def _history(self, things: Things, entity: Entity, attribute: str) -> History:
        history = entity.attributes.get(attribute)
        if history is None:
            history = entity.attributes[attribute] = History()
            things.bytes += HISTORY_BYTES
        return history

    def _say(
        self,
        things: Things,
        entity: Entity,
        attribute: str,
        record: Record,
        index: int,
        value: str,
        relation: str,
        confidence: float,
        until_ns: int | None = None,
        window_ns: int = 0,
    ) -> None:
        history = self._history(things, entity, attribute)
        before = history.size
        t_ns, number = record.t_start_ns, record.record_id
        if until_ns is not None:
            history.add_episode(Episode(t_ns, max(t_ns, until_ns), number, index, value, relation, confidence))
        else:
            said = Statement(t_ns, number, index, value, relation, confidence)
            history.add(said, self._settle_ns, window_ns)
        things.bytes += ITEM_BYTES * (history.size - before)

    def _state(self, things: Things, record: Record, index: int, fact: StateFact) -> None:
        if fact.attribute == SAME_AS:
            self._join(things, record.stream, fact.entity, fact.value)
            return
        entity = self._entity(things, record.stream, fact.entity, fact.kind)
        said = (fact.confidence, fact.until_ns, self._window_ns)
        self._say(things, entity, fact.attribute, record, index, fact.value, fact.relation, *said)
        if fact.place and fact.attribute != "place":
            self._say(things, entity, "place", record, index, fact.place, fact.relation, *said)

    def _join(self, things: Things, stream: str, name: str, other: str) -> None:
        """From now on ``name`` is another name of ``other``; what was known of both belongs together."""
        name, other = things.aliases.get(name, name), things.aliases.get(other, other)
        if not other or name == other:
            return
        for known, target in things.aliases.items():
            if target == name:
                things.aliases[known] = other
        things.aliases[name] = other
        if len(things.aliases) > MOST_ALIASES:
            del things.aliases[next(iter(things.aliases))]
        old = things.entities.pop(name, None)
        if old is None:
            return
        self._unindex(stream, old)
        new = self._entity(things, stream, other, old.kind)
        things.bytes -= old.bytes + new.bytes
        for seen in old.sightings:
            sight(new.sightings, seen, self._gap_ns)
        for attribute, history in old.attributes.items():
            if attribute in new.attributes:
                new.attributes[attribute].join(history)
            else:
                new.attributes[attribute] = history
        new.seen_before += old.seen_before
        starts = [start for start in (old.seen_from_ns, new.seen_from_ns) if start is not None]
        new.seen_from_ns = min(starts, default=None)
        things.bytes += new.bytes

    # -- bounds

    def _demote(self, stream: str, things: Things) -> None:
        """Oldest first: closed runs, episodes and sightings become counts; then whole things that weren't met for the
        longest time go. Decided by the stream's own content alone."""
        target = int(self._cap * KEEP)
        ends = sorted(
            end
            for entity in things.entities.values()
            for items in (entity.sightings, *(history.runs for history in entity.attributes.values()))
            for end in [run.t_last_ns for run in items]
        )
        ends += [
            e.t_end_ns for entity in things.entities.values() for h in entity.attributes.values() for e in h.episodes
        ]
        ends.sort()
        wanted = -(-(things.bytes - target) // ITEM_BYTES)
        while things.bytes > target and ends:
            # What holds now and the counts stay, so it may take more than the estimate.
            at = min(len(ends) - 1, wanted)
            for entity in things.entities.values():
                self._thin(entity, ends[at])
            things.bytes = sum(entity.bytes for entity in things.entities.values())
            if at == len(ends) - 1:
                break
            wanted *= 2
        if things.bytes > target:
            order = sorted(
                things.entities.values(), key=lambda entity: ((entity.span or (0, -(2**63)))[1], entity.name)
            )
            for entity in order:
                if things.bytes <= target:
                    break
                things.bytes -= entity.bytes
                things.gone += 1
                self._unindex(stream, entity)
                del things.entities[entity.name]
            things.aliases = {name: to for name, to in things.aliases.items() if to in things.entities}

    def _thin(self, entity: Entity, t_ns: int) -> None:
        for history in entity.attributes.values():
            history.demote_before(t_ns, self._settle_ns)
        at = min(bisect_left(entity.sightings, t_ns, key=lambda run: run.t_last_ns), len(entity.sightings) - 1)
        if at > 0:
            first = entity.sightings[0].t_first_ns
            entity.seen_from_ns = first if entity.seen_from_ns is None else min(first, entity.seen_from_ns)
            entity.seen_before += at
            del entity.sightings[:at]

    def state(self, stream: str) -> bytes:
        things = self._streams.get(stream)
        return _encode(things) if things is not None else b""

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        if not state:
            return
        try:
            things = _decode(state)
        except msgspec.DecodeError as error:
            raise CorruptData(f"the saved entities of {stream!r} can't be read: {error}") from error
        self._streams[stream] = things
        self._kinds.pop(stream, None)
        for entity in things.entities.values():
            self._index(stream, entity)

    def ram_bytes(self) -> int:
        return sum(things.bytes for things in self._streams.values())

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        things = self._streams.get(stream)
        if things is None:
            return 0
        gone = 0
        for entity in list(things.entities.values()):
            gone += self._forget_in(entity, t_start_ns, t_end_ns)
            if entity.span is None:
                self._unindex(stream, entity)
                del things.entities[entity.name]
        things.aliases = {name: to for name, to in things.aliases.items() if to in things.entities}
        things.bytes = sum(entity.bytes for entity in things.entities.values())
        if not things.entities:
            del self._streams[stream]
            self._kinds.pop(stream, None)
        return gone

    @staticmethod
    def _forget_in(entity: Entity, t_start_ns: int, t_end_ns: int) -> int:
        before = len(entity.sightings)
        entity.sightings = [piece for seen in entity.sightings for piece in cut(seen, t_start_ns, t_end_ns)]
        gone = max(0, before - len(entity.sightings))
        if entity.seen_from_ns is not None and entity.seen_from_ns <= t_end_ns:
            entity.seen_before, entity.seen_from_ns = 0, None  # counts can't be taken apart
        for attribute, history in list(entity.attributes.items()):
            gone += history.forget(t_start_ns, t_end_ns)
            if not history.size:
                del entity.attributes[attribute]
        return gone

    def digest(self, stream: str) -> bytes:
        return digest_of(self.state(stream))
