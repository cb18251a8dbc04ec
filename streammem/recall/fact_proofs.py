"""What the answers of the banks share: stretches as proofs, how sure they are, and lists as people read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streammem.recall.fact_sources import Banks, Known, Spell
from streammem.recall.facts import Proof, Say, Told

NAMED = 5
"""Things that one sentence names; the rest is counted."""
SURE_SHARE = 0.25
"""Share of a colour from which it takes nothing from the confidence."""
LARGE = 0.05
"""Share of the picture from which a thing shows in what the pictures resemble; the smallest crop has a ninth of it."""


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


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def times_of(n: int) -> str:
    return "once" if n == 1 else "twice" if n == 2 else f"{n} times"


def each_of(
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
    text = capital(f"{listed(parts)}{source_of([each for each, _ in told])}.")
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
