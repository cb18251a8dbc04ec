"""How many, how often, who first, and who together: answers that take several things, or several stretches, at once."""

from __future__ import annotations

from collections.abc import Sequence

from streammem.recall.asking import Asked
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
    times_of,
)
from streammem.recall.fact_sources import Banks, Known, Spell
from streammem.recall.facts import Proof, Say, Told
from streammem.recall.noun_phrases import singular
from streammem.recall.plan import Plan


def often(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    def tell(each: Known) -> tuple[str, list[Spell]] | None:
        if asked.event == "move":
            places = [v for v in each.values if v["attribute"] in ("place", "moved") and v["status"] != "disputed"]
            if not places:
                return None
            moves = [v for v in places if v["attribute"] == "moved"] or places[1:]
            return f"moved {times_of(len(moves))}", each.spells[:3]
        n = len(each.spells)
        if asked.event == "leave":
            return f"left {times_of(n - each.still)}", each.spells[:3]
        if asked.event == "back":
            return f"came back {times_of(n - 1)}", each.spells[:3]
        return f"was seen {times_of(n)}", each.spells[:3]

    return each_of(known, banks, say, tell)


def count(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    at_once, when = most_at_once(known)
    what = say.name(asked.things[0].text if asked.things else "things")
    words = asked.things[0].words if asked.things else ()
    if len(words) == 1 and len(known) == 1:
        what = say.name(singular(words[0]))
    if known and all(each.bank == "entities" and not each.values for each in known):
        # Detected, never followed: one entity stands for all of them.
        spans = ", ".join(say.span(s.t_start_ns, s.t_end_ns, known[0].stream) for s in known[0].spells[:4])
        text = f"At least one of “{what}” was detected, seen {spans}; they weren't tracked, so they can't be counted."
        return Told(text, "unsure", 0.3, proofs_of(known[0], known[0].spells[:2], banks))
    proofs = [p for each in known[:NAMED] for p in proofs_of(each, each.spells[:1], banks)]
    sure = sum(sure_of(each, each.spells) for each in known) / len(known)
    if any(pointed_at(each) for each in known):
        named = say.name(listed([each.name for each in known]), 200)
        least = at_once if asked.shape == "most" else len(known)
        text = f"At least {least}: {named}. Only what was pointed at was followed{source_of(known)}."
        return Told(text, "unsure", min(sure, 0.3), proofs, about_of(known))
    where = say.at(when[0], known[0].stream)
    if asked.shape == "most":
        what = say.name(singular(words[0])) if len(words) == 1 and at_once == 1 else what
        text = f"At most {at_once} {what} at once, first at {where}{source_of(known)}."
        proofs = [
            p for each in known if each.spells[0].overlaps(*when) for p in proofs_of(each, each.spells[:1], banks)
        ]
        return Told(text, "found", sure, proofs, about_of(known))
    text = f"{len(known)} {what} in all, at most {at_once} at once{source_of(known)}"
    if known[0].bank == "tracks" and at_once < len(known):
        text += ": one that came back unrecognised counts twice"
        sure *= at_once / len(known)
    names = ranges([each.name for each in known]) if known[0].bank == "tracks" else listed([k.name for k in known])
    told = f"{text}. {'It is' if len(known) == 1 else 'They are'} {say.name(names, 200)}."
    return Told(told, "found", sure, proofs, about_of(known))


def pointed_at(known: Known) -> bool:
    """Whether a person chose it (``watch --track mug=x,y``): then others of its kind may have gone by unfollowed."""
    return known.bank == "tracks" and known.kind in (known.name, "object")


def most_at_once(known: Sequence[Known]) -> tuple[int, tuple[int, int]]:
    """The largest number of things of one stream that were seen at the same time, and the first such stretch."""
    best, when = 0, (known[0].spells[0].t_start_ns, known[0].spells[0].t_end_ns)
    for stream in dict.fromkeys(each.stream for each in known):
        spells = [spell for each in known if each.stream == stream for spell in each.spells]
        for spell in spells:
            there = [s for s in spells if s.t_start_ns <= spell.t_start_ns <= s.t_end_ns]
            if len(there) > best:
                best, when = len(there), (spell.t_start_ns, min(s.t_end_ns for s in there))
    return best, when


def names_of(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    kinds: dict[str, list[Known]] = {}
    for each in known:
        kinds.setdefault(each.kind or "?", []).append(each)
    parts = [f"{len(of)} of “{say.name(kind)}”: {ranges([e.name for e in of])}" for kind, of in sorted(kinds.items())]
    proofs = [p for each in known[:NAMED] for p in proofs_of(each, each.spells[:1], banks)]
    return Told(f"{len(known)} track{'s' * (len(known) > 1)}. {capital(listed(parts))}.", "found", 1.0, proofs)


def ordered(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    """Who came (or left) first, or last, of all."""
    leave, final = asked.event == "leave", asked.shape == "final"
    known = [each for each in known if not (leave and each.still)]
    if not known:
        return None
    key = (lambda e: e.spells[-1].t_end_ns) if leave else (lambda e: e.spells[0].t_start_ns)
    order = sorted(known, key=lambda each: (-key(each) if final else key(each), each.name))
    best = key(order[0])
    tied = [each for each in order if key(each) == best]
    word = f"{'left' if leave else 'came'} {'last' if final else 'first'}"
    names = listed([say.name(each.shown) for each in tied])
    more = (
        f", then {say.name(order[len(tied)].shown)} at {say.at(key(order[len(tied)]), order[0].stream)}"
        if len(order) > len(tied)
        else ""
    )
    proofs = [
        p for each in tied[:NAMED] for p in proofs_of(each, each.spells[-1:] if leave else each.spells[:1], banks)
    ]
    at_start = "" if leave or final or len(tied) == 1 else "; they were there when it was first looked"
    text = capital(f"{names} {word}, at {say.at(best, tied[0].stream)}{more}{at_start}{source_of(tied)}.")
    return Told(text, "found", min(sure_of(each, each.spells) for each in tied), proofs, about_of(tied))


def which_first(asked: Asked, groups: list[list[Known]], banks: Banks, say: Say) -> Told | None:
    leave = asked.event == "leave"
    ends = []
    for group in groups:
        each = min(group, key=lambda e: e.spells[-1].t_end_ns if leave else e.spells[0].t_start_ns)
        ends.append((each.spells[-1].t_end_ns if leave else each.spells[0].t_start_ns, each))
    word = "left" if leave else "was first seen"
    parts = [
        f"{say.name(each.shown)} {word} at {say.at(t, each.stream)}" for t, each in sorted(ends, key=lambda e: e[0])
    ]
    if ends[0][0] == ends[1][0]:
        parts.append("at the same time")
    proofs = [p for _, each in sorted(ends, key=lambda e: e[0]) for p in proofs_of(each, each.spells[:1], banks)]
    sure = min(sure_of(each, each.spells) for _, each in ends)
    return Told(capital(f"{', '.join(parts)}{source_of([e for _, e in ends])}."), "found", sure, proofs)


def together(asked: Asked, groups: list[list[Known]], banks: Banks, say: Say) -> Told | None:
    both = [
        (a, b, max(s.t_start_ns, t.t_start_ns), min(s.t_end_ns, t.t_end_ns), min(s.score, t.score))
        for a in groups[0]
        for b in groups[1]
        if a.stream == b.stream and (a.bank, a.name) != (b.bank, b.name)
        for s in a.spells
        for t in b.spells
        if s.overlaps(t.t_start_ns, t.t_end_ns)
    ]
    names = " and ".join(say.name(group[0].shown) for group in groups)
    if not both:
        apart = [
            f"{say.name(g[0].shown)} {say.span(s.t_start_ns, s.t_end_ns, g[0].stream)}"
            for g in groups
            for s in g[0].spells[:2]
        ]
        proofs = [p for group in groups for p in proofs_of(group[0], group[0].spells[:1], banks)]
        return Told(capital(f"{names} were never seen at the same time: {'; '.join(apart)}."), "not_seen", 0.0, proofs)
    a, b, score = both[0][0], both[0][1], both[0][4]
    spans = ", ".join(say.span(lo, hi, x.stream) for x, _, lo, hi, _ in both[:4])
    detail = f"{a.shown} and {b.shown}"
    proofs = [Proof(x.bank, x.stream, lo, hi, sc, detail) for x, _, lo, hi, sc in both[:3]]
    return Told(capital(f"{names} were seen at the same time: {spans}{source_of([a, b])}."), "found", score, proofs)
