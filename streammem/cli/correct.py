"""``streammem correct``: an answer was wrong; remember that."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streammem.cli import options as o
from streammem.cli.output import Output
from streammem.recall.lessons import DAYS

app = typer.Typer(add_completion=False)


@app.command()
def correct(
    answer: Annotated[str, typer.Argument(metavar="ANSWER-ID", help="What `ask` printed beside its answer.")],
    correction: Annotated[str, typer.Argument(metavar="TEXT", help='What is true: "that is the neighbour\'s cat".')],
    days: Annotated[float, typer.Option("--days", metavar="N", help="How long it holds.")] = DAYS,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """Correct an answer: its moments are no evidence for such a question any more, and what you say is quoted."""
    settings = o.load(config, set_).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli.answers import find
    from streammem.cli.watched import open_memory
    from streammem.clock import SystemClock
    from streammem.errors import InputError
    from streammem.recall import lessons

    entry = find(settings, answer)
    streams = sorted({stream for stream, _, _ in entry["moments"]})
    if not streams:
        raise InputError(f"the answer {answer} showed no moment: there is nothing to correct")
    opened: Any
    if "://" in entry["memory"]:
        from streammem.cli.remote import connect_to

        opened = connect_to(entry["memory"], None)
    else:
        opened = open_memory(entry["memory"], settings, mode="write")
    with opened as memory:
        for stream in streams:
            spans = [(start, end) for name, start, end in entry["moments"] if name == stream]
            wrong = spans if entry["status"] == "found" else []
            lesson = lessons.add(memory, stream, entry["question"], correction, wrong, clock=SystemClock(), days=days)
    if json:
        out.document({"answer": answer, "question": entry["question"], "streams": streams, "days": days})
    else:
        out.line(f"noted for “{entry['question'][:80]}” ({', '.join(streams)}): “{lesson.correction}”")
    return 0
