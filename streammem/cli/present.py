"""Answers, moments and streams as tables for people and as plain values for ``--json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from streammem.clock import StreamClock, format_duration, format_ranges, format_time
from streammem.model import Answer, Evidence, StreamInfo, Why, show_id
from streammem.printable import printable

if TYPE_CHECKING:
    from streammem.cli.output import Output

ClockOf = Callable[[str], StreamClock]

_MARKS = {"found": ("●", "green"), "unsure": ("◐", "yellow"), "not_seen": ("○", "bright_black")}
_WORDS = {"found": "found", "unsure": "unsure", "not_seen": "not seen"}
_BAR = 8
"""Characters of the longest bar: eight blocks of eight steps each show 1/64, finer than a score means."""


def clock_lookup(streams: Sequence[StreamInfo]) -> ClockOf:
    """From a stream's name to its clock; ``media`` for a stream that isn't described."""
    clocks = {info.stream: info.clock for info in streams}
    return lambda stream: clocks.get(stream, "media")


def evidence_document(item: Evidence, clock: StreamClock) -> dict[str, Any]:
    """One moment: times as ns and as text."""
    return {
        "stream": item.stream,
        "t_start_ns": item.t_start_ns,
        "t_end_ns": item.t_end_ns,
        "start": format_time(item.t_start_ns, clock),
        "end": format_time(item.t_end_ns, clock),
        "score": item.score,
        "calibrated": item.calibrated,
        "why": [{"signal": why.signal, "score": why.score, "detail": why.detail} for why in item.why],
        "frames": [
            {
                "t_ns": frame.t_ns,
                "time": format_time(frame.t_ns, clock),
                "where": frame.where,
                "record": show_id(frame.record_id),
            }
            for frame in item.frames
        ],
        "records": [show_id(number) for number in item.record_ids],
    }


def answer_document(answer: Answer, clock_of: ClockOf) -> dict[str, Any]:
    """The whole answer."""
    return {
        "question": answer.question,
        "status": answer.status,
        "text": answer.text,
        "confidence": answer.confidence,
        "evidence": [evidence_document(item, clock_of(item.stream)) for item in answer.evidence],
        "closest": [evidence_document(item, clock_of(item.stream)) for item in answer.closest],
        "best_rejected": answer.best_rejected,
        "cost": {
            "seconds": answer.cost.seconds,
            "records": answer.cost.records,
            "calls": answer.cost.calls,
            "tokens": answer.cost.tokens,
        },
        "trace": list(answer.trace),
    }


def stream_document(info: StreamInfo) -> dict[str, Any]:
    """One stream's description."""
    return {
        "stream": info.stream,
        "source": info.source,
        "clock": info.clock,
        "content_hash": info.content_hash,
        "duration_ns": info.duration_ns,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
    }


def print_answer(answer: Answer, out: Output, *, clock_of: ClockOf, many: bool, extra: Sequence[str] = ()) -> None:
    """The sentence, its status, up to five moments, and one grey line of ``extra`` facts and cost."""
    from rich.text import Text

    mark, style = _MARKS[answer.status]
    console = out.result
    console.print(Text(printable(answer.text, 2000), style="bold"), soft_wrap=True)
    # It is the confidence that the moments are right: beside "not seen" it would read as that of their absence.
    told = answer.confidence > 0 and answer.status != "not_seen"
    sure = f"  {answer.confidence:.0%} sure" if told else ""
    console.print(Text.assemble((f"{mark} {_WORDS[answer.status]}", style), (sure, "dim")))
    shown = list(answer.evidence) or list(answer.closest)
    rest = [item for item in answer.closest if _interval(item) not in {_interval(have) for have in shown}]
    shown = (shown + rest)[:5]
    if shown:
        console.print()
        proven = len(answer.evidence)
        print_moments(shown, out, clock_of=clock_of, many=many, proven=proven, accent=style)
    facts = [f"{answer.cost.records:,} records", f"{answer.cost.seconds:.2f} s"] if answer.cost.records else []
    if facts or extra:
        console.print()
        console.print(Text(" · ".join([*map(printable, extra), *facts]), style="bright_black"), soft_wrap=True)


def _interval(item: Evidence) -> tuple[str, int, int]:
    return (item.stream, item.t_start_ns, item.t_end_ns)


def print_moments(
    moments: Sequence[Evidence],
    out: Output,
    *,
    clock_of: ClockOf,
    many: bool,
    proven: int = 0,
    accent: str = "cyan",
) -> None:
    """A table: rank, when, how strong, why. The first ``proven`` rows are evidence, the others only close."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    if many:
        table.add_column(overflow="fold", max_width=24)
    table.add_column(overflow="fold")
    times = format_ranges([(item.t_start_ns, item.t_end_ns, clock_of(item.stream)) for item in moments])
    best = max((item.score for item in moments), default=0.0)
    for rank, (item, when) in enumerate(zip(moments, times, strict=True), 1):
        strong = rank <= proven
        colour = accent if strong or not proven else "bright_black"
        row = [
            Text(str(rank), style="bold" if strong else "dim"),
            Text(when, style="bold" if strong else ""),
            Text(bar(item.score / best if best > 0 else 0.0), style=colour),
            Text(f"{round(item.score, 2) + 0.0:.2f}", style="dim"),  # + 0.0: no "-0.00"
        ]
        if many:
            row.append(Text(printable(item.stream, 60), style="magenta"))
        table.add_row(*row, reasons(item.why))
    out.result.print(table)


def reasons(whys: Sequence[Why]) -> Any:
    """Why a moment is there: the signal in colour, what it saw as plain text."""
    from rich.text import Text

    text = Text()
    for number, why in enumerate(whys[:4]):
        if number:
            text.append("  ")
        text.append(why.signal, style="cyan")
        if why.detail:
            detail = printable(why.detail, 60)
            text.append(f" “{detail}”" if why.signal in ("text", "speech") else f" {detail}")
        else:
            text.append(f" {why.score:.2f}", style="dim")
    return text


def bar(share: float) -> str:
    """A bar of up to eight characters; anything above nothing shows at least a sliver."""
    eighths = max(round(min(max(share, 0.0), 1.0) * _BAR * 8), 1 if share > 0 else 0)
    full, part = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")).ljust(_BAR)


def size(number: float) -> str:
    """Bytes for people: ``412 B``, ``3.2 MB``; 1 MB is 1024 kB, as in the settings."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1024 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "B" or abs(number) >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"


def plain(value: Any) -> Any:
    """Structs and dataclasses as dictionaries, bytes as hexadecimal: what JSON can hold."""
    import dataclasses

    import msgspec

    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {
            ("/".join(map(str, key)) if isinstance(key, tuple) else str(key)): plain(item)
            for key, item in value.items()
        }
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, (str, bool, int, float)) or value is None:
        return value
    return str(value)


def duration(start_ns: int, end_ns: int) -> str:
    """The length of an interval for people."""
    return format_duration(end_ns - start_ns)
