"""Lessons: what a person corrected, kept with the memory and consulted before every answer (borrowed from A-MemGuard,
arXiv 2510.02373: a separate memory of mistakes, here written by people alone, and with an expiry).

A lesson names a question, the moments that were wrongly taken for its answer, and the correction. On a question of the
same words those moments are no evidence any more; the correction is quoted, never obeyed. Lessons are a state of their
stream, so that forgetting the stream forgets them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from streammem.clock import Clock
from streammem.errors import QueryError
from streammem.model import Answer, Evidence
from streammem.printable import printable
from streammem.recall.query import content_words

LONGEST = 500
"""Characters of a correction."""
MOST = 200
"""Lessons of one stream; the one that expires first makes room."""
ALIKE = 0.6
"""Share of the content words that two questions must have in common."""
DAYS = 90.0
"""How long a lesson holds, if nothing else is said: cameras are moved and rooms are rearranged."""


class Lesson(msgspec.Struct, frozen=True):
    """``spans`` are closed intervals (ns) that aren't what was asked for; none: the whole answer was wrong."""

    question: str
    correction: str
    spans: tuple[tuple[int, int], ...]
    created_ns: int
    expires_ns: int
    count: int = 1


class States(Protocol):
    """A memory, as far as lessons need it."""

    def get_state(self, key: str) -> bytes | None: ...
    def put_state(self, key: str, value: bytes, *, durable: bool = True) -> None: ...


def key_of(stream: str) -> str:
    return f"lessons/{stream}/all"


def answer_id(answer: Answer) -> str:
    """Eight hexadecimal digits that name this answer: its question, verdict and the records it showed."""
    shown = [(item.stream, item.record_ids) for item in (*answer.evidence, *answer.closest)]
    return hashlib.blake2b(repr((answer.question, answer.status, shown)).encode(), digest_size=4).hexdigest()


def read(view: object, stream: str) -> tuple[Lesson, ...]:
    """Every lesson of a stream, expired ones included; none where they can't be read."""
    get = getattr(view, "get_state", None)
    blob = get(key_of(stream)) if get is not None else None
    if not blob:
        return ()
    try:
        return tuple(msgspec.msgpack.decode(blob, type=list[Lesson]))
    except msgspec.DecodeError:
        return ()  # a lesson that can't be read must not keep anybody from an answer


def add(
    memory: States,
    stream: str,
    question: str,
    correction: str,
    spans: Sequence[tuple[int, int]],
    *,
    clock: Clock,
    days: float = DAYS,
) -> Lesson:
    """Keep a correction, durably. The same one again counts, and holds anew. Raises QueryError."""
    text = printable(" ".join(correction.split()), LONGEST)
    if not text:
        raise QueryError("the correction is empty", hint='say what was wrong: "that is the neighbour\'s cat"')
    if not 0 < days < 36_500:
        raise QueryError(f"a lesson can't hold for {days:g} days", hint="between a moment and a hundred years")
    now = clock.now_ns()
    kept = list(read(memory, stream))
    same = next((one for one in kept if one.question == question and one.correction == text), None)
    if same is not None:
        kept.remove(same)
    lesson = Lesson(
        question=question,
        correction=text,
        spans=tuple(sorted({*spans, *(same.spans if same is not None else ())}))[:32],
        created_ns=now,
        expires_ns=now + int(days * 86_400e9),
        count=1 + (same.count if same is not None else 0),
    )
    kept = sorted((one for one in kept if one.expires_ns > now), key=lambda one: -one.expires_ns)[: MOST - 1]
    memory.put_state(key_of(stream), msgspec.msgpack.encode([*kept, lesson]))
    return lesson


def consult(view: object, answer: Answer, now_ns: int | None = None) -> Answer:
    """The answer with what people corrected before: their moments are no evidence, and what they said is quoted."""
    streams = dict.fromkeys(item.stream for item in (*answer.evidence, *answer.closest))
    words = set(content_words(answer.question))
    lessons = [(name, one) for name in streams for one in read(view, name) if _alike(words, one.question)]
    if not lessons:
        return answer
    now = time.time_ns() if now_ns is None else now_ns
    lessons = [(name, one) for name, one in lessons if one.created_ns <= now < one.expires_ns]
    kept = tuple(item for item in answer.evidence if not any(_wrong(item, name, one) for name, one in lessons))
    if not lessons:
        return answer
    said = "; ".join(dict.fromkeys(f"“{one.correction}”" for _, one in lessons[:3]))
    lost = len(answer.evidence) - len(kept)
    line = f"{len(lessons)} corrections of such an answer: {lost} moments aren't evidence any more"
    text = f"{answer.text} A person corrected an answer like this: {said}."
    changed = msgspec.structs.replace(answer, text=text, evidence=kept, trace=(*answer.trace, line))
    if answer.status == "found" and not kept:
        return msgspec.structs.replace(changed, status="unsure", confidence=min(answer.confidence, 0.5))
    return changed


def _alike(words: set[str], question: str) -> bool:
    other = set(content_words(question))
    return bool(words and other) and len(words & other) >= ALIKE * len(words | other)


def _wrong(item: Evidence, stream: str, lesson: Lesson) -> bool:
    if item.stream != stream:
        return False
    return not lesson.spans or any(item.t_start_ns <= end and item.t_end_ns >= start for start, end in lesson.spans)
