"""What can be asked of the bank ``entities``: latest, was_at, history, last_seen, how_often, order, count, ...

Every answer is a :class:`Told`: ``found`` with facts and frames that exist, ``not_seen`` with the names that come
closest, or ``unsure`` where the value is disputed or its detail was demoted. Whatever is called ``entity`` in an
argument is the name of a thing or the name of a kind ("mug"), which stands for all things of that kind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from streammem.banks.base import Between, Question, Reader
from streammem.banks.entity_answers import FRAMES, MOST, Fact, Told, by_time, check, frames_of, overlaps
from streammem.errors import QueryError
from streammem.model import Status

if TYPE_CHECKING:
    from streammem.banks.entities import EntitiesBank, Entity
    from streammem.banks.history import History, Run

SEEN = "seen"
"""The attribute of a sighting."""


class Questions:
    """The questions of one bank; nothing here changes it."""

    def __init__(self, bank: EntitiesBank) -> None:
        self._bank = bank

    def table(self) -> dict[str, Question]:
        asked = (self.latest, self.was_at, self.history, self.last_seen, self.how_often, self.order, self.count)
        return {question.__name__: question for question in (*asked, self.changes_between, self.entities, self.named)}

    # -- questions

    def latest(
        self, reader: Reader, *, streams: Sequence[str] | None, entity: str, attribute: str = "place", limit: int = 100
    ) -> Told:
        """The value that holds now, of each thing of that name or kind, most recently confirmed first. ``unsure``: the
        newest statement contradicts it and isn't settled; both are given."""
        facts: list[Fact] = []
        found = self._found(streams, entity)
        for stream, thing in found:
            told = list(self._facts(stream, thing, attribute))
            active = [fact for fact in told if fact.status == "active"]
            facts += active[-1:]
            if active:
                facts += [f for f in told if f.status == "disputed" and f.t_last_ns > active[-1].t_last_ns]
        facts.sort(key=lambda fact: (-fact.t_last_ns, fact.stream, fact.entity))
        return self._told(reader, facts, limit, streams, entity, unsure=any(f.status == "disputed" for f in facts))

    def was_at(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        entity: str,
        t_ns: int,
        attribute: str = "place",
        limit: int = 100,
    ) -> Told:
        """The value that held at a moment of capture time. ``t_last_ns`` says when it was last confirmed."""
        facts: list[Fact] = []
        demoted = False
        for stream, thing in self._found(streams, entity):
            history = thing.attributes.get(attribute)
            if history is not None and history.detail_from_ns is not None and t_ns < history.detail_from_ns:
                demoted = demoted or any(older.t_first_ns <= t_ns for older in history.older)
            for fact in self._facts(stream, thing, attribute):
                if fact.status == "disputed" or fact.t_start_ns > t_ns:
                    inside = fact.t_start_ns <= t_ns <= fact.t_last_ns
                else:
                    # A value gives way at the very moment of the next; an episode holds to its end.
                    last = fact.t_end_ns
                    inside = last is None or t_ns < last or (t_ns == last and fact.t_last_ns == last)
                if inside:
                    facts.append(fact)
        note = "what was known of that time was demoted to counts" if demoted else ""
        unsure = demoted or any(fact.status == "disputed" for fact in facts)
        return self._told(reader, facts, limit, streams, entity, unsure=unsure, note=note)

    def history(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        entity: str,
        attribute: str | None = None,
        value: str | None = None,
        between: Between | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> Told:
        """Every value with its interval, in order of time; disputed ones too. Without ``attribute`` all attributes and
        the sightings. ``between``: what overlaps the closed interval of capture time."""
        facts = self._select(streams, entity, attribute, value, between, disputed=True)
        facts.sort(key=by_time, reverse=newest_first)
        return self._told(reader, facts, limit, streams, entity)

    def last_seen(self, reader: Reader, *, streams: Sequence[str] | None, entity: str, limit: int = 100) -> Told:
        """When each thing of that name or kind was last met, in whatever way, most recent first."""
        facts: list[Fact] = []
        for stream, thing in self._found(streams, entity):
            every = [f for name in (SEEN, *thing.attributes) for f in self._facts(stream, thing, name)]
            if every:
                facts.append(max(every, key=lambda fact: (fact.t_last_ns, fact.t_start_ns, fact.attribute)))
        facts.sort(key=lambda fact: (-fact.t_last_ns, fact.stream, fact.entity))
        return self._told(reader, facts, limit, streams, entity)

    def how_often(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        entity: str,
        attribute: str = SEEN,
        value: str | None = None,
        between: Between | None = None,
        limit: int = 100,
    ) -> Told:
        """How many times: sightings, episodes, or times that a value took over. ``total`` is the number."""
        facts = self._select(streams, entity, attribute, value, between, disputed=False)
        facts.sort(key=by_time)
        demoted, spans = 0, [(fact.t_start_ns, fact.t_last_ns) for fact in facts]
        note = ""
        for _, thing in self._found(streams, entity):
            for n, start, end in _demoted(thing, attribute, value):
                if between is None or tuple(between) == (None, None):
                    demoted += n
                    spans.append((start, end))
                elif overlaps(start, end, between):
                    note = "some of that time was demoted to counts: there may have been more"
        told = self._told(reader, facts, limit, streams, entity, unsure=bool(note), note=note)
        first, last = min((s for s, _ in spans), default=None), max((e for _, e in spans), default=None)
        status = "found" if demoted and told.status == "not_seen" else told.status
        return msgspec.structs.replace(
            told, status=status, total=len(facts) + demoted, demoted=demoted, t_first_ns=first, t_last_ns=last
        )

    def order(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        entities: Sequence[str],
        attribute: str | None = None,
        value: str | None = None,
        which: Literal["first", "last"] = "first",
    ) -> Told:
        """In what order things first (or last) were met or had a value: one fact each, earliest first. Those that were
        never are named in ``closest``, and the answer is ``unsure`` then: an order of fewer isn't the order asked."""
        facts: list[Fact] = []
        missing: list[str] = []
        for name in list(entities)[:MOST]:
            mine = self._select(streams, name, attribute, value, None, disputed=False)
            if mine:
                facts.append(min(mine, key=by_time) if which == "first" else max(mine, key=by_time))
            else:
                missing.append(name)
        facts.sort(key=by_time)
        told = self._told(reader, facts, MOST, streams, "")
        note = f"never: {', '.join(missing[:10])}" if missing else ""
        status = told.status if not missing or not facts else "unsure"
        return msgspec.structs.replace(told, status=status, closest=tuple(missing), note=note)

    def count(
        self, reader: Reader, *, streams: Sequence[str] | None, entity: str, between: Between | None = None
    ) -> Told:
        """How many different things of that name or kind there were (in the interval). ``total`` is the number."""
        told = self.entities(reader, streams=streams, kind=entity, between=between, limit=MOST)
        return msgspec.structs.replace(told, facts=told.facts[:FRAMES])

    def entities(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        kind: str | None = None,
        between: Between | None = None,
        limit: int = 100,
    ) -> Told:
        """The things that were met (in the interval), by name: from when to when, without detail."""
        check(between, limit)
        facts: list[Fact] = []
        found = self._found(streams, kind) if kind is not None else self._all(streams)
        for stream, thing in found:
            span = thing.span
            if span is not None and overlaps(*span, between) and (between is None or self._met(stream, thing, between)):
                facts.append(Fact(stream, thing.name, "", span[0], span[1], kind=thing.kind, n=thing.items))
        facts.sort(key=lambda fact: (fact.stream, fact.entity))
        return self._told(reader, facts, limit, streams, kind or "")

    def named(self, reader: Reader, *, streams: Sequence[str] | None, names: Sequence[str], limit: int = 100) -> Told:
        """Things that go by one of these names or kinds, in the order of the names; text that was read is none. The
        ``value`` of a fact says by which name it was found. One question where ``entities`` would take one a name."""
        facts: dict[tuple[str, str], Fact] = {}
        for name in list(names)[:MOST]:
            for stream, thing in self._found(streams, name):
                span = thing.span
                if span is not None and thing.kind != "text":
                    one = Fact(stream, thing.name, "", span[0], span[1], value=name, kind=thing.kind, n=thing.items)
                    facts.setdefault((stream, thing.name), one)
        return self._told(reader, list(facts.values()), limit, streams, "")

    def changes_between(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        t_start_ns: int,
        t_end_ns: int,
        attribute: str | None = None,
        entity: str | None = None,
        limit: int = 100,
    ) -> Told:
        """Values that took over, episodes and sightings that began, within the closed interval, in order of time."""
        check((t_start_ns, t_end_ns), limit)
        facts: list[Fact] = []
        for stream, thing in self._found(streams, entity) if entity is not None else self._all(streams):
            span = thing.span
            if span is None or span[0] > t_end_ns or span[1] < t_start_ns:
                continue
            for name in (attribute,) if attribute is not None else (SEEN, *thing.attributes):
                facts += [
                    fact
                    for fact in self._facts(stream, thing, name, (t_start_ns, t_end_ns))
                    if t_start_ns <= fact.t_start_ns <= t_end_ns and fact.status != "disputed"
                ]
        facts.sort(key=by_time)
        return self._told(reader, facts, limit, streams, entity or "")

    # -- inside

    def _all(self, streams: Sequence[str] | None) -> Iterator[tuple[str, Entity]]:
        for stream, things in self._bank.known(streams):
            for thing in things.entities.values():
                yield stream, thing

    def _found(self, streams: Sequence[str] | None, name: str) -> list[tuple[str, Entity]]:
        if not isinstance(name, str) or not name.strip():
            raise QueryError("the name of the thing is empty", hint="give the name of a thing or of a kind")
        found: list[tuple[str, Entity]] = []
        for stream, things in self._bank.known(streams):
            exact = things.entities.get(things.aliases.get(name, name))
            named = [exact] if exact is not None else []
            # A name that is a kind too ("cup": one without a track, and those with one) means all of them.
            found += [(stream, t) for t in (*named, *(t for t in self._bank.of_kind(stream, name) if t is not exact))]
        return found

    def _met(self, stream: str, thing: Entity, between: Between) -> bool:
        """Whether anything was said or seen of it in the interval itself: between two sightings it wasn't met."""
        for name in (SEEN, *thing.attributes):
            if any(overlaps(f.t_start_ns, f.t_last_ns, between) for f in self._facts(stream, thing, name, between)):
                return True
        return False

    def _select(
        self,
        streams: Sequence[str] | None,
        entity: str,
        attribute: str | None,
        value: str | None,
        between: Between | None,
        *,
        disputed: bool,
    ) -> list[Fact]:
        check(between, 1)
        return [
            fact
            for stream, thing in self._found(streams, entity)
            for name in ((attribute,) if attribute is not None else (SEEN, *thing.attributes))
            for fact in self._facts(stream, thing, name, between)
            if (value is None or fact.value == value) and (disputed or fact.status != "disputed")
        ]

    def _facts(self, stream: str, thing: Entity, attribute: str, between: Between | None = None) -> Iterator[Fact]:
        """Sightings, or runs and episodes of one attribute, as facts; those that overlap ``between``."""
        if attribute == SEEN:
            for seen in thing.sightings:
                if overlaps(seen.t_first_ns, seen.t_last_ns, between):
                    yield _fact(stream, thing, SEEN, seen, seen.t_last_ns, "active")
        history = thing.attributes.get(attribute)
        if history is None:
            return
        yield from self._run_facts(stream, thing, attribute, history, between)
        for e in history.episodes:
            if overlaps(e.t_start_ns, e.t_end_ns, between):
                yield Fact(
                    stream,
                    thing.name,
                    attribute,
                    e.t_start_ns,
                    e.t_end_ns,
                    e.t_end_ns,
                    e.value,
                    e.relation,
                    thing.kind,
                    1,
                    e.confidence,
                    "active",
                    (e.record_id,),
                )

    def _run_facts(
        self, stream: str, thing: Entity, attribute: str, history: History, between: Between | None
    ) -> Iterator[Fact]:
        runs, candidate = history.settled(self._bank.settle_ns)
        starts = [run.t_first_ns for run in runs if not run.disputed]
        for run in runs:
            after = bisect_right(starts, run.t_first_ns)
            end = run.t_last_ns if run.disputed else starts[after] if after < len(starts) else None
            status: Status = "disputed" if run.disputed else "active" if end is None else "superseded"
            if overlaps(run.t_first_ns, end, between):
                yield _fact(stream, thing, attribute, run, end, status)
        if candidate is not None and overlaps(candidate.t_first_ns, None, between):
            yield _fact(stream, thing, attribute, candidate, None, "disputed")

    def _told(
        self,
        reader: Reader,
        facts: list[Fact],
        limit: int,
        streams: Sequence[str] | None,
        name: str,
        *,
        unsure: bool = False,
        note: str = "",
    ) -> Told:
        check(None, limit)
        shown = facts[:limit]
        if not facts:
            closest = self._closest(streams, name) if name else ()
            return Told("unsure" if unsure else "not_seen", closest=closest, note=note)
        return Told(
            "unsure" if unsure else "found",
            len(facts),
            tuple(shown),
            tuple(frames_of(reader, shown[:FRAMES])),
            note=note,
        )

    def _closest(self, streams: Sequence[str] | None, name: str) -> tuple[str, ...]:
        asked = name.casefold()
        alike = {
            known
            for stream, _ in self._bank.known(streams)
            for known in self._bank.kinds(stream)
            if (known in asked or asked in known) and known != asked
        }
        return tuple(sorted(alike, key=lambda known: (abs(len(known) - len(asked)), known))[:5])


def _fact(stream: str, thing: Entity, attribute: str, run: Run, end: int | None, status: Status) -> Fact:
    ids = (run.first_id,) if run.first_id == run.last_id else (run.first_id, run.last_id)
    return Fact(
        stream,
        thing.name,
        attribute,
        run.t_first_ns,
        run.t_last_ns,
        end,
        run.value,
        run.relation,
        thing.kind,
        run.n,
        round(run.confidence, 6),
        status,
        ids,
    )


def _demoted(thing: Entity, attribute: str, value: str | None) -> Iterator[tuple[int, int, int]]:
    """What is known as a number only: how many, first, last."""
    if attribute == SEEN and thing.seen_from_ns is not None and value in (None, ""):
        yield thing.seen_before, thing.seen_from_ns, thing.seen_from_ns
    history = thing.attributes.get(attribute)
    for older in history.older if history is not None else ():
        if value is None or older.value == value:
            yield older.n, older.t_first_ns, older.t_last_ns
