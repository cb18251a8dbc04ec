"""What is said of things that were seen: one function a shape of question, from stretches of being seen to a sentence.

Nothing here asks the pictures, or knows where its numbers come from; ``facts.py`` does the one, ``fact_sources.py`` the
other. A shape that these things can't answer gives None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from streammem.clock import format_duration
from streammem.recall.asking import Asked
from streammem.recall.asking_patterns import Shape
from streammem.recall.fact_counts import count, names_of, often, ordered, together, which_first
from streammem.recall.fact_places import PLACES
from streammem.recall.fact_proofs import (
    NAMED,
    about_of,
    capital,
    each_of,
    listed,
    proofs_of,
    ranges,
    source_of,
    sure_of,
)
from streammem.recall.fact_sources import GAP_NS, Banks, Known, Spell, narrow, unproven
from streammem.recall.fact_story import happened
from streammem.recall.facts import FOUND, Say, Told
from streammem.recall.noun_phrases import Thing
from streammem.recall.plan import Plan

WIDER = 0.7
"""What a fact keeps of its confidence where the bank knows the thing under a wider name: a "person" for a "man"."""


Handler = Callable[[Asked, Plan, list[Known], Banks, Say], Told | None]


def answer(asked: Asked, plan: Plan, banks: Banks, say: Say) -> Told | None:
    """The banks' answer to a question of this shape, or None."""
    for thing in asked.things:
        if thing.track and (refused := _no_such_track(thing, banks)) is not None:
            return refused
    if asked.shape == "happened":
        return happened(asked, plan, banks, say)
    if asked.shape in PLACES:
        told = PLACES[asked.shape](asked, plan, banks, say)
        known = [each for thing in asked.things for each in banks.known(thing)] if told is not None else []
        return hedged(told, asked, known) if told is not None and known else told
    groups = [banks.known(thing) for thing in asked.things]
    if not asked.things:
        groups = [banks.known(None, people=plan.question.lower().startswith("who"))]
    if asked.things and not all(groups):
        return None
    if asked.shape in TWO and len(groups) == 2:
        told = TWO[asked.shape](asked, groups, banks, say)
    elif groups and groups[0] and asked.shape in ONE:
        told = ONE[asked.shape](asked, plan, _in_time(groups[0], plan), banks, say)
    else:
        return None
    if told is None:
        return None
    return hedged(told, asked, [each for group in groups for each in group])


def hedged(told: Told, asked: Asked, known: Sequence[Known]) -> Told:
    """Less sure where what is known is wider than what was asked, or a colour only just fits."""
    notes = [note for thing in asked.things if (note := unproven(thing, known))]
    if notes:
        told.text = f"{told.text.rstrip('.')} ({'; '.join(dict.fromkeys(notes))})."
        told.hedged = True
        told.confidence = min(told.confidence * WIDER, FOUND - 0.01)
    elif not all(each.exact for each in known):
        told.confidence *= WIDER
        told.hedged = not asked.presumed
    if told.hedged or (told.status == "found" and told.confidence < FOUND):
        told.status = "unsure"
    return told


def _no_such_track(thing: Thing, banks: Banks) -> Told | None:
    """A number that no track has: which there are is the answer. None where it exists, or another kind is meant."""
    names = sorted({info["track"] for info in banks.tracks}, key=lambda name: (not name.isdigit(), len(name), name))
    if thing.track.lower() in {name.lower() for name in names} or thing.words:
        return None
    if not names:
        if banks.ask("tracks", "when_seen", track=thing.track):
            return None
        text = f"Nothing was tracked here, so nothing is known of track {Say.name(thing.track)} (watch --track)."
        return Told(text, "unsure", 0.0, [])
    size = banks.ask("tracks", "size") or []
    dropped = sum(one["dropped"] for one in size)
    text = f"There is no track {Say.name(thing.track)} here. Tracks: {ranges(names)}."
    if dropped:
        text += f" {dropped} older ones were dropped for want of room."
    return Told(text, "unsure" if dropped else "not_seen", 0.0, [])


def _in_time(known: list[Known], plan: Plan) -> list[Known]:
    """Only what lies in the time that the question names; all of it where nothing does."""
    if not plan.ranges:
        return known
    spans = [narrow(each) for each in plan.ranges]
    inside = [(each, [s for s in each.spells if any(s.overlaps(*span) for span in spans)]) for each in known]
    return [replace(each, spells=spells) for each, spells in inside if spells]


# -- one thing, or one kind


def _appear(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    def tell(each: Known) -> tuple[str, list[Spell]]:
        return f"appeared at {say.at(each.spells[0].t_start_ns, each.stream)}", each.spells[:1]

    return each_of(known, banks, say, tell, only_before=True)


def _leave(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    if any(each.bank == "entities" and not each.open and each.values for each in known):
        return None  # what was only spoken of can't be seen leaving

    def tell(each: Known) -> tuple[str, list[Spell]]:
        times = [say.at(s.t_end_ns, each.stream) for s in (each.spells[:-1] if each.still else each.spells)]
        if each.still:
            end = f"is still there at the end, {say.at(each.watched_ns, each.stream)}"
            return (
                f"left at {' and '.join(times)}, came back, and {end}" if times else f"never left: {end}"
            ), each.spells
        return f"left at {' and '.join(times)}{_since(each, say)}", each.spells

    return each_of(known, banks, say, tell, only_after=True)


def _since(each: Known, say: Say) -> str:
    if each.gone_ns is not None:
        return f"; its place was looked at until {say.at(each.gone_ns, each.stream)} and it wasn't there"
    if each.watched_ns > each.spells[-1].t_end_ns + GAP_NS:
        return f" and wasn't seen again, watched until {say.at(each.watched_ns, each.stream)}"
    return ""


def returned(spell: Spell) -> str:
    """The tracker's evidence that it was the same thing."""
    if spell.back is None:
        return "the tracker gave no score for that"
    looks = f", looks alike {spell.alike:.2f}" if spell.alike is not None else ", by motion alone"
    return f"found again with score {spell.back:.2f}{looks}"


def _back(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    if not any(each.bank == "tracks" for each in known) and not any(len(each.spells) > 1 for each in known):
        return None
    came = [(each, later) for each in known for later in each.spells[1:]]
    if not came:
        parts = []
        for each in known[:NAMED]:
            first, last = each.spells[0], each.spells[-1]
            seen = say.span(first.t_start_ns, last.t_end_ns, each.stream)
            gone = "was never away" if each.still else f"didn't come back{_since(each, say)}"
            parts.append(f"{say.name(each.shown)} {gone} (seen {seen})")
        proofs = [p for each in known[:NAMED] for p in proofs_of(each, each.spells, banks)]
        return Told(capital(f"{listed(parts, len(known))}{source_of(known)}."), "not_seen", 0.0, proofs)
    parts, proofs, sure = [], [], []
    for each in known:
        for before, later in zip(each.spells, each.spells[1:], strict=False):
            away = format_duration(later.t_start_ns - before.t_end_ns)
            when = say.at(later.t_start_ns, each.stream)
            parts.append(f"{say.name(each.shown)} came back at {when} after {away} ({returned(later)})")
            again = f"{each.shown}, {returned(later)}"
            proofs += [*proofs_of(each, [later], banks, again), *proofs_of(each, [before], banks)]
            sure.append(sure_of(each, [later]) * (later.back if later.back is not None else 1.0))
    text = capital(f"{listed(parts)}{source_of([each for each, _ in came])}.")
    return Told(text, "found", min(sure[:NAMED]), proofs, about_of(known))


def _seen(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    def tell(each: Known) -> tuple[str, list[Spell]]:
        spans = [say.span(s.t_start_ns, s.t_end_ns, each.stream) for s in each.spells]
        more = f" and {len(spans) - 6} more times" if len(spans) > 6 else ""
        return f"was seen {', '.join(spans[:6])}{more}", each.spells[:3]

    return each_of(known, banks, say, tell)


def _which(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    colours = asked.things[0].colours if asked.things else ()
    known = sorted(known, key=lambda each: -(each.share or 0.0))

    def tell(each: Known) -> tuple[str, list[Spell]]:
        spans = ", ".join(say.span(s.t_start_ns, s.t_end_ns, each.stream) for s in each.spells[:4])
        shown = colours or tuple(each.colours)[:2]
        tones = ", ".join(f"{term} {each.colours[term]:.0%}" for term in shown if term in each.colours)
        return f"{f'[{tones}] ' if tones else ''}seen {spans}", each.spells[:2]

    return each_of(known, banks, say, tell)


def _stay(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    def tell(each: Known) -> tuple[str, list[Spell]]:
        total = format_duration(sum(s.t_end_ns - s.t_start_ns for s in each.spells))
        spans = ", ".join(say.span(s.t_start_ns, s.t_end_ns, each.stream) for s in each.spells[:4])
        return f"was there for {total} in all ({spans})", each.spells[:3]

    return each_of(known, banks, say, tell)


def _gone(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    def tell(each: Known) -> tuple[str, list[Spell]]:
        gaps = [(a.t_end_ns, b.t_start_ns) for a, b in zip(each.spells, each.spells[1:], strict=False)]
        parts = [f"for {format_duration(b - a)} ({say.span(a, b, each.stream)})" for a, b in gaps[:4]]
        if not each.still:
            last = each.spells[-1].t_end_ns
            parts.append(f"since {say.at(last, each.stream)}, {format_duration(each.watched_ns - last)} until the end")
        return (f"was away {', '.join(parts)}" if parts else "was never away"), each.spells[:3]

    return each_of(known, banks, say, tell)


def _last(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    known = sorted(known, key=lambda each: -each.spells[-1].t_end_ns)

    def tell(each: Known) -> tuple[str, list[Spell]]:
        place = next((v for v in reversed(each.values) if v["attribute"] == "place"), None)
        where = f" ({say.name(place['relation'] or 'at')} {say.name(place['value'])})" if place else ""
        return (
            f"was last seen at {say.at(each.spells[-1].t_end_ns, each.stream)}{where}{_since(each, say)}",
            each.spells[-1:],
        )

    return each_of(known, banks, say, tell, only_after=True)


def _during(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    return _seen(asked, plan, known, banks, say) if known and plan.ranges else None


ONE: dict[Shape, Handler] = {
    "appear": _appear,
    "leave": _leave,
    "back": _back,
    "seen": _seen,
    "which": _which,
    "stay": _stay,
    "gone": _gone,
    "often": often,
    "count": count,
    "most": count,
    "last": _last,
    "during": _during,
    "names": names_of,
    "first": ordered,
    "final": ordered,
}
TWO: dict[Shape, Callable[[Asked, list[list[Known]], Banks, Say], Told | None]] = {
    "first": which_first,
    "final": which_first,
    "together": together,
}
