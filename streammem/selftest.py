"""A memory examined: a made-up stream whose truth is known exactly, written through a real memory, and questions.

The abilities are those of SORT (which of two came first; bridge-ai-neuro/SORT) and EpBench (recall by parts of an
event, latest state, chronology, nothing where nothing matches; ahstat/episodic-memory-benchmark), without a language
model: what is examined is the memory. An event table (when, which thing, where) is drawn from a seed and rendered to
observations with what real streams have: confirmations, single wrong claims of low confidence, packets that arrive
late, packets sent twice, a restart in the middle. Beside each score stands what a memory would reach that believes
whatever it was told last (``naive``): a test that everybody passes examines nothing.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

import streammem.memory
from streammem.config import Config, MemoryConfig
from streammem.memory import Memory
from streammem.model import Detection, Observation, StateFact

SECOND = 10**9
PLACES = ("kitchen", "hall", "office", "garage", "attic", "garden")
THINGS = tuple((f"{kind}-{n}", kind) for kind in ("mug", "key", "book", "lamp") for n in (1, 2, 3))
ANIMALS = ("cat", "dog", "bird")
ABSENT = ("piano", "trumpet-1", "giraffe")
STREAM = "selftest"
LATE_NS = 8 * SECOND
"""How late a packet may come; the bank's window is 10 s."""
APART_NS = 30 * SECOND
"""Visits of one animal are at least so far apart; a sighting ends after 10 s."""


class Event(NamedTuple):
    """The truth: from ``t_ns`` on, ``thing`` is in ``place``."""

    t_ns: int
    thing: str
    kind: str
    place: str


class Visit(NamedTuple):
    animal: str
    t_start_ns: int
    t_end_ns: int


class Ability(msgspec.Struct, frozen=True):
    """One line of the table: ``score`` and ``naive`` in [0, 1], averaged over ``asked`` questions; ``naive``
    is None where nothing else was told than what is true."""

    name: str
    measure: str
    asked: int
    score: float
    floor: float
    naive: float | None

    @property
    def passed(self) -> bool:
        return self.score >= self.floor


class Script:
    """An event table and the packets it is rendered to, in the order of their arrival."""

    def __init__(self, seed: int, events: int) -> None:
        rng = random.Random(seed)
        self.events: list[Event] = []
        where: dict[str, str] = {}
        t_ns = 0
        for _ in range(events):
            t_ns += rng.randrange(12 * SECOND, 40 * SECOND)
            thing, kind = rng.choice(THINGS)
            place = rng.choice([name for name in PLACES if name != where.get(thing)])
            where[thing] = place
            self.events.append(Event(t_ns, thing, kind, place))
        self.end_ns = t_ns + 60 * SECOND
        self.visits = list(self._visits(rng))
        self.packets = self._render(rng)

    def _visits(self, rng: random.Random) -> Iterator[Visit]:
        for animal in ANIMALS:
            t_ns = rng.randrange(200 * SECOND)
            while t_ns < self.end_ns - 60 * SECOND:
                end = t_ns + rng.randrange(2 * SECOND, 25 * SECOND)
                yield Visit(animal, t_ns, end)
                t_ns = end + APART_NS + rng.randrange(600 * SECOND)

    def place_at(self, thing: str, t_ns: int) -> str | None:
        """Brute force: the last event of the thing up to then."""
        places = [event.place for event in self.events if event.thing == thing and event.t_ns <= t_ns]
        return places[-1] if places else None

    def _render(self, rng: random.Random) -> list[Observation]:
        facts: list[tuple[int, tuple[StateFact, ...], tuple[Detection, ...], str]] = []
        for event in self.events:
            said = StateFact(event.thing, "place", event.place, kind=event.kind, relation="in")
            facts.append((event.t_ns, (said,), (), event.place))
            if rng.random() < 0.5:
                facts.append((event.t_ns + rng.randrange(SECOND, 10 * SECOND), (said,), (), event.place))
                later = [e.t_ns for e in self.events if e.thing == event.thing and e.t_ns > event.t_ns]
                if later and later[0] <= facts[-1][0]:
                    facts.pop()  # a confirmation of what has changed meanwhile would be a lie
            if rng.random() < 0.25:
                lie = rng.choice([name for name in PLACES if name != event.place])
                weak = StateFact(event.thing, "place", lie, 0.4, kind=event.kind, relation="in")
                facts.append((event.t_ns + 10 * SECOND + rng.randrange(SECOND), (weak,), (), event.place))
        for visit in self.visits:
            seen = (Detection(visit.animal, 0.8, (0.2, 0.2, 0.6, 0.6)),)
            times = [*range(visit.t_start_ns, visit.t_end_ns, 2 * SECOND), visit.t_end_ns]
            facts += [(t_ns, (), seen, "garden") for t_ns in times]
        facts.sort(key=lambda fact: fact[0])
        pictures = {place: _picture(number) for number, place in enumerate(PLACES)}
        made = [
            Observation(
                stream=STREAM, seq=n, capture_ns=t_ns, states=said, detections=seen, thumbnail=pictures[place]
            )
            for n, (t_ns, said, seen, place) in enumerate(facts)
        ]  # fmt: skip
        arrival = {one.seq: one.capture_ns + (rng.randrange(LATE_NS) if rng.random() < 0.1 else 0) for one in made}
        packets = sorted(made, key=lambda one: (arrival[one.seq], one.seq))
        twice = [replace(packets[n]) for n in rng.sample(range(len(packets)), len(packets) // 20)]
        return [*packets, *twice]


def _picture(number: int) -> bytes:
    """A small picture of one colour, another for each place."""
    import cv2  # 0.1 s that `--help` must not pay

    colour = np.full((48, 64, 3), (40 * number, 255 - 40 * number, 128), np.uint8)
    return bytes(cv2.imencode(".jpg", colour)[1])


class Naive:
    """A memory that believes whatever it was told last, in the order of arrival."""

    def __init__(self, packets: Sequence[Observation]) -> None:
        self.told: dict[str, list[tuple[int, str]]] = {}
        self.seen: dict[str, int] = {}
        for packet in packets:
            for fact in packet.states:
                self.told.setdefault(fact.entity, []).append((packet.capture_ns, fact.value))
            for found in packet.detections:
                self.seen[found.label] = self.seen.get(found.label, 0) + 1

    def latest(self, thing: str) -> str | None:
        told = self.told.get(thing)
        return told[-1][1] if told else None

    def at(self, thing: str, t_ns: int) -> str | None:
        told = [value for said_ns, value in self.told.get(thing, []) if said_ns <= t_ns]
        return told[-1] if told else None


def kendall_tau(truth: Sequence[str], told: Sequence[str]) -> float:
    """Kendall's rank correlation in [-1, 1]; 0 unless both hold the same names (as EpBench counts it)."""
    if len(truth) < 2 or sorted(truth) != sorted(told):
        return 0.0
    place = {name: index for index, name in enumerate(told)}
    pairs = [(a, b) for index, a in enumerate(truth) for b in truth[index + 1 :]]
    return sum(1 if place[a] < place[b] else -1 for a, b in pairs) / len(pairs)


def f1(truth: set[str], told: set[str]) -> float:
    if not truth and not told:
        return 1.0
    both = len(truth & told)
    return 2 * both / (len(truth) + len(told))


def _bin(size: int) -> str:
    """EpBench's bins of how many events match."""
    return "0" if size == 0 else "1" if size == 1 else "2" if size == 2 else "3-5" if size <= 5 else "6+"


class Examiner:
    """Questions to one memory; ``marks`` collects (score, naive score) by ability."""

    def __init__(self, memory: Memory, script: Script, seed: int) -> None:
        self.memory = memory
        self.script = script
        self.naive = Naive(script.packets)
        self.rng = random.Random(seed + 1)
        self.marks: dict[str, list[tuple[float, float | None]]] = {}
        self.bins: dict[str, list[tuple[float, float | None]]] = {}

    def ask(self, question: str, **given: Any) -> dict[str, Any]:
        return self.memory.query("entities", question, **given)

    def mark(self, ability: str, score: float, naive: float | None = None) -> None:
        self.marks.setdefault(ability, []).append((float(score), naive))

    def all(self, questions: int) -> None:
        for thing, _ in THINGS:
            self._latest(thing)
            self._list_all(thing, (0, self.script.end_ns))
        for animal in ANIMALS:
            self._count(animal)
        for _ in range(questions):
            self._past()
            self._order()
            start = self.rng.randrange(self.script.end_ns)
            length = self.rng.choice((1, 60, 600, 3600)) * SECOND
            self._list_all(self.rng.choice(THINGS)[0], (start, start + length))
        for name in ABSENT:
            self._absent(name)

    def _latest(self, thing: str) -> None:
        truth = self.script.place_at(thing, self.script.end_ns)
        told = self.ask("latest", entity=thing)
        value = next((fact["value"] for fact in told["facts"] if fact["status"] == "active"), None)
        self.mark("latest state", value == truth, self.naive.latest(thing) == truth)
        if value is not None:
            shown = told["frames"]
            self.mark("evidence", bool(shown) and self.memory.thumbnail(shown[0]["record_id"]) is not None)

    def _past(self) -> None:
        thing, _ = self.rng.choice(THINGS)
        at = self.rng.randrange(self.script.end_ns)
        truth = self.script.place_at(thing, at)
        told = self.ask("was_at", entity=thing, t_ns=at)
        value = next((fact["value"] for fact in told["facts"] if fact["status"] != "disputed"), None)
        self.mark("value at a past time", value == truth, self.naive.at(thing, at) == truth)

    def _order(self) -> None:
        place = self.rng.choice(PLACES)
        firsts: dict[str, int] = {}
        for event in self.script.events:
            if event.place == place:
                firsts.setdefault(event.thing, event.t_ns)
        if len(firsts) < 2:
            return
        names = self.rng.sample(sorted(firsts), min(4, len(firsts)))
        truth = sorted(names, key=lambda name: firsts[name])
        told = self.ask("order", entities=names, attribute="place", value=place)
        heard = [fact["entity"] for fact in told["facts"]]
        arrivals: dict[str, int] = {}
        for number, packet in enumerate(self.script.packets):
            for fact in packet.states:
                if fact.value == place:
                    arrivals.setdefault(fact.entity, number)
        naive = sorted(names, key=lambda name: arrivals[name])
        self.mark("order", max(0.0, kendall_tau(truth, heard)), max(0.0, kendall_tau(truth, naive)))

    def _list_all(self, thing: str, between: tuple[int, int]) -> None:
        lo, hi = between
        mine = [event for event in self.script.events if event.thing == thing]
        ends = [event.t_ns for event in mine[1:]] + [self.script.end_ns]
        held = zip(mine, ends, strict=False)
        truth = {event.place for event, end in held if event.t_ns <= hi and end >= lo}
        told = self.ask("history", entity=thing, attribute="place", between=between, limit=1000)
        heard = {fact["value"] for fact in told["facts"] if fact["status"] != "disputed"}
        naive = {value for said_ns, value in self.naive.told.get(thing, []) if lo <= said_ns <= hi}
        pair = (f1(truth, heard), f1(truth, naive))
        self.mark("list all places", *pair)
        self.bins.setdefault(_bin(len(truth)), []).append(pair)

    def _count(self, animal: str) -> None:
        truth = sum(visit.animal == animal for visit in self.script.visits)
        told = self.ask("how_often", entity=animal)
        self.mark("count visits", told["total"] == truth, self.naive.seen.get(animal, 0) == truth)
        kind = self.rng.choice(THINGS)[1]
        there = {event.thing for event in self.script.events if event.kind == kind}
        self.mark("count things", self.ask("count", entity=kind)["total"] == len(there))

    def _absent(self, name: str) -> None:
        thing = self.rng.choice(THINGS)[0]
        before = (-100 * SECOND, -1)
        for told in (
            self.ask("latest", entity=name),
            self.ask("last_seen", entity=name),
            self.ask("how_often", entity=name),
            self.ask("history", entity=thing, attribute="place", value="moon"),
            self.ask("history", entity=thing, between=before),
            self.ask("was_at", entity=thing, t_ns=before[0]),
        ):
            self.mark("nothing where nothing matches", told["status"] == "not_seen" and not told["facts"])


MEASURES = {
    "latest state": "accuracy",
    "value at a past time": "accuracy",
    "order": "Kendall tau",
    "list all places": "F1",
    "count visits": "exact",
    "count things": "exact",
    "nothing where nothing matches": "abstained",
    "evidence": "frames exist",
}
FLOOR = 1.0
"""Of every ability: nothing in the stream is beyond the rules or left to chance. Reached on seeds 0 to 11."""


class Report(msgspec.Struct, frozen=True):
    """``bins``: F1 of "list all places" by how many places match."""

    seed: int
    observations: int
    events: int
    segments: int
    abilities: tuple[Ability, ...]
    bins: dict[str, tuple[int, float]]
    digest: str

    @property
    def passed(self) -> bool:
        return all(ability.passed for ability in self.abilities)


def examine(seed: int = 0, events: int = 200, questions: int = 60, directory: Path | None = None) -> Report:
    """Write the stream into a memory in ``directory`` (default: a temporary one) in two halves, with a restart between
    and before the questions, and ask. Takes about 2 s with the defaults."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="streammem-selftest-") as made:
            return examine(seed, events, questions, Path(made) / "memory")
    script = Script(seed, events)
    config = Config(memory=MemoryConfig(seal_bytes=64 * 1024))
    half = len(script.packets) // 2
    for packets in (script.packets[:half], script.packets[half:]):
        with streammem.memory.open(directory, config=config) as memory:
            memory.write(packets)
    with streammem.memory.open(directory, config=config, mode="read") as memory:
        examiner = Examiner(memory, script, seed)
        examiner.all(questions)
        status = memory.status()
        digest = memory.digest()
    abilities = []
    for name, measure in MEASURES.items():
        marks = examiner.marks.get(name, [])
        if marks:
            naive = [told for _, told in marks if told is not None]
            mean = sum(naive) / len(naive) if naive else None
            abilities.append(Ability(name, measure, len(marks), _mean(marks), FLOOR, mean))
    bins = {name: (len(marks), _mean(marks)) for name, marks in sorted(examiner.bins.items())}
    return Report(seed, status.observations, len(script.events), status.segments, tuple(abilities), bins, digest)


def _mean(marks: Sequence[tuple[float, float | None]]) -> float:
    return sum(score for score, _ in marks) / len(marks)
