"""``streammem watch``: a source into a memory, with progress; a second call goes on where the first stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

app = typer.Typer(add_completion=False)


@app.command()
def watch(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A video, a folder of pictures, a camera, rtsp://...")
    ],
    memory: o.MemoryDir = None,
    rewatch: o.Rewatch = False,
    fps: o.Fps = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """Watch a source and remember it. Ctrl-C stops it; the same command goes on from there."""
    settings = o.load(config, set_, fps).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli.present import plain
    from streammem.cli.watched import ensure_watched

    place, facts = ensure_watched(source, settings, out, directory=memory, rewatch=rewatch)
    report = facts.pop("report", None)
    if json:
        watched = plain(report) | {"rate": report.rate, "shares": report.shares} if report is not None else None
        out.document({"memory": str(place), **facts, "watched": watched})
        return 0
    if report is None or not report.frames:
        out.note("already watched; nothing to do (--rewatch does it again)")
    out.line(str(place))
    return 0
