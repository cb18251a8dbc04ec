"""``streammem config``: the settings in force, where each came from, and whether a file is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streammem.cli.options import Assign, ConfigFile, Json, load
from streammem.cli.output import Output

if TYPE_CHECKING:
    from streammem.settings import Explained, Origin

app = typer.Typer(no_args_is_help=True, help="The settings: show, explain, validate.", add_completion=False)


@app.command()
def show(config: ConfigFile = None, set_: Assign = None, json: Json = False) -> int:
    """The settings in force as YAML that can be saved and used again; secrets are replaced."""
    settings = load(config, set_)
    out = Output(as_json=json)
    if json:
        out.document(settings.redacted())
        return 0
    import yaml

    out.note(f"file: {settings.file or 'none'}")
    for line in yaml.safe_dump(settings.redacted(), sort_keys=False, allow_unicode=True).splitlines():
        out.line(line)
    return 0


@app.command()
def explain(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="section.key, a section, or nothing for all.")
    ] = None,
    config: ConfigFile = None,
    set_: Assign = None,
    json: Json = False,
) -> int:
    """What a setting means, what it may be, who set it and what that overruled."""
    settings = load(config, set_)
    explained = settings.explain(key)
    out = Output(as_json=json)
    if json:
        out.document({"settings": [_as_document(item) for item in explained]})
        return 0
    for item in explained:
        _print(item, out, whole=key is not None)
    return 0


@app.command()
def validate(file: Annotated[str, typer.Argument(metavar="FILE", help="A YAML file.")], json: Json = False) -> int:
    """Check a file: unknown settings, wrong values, with line numbers. Exit code 2 where something is wrong."""
    from streammem.settings import validate_file

    problems = validate_file(Path(file))
    out = Output(as_json=json)
    if json:
        shown = [{"where": p.where, "key": p.key, "message": p.message, "hint": p.hint} for p in problems]
        out.document({"file": file, "valid": not problems, "problems": shown})
    elif problems:
        for problem in problems:
            out.line(str(problem), "red")
    else:
        out.line(f"{file}: valid", "green")
    return 2 if problems else 0


def _as_document(item: Explained) -> dict[str, Any]:
    def origin(given: Origin) -> dict[str, Any]:
        return {"layer": given.layer, "where": given.where, "value": given.value}

    return {
        "key": item.key,
        "value": item.value,
        "default": item.default,
        "kind": item.kind,
        "bounds": item.bounds,
        "unit": item.unit,
        "doc": item.doc,
        "winner": origin(item.winner),
        "lost": [origin(given) for given in item.lost],
    }


def _print(item: Explained, out: Output, *, whole: bool) -> None:
    from rich.text import Text

    from streammem.printable import printable

    shown = "''" if item.value == "" else printable(str(item.value))
    where = "" if item.winner.layer == "default" else f"   from {printable(item.winner.where)}"
    out.result.print(Text.assemble((item.key, "bold"), " = ", (shown, "cyan"), (where, "yellow")), soft_wrap=True)
    if not whole:
        return
    allowed = ", ".join(filter(None, [item.kind, item.bounds, item.unit]))
    for label, text in (("means", item.doc), ("allowed", allowed), ("default", str(item.default) or "''")):
        if text:
            out.line(f"    {label:<8} {text}", "dim" if label != "means" else "")
    for lost in item.lost:
        if lost.layer != "default":
            out.line(f"    overrules {lost.where}: {lost.value}", "dim")
