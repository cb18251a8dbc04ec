"""``streammem ask``: a question, the moments that answer it, and how sure that is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

app = typer.Typer(add_completion=False)

NOT_SEEN = 1


@app.command()
def ask(
    target: o.Target,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help='What to look for, in words: "a red car".')],
    between: o.Between = None,
    stream: o.Streams = None,
    k: o.Count = None,
    sheet: Annotated[
        str | None, typer.Option("--sheet", metavar="PNG", help="Write the evidence as a picture.")
    ] = None,
    memory: o.MemoryDir = None,
    key: o.Key = None,
    rewatch: o.Rewatch = False,
    fps: o.Fps = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    trace: Annotated[
        str | None, typer.Option("--trace", metavar="JSON", help="Write how the answer was found, step by step.")
    ] = None,
    reasoner: Annotated[
        str | None,
        typer.Option("--reasoner", metavar="NAME", help="Look again: embedded, flat, uniform, blind or llm."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="N=V,...", help="Of a reasoner: calls=6,seconds=20,tokens=8000,frames=64."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="An OpenAI-compatible server, for llm.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Its model; without a server, a model's folder.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="TEXT", help="Multiple choice: once for each answer.")
    ] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """Ask about a video, a folder of pictures or a memory. Watches it first where that wasn't done.

    Exit code 0: found or unsure; 1: not seen."""
    begun = time.perf_counter()
    settings = o.load(config, set_, fps, k).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli.spans import check_words, read_between
    from streammem.errors import QueryError
    from streammem.recall.query import parse_query

    # A question that can't be asked is refused before minutes are spent on watching.
    parse_query(question, limit=settings.recall.max_question)
    check_words(between)
    reasoner = "llm" if reasoner is None and (endpoint or model) else reasoner
    if reasoner is None and (budget is not None or option):
        raise QueryError("--budget and --option are a reasoner's", hint="--reasoner embedded")
    chat = None
    if reasoner == "llm":
        from streammem.cli.reasoned import chat_model

        chat = chat_model(settings.reason, endpoint, model)
    from streammem.cli.watched import Frames, open_target, warm_words

    if reasoner is None:
        warm_words(target, settings)
    from streammem.cli import present

    with open_target(target, settings, out, directory=memory, rewatch=rewatch, key=key) as opened:
        streams = opened.memory.streams()
        span = read_between(between, opened.memory, stream)
        result = None
        if reasoner is None:
            answer = opened.memory.ask(question, k=settings.recall.k, between=span, streams=stream or None)
        else:
            from streammem.cli.reasoned import reason
            from streammem.cli.spans import the_clock

            result = reason(
                opened,
                settings,
                out,
                question=question,
                reasoner=reasoner,
                budget=budget,
                target=target,
                options=option or (),
                between=span,
                streams=stream,
                now_ns=the_clock(opened.memory, stream)[1],
                model=chat,
            )
            answer = result.answer
        clock_of = present.clock_lookup(streams)
        written: Path | None = None
        if sheet is not None:
            from streammem.cli.sheets import write_answer_sheet

            frames = Frames(opened, settings)
            try:
                written = write_answer_sheet(sheet, answer, opened, frames.frame_at, clock_of)
            finally:
                frames.close()
    from streammem.cli.answers import keep

    number = keep(settings, target, opened.directory, answer)
    seconds = time.perf_counter() - begun
    code = NOT_SEEN if answer.status == "not_seen" else 0
    document = {"id": number, **present.answer_document(answer, clock_of)}
    if result is not None:
        from streammem.cli.reasoned import reasoned_document

        document |= reasoned_document(result, steps=trace is not None)
    if trace is not None:
        from streammem.cli.reasoned import write_trace

        write_trace(trace, document)
    if json:
        about = {"memory": str(opened.directory), "sheet": str(written) if written else None, "seconds": seconds}
        out.document(document | about)
        return code
    extra = [opened.name, f"answer {number}", *([f"sheet {written}"] if written else [])]
    if result is not None:
        extra += [f"{result.reasoner}, {result.stage}", *([f"partial: {result.why}"] if result.partial else [])]
    present.print_answer(answer, out, clock_of=clock_of, many=len(streams) > 1, extra=extra)
    return code
