"""``streammem timeline``: what happened, as a tree of 20 to 40 entries in the terminal, and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streammem.cli.present import ClockOf

app = typer.Typer(add_completion=False)

NOTHING = 1
Entry = dict[str, Any]


@app.command()
def timeline(
    target: o.Target,
    out_file: Annotated[str | None, typer.Option("-o", "--out", metavar="PNG", help="Draw it as a picture.")] = None,
    between: o.Between = None,
    stream: o.Streams = None,
    depth: Annotated[
        int, typer.Option("--depth", min=1, max=3, help="1: coarse; 2: fine under it; 3: ultra-fine under that.")
    ] = 1,
    captioner: Annotated[
        str | None,
        typer.Option("--captioner", metavar="NAME", help="composed (default), model, or another that is installed."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="An OpenAI-compatible server, for model.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Its model; without a server, a model's folder.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="N=V,...", help="Of a model: calls=40,seconds=600,tokens=80000.")
    ] = None,
    memory: o.MemoryDir = None,
    key: o.Key = None,
    fps: o.Fps = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """What happened, coarse to fine. Captions are composed from labels, texts, speech, tracks, colours and motion.

    A model's captions (--captioner model) are kept and cost nothing the second time; where it fails or the budget ends,
    the composed ones stand. Exit code 1: nothing is remembered there; 3: the model can't be reached."""
    settings = o.load(config, set_, fps).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli import present
    from streammem.cli.spans import check_words, read_between
    from streammem.cli.watched import open_target
    from streammem.errors import ConfigError

    check_words(between)
    chosen = None
    if captioner or endpoint or model:
        from streammem.cli.captions import chosen_captioner

        chosen = chosen_captioner(settings, captioner, endpoint, model)
    if budget is not None and chosen is None:
        raise ConfigError("--budget is a model's", hint="--captioner model")
    run, about, code = None, {}, 0
    with open_target(target, settings, out, directory=memory, key=key) as opened:
        span = read_between(between, opened.memory, stream)
        streams = opened.memory.streams()
        clock_of = present.clock_lookup(streams)
        names = ("coarse", "fine", "ultra-fine")[:depth]
        lo, hi = span or (None, None)
        ask = opened.memory.query
        levels = [
            ask("timeline", "timeline", streams=stream or None, t_start_ns=lo, t_end_ns=hi, level=name)
            for name in names
        ]
        if chosen is not None:
            from streammem.cli.captions import caption_entries, captions_document, say

            run, spent, notes = caption_entries(
                opened, settings, out, chosen, levels,
                target=target, between=span, budget=budget, clock_of=clock_of,
            )  # fmt: skip
            about = {"captions": captions_document(run, spent, chosen.id, notes)}
            code = run.fault.exit_code if run.fault is not None and not run.captions else 0
            say(run, spent, chosen.id, notes, out)
        written = None
        if out_file is not None and levels[0]:
            from streammem.cli.timeline_picture import draw
            from streammem.render import write_png

            fine = (
                levels[1]
                if depth > 1
                else ask("timeline", "timeline", streams=stream or None, t_start_ns=lo, t_end_ns=hi, level="fine")
            )
            picture = draw(levels[0], fine, opened.memory, clock_of, title=opened.name)
            written = write_png(out_file, picture)
    if json:
        found = [entry_document(entry, clock_of) for level in levels for entry in level]
        out.document(
            {"memory": str(opened.directory), "picture": str(written) if written else None, "entries": found, **about}
        )
    elif not levels[0]:
        out.line("nothing is remembered there")
    else:
        print_tree(levels, out, clock_of)
        if written is not None:
            out.line(str(written))
    return code if levels[0] else NOTHING


def entry_document(entry: Mapping[str, Any], clock_of: ClockOf) -> dict[str, Any]:
    """One entry as plain values: times as ns and as text, ids as people read them."""
    from streammem.clock import format_time
    from streammem.model import show_id

    clock = clock_of(entry["stream"])
    return {
        **{name: entry[name] for name in ("stream", "level", "t_start_ns", "t_end_ns", "scope_ns", "looks", "caption")},
        "start": format_time(entry["t_start_ns"], clock),
        "end": format_time(entry["t_end_ns"], clock),
        "records": [show_id(number) for number in entry.get("evidence", ())],
        **{name: entry[name] for name in ("captioner", "facts", "instead") if name in entry},
    }


def print_tree(levels: Sequence[Sequence[Entry]], out: Output, clock_of: ClockOf) -> None:
    """A branch a stream, and under every entry those of the next level that begin inside it."""
    from rich.text import Text
    from rich.tree import Tree

    from streammem.clock import format_duration
    from streammem.printable import printable

    for name in sorted({entry["stream"] for entry in levels[0]}):
        mine = [[entry for entry in level if entry["stream"] == name] for level in levels]
        scope = format_duration(mine[0][0]["scope_ns"])
        root = Tree(Text.assemble((printable(name, 60), "bold"), (f"  {len(mine[0])} entries of {scope}", "dim")))
        _grow(root, mine, 0, None, clock_of(name))
        out.result.print(root)


def _grow(branch: Any, levels: Sequence[Sequence[Entry]], depth: int, inside: Entry | None, clock: Any) -> None:
    from rich.text import Text

    from streammem.clock import format_ranges
    from streammem.printable import printable

    chosen = [
        entry
        for entry in levels[depth]
        if inside is None or inside["t_start_ns"] <= entry["t_start_ns"] <= inside["t_end_ns"]
    ]
    times = format_ranges([(entry["t_start_ns"], entry["t_end_ns"], clock) for entry in chosen])
    for entry, when in zip(chosen, times, strict=True):
        style = "cyan" if depth == 0 else "bright_black"
        leaf = branch.add(Text.assemble((when, style), "  ", printable(entry["caption"], 400)))
        if depth + 1 < len(levels):
            _grow(leaf, levels, depth + 1, entry, clock)
