"""What is said of things that were seen: one function a shape of question, from stretches of being seen to a sentence.

Nothing here asks the pictures, or knows where its numbers come from; ``facts.py`` does the one, ``fact_sources.py`` the
other. A shape that these things can't answer gives None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from streammem.clock import format_duration
from streammem.recall.asking import Asked, Shape
from streammem.recall.fact_places import PLACES
from streammem.recall.fact_sources import GAP_NS, Banks, Known, Spell, narrow, unproven
from streammem.recall.facts import FOUND, Proof, Say, Told
from streammem.recall.noun_phrases import Thing, singular
from streammem.recall.plan import Plan

NAMED = 5
"""Things that one sentence names; the rest is counted."""
WIDER = 0.7
"""What a fact keeps of its confidence where the bank knows the thing under a wider name: a "person" for a "man"."""
SURE_SHARE = 0.25
"""Share of a colour from which it takes nothing from the confidence."""

LARGE = 0.05
"""Share of the picture from which a thing shows in what the pictures resemble; the smallest crop has a ninth of it."""

Handler = Callable[[Asked, Plan, list[Known], Banks, Say], Told | None]


def answer(asked: Asked, plan: Plan, banks: Banks, say: Say) -> Told | None:
    """The banks' answer to a question of this shape, or None."""
    for thing in asked.things:
        if thing.track and (refused := _no_such_track(thing, banks)) is not None:
            return refused
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


def ranges(names: Sequence[str], most: int = 12) -> str:
    """``1–4, 6, patch``: numbers that follow each other as one."""
    parts: list[list[int]] = []
    for number in sorted(int(name) for name in names if name.isdecimal()):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    shown = [str(a) if a == b else f"{a}–{b}" if b > a + 1 else f"{a}, {b}" for a, b in parts]
    shown += [Say.name(name) for name in names if not name.isdecimal()]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def _in_time(known: list[Known], plan: Plan) -> list[Known]:
    """Only what lies in the time that the question names; all of it where nothing does."""
    if not plan.ranges:
        return known
    spans = [narrow(each) for each in plan.ranges]
    inside = [(each, [s for s in each.spells if any(s.overlaps(*span) for span in spans)]) for each in known]
    return [replace(each, spells=spells) for each, spells in inside if spells]


# -- one thing, or one kind


def proofs_of(known: Known, spells: Sequence[Spell], banks: Banks, detail: str = "") -> list[Proof]:
    """The stretches as proofs, with the frames that were kept in each."""
    kept = banks.kept(known) if known.bank == "tracks" else ()
    out = []
    for spell in spells:
        inside = tuple(pair for pair in kept if spell.t_start_ns <= pair[1] <= spell.t_end_ns)
        ids = (spell.ids or inside)[:3]
        share = f", {known.share:.0%} of the colour" if known.share is not None else ""
        told = detail or f"{known.shown}{share}, score {spell.score:.2f}"
        large = known.bank == "tracks" and area_of(known.box) >= LARGE
        out.append(
            Proof(known.bank, known.stream, spell.t_start_ns, spell.t_end_ns, spell.score, told, ids, large=large)
        )
    return out


def area_of(box: Sequence[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) if len(box) == 4 else 0.0


def about_of(known: Sequence[Known]) -> str:
    """What the pictures should show of them; empty for a name that is no word of theirs."""
    return next((each.kind or each.name for each in known if (each.kind or each.name).isascii()), "")


def sure_of(known: Known, spells: Sequence[Spell]) -> float:
    score = max((spell.score for spell in spells), default=0.0)
    return score if known.share is None else score * min(1.0, known.share / SURE_SHARE)


def listed(parts: Sequence[str], total: int | None = None) -> str:
    more = (total if total is not None else len(parts)) - min(len(parts), NAMED)
    shown = list(parts[:NAMED])
    text = "; ".join(shown)
    return f"{text}; and {more} more" if more > 0 else text


def source_of(known: Sequence[Known]) -> str:
    return f" [{', '.join(dict.fromkeys(each.bank for each in known))}]"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _each(
    known: list[Known],
    banks: Banks,
    say: Say,
    tell: Callable[[Known], tuple[str, list[Spell]] | None],
    *,
    only_after: bool = False,
    only_before: bool = False,
) -> Told | None:
    """One part of a sentence for each thing; ``tell`` gives it and the stretches that prove it."""
    told = [(each, got) for each in known if (got := tell(each)) is not None]
    if not told:
        return None
    proofs = [proof for each, (_, spells) in told[:NAMED] for proof in proofs_of(each, spells, banks)]
    parts = [f"{say.name(each.shown)} {text}" for each, (text, _) in told]
    sure = min((sure_of(each, spells) for each, (_, spells) in told[:NAMED]), default=0.0)
    text = _capital(f"{listed(parts)}{source_of([each for each, _ in told])}.")
    # Only where one thing is meant by its own name can another sighting contradict it.
    single = len(known) == 1 and known[0].share is None and known[0].bank == "entities"
    ends = [spell.t_end_ns for each, _ in told for spell in each.spells]
    starts = [spell.t_start_ns for each, _ in told for spell in each.spells]
    return Told(
        text,
        "found",
        sure,
        proofs,
        about_of([each for each, _ in told]),
        max(ends) if single and only_after else None,
        min(starts) if single and only_before else None,
    )


def _appear(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    def tell(each: Known) -> tuple[str, list[Spell]]:
        return f"appeared at {say.at(each.spells[0].t_start_ns, each.stream)}", each.spells[:1]

    return _each(known, banks, say, tell, only_before=True)


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

    return _each(known, banks, say, tell, only_after=True)


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
        return Told(_capital(f"{listed(parts, len(known))}{source_of(known)}."), "not_seen", 0.0, proofs)
    parts, proofs, sure = [], [], []
    for each in known:
        for before, later in zip(each.spells, each.spells[1:], strict=False):
            away = format_duration(later.t_start_ns - before.t_end_ns)
            when = say.at(later.t_start_ns, each.stream)
            parts.append(f"{say.name(each.shown)} came back at {when} after {away} ({returned(later)})")
            again = f"{each.shown}, {returned(later)}"
            proofs += [*proofs_of(each, [later], banks, again), *proofs_of(each, [before], banks)]
            sure.append(sure_of(each, [later]) * (later.back if later.back is not None else 1.0))
    text = _capital(f"{listed(parts)}{source_of([each for each, _ in came])}.")
    return Told(text, "found", min(sure[:NAMED]), proofs, about_of(known))


def _seen(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    def tell(each: Known) -> tuple[str, list[Spell]]:
        spans = [say.span(s.t_start_ns, s.t_end_ns, each.stream) for s in each.spells]
        more = f" and {len(spans) - 6} more times" if len(spans) > 6 else ""
        return f"was seen {', '.join(spans[:6])}{more}", each.spells[:3]

    return _each(known, banks, say, tell)


def _which(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    colours = asked.things[0].colours if asked.things else ()
    known = sorted(known, key=lambda each: -(each.share or 0.0))

    def tell(each: Known) -> tuple[str, list[Spell]]:
        spans = ", ".join(say.span(s.t_start_ns, s.t_end_ns, each.stream) for s in each.spells[:4])
        shown = colours or tuple(each.colours)[:2]
        tones = ", ".join(f"{term} {each.colours[term]:.0%}" for term in shown if term in each.colours)
        return f"{f'[{tones}] ' if tones else ''}seen {spans}", each.spells[:2]

    return _each(known, banks, say, tell)


def _stay(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    def tell(each: Known) -> tuple[str, list[Spell]]:
        total = format_duration(sum(s.t_end_ns - s.t_start_ns for s in each.spells))
        spans = ", ".join(say.span(s.t_start_ns, s.t_end_ns, each.stream) for s in each.spells[:4])
        return f"was there for {total} in all ({spans})", each.spells[:3]

    return _each(known, banks, say, tell)


def _gone(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    def tell(each: Known) -> tuple[str, list[Spell]]:
        gaps = [(a.t_end_ns, b.t_start_ns) for a, b in zip(each.spells, each.spells[1:], strict=False)]
        parts = [f"for {format_duration(b - a)} ({say.span(a, b, each.stream)})" for a, b in gaps[:4]]
        if not each.still:
            last = each.spells[-1].t_end_ns
            parts.append(f"since {say.at(last, each.stream)}, {format_duration(each.watched_ns - last)} until the end")
        return (f"was away {', '.join(parts)}" if parts else "was never away"), each.spells[:3]

    return _each(known, banks, say, tell)


_EVENTS = {"appear": "seen", "back": "back", "leave": "gone", "move": "moved"}


def _often(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    def tell(each: Known) -> tuple[str, list[Spell]] | None:
        if asked.event == "move":
            places = [v for v in each.values if v["attribute"] in ("place", "moved") and v["status"] != "disputed"]
            if not places:
                return None
            moves = [v for v in places if v["attribute"] == "moved"] or places[1:]
            return f"moved {_times(len(moves))}", each.spells[:3]
        n = len(each.spells)
        if asked.event == "leave":
            return f"left {_times(n - each.still)}", each.spells[:3]
        if asked.event == "back":
            return f"came back {_times(n - 1)}", each.spells[:3]
        return f"was seen {_times(n)}", each.spells[:3]

    return _each(known, banks, say, tell)


def _times(n: int) -> str:
    return "once" if n == 1 else "twice" if n == 2 else f"{n} times"


def _count(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
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
    where = say.at(when[0], known[0].stream)
    if asked.shape == "most":
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
    return Told(f"{text}. They are {say.name(names, 200)}.", "found", sure, proofs, about_of(known))


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


def _last(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    known = sorted(known, key=lambda each: -each.spells[-1].t_end_ns)

    def tell(each: Known) -> tuple[str, list[Spell]]:
        place = next((v for v in reversed(each.values) if v["attribute"] == "place"), None)
        where = f" ({say.name(place['relation'] or 'at')} {say.name(place['value'])})" if place else ""
        return (
            f"was last seen at {say.at(each.spells[-1].t_end_ns, each.stream)}{where}{_since(each, say)}",
            each.spells[-1:],
        )

    return _each(known, banks, say, tell, only_after=True)


def _during(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    return _seen(asked, plan, known, banks, say) if known and plan.ranges else None


def _names(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    kinds: dict[str, list[Known]] = {}
    for each in known:
        kinds.setdefault(each.kind or "?", []).append(each)
    parts = [f"{len(of)} of “{say.name(kind)}”: {ranges([e.name for e in of])}" for kind, of in sorted(kinds.items())]
    proofs = [p for each in known[:NAMED] for p in proofs_of(each, each.spells[:1], banks)]
    return Told(f"{len(known)} tracks. {_capital(listed(parts))}.", "found", 1.0, proofs)


def _ordered(asked: Asked, plan: Plan, known: list[Known], banks: Banks, say: Say) -> Told | None:
    """Who came (or left) first, or last, of all."""
    leave, final = asked.event == "leave", asked.shape == "final"
    known = [each for each in known if not (leave and each.still)]
    if not known:
        return None
    key = (lambda e: e.spells[-1].t_end_ns) if leave else (lambda e: e.spells[0].t_start_ns)  # noqa: E731
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
    text = _capital(f"{names} {word}, at {say.at(best, tied[0].stream)}{more}{at_start}{source_of(tied)}.")
    return Told(text, "found", min(sure_of(each, each.spells) for each in tied), proofs, about_of(tied))


# -- two things


def _which_first(asked: Asked, groups: list[list[Known]], banks: Banks, say: Say) -> Told | None:
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
    return Told(_capital(f"{', '.join(parts)}{source_of([e for _, e in ends])}."), "found", sure, proofs)


def _together(asked: Asked, groups: list[list[Known]], banks: Banks, say: Say) -> Told | None:
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
        spans = [
            f"{say.name(g[0].shown)} {say.span(s.t_start_ns, s.t_end_ns, g[0].stream)}"
            for g in groups
            for s in g[0].spells[:2]
        ]
        proofs = [p for group in groups for p in proofs_of(group[0], group[0].spells[:1], banks)]
        return Told(_capital(f"{names} were never seen at the same time: {'; '.join(spans)}."), "not_seen", 0.0, proofs)
    a, b, start, end, score = both[0]
    spans = ", ".join(say.span(lo, hi, x.stream) for x, _, lo, hi, _ in both[:4])
    detail = f"{a.shown} and {b.shown}"
    proofs = [Proof(x.bank, x.stream, lo, hi, sc, detail) for x, _, lo, hi, sc in both[:3]]
    return Told(_capital(f"{names} were seen at the same time: {spans}{source_of([a, b])}."), "found", score, proofs)


ONE: dict[Shape, Handler] = {
    "appear": _appear,
    "leave": _leave,
    "back": _back,
    "seen": _seen,
    "which": _which,
    "stay": _stay,
    "gone": _gone,
    "often": _often,
    "count": _count,
    "most": _count,
    "last": _last,
    "during": _during,
    "names": _names,
    "first": _ordered,
    "final": _ordered,
}
TWO: dict[Shape, Callable[[Asked, list[list[Known]], Banks, Say], Told | None]] = {
    "first": _which_first,
    "final": _which_first,
    "together": _together,
}
