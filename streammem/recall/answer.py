"""Ask: an extractive answer from templates and evidence. No language model, no invented prose.

What the structured banks know (``facts.py``) is asked first; the moments have a word in it, and answer everything else.

``found`` needs a signal that can tell absence: its calibrated threshold is passed and the frames exist. ``unsure``
means that something resembles the question; ``not_seen`` that nothing does. The closest moments are always there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from streammem.clock import StreamClock, format_range
from streammem.model import Answer, AnswerStatus, Cost, Evidence, Why
from streammem.recall import facts
from streammem.recall.calibrate import Verdict, best_rejected, calibration_of, verdicts
from streammem.recall.lessons import consult
from streammem.recall.query import Query, clean
from streammem.recall.search import Found, Hit, find
from streammem.recall.timeline import Between, View
from streammem.spaces import Calibration

CLOSEST = 5
# A quoted piece of scene text in an answer is capped: a page of text is evidence, not an answer.
QUOTE = 120

_NAMES = {
    "evidence": "picture",
    "named": "picture",
    "vision": "picture",
    "text": "text in the scene",
    "speech": "speech",
    "face": "face",
    "colour": "colour",
}


@runtime_checkable
class Citing(Protocol):
    """A view that wants to know what answers rest on: retention keeps it longer."""

    def cite(self, stream: str, between: Between) -> None: ...


def ask(
    view: View,
    question: str,
    *,
    k: int | None = None,
    between: Between | None = None,
    streams: Sequence[str] | None = None,
) -> Answer:
    """Answer a question from the memory. ``cost.seconds`` is the only part that depends on the clock of this machine.

    Raises QueryError for a question that can't be asked."""
    begun = time.perf_counter()
    told = facts.asked_of(view, question, streams, between)
    number_of = facts.number_asked(question) if told is None else ""
    phrase = number_of or facts.looked_for(question, told)
    found = find(view, phrase, k=max(CLOSEST, k or view.recall_config.k), between=between, streams=streams)
    answer = answer_of(view, found, begun)
    if told is not None:
        answer = facts.with_moments(
            view, found.query.raw if phrase == question else clean(question), told, found, answer
        )
    elif number_of:
        answer = facts.uncounted(answer, clean(question))
    if told is not None or number_of:
        cost = Cost(round(time.perf_counter() - begun, 4), found.rows)
        answer = msgspec.structs.replace(answer, cost=cost)
    if isinstance(view, Citing):
        for evidence in answer.evidence:
            view.cite(evidence.stream, (evidence.t_start_ns, evidence.t_end_ns))
    return answer


def answer_of(view: View, found: Found, begun: float | None = None) -> Answer:
    """The verdict on what a search found: the one bar for ``found``, whoever searched and however often.

    ``begun`` is the ``time.perf_counter()`` at which the work on it began."""
    begun = time.perf_counter() if begun is None else begun
    calibration = _calibration(view, found)
    judged = [(hit, verdicts(hit, calibration)) for hit in found.hits]
    supported = [(hit, passing) for hit, all_ in judged if (passing := [v for v in all_ if v.passes])]
    # No answer without frames that exist.
    supported = [(hit, passing) for hit, passing in supported if hit.evidence.frames]
    closest = tuple(_calibrated(hit, vs) for hit, vs in judged)
    rejected = best_rejected(found, calibration)
    if supported:
        status: AnswerStatus = "found"
        evidence = tuple(_calibrated(hit, vs) for hit, vs in supported)
        confidence = max(e.calibrated or 0.0 for e in evidence)
        text = _found_text(found.query, [(hit, vs[0]) for hit, vs in supported], view)
    else:
        evidence = ()
        resembles = any(v.supports for _, vs in judged for v in vs)
        open_ = resembles or found.notes or _blind_to(found) or _unchecked(found, calibration)
        status = "unsure" if open_ else "not_seen"
        confidence = max((e.calibrated or 0.0 for e in closest), default=0.0)
        named = next((hit for hit, vs in judged if any(v.signal == "named" and v.supports for v in vs)), None)
        text = _open_text(status, found, closest, view, named)
    answer = Answer(
        question=found.query.raw,
        status=status,
        text=text,
        confidence=round(confidence, 4),
        evidence=evidence,
        closest=closest,
        best_rejected=None if rejected is None else round(rejected, 4),
        cost=Cost(seconds=round(time.perf_counter() - begun, 4), records=found.rows),
        trace=_trace(found, judged, calibration),
    )
    return consult(view, answer)


def _calibration(view: View, found: Found) -> Calibration:
    """Of the first space that has one of its own."""
    spaces = [view.space(space_id) for space_id in found.spaces]
    own = next((space for space in spaces if space is not None and space.calibration() is not None), None)
    return calibration_of(own)


def _blind_to(found: Found) -> bool:
    """People are asked for and nothing here can find people: silence of the other signals means nothing then."""
    finds_people = {"face", "evidence", "named"}
    return bool(found.query.people and found.hits) and not any(
        finds_people & hit.signals.scores.keys() for hit in found.hits
    )


def _unchecked(found: Found, calibration: Calibration) -> bool:
    """The signal that could tell absence had nothing to say: the question names what no vocabulary here knows. Words
    that are asked for are another thing: reading them is enough."""
    decides = any(entry.signal == "evidence" and entry.threshold is not None for entry in calibration.signals)
    reads = found.query.wants_text or found.query.wants_speech
    speaks = {"evidence", "named"}
    return decides and bool(found.hits) and not reads and not any(speaks & h.signals.scores.keys() for h in found.hits)


def _calibrated(hit: Hit, vs: Sequence[Verdict]) -> Evidence:
    known = [v.precision for v in vs if v.precision is not None]
    return msgspec.structs.replace(hit.evidence, calibrated=round(max(known), 4) if known else None)


def _found_text(query: Query, hits: Sequence[tuple[Hit, Verdict]], view: View) -> str:
    """One sentence from a template: what was asked, when, and by which signal."""
    first, verdict = hits[0]
    if query.asks_words and (quote := _quote(first.evidence.why, ("text", "speech"))):
        return f"{quote} (at {_span(first.evidence, view)})"
    also = [_span(hit.evidence, view) for hit, _ in hits[1:3]]
    more = f", also at {' and '.join(also)}" if also else ""
    because = _NAMES.get(verdict.signal, verdict.signal)
    if verdict.signal in ("text", "speech"):
        seen = _quote(first.evidence.why, (verdict.signal,))
    else:
        seen = next((why.detail for why in first.evidence.why if why.signal == "vision"), "")
    detail = f"{because}: {seen}" if seen else because
    return f"“{query.phrase}”: at {_span(first.evidence, view)}{more} ({detail})"


def _open_text(status: str, found: Found, closest: Sequence[Evidence], view: View, named: Hit | None) -> str:
    phrase = found.query.phrase
    if not found.rows:
        return f"Nothing is remembered there: “{phrase}” can't be looked for."
    if status == "not_seen":
        return f"“{phrase}” was not seen: none of {found.rows} looks supports it."
    if found.notes:
        return f"Not sure about “{phrase}”: {found.notes[0]}."
    if named is not None:
        seen = next((why.detail for why in named.evidence.why if why.signal == "vision"), "")
        what = f" ({seen})" if seen else ""
        when = _span(named.evidence, view)
        return f"Not sure about “{phrase}”: something it names is at {when}{what}, the rest can't be checked here."
    people = " People can't be told apart from other things here." if _blind_to(found) else ""
    if not people and not any({"evidence", "named"} & hit.signals.scores.keys() for hit in found.hits):
        people = " Not all of it can be checked here."
    return f"Not sure about “{phrase}”.{people} The closest moment is {_span(closest[0], view)}."


def _quote(why: Sequence[Why], signals: tuple[str, ...]) -> str:
    for reason in why:
        if reason.signal in signals and reason.detail:
            text = clean(reason.detail)
            return f"“{text[:QUOTE]}{'…' if len(text) > QUOTE else ''}”"
    return ""


def _span(evidence: Evidence, view: View) -> str:
    clock: StreamClock = next((s.clock for s in view.streams() if s.stream == evidence.stream), "media")
    return format_range(evidence.t_start_ns, evidence.t_end_ns, clock)


def _trace(found: Found, judged: Sequence[tuple[Hit, Sequence[Verdict]]], calibration: Calibration) -> tuple[str, ...]:
    lines = [f"looked for “{found.query.phrase}” in {found.rows} rows, spaces {', '.join(found.spaces) or 'none'}"]
    lines += list(found.notes)
    lines.append(f"calibration: {calibration.source}")
    for rank, (_, vs) in enumerate(judged, 1):
        for v in vs:
            decides = f", decides from {v.entry.threshold:.3f}" if v.entry.threshold is not None else ""
            word = "found" if v.passes else "resembles" if v.supports else "too little"
            lines.append(f"moment {rank}: {v.signal} {v.score:.3f}: {word}{decides}")
    return tuple(lines)
