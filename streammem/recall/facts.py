"""Facts: questions that the structured banks answer by themselves, with their evidence.

"When did track 7 come back?", "where did I leave the mug?", "how many people were there at once?": the shape is read
from the words (``asking.py``), what is known of the things comes from the banks (``fact_sources.py``), and the sentence
says which bank said it and how sure that is. Where the banks know nothing, there is no answer here, and the moments are
searched as for any other question: that a bank lacks a thing never means that it wasn't seen.

The pictures have a word in it. A fact that they contradict (the thing is found after the tracker lost it, or nothing
like it is seen while a detector claims it) is told as ``unsure``, with what speaks against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from streammem.clock import StreamClock, format_range, format_time
from streammem.model import Answer, AnswerStatus, Evidence, Why
from streammem.printable import printable
from streammem.recall import lessons
from streammem.recall.asking import read_asked
from streammem.recall.fact_sources import Banks
from streammem.recall.timeline import Between, View

if TYPE_CHECKING:
    from streammem.recall.plan import Plan
    from streammem.recall.search import Found

FOUND = 0.5
"""Confidence from which a fact is an answer; below it is told, as ``unsure``."""
MOST_PROOFS = 5
FRAMES = 3
COUNTED = frozenset(("count", "most", "often"))
SAID = "said by"
CONTRADICTED = "the pictures contradict it"
MARGIN_NS = 2_000_000_000
"""A picture this close to the end of a stretch belongs to it."""


@dataclass(slots=True)
class Proof:
    """A stretch of one stream that a bank vouches for."""

    bank: str
    stream: str
    t_start_ns: int
    t_end_ns: int
    score: float
    detail: str
    ids: tuple[tuple[int, int], ...] = ()
    ready: Evidence | None = None
    """Where the bank gave evidence with frames itself."""
    large: bool = False
    """Large enough in the picture for the pictures to have shown it."""


@dataclass(slots=True)
class Told:
    """What the banks say. ``status`` is theirs alone; the pictures may lower it. ``about``: words for what the pictures
    should show, empty where they can't have a say; ``only_after``/``only_before``: an instant after or before which it
    must not be seen."""

    text: str
    status: AnswerStatus
    confidence: float
    proofs: list[Proof]
    about: str = ""
    only_after: int | None = None
    only_before: int | None = None
    hedged: bool = False
    """Not quite what was asked for: where the pictures find it, theirs is the answer."""
    trace: list[str] = field(default_factory=list)


class Say:
    """Times and names as people read them. What a camera or a producer named is cut and made printable."""

    def __init__(self, view: View) -> None:
        self._clocks: dict[str, StreamClock] = {info.stream: info.clock for info in view.streams()}

    def clock(self, stream: str) -> StreamClock:
        return self._clocks.get(stream, "media")

    def at(self, t_ns: int, stream: str) -> str:
        clock = self.clock(stream)
        return format_time(t_ns, clock, 1 if clock == "media" else 0)

    def span(self, start: int, end: int, stream: str) -> str:
        clock = self.clock(stream)
        return format_range(start, end, clock, 1 if clock == "media" else 0)

    @staticmethod
    def name(text: object, limit: int = 60) -> str:
        return printable(str(text), limit)


def asked_of(view: View, question: str, streams: Sequence[str] | None, between: Between | None) -> Told | None:
    """What the banks say to a question, or None. A question of no such shape costs 0.1 ms."""
    if getattr(view, "query", None) is None or read_asked(question) is None:
        return None
    from streammem.recall.plan import plan_question

    spans = [
        (int(block.t_start_ns[0]), int(np.asarray(block.t_end_ns).max()))
        for block in view.blocks("moments", streams, between)
        if len(block)
    ]
    lo, hi = min((a for a, _ in spans), default=None), max((b for _, b in spans), default=None)
    clocks = {info.clock for info in view.streams() if streams is None or info.stream in streams}
    clock: StreamClock = "media" if clocks == {"media"} else "wall"
    return consult(view, plan_question(question, clock=clock, t_min_ns=lo, t_max_ns=hi), streams, between)


def consult(view: View, plan: Plan, streams: Sequence[str] | None, between: Between | None) -> Told | None:
    """What the banks that the plan names say to its question; None where they can't answer it."""
    asked = plan.asked
    if asked is None or plan.future or plan.empty or getattr(view, "query", None) is None:
        return None
    from streammem.recall import fact_answers

    banks = Banks(view, streams, between, plan.t_max_ns)
    told = fact_answers.answer(asked, plan, banks, Say(view))
    if told is None:
        return None
    named = ", ".join(thing.key for thing in asked.things) or "anything"
    told.trace.insert(0, f"asked of {', '.join(b for b in plan.banks if b != 'moments')}: {asked.shape} of {named}")
    return told


def with_moments(view: View, question: str, told: Told, found: Found, base: Answer) -> Answer:
    """The answer of the banks beside that of the moments (``base``, from ``found``)."""
    evidence = tuple(item for item in (_evidence(view, proof) for proof in told.proofs[:MOST_PROOFS]) if item.frames)
    status, text, trace = told.status, told.text, list(told.trace)
    if told.hedged and base.status == "found":
        return msgspec.structs.replace(
            base, question=question, text=f"{base.text} The banks: {text}", trace=(*trace, text, *base.trace)
        )
    if status == "found" and not evidence:
        status, text = "unsure", f"{text} No frame of it exists any more."
    against = "" if status == "not_seen" else contradicted(view, told, found, base)
    confidence = told.confidence
    if against:
        trace.append(f"{CONTRADICTED}: {against}")
        status, confidence = "unsure", min(confidence, 1 - FOUND)
        text = f"{text} But {against}."
    shown = evidence if status == "found" else ()
    rest = [
        item for item in base.closest if (item.stream, item.t_start_ns) not in {(e.stream, e.t_start_ns) for e in shown}
    ]
    closest = tuple([*(evidence if not shown else ()), *rest][: max(MOST_PROOFS, len(base.closest))])
    answer = msgspec.structs.replace(
        base,
        question=question,
        status=status,
        text=text,
        confidence=round(confidence, 4),
        evidence=shown,
        closest=closest,
        trace=(*trace, *base.trace),
    )
    return lessons.consult(view, answer)


def settled(told: Told, answer: Answer) -> bool:
    """Whether looking again could change nothing: the banks know, and the pictures don't speak against them."""
    return not told.hedged and not any(line.startswith(CONTRADICTED) for line in answer.trace)


def looked_for(question: str, told: Told | None) -> str:
    """The words that the moments are searched for beside a fact: the thing itself, so that they can contradict it."""
    return question if told is None or told.hedged or not told.about else told.about


def number_asked(question: str) -> str:
    """The things whose number is asked ("bottles"), empty where it isn't: a picture shows that there are some."""
    asked = read_asked(question)
    return asked.things[0].text if asked is not None and asked.shape in COUNTED and asked.things else ""


def uncounted(answer: Answer, question: str) -> Answer:
    """The answer of the moments to a question of number that no bank could answer: seen, not counted."""
    told = msgspec.structs.replace(answer, question=question)
    if answer.status != "found":
        return told
    text = f"{answer.text.rstrip('.')}. How many can't be said: nothing counted them (watch --track detector:... does)."
    confidence = min(answer.confidence, 1 - FOUND)
    trace = ("nothing counted them", *answer.trace)
    return msgspec.structs.replace(told, status="unsure", text=text, confidence=confidence, evidence=(), trace=trace)


def contradicted(view: View, told: Told, found: Found, base: Answer) -> str:
    """What the pictures say against a fact; empty where they don't, or can't know."""
    if not told.about or not told.proofs:
        return ""
    say = Say(view)
    streams = {proof.stream for proof in told.proofs}
    for item in base.evidence if base.status == "found" else ():
        if item.stream not in streams or any(why.signal in ("text", "speech") for why in item.why):
            continue
        late = told.only_after is not None and item.t_start_ns > told.only_after + MARGIN_NS
        early = told.only_before is not None and item.t_end_ns < told.only_before - MARGIN_NS
        if late or early:
            when = say.span(item.t_start_ns, item.t_end_ns, item.stream)
            return f"“{say.name(told.about)}” is seen at {when}, {'after' if late else 'before'} that"
    unlike = [proof for proof in told.proofs if proof.large and _resembles(view, proof, found) is False]
    if unlike and len(unlike) == len(told.proofs) and not found.query.people:
        when = say.span(unlike[0].t_start_ns, unlike[0].t_end_ns, unlike[0].stream)
        return f"the pictures of {when} resemble nothing of “{say.name(told.about)}”"
    return ""


def _resembles(view: View, proof: Proof, found: Found) -> bool | None:
    """Whether the pictures of a stretch resemble what was looked for, by a signal that can tell absence; None where no
    such signal saw it. Scores are those of the search that was made anyway."""
    from streammem.recall.calibrate import calibration_of

    said: bool | None = None
    for group in {id(hit.signals): hit.signals for hit in found.hits}.values():
        timeline = group.timeline
        if timeline.stream != proof.stream or not timeline.space:
            continue
        rows = (timeline.t_start_ns <= proof.t_end_ns + timeline.step_ns) & (
            timeline.t_end_ns >= proof.t_start_ns - timeline.step_ns
        )
        for entry in calibration_of(view.space(timeline.space)).signals:
            values = group.scores.get(entry.signal)
            if values is None or entry.threshold is None or entry.signal in ("text", "speech"):
                continue
            inside = values[rows]
            if not np.isfinite(inside).any():
                continue
            level = entry.supports if entry.supports is not None else entry.threshold
            said = bool(said) or float(np.nanmax(inside)) >= level
    return said


def moments_for(
    view: View, query: str, streams: Sequence[str] | None, between: Between | None, top: float, k: int
) -> list[Evidence]:
    """Stretches that the banks know of, for a search: they go before the moments, whose best score is ``top``."""
    told = asked_of(view, query, streams, between)
    items = [_evidence(view, proof) for proof in told.proofs[:k]] if told is not None else []
    return [msgspec.structs.replace(item, score=round(top + item.score, 6)) for item in items if item.frames]


def _evidence(view: View, proof: Proof) -> Evidence:
    why = Why(proof.bank, round(min(1.0, proof.score), 4), printable(proof.detail, 200))
    if proof.ready is not None:
        return msgspec.structs.replace(proof.ready, why=(why, *proof.ready.why), score=why.score)
    from streammem.banks.entity_answers import moment_at

    records = {}
    ends = [(0, proof.t_start_ns), (0, proof.t_end_ns)]
    for number, t_ns in [*proof.ids[: FRAMES - 1], *ends][:FRAMES]:
        record = moment_at(view, proof.stream, t_ns, number)  # type: ignore[arg-type]
        if record is not None:
            records[record.record_id] = record
    frames = tuple(view.frame_refs(proof.stream, list(records.values())))
    pose = next((record.pose for record in records.values() if record.pose is not None), None)
    return Evidence(
        proof.stream, proof.t_start_ns, proof.t_end_ns, frames, tuple(records), why.score, (why,), pose=pose
    )
