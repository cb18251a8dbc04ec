"""``streammem status``: what a memory holds, and its bytes against its budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

if TYPE_CHECKING:
    from streammem.cli.present import ClockOf
    from streammem.storage.reports import Status

app = typer.Typer(add_completion=False)


@app.command()
def status(
    target: o.MemoryArgument,
    digest: Annotated[
        bool, typer.Option("--digest", help="Only the digest: equal memories have equal digests.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Of a service: again every two seconds, until Ctrl-C.")
    ] = False,
    key: o.Key = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    json: o.Json = False,
) -> int:
    """Streams, records, bytes against their caps, and what was dropped or damaged. Exit code 0 also when damaged."""
    settings = o.load(config, set_).config
    out = Output(as_json=json)
    from streammem.cli.present import clock_lookup, plain, stream_document
    from streammem.cli.remote import is_address
    from streammem.cli.watched import existing_memory, open_memory

    if is_address(target):
        return _of_service(target, out, key, digest=digest, watch=watch)
    place = existing_memory(target, settings)
    with open_memory(place, settings) as memory:
        found = memory.status()
        sum_ = memory.digest() if digest or json else ""
        infos = memory.streams()
    if json:
        out.document({**plain(found), "digest": sum_, "descriptions": [stream_document(info) for info in infos]})
    elif digest:
        out.line(sum_)
    else:
        _print(found, out, clock_lookup(infos))
    return 0


def _of_service(address: str, out: Output, key: str | None, *, digest: bool, watch: bool) -> int:
    from streammem.cli.health_view import health_document, print_health, watch_health
    from streammem.cli.remote import connect_to
    from streammem.errors import InputError

    if watch and out.as_json:
        raise InputError("--watch and --json don't go together", hint="--json gives one document; call it again")
    with connect_to(address, key) as client:
        if digest:
            sum_ = client.digest()
            if out.as_json:
                out.document({"digest": sum_})
            else:
                out.line(sum_)
            return 0
        if watch:
            watch_health(client.health, address, out)
        elif out.as_json:
            out.document(health_document(client.health(), address))
        else:
            print_health(client.health(), address, out)
    return 0


def _print(found: Status, out: Output, clock_of: ClockOf) -> None:
    from rich.table import Table
    from rich.text import Text

    from streammem.cli.present import bar, size
    from streammem.clock import format_range
    from streammem.printable import printable

    out.line(found.directory, "bold")
    out.line(
        f"{found.observations:,} observations, {found.records:,} records in {found.segments} segments; "
        f"spaces: {', '.join(found.spaces) or 'none'}; format {found.format}",
        "dim",
    )
    streams = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("stream", "time", "records", "bytes"):
        streams.add_column(heading, justify="right" if heading in ("records", "bytes") else "left")
    for item in found.streams:
        known = item.t_min_ns is not None and item.t_max_ns is not None
        when = format_range(item.t_min_ns or 0, item.t_max_ns or 0, clock_of(item.stream)) if known else "empty"
        streams.add_row(Text(printable(item.stream, 60), "magenta"), when, f"{item.records:,}", size(item.bytes))
    out.result.print()
    out.result.print(streams)
    out.result.print()
    caps = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, used, cap in (
        ("disk", found.disk_bytes, found.disk_cap_bytes),
        ("RAM", found.ram_bytes, found.ram_cap_bytes),
    ):
        share = used / cap if cap else 0.0
        colour = "red" if share > 0.95 else "yellow" if share > 0.8 else "green"
        of = f"of {size(cap)}" if cap else "no cap"
        caps.add_row(name, size(used), Text(bar(share) if cap else "", colour), of)
    caps.add_row("journal", size(found.journal_bytes), "", f"{size(found.journal_unsynced_bytes)} not yet synced")
    out.result.print(caps)
    for reason, count in sorted(found.drops.items()):
        out.line(f"dropped: {count:,} {reason}", "yellow")
    for damage in found.corruption:
        out.line(f"damaged: {damage.path} at byte {damage.offset}: {damage.what}", "red")
    for note in found.notes:
        out.line(note, "dim")
