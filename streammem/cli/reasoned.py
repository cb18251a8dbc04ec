"""``streammem ask --reasoner``: an answer by a strategy within a budget, its steps on stderr and in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streammem.cli.output import Output
from streammem.clock import StreamClock, format_range
from streammem.errors import InputError
from streammem.model import show_id
from streammem.printable import printable
from streammem.reason.base import Budget, ChatModel, Context, Period, Reasoned, Step, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from streammem.cli.watched import Opened
    from streammem.config import Config, ReasonConfig


def reason(
    opened: Opened,
    settings: Config,
    out: Output,
    *,
    question: str,
    reasoner: str,
    budget: str | None,
    target: str = "",
    options: Sequence[str] = (),
    between: tuple[int, int] | None = None,
    streams: Sequence[str] | None = None,
    now_ns: int | None = None,
    model: ChatModel | None = None,
) -> Reasoned:
    """Answer by a strategy. Raises QueryError, ConfigError, InputError for a target that it can't look into."""
    from streammem.cli.captions import model_captions
    from streammem.cli.deepen import DenserWatch, SecondLook
    from streammem.cli.present import clock_lookup
    from streammem.memory import Memory
    from streammem.reason.models import Endpoint
    from streammem.reason.strategies import open_reasoner
    from streammem.reason.tools import Registry

    chosen = open_reasoner(reasoner)
    limits = Budget.parse(budget or "")
    memory = opened.memory
    if not isinstance(memory, Memory):
        raise InputError(
            f"{opened.name}: a reasoner looks into a memory's directory, this is a service",
            hint="ask without --reasoner, or name the directory on the service's machine",
        )
    names = None if not streams else tuple(streams)
    task = Task(
        question=question,
        options=tuple(options),
        streams=names,
        between=between,
        now_ns=now_ns,
        k=settings.recall.k,
    )
    clock_of = clock_lookup(memory.streams())
    revisit = SecondLook(opened, settings, target)
    deepener = DenserWatch(opened, settings, revisit)
    captions = model_captions(settings, model, memory, revisit) if model is not None and reasoner == "llm" else None

    def progress(step: Step) -> None:
        out.note(step_line(step, clock_of))

    context = Context(
        view=memory,
        tools=Registry(memory, streams=names),
        revisit=revisit,
        deepener=deepener,
        model=model,
        captions=captions,
        progress=progress,
    )
    try:
        return chosen.reason(task, context, limits)
    finally:
        deepener.close()
        revisit.close()
        if captions is not None:
            if captions.store.note:
                out.note(captions.store.note)
            captions.store.close()
        if isinstance(model, Endpoint):
            model.close()  # it connects again when it is asked again


def chat_model(settings: ReasonConfig, endpoint: str | None, model: str | None) -> ChatModel:
    """The model of the flags, else of the configuration. Raises ConfigError where none is named, ModelUnavailable for a
    folder that holds none."""
    from streammem.reason.captioner import open_chat_model

    url, name = endpoint or settings.endpoint, model or settings.model
    return open_chat_model(url, name, sees=settings.sees, timeout_s=settings.timeout_seconds)


def step_line(step: Step, clock_of: Callable[[str], StreamClock]) -> str:
    """One step for people: what, where, what came of it, what it cost."""
    where = ", ".join(period_text(period, clock_of) for period in step.periods[:3])
    more = f" and {len(step.periods) - 3} more" if len(step.periods) > 3 else ""
    parts = [step.action, f"{where}{more}", step.why, step.outcome]
    cost = step.cost
    spent = [
        f"{getattr(cost, name)} {name}" for name in ("records", "frames", "calls", "tokens") if getattr(cost, name)
    ]
    tail = f" [{', '.join([*spent, f'{cost.seconds:.2f} s'])}]"
    return printable(" · ".join(part for part in parts if part), 300) + tail


def period_text(period: Period, clock_of: Callable[[str], StreamClock]) -> str:
    return format_range(period.t_start_ns, period.t_end_ns, clock_of(period.stream))


def reasoned_document(result: Reasoned, *, steps: bool = False) -> dict[str, Any]:
    """What a reasoner adds to an answer's document."""
    found: dict[str, Any] = {
        "reasoner": result.reasoner,
        "stage": result.stage,
        "partial": result.partial,
        "why": result.why,
        "option": result.option,
        "option_scores": list(result.option_scores),
        "spent": msgspec.to_builtins(result.spent),
    }
    if steps:
        found["steps"] = [step_document(step) for step in result.steps]
    return found


def step_document(step: Step) -> dict[str, Any]:
    """A step as plain values, record ids as people read them."""
    plain = msgspec.to_builtins(step)
    plain["evidence"] = [show_id(number) for number in step.evidence]
    plain["periods"] = [{"stream": p.stream, "t_start_ns": p.t_start_ns, "t_end_ns": p.t_end_ns} for p in step.periods]
    return plain


def write_trace(path: str, document: dict[str, Any]) -> Path:
    """The trace as JSON. Raises InputError where it can't be written."""
    place = Path(path)
    try:
        place.write_text(json.dumps(document, ensure_ascii=True, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="--trace names a file that can be written") from None
    return place
