"""What the structured banks know of a thing: stretches of being seen, colours, places. Plain data, no verdicts.

Banks are asked through the memory's own read-only questions (``Memory.query``), so the same streams are visible here as
anywhere, and a bank that is switched off, or knows nothing of the kind, is simply silent. Text that a camera read is no
thing: entities of the kind ``text`` are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streammem.clock import NS
from streammem.errors import QueryError
from streammem.recall.noun_phrases import GARMENTS, Thing, names_for
from streammem.recall.query import fold
from streammem.recall.timeline import Between
from streammem.recall.when import Range

MOST_TRACKS = 1000
MOST_FACTS = 1000
MOST_THINGS = 8
"""Entities whose history is read: one question each, 0.1 to 3 ms."""
MOST_PATHS = 64
NOTHING: dict[str, Any] = {"facts": ()}
GAP_NS = 2_000_000_000
"""Statements this near each other are one stretch: the default gap of the bank of tracks."""
COLOURED = 0.15
"""Share of a thing that must be of a colour before it is called so; a coat is a third to a half of a person's box."""
PLAIN = 0.35
"""The same for black, white, gray and brown: shadows, skin and the street are of those, too."""
PLAIN_TERMS = frozenset(("black", "white", "gray", "brown"))


@dataclass(slots=True)
class Spell:
    """A stretch of being seen, both ends included. ``back``/``alike``: the tracker's evidence that it was the same
    thing again; ``ids``: (record id, time) of moments that show it."""

    t_start_ns: int
    t_end_ns: int
    score: float
    back: float | None = None
    alike: float | None = None
    ids: tuple[tuple[int, int], ...] = ()

    def overlaps(self, start: int, end: int) -> bool:
        return self.t_start_ns <= end and start <= self.t_end_ns


@dataclass(slots=True)
class Known:
    """One thing that a bank knows. ``exact``: it is called what was asked for, not only something wider; ``share``: how
    much of it has the asked colours (None: no colour was asked)."""

    bank: str
    stream: str
    name: str
    kind: str
    spells: list[Spell]
    watched_ns: int
    exact: bool = True
    share: float | None = None
    colours: dict[str, float] = field(default_factory=dict)
    gone_ns: int | None = None
    open: bool = False
    step_ns: int = GAP_NS
    """The usual distance of two looks at it."""
    box: tuple[float, ...] = ()
    values: list[dict[str, Any]] = field(default_factory=list)
    """Of an entity: everything that was said of it, in order of time."""

    @property
    def shown(self) -> str:
        named = f"track {self.name}" if self.bank == "tracks" and self.name.isdigit() else self.name
        return named if not self.kind or fold(self.kind) == fold(self.name) else f"{named} ({self.kind})"

    @property
    def still(self) -> bool:
        """Seen to the end of what was watched, give or take three looks of the tracker."""
        slack = min(GAP_NS, max(NS // 2, 3 * self.step_ns))
        return self.spells[-1].t_end_ns >= self.watched_ns - slack and self.gone_ns is None


class Banks:
    """The banks of one memory for one question. ``streams`` and ``between`` are the caller's, and hard."""

    def __init__(
        self, view: object, streams: Sequence[str] | None, between: Between | None, end_ns: int | None = None
    ) -> None:
        self._query = getattr(view, "query", None)
        self._knows = getattr(view, "knows", lambda bank: True)
        self.streams, self.between = streams, between
        self._end_ns = end_ns if end_ns is not None else -(2**63)
        self._tracks: list[dict[str, Any]] | None = None
        self._kept: dict[str, dict[str, tuple[tuple[int, int], ...]]] = {}
        self._meant: list[str] = []
        self.unknown_colours = False
        """Things of the asked kind are known, but not of which colour they are."""

    def ask(self, bank: str, question: str, *, stream: str | None = None, **arguments: Any) -> Any:
        """The answer of a bank, or None where it is off, or can't say. ``stream``: one that an answer named."""
        if self._query is None or not self._knows(bank):
            return None
        try:
            return self._query(bank, question, streams=self.streams if stream is None else [stream], **arguments)
        except QueryError:
            return None

    @property
    def tracks(self) -> list[dict[str, Any]]:
        """Every followed object, without its kept frames."""
        if self._tracks is None:
            self._tracks = self.ask("tracks", "tracks", kept=False, limit=MOST_TRACKS) or []
        return self._tracks

    def known(self, thing: Thing | None, *, people: bool = False) -> list[Known]:
        """Things that are meant, earliest seen first. None: all that were tracked (``people``: all persons)."""
        if thing is None:
            thing = Thing("people", ("people",)) if people else None
        found = self._of_tracks(thing)
        if thing is not None and not thing.track:
            found += self._of_entities(thing, {(k.stream, k.name) for k in found})
        found = [each for each in (self._cut(each) for each in found) if each is not None]
        if thing is not None and thing.colours:
            found = self._coloured(found, thing.colours)
        found.sort(key=lambda each: (each.spells[0].t_start_ns, each.stream, each.name))
        self._meant += [each.name for each in found if each.bank == "tracks"]
        return found

    def _of_tracks(self, thing: Thing | None) -> list[Known]:
        said, wide = names_for(thing) if thing is not None else ([], [])
        out = []
        for info in self.tracks:
            label, name = fold(info["label"]), fold(info["track"])
            exact = True
            if thing is not None and thing.track:
                if name != thing.track.lower() or (thing.words and label not in said):
                    continue
            elif thing is not None and label not in said and name not in said:
                if label not in wide:
                    continue
                exact = False
            spells = [Spell(part[0], part[1], part[3], part[4], part[5]) for part in info["intervals"]]
            out.append(
                Known(
                    "tracks",
                    info["stream"],
                    info["track"],
                    info["label"],
                    spells,
                    max(info["watched_ns"], spells[-1].t_end_ns),
                    exact,
                    colours=info["colours"],
                    gone_ns=info["gone_ns"],
                    open=info["open"],
                    step_ns=max((s[1] - s[0]) // max(1, s[2] - 1) for s in info["intervals"]),
                    box=tuple(info["last_box"]),
                )
            )
        return out

    def _of_entities(self, thing: Thing, tracked: set[tuple[str, str]]) -> list[Known]:
        said, wide = names_for(thing)
        listed = self.ask("entities", "named", names=[*said, *wide], limit=MOST_FACTS)
        # What a tracker follows is told by its own bank, in finer stretches.
        things = [fact for fact in (listed or NOTHING)["facts"] if not _is_track(fact, tracked)]
        plainest = [fact for fact in things if fact["value"] == things[0]["value"]]
        plainest.sort(key=lambda fact: (-fact["t_last_ns"], fact["stream"], fact["entity"]))
        told = [self._told(fact, exact=fact["value"] in said) for fact in plainest[:MOST_THINGS]]
        known = [each for each in told if each is not None]
        sure = min((spell.score for each in known for spell in each.spells), default=0.0)
        for fact in plainest[MOST_THINGS:]:  # from when to when is known of them, not what was in between
            span = Spell(fact["t_start_ns"], fact["t_last_ns"], sure)
            named = (fact["stream"], fact["entity"], fact["kind"])
            known.append(Known("entities", *named, [span], max(self._end_ns, span.t_end_ns), fact["value"] in said))
        return known

    def _told(self, fact: dict[str, Any], *, exact: bool) -> Known | None:
        told = self.ask("entities", "history", stream=fact["stream"], entity=fact["entity"], limit=1000)
        facts = [
            f for f in (told or NOTHING)["facts"] if (f["stream"], f["entity"]) == (fact["stream"], fact["entity"])
        ]
        if not facts:
            return None
        seen = [f for f in facts if f["attribute"] == "seen"] or [f for f in facts if f["status"] != "disputed"]
        spells: list[Spell] = []
        for one in sorted(seen, key=lambda f: f["t_start_ns"]):
            last = spells[-1] if spells else None
            if last is not None and one["t_start_ns"] <= last.t_end_ns + GAP_NS:
                last.t_end_ns = max(last.t_end_ns, one["t_last_ns"])
                last.score = max(last.score, one["confidence"])
                last.ids = (*last.ids, *_ids(one))[:8]
            else:
                spells.append(Spell(one["t_start_ns"], one["t_last_ns"], one["confidence"], ids=_ids(one)))
        if not spells:
            return None
        values = [f for f in facts if f["attribute"] not in ("seen", "label")]
        name = fact["entity"]
        end = max(self._end_ns, spells[-1].t_end_ns)
        return Known("entities", fact["stream"], name, fact["kind"], spells, end, exact, values=values)

    def _cut(self, known: Known) -> Known | None:
        """Only what lies in the caller's time."""
        lo, hi = self.between or (None, None)
        known.spells = [
            spell
            for spell in known.spells
            if (hi is None or spell.t_start_ns <= hi) and (lo is None or spell.t_end_ns >= lo)
        ]
        known.values = [
            v
            for v in known.values
            if (hi is None or v["t_start_ns"] <= hi) and (lo is None or v["t_end_ns"] is None or v["t_end_ns"] >= lo)
        ]
        return known if known.spells else None

    def kept(self, known: Known) -> tuple[tuple[int, int], ...]:
        """(record id, time) of the frames that were kept of a tracked thing, oldest first."""
        if known.name not in self._kept:
            names = [known.name, *(name for name in self._meant[:8] if name not in self._kept)]
            self._kept |= {name: {} for name in names}
            for info in self.ask("tracks", "tracks", names=names) or ():
                frames = tuple((frame["record_id"], frame["t_ns"]) for frame in info["kept"] if frame["record_id"])
                self._kept[info["track"]][info["stream"]] = frames
        return self._kept[known.name].get(known.stream, ())

    def paths(self, stream: str) -> dict[str, list[tuple[int, float, float, float, float]]]:
        """Where each tracked thing of a stream was: (time, box) at up to 64 instants."""
        found = self.ask("tracks", "tracks", kept=False, path=True, limit=MOST_PATHS) or ()
        return {info["track"]: [tuple(at) for at in info["path"]] for info in found if info["stream"] == stream}

    def _coloured(self, found: list[Known], colours: Sequence[str]) -> list[Known]:
        """Those of these colours, most of it first; whose colours nobody kept can't be told."""
        out = []
        for each in found:
            colour = next((v["value"] for v in reversed(each.values) if v["attribute"] in ("colour", "color")), None)
            if not each.colours and colour is None:
                self.unknown_colours = True
                continue
            if each.colours:
                shares = [each.colours.get(term, 0.0) for term in colours]
                least = [PLAIN if term in PLAIN_TERMS else COLOURED for term in colours]
                each.share = min(shares)
                good = all(share >= bar for share, bar in zip(shares, least, strict=True))
            else:
                each.share = 1.0
                good = all(term in fold(str(colour)).split() for term in colours)
            if good:
                out.append(each)
        most = max((each.share or 0.0 for each in out), default=0.0)
        return [each for each in out if (each.share or 0.0) >= most / 2]


def _is_track(fact: dict[str, Any], tracked: set[tuple[str, str]]) -> bool:
    return (fact["stream"], fact["entity"][1:].partition("@")[0]) in tracked


def _ids(fact: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    return tuple(zip(fact["record_ids"], (fact["t_start_ns"], fact["t_last_ns"]), strict=False))


def unproven(thing: Thing, known: Sequence[Known]) -> str:
    """What was asked for and no bank can know ("with a beard"); empty where everything is covered."""
    extra = [word for word in thing.extra if word not in GARMENTS]
    if extra:
        return f"whether with {' '.join(extra)} isn't known"
    if known and not any(each.exact for each in known) and (len(thing.words) > 1 or not thing.people):
        return f"whether it is “{thing.text}” isn't known"
    return ""


def narrow(named: Range) -> tuple[int, int]:
    """What "at 0:05" means to a bank that knows to the frame: that second. A search takes five seconds around it."""
    if not named.why.lower().startswith("at "):
        return named.t_start_ns, named.t_end_ns
    middle = (named.t_start_ns + named.t_end_ns) // 2
    return middle - NS // 2, middle + NS // 2
