"""``streammem selftest``: can this memory tell order, latest state, counts and absence? Exact truth, no model."""

from __future__ import annotations

from typing import Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

app = typer.Typer(add_completion=False)


@app.command()
def selftest(
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Which stream is made up.")] = 0,
    events: Annotated[
        int, typer.Option("--events", metavar="N", min=20, max=20000, help="Length of the stream.")
    ] = 200,
    questions: Annotated[
        int, typer.Option("--questions", metavar="N", min=1, max=100000, help="Of each drawn sort.")
    ] = 60,
    json: o.Json = False,
) -> int:
    """Write a made-up stream through a real memory and ask what it must know. Exit code 1: below a floor."""
    from streammem.cli.present import plain
    from streammem.selftest import examine

    out = Output(as_json=json)
    report = examine(seed, events, questions)
    if json:
        out.document(plain(report) | {"passed": report.passed})
        return 0 if report.passed else 1
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title, side in (("ability", "left"), ("measure", "left"), ("asked", "right"), ("score", "right")):
        table.add_column(title, justify=side)  # type: ignore[arg-type]
    for title in ("floor", "naive", ""):
        table.add_column(title, justify="right")
    for ability in report.abilities:
        table.add_row(
            ability.name,
            ability.measure,
            str(ability.asked),
            f"{ability.score:.3f}",
            f"{ability.floor:.2f}",
            "" if ability.naive is None else f"{ability.naive:.3f}",
            "ok" if ability.passed else "BELOW",
        )
    out.result.print(table)
    verdict = "passed" if report.passed else "FAILED"
    size = f"{report.observations} observations of {report.events} events in {report.segments} segments"
    out.line(f"{size}, seed {report.seed}: {verdict}")
    out.note("naive: believes whatever it was told last, in the order of arrival")
    return 0 if report.passed else 1
