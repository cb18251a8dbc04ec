"""The contracts of reasoning: what is asked, what it may cost, how it looks, what it says and what it keeps in mind.

A *reasoner* turns a :class:`Task` into a :class:`Reasoned` within a :class:`Budget`. It gets everything else through a
:class:`Context`: the memory (read-only), the tools, a second look at frames, a chat model where there is one. Its
:class:`State` is small, holds evidence ids and never paraphrases alone, and is enough to go on after a crash.

Whatever a camera saw or heard is data: it reaches a model only through :func:`streammem.reason.tools.fence`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np

from streammem.errors import QueryError
from streammem.model import Answer
from streammem.recall.timeline import Between, View

if TYPE_CHECKING:
    from streammem.reason.captioning import Captions
    from streammem.reason.tools import Registry

Stage = Literal["gate", "coarse", "loop", "forced", "budget", "blind", "empty"]
"""Where an answer came from: before the loop, inside it, after the last round, or because the budget was spent."""

MOST_OPTIONS = 200
LONGEST_OPTION = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One question. ``options`` makes it multiple choice; ``between`` is a hard limit that the caller set (a range read
    from the question itself is soft). ``now_ns`` is the present on the streams' clock, None where there is none."""

    question: str
    options: tuple[str, ...] = ()
    streams: tuple[str, ...] | None = None
    between: Between | None = None
    now_ns: int | None = None
    k: int = 5

    def __post_init__(self) -> None:
        """Raises QueryError for options that can't be told apart or are too many."""
        if len(self.options) == 1:
            raise QueryError("one option is no choice", hint="give at least two, or none")
        if len(self.options) > MOST_OPTIONS:
            raise QueryError(
                f"{len(self.options)} options, at most {MOST_OPTIONS} are read", hint="ask without options, then choose"
            )
        seen: dict[str, int] = {}
        for number, option in enumerate(self.options):
            text = " ".join(option.split()).casefold()
            if not text or len(option) > LONGEST_OPTION:
                what = "is empty" if not text else f"has more than {LONGEST_OPTION} characters"
                raise QueryError(f"option {number + 1} {what}")
            if text in seen:
                raise QueryError(
                    f"options {seen[text] + 1} and {number + 1} are the same: {option[:60]!r}", hint="leave one out"
                )
            seen[text] = number


class Budget(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one answer may cost at most; None is no limit. ``calls`` and ``tokens`` are a chat model's, ``frames`` are
    frames decoded or looked at again, ``records`` rows read from the memory."""

    calls: int | None = None
    seconds: float | None = None
    tokens: int | None = None
    frames: int | None = None
    records: int | None = None
    rounds: int = 5
    """Five rounds, as in VideoLucy (appendix A.1: seven were no better)."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``calls=6,seconds=10,tokens=8000,frames=64``. Raises QueryError."""
        found: dict[str, Any] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, _, value = part.partition("=")
            name = name.strip()
            if name not in cls.__struct_fields__ or name in found:
                known = ", ".join(cls.__struct_fields__)
                raise QueryError(f"the budget {part!r} isn't understood", hint=f"NAME=NUMBER of {known}, each once")
            try:
                number = float(value)
            except ValueError:
                number = -1.0
            if not 0 <= number < 1e12 or (name != "seconds" and number != int(number)):
                raise QueryError(f"the budget {part!r} needs a number that is at least 0")
            found[name] = number if name == "seconds" else int(number)
        return cls(**found)


class Spent(msgspec.Struct):
    """What an answer has cost so far, in the budget's units. ``parse_failures`` of model replies are counted here."""

    calls: int = 0
    seconds: float = 0.0
    tokens: int = 0
    frames: int = 0
    records: int = 0
    rounds: int = 0
    parse_failures: int = 0


class Purse:
    """A budget and what is spent of it. ``clock`` gives seconds; it is passed in, so that a test can hold it."""

    def __init__(self, budget: Budget, spent: Spent | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self.spent = spent or Spent()
        self._clock = clock
        self._before = self.spent.seconds
        self._begun = clock()

    def tick(self) -> Spent:
        """The costs until now, time included."""
        self.spent.seconds = self._before + self._clock() - self._begun
        return self.spent

    def left(self, name: str) -> float:
        """What is left of one of the budget's names; inf where it has no limit."""
        limit = getattr(self.budget, name)
        return float("inf") if limit is None else max(0.0, limit - getattr(self.tick(), name))

    def exhausted(self, *names: str) -> str:
        """The first of the names that has nothing left, or an empty text."""
        return next((name for name in names if self.left(name) <= 0), "")

    def pay(self, **costs: int) -> None:
        """Add to what was spent: ``pay(calls=1, tokens=310)``."""
        for name, amount in costs.items():
            setattr(self.spent, name, getattr(self.spent, name) + amount)


class Period(msgspec.Struct, frozen=True, array_like=True):
    """A closed stretch of one stream's capture time."""

    stream: str
    t_start_ns: int
    t_end_ns: int

    def overlaps(self, other: Period) -> bool:
        return self.stream == other.stream and self.t_start_ns <= other.t_end_ns and other.t_start_ns <= self.t_end_ns


class Hypothesis(msgspec.Struct, array_like=True):
    """A claim with the records that it stands on. Without records it is dropped when the state is bounded."""

    claim: str
    evidence: tuple[int, ...]
    score: float = 0.0
    option: int | None = None


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was done: what was looked at, why, what it brought and what it cost."""

    action: str
    """plan, coarse, localise, deepen, caption, answer, force, stop."""
    why: str = ""
    periods: tuple[Period, ...] = ()
    evidence: tuple[int, ...] = ()
    """Record ids that the step rests on or brought."""
    outcome: str = ""
    cost: Spent = msgspec.field(default_factory=Spent)


class State(msgspec.Struct, omit_defaults=True):
    """The working state of one question: bounded, and all that is needed to go on (MEM1; HiAgent).

    ``visited`` periods are really removed from the candidates. ``candidates`` are still to be looked at, best first."""

    question: str
    hypotheses: list[Hypothesis] = []
    visited: list[Period] = []
    candidates: list[Period] = []
    open_questions: list[str] = []
    spent: Spent = msgspec.field(default_factory=Spent)
    round: int = 0
    version: int = 1

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, blob: bytes) -> State:
        """Raises QueryError where the bytes are of another version or damaged."""
        try:
            found = msgspec.msgpack.decode(blob, type=cls)
        except msgspec.DecodeError as error:
            raise QueryError(f"the saved state can't be read: {error}", hint="ask the question anew") from None
        if found.version != 1:
            raise QueryError(f"the saved state has version {found.version}, this release reads 1")
        return found

    def bound(self, hypotheses: int = 8, evidence: int = 16, periods: int = 64) -> None:
        """Cut to a fixed size: the best hypotheses with their first evidence ids, the latest visited periods.

        Neighbouring visited periods of a stream are joined first, so that none is forgotten while there is room."""
        with_evidence = [h for h in self.hypotheses if h.evidence]
        with_evidence.sort(key=lambda h: -h.score)
        self.hypotheses = with_evidence[:hypotheses]
        for kept in self.hypotheses:
            kept.evidence = kept.evidence[:evidence]
        self.visited = join_periods(self.visited)[-periods:]
        self.candidates = self.candidates[:periods]
        self.open_questions = self.open_questions[:hypotheses]


def join_periods(periods: Sequence[Period]) -> list[Period]:
    """Sorted by stream and time, those that touch or overlap as one."""
    joined: list[Period] = []
    for period in sorted(periods, key=lambda p: (p.stream, p.t_start_ns, p.t_end_ns)):
        last = joined[-1] if joined else None
        if last is not None and last.stream == period.stream and period.t_start_ns <= last.t_end_ns + 1:
            joined[-1] = Period(last.stream, last.t_start_ns, max(last.t_end_ns, period.t_end_ns))
        else:
            joined.append(period)
    return joined


# -- a second look


@dataclass(frozen=True, slots=True, eq=False)
class SeenFrame:
    """A picture (h, w, 3) uint8 RGB and when it was; ``record_id`` where a record of the memory shows it."""

    t_ns: int
    image: np.ndarray
    record_id: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a second look gave. ``origin``: the ``source`` was decoded again, the memory's ``kept`` thumbnails answered,
    or it is ``gone`` and ``why`` says so."""

    period: Period
    frames: tuple[SeenFrame, ...]
    origin: Literal["source", "kept", "gone"]
    why: str = ""


class Revisit(Protocol):
    """Frames once more (the design's Revisit protocol). A file is decoded again; a live stream answers from kept
    thumbnails; both may say "gone"."""

    def look_again(self, stream: str, t_start_ns: int, t_end_ns: int, fps: float, *, limit: int = 32) -> Look: ...


@dataclass(frozen=True, slots=True)
class Deeper:
    """What a denser look added. ``decoded`` frames were paid for now, ``reused`` ones by an earlier question;
    ``evidence`` are the new records' ids."""

    period: Period
    evidence: tuple[int, ...]
    decoded: int
    reused: int
    gone: str = ""


class Deepener(Protocol):
    """Watches a period of the source again, more densely, and lets the memory's own recall see what that brought."""

    @property
    def view(self) -> View:
        """The memory together with everything that was looked at more deeply."""
        ...

    def deepen(self, period: Period, fps: float, *, limit: int = 64) -> Deeper: ...


# -- a chat model


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A picture for a model: (h, w, 3) uint8 RGB, or a JPEG as it is kept."""

    pixels: np.ndarray | None = None
    jpeg: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """``content`` is text and pictures in their order."""

    role: Literal["system", "user", "assistant"]
    content: tuple[str | Image, ...]


class Limits(msgspec.Struct, frozen=True):
    """What a model can take. 0 images: it can't see."""

    context_tokens: int = 8192
    images: int = 0
    json_schema: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """``data`` is the parsed object where a schema was asked for, None where the text couldn't be read as one."""

    text: str
    data: Mapping[str, Any] | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    finish: str = "stop"


@runtime_checkable
class ChatModel(Protocol):
    """One conversation turn. ``id`` names model and revision: it is part of every cache key."""

    @property
    def id(self) -> str: ...
    @property
    def limits(self) -> Limits: ...

    def chat(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 512,
        seed: int = 0,
        timeout_s: float | None = None,
    ) -> Reply:
        """Raises ModelUnavailable or a ServiceError; a text that isn't the JSON asked for is a Reply without data."""
        ...


# -- a reasoner


@dataclass(slots=True, eq=False)
class Context:
    """Everything a reasoner may use. All of it only reads. ``save`` is called with the state after every round."""

    view: View
    tools: Registry | None = None
    revisit: Revisit | None = None
    deepener: Deepener | None = None
    model: ChatModel | None = None
    captions: Captions | None = None
    """The model's captions of this memory, known and to be made."""
    progress: Callable[[Step], None] | None = None
    save: Callable[[bytes], None] | None = None
    clock: Callable[[], float] = time.monotonic
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a strategy: ``fps`` of a denser look, ``frames`` of uniform ..."""


class Reasoned(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and how it was reached. ``option`` is an index into the task's options. ``partial`` says that the
    budget ended the work before the reasoner would have; ``why`` says which part of it."""

    answer: Answer
    reasoner: str
    stage: Stage
    option: int | None = None
    option_scores: tuple[float, ...] = ()
    partial: bool = False
    why: str = ""
    spent: Spent = msgspec.field(default_factory=Spent)
    steps: tuple[Step, ...] = ()
    state: bytes = b""


class Reasoner(Protocol):
    """A strategy: from a task to an answer, never above the budget.

    ``state`` goes on where a saved one stopped. Raises QueryError for what can't be asked; whatever a model or a source
    does wrong ends in a labelled, partial answer."""

    name: str

    def reason(self, task: Task, context: Context, budget: Budget, state: bytes | None = None) -> Reasoned: ...
