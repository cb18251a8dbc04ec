"""Sources against each other: what the picture's labels, words read, words heard, a tracker and the map say of a claim.

Agreement across independent sources is cheap evidence that a single one was not fooled (A-MemGuard, arXiv 2510.02373,
asks a model for it; here it is counted). A source that *could* have seen the thing and didn't contradicts those that
say it is there: then the answer is less sure, and the moment is looked at again before anything is claimed. Nothing is
dropped in silence: every source is named in the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from streammem.errors import QueryError
from streammem.model import Answer, Evidence
from streammem.recall.calibrate import Verdict
from streammem.recall.query import content_words
from streammem.recall.timeline import View

NEAR_NS = 2_000_000_000
"""A tracker may name a thing two seconds before or after the picture that shows it best."""
MOST_NAMES = 500
MOST_MOMENTS = 200

Kind = Literal["label", "text", "speech", "tracker", "map"]
_KIND: dict[str, Kind] = {"evidence": "label", "vision": "label", "text": "text", "speech": "speech"}


class Source(msgspec.Struct, frozen=True):
    """``says``: True, it is there; False, it isn't and this source would have seen it; None: it can't know."""

    kind: Kind
    says: bool | None
    detail: str = ""


def sources_of(view: View, phrase: str, moment: Evidence, judged: Sequence[Verdict]) -> list[Source]:
    """What each source says of ``phrase`` in one moment. ``judged`` are the calibrated verdicts on it."""
    found = [*_signals(judged), *_tracker(view, phrase, moment), *_map(view, phrase, moment)]
    order: list[Kind] = ["label", "text", "speech", "tracker", "map"]
    return sorted(found, key=lambda source: order.index(source.kind))


def _signals(judged: Sequence[Verdict]) -> list[Source]:
    """A label denies where it resembles nothing of what was asked; words only speak where they were found."""
    kinds: dict[Kind, list[Verdict]] = {}
    for verdict in judged:
        if verdict.signal in _KIND:
            kinds.setdefault(_KIND[verdict.signal], []).append(verdict)
    out = []
    for kind, verdicts in kinds.items():
        passing = next((v for v in verdicts if v.passes), None)
        if passing is not None:
            out.append(Source(kind, True, f"{passing.signal} {passing.score:.2f}"))
        elif kind == "label":
            unlike = not any(verdict.supports for verdict in verdicts)
            out.append(Source(kind, False if unlike else None, "resembles nothing of it" if unlike else "undecided"))
    return out


def _tracker(view: View, phrase: str, moment: Evidence) -> list[Source]:
    """A detector that names this thing elsewhere in the stream, and names other things here, would have named it."""
    ask = getattr(view, "query", None)
    words = set(content_words(phrase))
    if ask is None or not words:
        return []
    try:
        known = ask("entities", "entities", streams=[moment.stream], limit=MOST_NAMES)["facts"]
        here = ask(
            "entities",
            "entities",
            streams=[moment.stream],
            between=(moment.t_start_ns - NEAR_NS, moment.t_end_ns + NEAR_NS),
            limit=MOST_NAMES,
        )["facts"]
    except QueryError:
        return []  # the bank is off in this memory
    named = {label for label in _labels(known) if words & set(content_words(label))}
    seen = _labels(here)
    if named & seen:
        return [Source("tracker", True, f"names {', '.join(sorted(named & seen)[:3])} then")]
    if named and seen:
        return [Source("tracker", False, f"names {', '.join(sorted(seen)[:3])} then, and {sorted(named)[0]} elsewhere")]
    return []


def _labels(facts: Sequence[dict[str, str]]) -> set[str]:
    """What detections were called; words that were read are things of the kind "text" there."""
    return {fact["kind"] for fact in facts if fact["kind"] not in ("", "text")}


def _map(view: View, phrase: str, moment: Evidence) -> list[Source]:
    """A thing on the map that was seen there in this moment. Silence of the map says nothing: it keeps what it could
    place."""
    ask = getattr(view, "query", None)
    if ask is None or not phrase.strip():
        return []
    span = (moment.t_start_ns - NEAR_NS, moment.t_end_ns + NEAR_NS)
    try:
        things = ask("spatial", "where", streams=[moment.stream], text=phrase, between=span)
    except QueryError:
        return []
    placed = [thing for thing in things if thing.get("there") != "unknown"]
    return [Source("map", True, f"places {placed[0].get('label', phrase)} there")] if placed else []


def conflict(sources: Sequence[Source]) -> bool:
    """Some say that it is there, and one that would have seen it says no."""
    return any(s.says is True for s in sources) and any(s.says is False for s in sources)


def weighed(answer: Answer, sources: Sequence[Source]) -> Answer:
    """The answer with what its sources say. With a contradiction its confidence is the share that agrees times what it
    was; where not more agree than contradict, ``found`` becomes ``unsure``. Nothing is ever made surer."""
    yes, no = (sum(source.says is value for source in sources) for value in (True, False))
    lines = tuple(f"{s.kind} says {_WORD[s.says]}: {s.detail}" for s in sources)
    traced = msgspec.structs.replace(answer, trace=(*answer.trace, *lines))
    if answer.status != "found" or not no or not yes:
        return traced
    confidence = round(answer.confidence * yes / (yes + no), 4)
    if yes > no:
        return msgspec.structs.replace(traced, confidence=confidence)
    against = next(source for source in sources if source.says is False)
    text = f"Sources disagree: {answer.text} But the {against.kind} {against.detail}."
    return msgspec.structs.replace(traced, status="unsure", confidence=confidence, evidence=(), text=text)


_WORD = {True: "yes", False: "no", None: "nothing"}
