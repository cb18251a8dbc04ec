"""``streammem keys``: who may talk to a service from other machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streammem.cli.options import Json
from streammem.cli.output import Output

app = typer.Typer(
    no_args_is_help=True, help="Keys for services that other machines reach: new, list, revoke.", add_completion=False
)

Directory = Annotated[
    str | None,
    typer.Option("--keys", metavar="DIR", help="Default: $STREAMMEM_KEYS or ~/.config/streammem/keys."),
]


def _directory(given: str | None) -> Path:
    from streammem.keys import default_directory

    return Path(given).expanduser() if given else default_directory()


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for: kitchen-camera, anna-laptop ...")],
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="produce (write), query (ask) or admin (all).")],
    streams: Annotated[
        list[str] | None,
        typer.Option(
            "--streams", metavar="GLOB", help="Only these streams, 'kitchen*'; may be repeated. Default: all."
        ),
    ] = None,
    keys: Directory = None,
    json: Json = False,
) -> int:
    """Make a key pair and let it in. The first call makes the service's own pair as well. Nothing is overwritten."""
    from streammem.keys import ALLOW_FILE, SERVER, new_key

    directory = _directory(keys)
    pair = new_key(directory, name, role=role, streams=tuple(streams or ("*",)))
    out = Output(as_json=json)
    secret = directory / f"{name}.key_secret"
    if json:
        # The public key only: a JSON document ends up in logs.
        document = {"name": name, "role": role, "streams": streams or ["*"], "public_key": pair.public}
        out.document({**document, "secret_file": str(secret), "allow_file": str(directory / ALLOW_FILE)})
        return 0
    out.line(f"{name} may {role} on {', '.join(streams or ['all streams'])}", "bold")
    out.line(f"  for the client    {secret}   (secret: copy it over a safe channel, mode 0600)")
    out.line(f"  for the service   {directory / f'{SERVER}.key_secret'} and {directory / ALLOW_FILE}")
    out.note(f"service: streammem serve MEMORY --bind tcp://0.0.0.0:5570 --keys {directory}")
    out.note(f"client:  streammem status tcp://HOST:5570 --key {secret.name}")
    return 0


@app.command("list")
def list_(keys: Directory = None, json: Json = False) -> int:
    """Everyone who is let in, with role and streams. No secrets."""
    from streammem.keys import ALLOW_FILE, read_allow

    directory = _directory(keys)
    grants = read_allow(directory / ALLOW_FILE)
    out = Output(as_json=json)
    if json:
        clients = [
            {"name": grant.name, "role": grant.role, "streams": list(grant.streams), "public_key": grant.key}
            for grant in grants
        ]
        out.document({"directory": str(directory), "clients": clients})
        return 0
    width = max((len(grant.name) for grant in grants), default=4)
    for grant in grants:
        out.line(f"{grant.name:<{width}}  {grant.role:<7}  {', '.join(grant.streams)}")
    out.note(f"{len(grants)} in {directory / ALLOW_FILE}")
    return 0


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `streammem keys list` shows it.")],
    keys: Directory = None,
    json: Json = False,
) -> int:
    """Shut a client out. A running service notices at its next request; its files here are removed."""
    from streammem.keys import revoke as take_off

    gone = take_off(_directory(keys), name)
    out = Output(as_json=json)
    if json:
        out.document({"revoked": gone.name, "public_key": gone.key})
    else:
        out.line(f"{gone.name} is shut out ({gone.role} on {', '.join(gone.streams)})")
    return 0
