"""A service's health as people read it: one screen, the ill streams first."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streammem.clock import format_duration
from streammem.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from streammem.cli.output import Output
    from streammem.health import HealthSnapshot, StreamHealth

_COLOUR = {"live": "green", "late": "yellow", "frozen": "red", "starved": "red", "gone": "bright_black"}
_ILL_FIRST = ("frozen", "starved", "late", "live", "gone")
_MOST_ROWS = 60


def health_document(snapshot: HealthSnapshot, address: str) -> dict[str, Any]:
    """The document of ``status ADDRESS --json``: the snapshot with its names, the histograms left out."""
    import msgspec

    from streammem.redact import redact

    document: dict[str, Any] = msgspec.to_builtins(snapshot)
    for stream in document["streams"]:
        del stream["lag_buckets"], stream["lag_sum_s"]
    del document["queries"]["buckets"], document["queries"]["sum_s"]
    return {"service": redact(address), **document}


def print_health(snapshot: HealthSnapshot, address: str, out: Output) -> None:
    """The screen, once."""
    out.result.print(_screen(snapshot, address))


def watch_health(
    fetch: Callable[[], HealthSnapshot], address: str, out: Output, *, every_s: float = 2.0, times: int | None = None
) -> None:
    """The screen again every ``every_s`` seconds until Ctrl-C (or ``times`` times). What ``fetch`` raises ends it."""
    from rich.live import Live

    with Live(_screen(fetch(), address), console=out.result, auto_refresh=False) as live:
        shown = 1
        while times is None or shown < times:
            time.sleep(every_s)
            live.update(_screen(fetch(), address), refresh=True)
            shown += 1


def _screen(snapshot: HealthSnapshot, address: str) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from streammem.redact import redact

    ill = sum(stream.state not in ("live", "gone") for stream in snapshot.streams)
    head = Text(printable(redact(address)), style="bold")
    head.append(f"   up {format_duration(round(snapshot.uptime_s * 1e9))}", style="dim")
    head.append(f"   {snapshot.clients} clients, {len(snapshot.streams)} streams", style="dim")
    head.append(f"   {ill} ill" if ill else "   all well" if snapshot.streams else "", style="red" if ill else "green")
    parts: list[RenderableType] = [head, Text(), _streams(snapshot)]
    hidden = len(snapshot.streams) - _MOST_ROWS
    if hidden > 0:
        parts.append(Text(f"... and {hidden} more (--json shows all)", style="dim"))
    parts.append(Text())
    parts += _memory(snapshot)
    queries = snapshot.queries
    if queries.answered:
        parts.append(
            Text(
                f"requests   {queries.answered:,} answered, {queries.failed:,} failed, {queries.running} running; "
                f"median {_seconds(queries.p50_s)}, p99 {_seconds(queries.p99_s)}",
                style="dim",
            )
        )
    for what, counts in (
        ("dropped", snapshot.drops),
        ("refused", snapshot.refused),
        ("bad messages", snapshot.bad_messages),
    ):
        if counts:
            listed = ", ".join(f"{count:,} {printable(name, 40)}" for name, count in sorted(counts.items()))
            parts.append(Text(f"{what:<10} {listed}", style="yellow"))
    parts += [Text(printable(note), style="dim") for note in snapshot.notes]
    return Group(*parts)


def _streams(snapshot: HealthSnapshot) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from streammem.cli.present import size

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("stream", "state", "for", "per s", "bytes/s", "lag p50", "p99", "last", "kept", "dropped"):
        table.add_column(heading, justify="left" if heading in ("stream", "state") else "right", no_wrap=True)
    order = sorted(snapshot.streams, key=lambda stream: (_ILL_FIRST.index(stream.state), stream.stream))
    for stream in order[:_MOST_ROWS]:
        table.add_row(
            Text(printable(stream.stream, 40), "magenta"),
            Text(f"● {stream.state}", _COLOUR[stream.state]),
            _seconds(stream.for_s),
            f"{stream.rate_hz:.1f}",
            size(round(stream.bytes_per_s)),
            _seconds(stream.lag_p50_s),
            _lag(stream),
            f"{_seconds(stream.age_s)} ago",
            f"{stream.observations:,}",
            f"{sum(stream.drops.values()):,}",
        )
    return table


def _memory(snapshot: HealthSnapshot) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    from streammem.cli.present import bar, size

    memory = snapshot.memory
    if memory is None:
        return []
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, used, cap in (
        ("disk", memory.disk_bytes, memory.disk_cap_bytes),
        ("RAM", memory.ram_bytes, memory.ram_cap_bytes),
    ):
        share = used / cap if cap else 0.0
        colour = "red" if share > 0.95 else "yellow" if share > 0.8 else "green"
        table.add_row(name, size(used), Text(bar(share) if cap else "", colour), f"of {size(cap)}" if cap else "no cap")
    for bank in memory.banks:
        of = f"of {size(bank.cap_bytes)}" if bank.cap_bytes else ""
        table.add_row(f"  {printable(bank.bank, 30)}", size(bank.disk_bytes + bank.ram_bytes), "", of)
    table.add_row("journal", size(memory.journal_bytes), "", f"{size(memory.journal_unsynced_bytes)} not yet synced")
    parts: list[RenderableType] = [table]
    parts += [
        Text(f"damaged    {printable(damage.path)} at byte {damage.offset}: {printable(damage.what)}", style="red")
        for damage in memory.corruption
    ]
    return parts


def _lag(stream: StreamHealth) -> str:
    # A capture time from the future has no lag; how far ahead it is says which clock to look at.
    return f"{stream.clock_ahead_s:.0f} s ahead" if stream.clock_ahead_s > 1 else _seconds(stream.lag_p99_s)


def _seconds(value: float | None) -> str:
    """Three digits and a unit: 4.2 ms, 0.35 s, 12 s, 3 min, 5 h, 2 d."""
    if value is None:
        return "–"
    for limit, factor, unit in (
        (1.0, 1e3, "ms"),
        (120.0, 1.0, "s"),
        (7200.0, 1 / 60, "min"),
        (172_800.0, 1 / 3600, "h"),
    ):
        if value < limit:
            shown = value * factor
            return f"{shown:.0f} {unit}" if shown >= 10 or shown == 0 else f"{shown:.1f} {unit}"
    return f"{value / 86_400:.0f} d"
