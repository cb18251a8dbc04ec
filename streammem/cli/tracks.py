"""``streammem tracks``: the objects that a memory followed, why it kept which frames, and a picture of it all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

if TYPE_CHECKING:
    from streammem.cli.present import ClockOf

app = typer.Typer(add_completion=False)

NOTHING = 1


@app.command()
def tracks(
    target: o.Target,
    track: Annotated[str | None, typer.Option("--track", metavar="ID", help="Only this object.")] = None,
    label: Annotated[str, typer.Option("--label", help="Only objects called so.")] = "",
    why: Annotated[bool, typer.Option("--why", help="Why frames were kept, refused or dropped.")] = False,
    out_file: Annotated[str | None, typer.Option("-o", "--out", metavar="PNG", help="Draw it as a picture.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many objects.")] = 50,
    stream: o.Streams = None,
    memory: o.MemoryDir = None,
    key: o.Key = None,
    fps: o.Fps = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """Objects that were tracked: when they were seen, and the diverse frames that are kept of each.

    Exit code 1: none was."""
    settings = o.load(config, set_, fps).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli import present
    from streammem.cli.watched import Frames, open_target

    with open_target(target, settings, out, directory=memory, key=key) as opened:
        ask = opened.memory.query
        streams = stream or None
        if track is not None:
            found = ask("tracks", "track", streams=streams, track=track)
        else:
            found = ask("tracks", "tracks", streams=streams, label=label, limit=limit)
        lines = {
            one["track"]: ask("tracks", "why", streams=[one["stream"]], track=one["track"]) for one in found if why
        }
        clock_of = present.clock_lookup(opened.memory.streams())
        path = None
        if out_file is not None and found:
            from streammem.cli.tracks_picture import draw_tracks
            from streammem.render import write_png

            frames = Frames(opened, settings)
            try:
                sheet = draw_tracks(found, opened.memory.thumbnail, frames.frame_at, clock_of, title=opened.name)
            finally:
                frames.close()
            path = write_png(out_file, sheet)
        size = ask("tracks", "size", streams=streams)
    if json:
        out.document({"tracks": found, "why": lines, "size": size, "picture": str(path) if path else None})
    elif not found:
        out.line("nothing was tracked there")
    else:
        _show(out, found, lines, clock_of)
        if path is not None:
            out.line(str(path))
    return 0 if found else NOTHING


def _show(out: Output, found: list[dict[str, Any]], lines: dict[str, Any], clock_of: ClockOf) -> None:
    from rich.table import Table
    from rich.text import Text

    from streammem.clock import format_ranges, format_time
    from streammem.printable import printable

    table = Table(box=None, pad_edge=False)
    for name in ("track", "label", "seen", "frames", "kept", "KB"):
        table.add_column(name, justify="right" if name in ("frames", "kept", "KB") else "left")
    for one in found:
        clock = clock_of(one["stream"])
        ranges = format_ranges([(part[0], part[1], clock) for part in one["intervals"][-6:]])
        seen = ", ".join(ranges) if len(one["intervals"]) <= 6 else "..., " + ", ".join(ranges)
        cells = (
            one["track"],
            one["label"],
            seen,
            str(one["frames"]),
            str(len(one["kept"])),
            f"{one['bytes'] / 1e3:.1f}",
        )
        table.add_row(*(Text(printable(cell, 200)) for cell in cells))
    out.result.print(table)
    for name, audit in lines.items():
        out.line(f"\n{name}: the newest {len(audit)} decisions", style="bold")
        clock = clock_of(next(one["stream"] for one in found if one["track"] == name))
        for line in audit:
            out.line(f"  {format_time(line['t_ns'], clock)}  {line['action']:<8} {line['reason']}")
