"""``streammem forget``: remove a stretch of time from a memory, everywhere it is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

app = typer.Typer(add_completion=False)


@app.command()
def forget(
    target: o.MemoryArgument,
    stream: Annotated[str | None, typer.Option("--stream", metavar="NAME", help="This stream.")] = None,
    between: o.Between = None,
    everything: Annotated[
        bool, typer.Option("--all", help="The whole stream, or with no --stream all of them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    key: o.Key = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """Forget: records, vectors, thumbnails, texts and journal entries are gone afterwards, and no search finds them.

    Exit code 1: nothing was there to forget."""
    settings = o.load(config, set_).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli.present import plain, size
    from streammem.cli.spans import check_words, read_between
    from streammem.cli.watched import existing_memory, open_memory, unwatch
    from streammem.errors import InputError

    if (between is None) == (not everything):
        raise InputError("forget what?", hint="--between A B, or --all for a whole stream")
    check_words(between)
    from streammem.cli.remote import connect_to, is_address

    place: str | Path = target
    if is_address(target):
        opened: Any = connect_to(target, key)
    else:
        place = existing_memory(target, settings)
        opened = open_memory(place, settings, mode="write")
    with opened as memory:
        span = read_between(between, memory, [stream] if stream else None)
        what = f"{stream or 'every stream'}{f' from {between[0]} to {between[1]}' if between else ''}"
        if not yes:
            _confirm(f"Forget {what} in {place}? It can't be undone.", out)
        infos = [info for info in memory.streams() if stream is None or info.stream == stream]
        report = memory.forget(stream=stream, between=span)
        emptied = not memory.observation_count
    # What a question looked at again in these recordings lies beside the memory and goes with it.
    from streammem.cli.captions import forget_captions
    from streammem.cli.deepen import forget_deeper

    deeper, told = forget_deeper(settings, infos, span), forget_captions(settings, infos, span)
    if emptied and isinstance(place, Path):
        unwatch(place)
    if json:
        out.document({"memory": str(place), "forgotten": plain(report), "second_looks": deeper, "captions": told})
    else:
        out.line(
            f"forgot {report.observations:,} observations and {report.thumbnails:,} thumbnails"
            + (f"; {deeper:,} second looks" if deeper else "")
            + (f"; {told:,} captions" if told else "")
            + (f"; {size(report.bytes)} are free again" if report.bytes else "")
        )
    return 0 if report.observations else 1


def _confirm(question: str, out: Output) -> None:
    from streammem.errors import InputError

    if not sys.stdin.isatty() or out.as_json:
        raise InputError("nobody is here to confirm", hint="add --yes to forget without being asked")
    out.aside.print(f"{question} [y/N] ", end="", markup=False)
    if input().strip().lower() not in ("y", "yes"):
        raise typer.Abort
