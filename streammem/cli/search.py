"""``streammem search``: the moments closest to a few words, best first, with no judgement."""

from __future__ import annotations

from typing import Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

app = typer.Typer(add_completion=False)

NOTHING = 1


@app.command()
def search(
    target: o.Target,
    query: Annotated[str, typer.Argument(metavar="QUERY", help='A few words: "red mug".')],
    between: o.Between = None,
    stream: o.Streams = None,
    k: o.Count = None,
    exact: Annotated[bool, typer.Option("--exact", help="Use no approximate index.")] = False,
    memory: o.MemoryDir = None,
    key: o.Key = None,
    rewatch: o.Rewatch = False,
    fps: o.Fps = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """The closest moments, whatever their score: to know whether it is there at all, use ask.

    Exit code 1: nothing is remembered there."""
    settings = o.load(config, set_, fps, k).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli.spans import check_words, read_between
    from streammem.recall.query import parse_query

    parse_query(query, limit=settings.recall.max_question)
    check_words(between)
    from streammem.cli import present
    from streammem.cli.watched import open_target, warm_words

    warm_words(target, settings)
    with open_target(target, settings, out, directory=memory, rewatch=rewatch, key=key) as opened:
        streams = opened.memory.streams()
        span = read_between(between, opened.memory, stream)
        moments = opened.memory.search(query, k=settings.recall.k, between=span, streams=stream or None, exact=exact)
    clock_of = present.clock_lookup(streams)
    if json:
        found = [present.evidence_document(item, clock_of(item.stream)) for item in moments]
        out.document({"query": query, "memory": str(opened.directory), "moments": found})
    elif moments:
        present.print_moments(moments, out, clock_of=clock_of, many=len(streams) > 1)
    else:
        out.line("nothing is remembered there")
    return 0 if moments else NOTHING
