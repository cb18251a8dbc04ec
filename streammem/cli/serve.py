"""``streammem serve``: a memory as a service that producers write to and people ask."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

app = typer.Typer(add_completion=False)

UNFLUSHED = 1


@app.command()
def serve(
    memory: Annotated[str, typer.Argument(metavar="MEMORY", help="The memory's directory; made where there is none.")],
    bind: Annotated[
        str | None,
        typer.Option("--bind", metavar="ADDRESS", help="Default tcp://127.0.0.1:5570; ipc:///PATH; a port * is free."),
    ] = None,
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="DIR", help="Let in the keys of this directory only (CURVE).")
    ] = None,
    feed: Annotated[
        str | None, typer.Option("--feed", metavar="ADDRESS", help="Publish the status here: tcp://127.0.0.1:5571.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", metavar="HOST:PORT", help="Prometheus metrics over HTTP; off by default.")
    ] = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """Serve a memory until Ctrl-C or SIGTERM: then what was received is written, at most for service.flush_seconds.

    With --json the first line of stdout says where it listens, before it serves. Exit code 1: not everything could be
    written in time (its producers still hold it)."""
    settings = o.load(config, set_).config
    out = Output(as_json=json, quiet=quiet)
    import streammem.memory
    from streammem.keys import ALLOW_FILE, SERVER, AllowList, load_keys
    from streammem.security import check_address
    from streammem.service import Service

    folder = Path(keys).expanduser() if keys else None
    pair = load_keys(folder / f"{SERVER}.key_secret") if folder else None
    allow = AllowList(folder / ALLOW_FILE) if folder else None
    # Before the memory is opened: a wrong address must not make a directory.
    check_address(bind or settings.service.bind, pair)
    with streammem.memory.open(memory, config=settings) as opened:
        service = Service(
            opened,
            config=settings.service,
            bind=bind or "",
            keys=pair,
            allow=allow,
            feed=feed or "",
            metrics=metrics or "",
            # From the environment: an argument would be in the list of processes.
            metrics_token=os.environ.get("STREAMMEM_METRICS_TOKEN", ""),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop())
        if json:
            out.document(
                {
                    "address": service.address,
                    "memory": str(opened.directory),
                    "epoch": service.epoch,
                    "feed": service.telling.feed_address,
                    "metrics_port": service.telling.metrics_port,
                }
            )
        out.note(f"serving {opened.directory} at {service.address}{' (CURVE)' if pair else ''}")
        complete = service.run()
    out.note("stopped; everything received is durable" if complete else "stopped; some packets were not written")
    return 0 if complete else UNFLUSHED
