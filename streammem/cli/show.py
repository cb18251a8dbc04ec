"""``streammem show``: moments as pictures on one sheet."""

from __future__ import annotations

from typing import Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

app = typer.Typer(add_completion=False)

NOTHING = 1
TILES = 12


@app.command()
def show(
    target: o.Target,
    out_file: Annotated[str, typer.Option("-o", "--out", metavar="PNG", help="Where the sheet goes.")] = "sheet.png",
    at: Annotated[str | None, typer.Option("--at", metavar="T", help="The moment nearest to this time.")] = None,
    between: o.Between = None,
    record: Annotated[
        list[str] | None, typer.Option("--record", metavar="ID", help="A record that an answer names; may be repeated.")
    ] = None,
    query: Annotated[str | None, typer.Option("--query", metavar="WORDS", help="The moments closest to words.")] = None,
    stream: o.Streams = None,
    k: o.Count = None,
    memory: o.MemoryDir = None,
    key: o.Key = None,
    fps: o.Fps = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """A contact sheet: of a query, of one time, of a stretch of time, of records by their ids, or of everything.

    Exit code 1: nothing is remembered there."""
    settings = o.load(config, set_, fps, k).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli.spans import check_words, read_between, the_clock
    from streammem.clock import parse_time
    from streammem.errors import QueryError
    from streammem.recall.query import parse_query

    if (at is not None or record) and (between is not None or query is not None or (at is not None and record)):
        name = "--at" if at is not None else "--record"
        raise QueryError(f"{name} goes alone", hint="--query and --between can be combined")
    if query is not None:
        parse_query(query, limit=settings.recall.max_question)
    check_words([at] if at is not None else between)
    from streammem.cli import present, sheets
    from streammem.cli.watched import Frames, open_target
    from streammem.memory import Memory

    with open_target(target, settings, out, directory=memory, key=key) as opened:
        local = opened.memory if isinstance(opened.memory, Memory) else None
        streams = opened.memory.streams()
        span = read_between(between, opened.memory, stream)
        n = settings.recall.k if k is not None else TILES
        if record:
            moments, title = sheets.of_records(opened.memory, record), f"{opened.name}: {', '.join(record[:4])}"
        elif query is None and local is None:
            raise QueryError("a service shows records, and the moments of a question", hint="--query WORDS")
        elif at is not None and local is not None:
            kind, now_ns = the_clock(opened.memory, stream)
            moments = sheets.nearest(local, parse_time(at, now_ns=now_ns, clock=kind), stream)
            title = f"{opened.name} at {at}"
        elif query is not None:
            moments = opened.memory.search(query, k=settings.recall.k, between=span, streams=stream or None)
            title = query
        elif local is not None:
            moments = sheets.overview(local, span, stream or None, min(n, sheets.MOST_TILES))
            title = f"{opened.name} from {between[0]} to {between[1]}" if between else opened.name
        clock_of = present.clock_lookup(streams)
        path = None
        if moments:
            frames = Frames(opened, settings)
            try:
                path = sheets.write_moments_sheet(
                    out_file, moments, opened, frames.frame_at, clock_of, title=title, scores=query is not None
                )
            finally:
                frames.close()
    if json:
        found = [present.evidence_document(item, clock_of(item.stream)) for item in moments]
        out.document({"sheet": str(path) if path else None, "memory": str(opened.directory), "moments": found})
    elif path is None:
        out.line("nothing is remembered there")
    else:
        out.line(str(path))
    return 0 if moments else NOTHING
