"""``streammem bench``: each module of ``streammem/benchmarks`` as a command, imported only when it is called.

A benchmark is a module with a docstring and a function ``main(arguments: list[str], as_json: bool) -> int``.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from importlib import import_module
from typing import Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

app = typer.Typer(add_completion=False)

PACKAGE = "streammem.benchmarks"


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which one; without it they are listed.")] = None,
    json: o.Json = False,
) -> int:
    """Measure speed, memory use and recall on this machine."""
    from streammem.errors import InputError

    known = benchmarks()
    out = Output(as_json=json)
    if name is None:
        if json:
            out.document({"benchmarks": known})
        elif not known:
            out.line("no benchmark is installed")
        for each in [] if json else known:
            out.line(f"streammem bench {each}")
        return 0
    if name not in known:
        raise InputError(f"there is no benchmark {name!r}", hint=f"known: {', '.join(known) or 'none'}")
    return int(import_module(f"{PACKAGE}.{name}").main(list(context.args), json))


def benchmarks() -> list[str]:
    """Names of the benchmarks, sorted; none where the package isn't there."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return []
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    return sorted(module.name for module in found if not module.name.startswith("_"))
