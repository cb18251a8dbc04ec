"""``streammem watch``: a source into a memory, with progress; a second call goes on where the first stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

if TYPE_CHECKING:
    from streammem.config import Config

app = typer.Typer(add_completion=False)


@app.command()
def watch(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A video, a folder of pictures, a camera, rtsp://...")
    ],
    memory: o.MemoryDir = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="ADDRESS", help="Into a memory service: tcp://HOST:PORT.")
    ] = None,
    key: o.Key = None,
    speed: Annotated[
        float | None,
        typer.Option("--speed", metavar="N", help="Play a recording N times as fast as it was (1: real time)."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            "--track",
            metavar="[NAME=]WHERE[@S]",
            help="Follow an object: x,y or x0,y0,x1,y1 or mask.png, in the frame at S seconds, or 'a dog', where it is"
            " first seen from then on (may be repeated); or all that detector:PATH.onnx[,looks=lite0][,label=NAME]"
            " finds.",
        ),
    ] = None,
    track_policy: Annotated[
        str, typer.Option("--track-policy", help="Which frames of an object are kept.")
    ] = "diverse",
    track_model: Annotated[
        str | None,
        typer.Option("--track-model", metavar="NAME|DIR", help="Follow with SAM 2 or EdgeTAM instead; extra models."),
    ] = None,
    track_fps: Annotated[float, typer.Option("--track-fps", min=0.1, max=240, help="Frames a second followed.")] = 10.0,
    rewatch: o.Rewatch = False,
    fps: o.Fps = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """Watch a source and remember it. Ctrl-C stops it; the same command goes on from there."""
    settings = o.load(config, set_, fps).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli.present import plain
    from streammem.cli.watched import ensure_watched

    if track:
        from streammem.cli.tracking import check_prompts, track_into
        from streammem.errors import InputError

        if to is not None or source.startswith("zmq+"):
            raise InputError("--track follows objects into a memory's directory", hint="leave out --to")
        check_prompts(track, track_model)
    if source.startswith("zmq+"):
        return _relay(source.removeprefix("zmq+"), to, settings, out, key=key)
    if to is not None:
        return _into_service(source, to, settings, out, memory=memory, key=key, rewatch=rewatch, speed=speed)
    place, facts = ensure_watched(source, settings, out, directory=memory, rewatch=rewatch, speed=speed)
    report = facts.pop("report", None)
    if track:
        facts["tracked"] = track_into(
            source, place, track, settings, out, policy=track_policy, fps=track_fps, model=track_model
        )
    if json:
        watched = plain(report) | {"rate": report.rate, "shares": report.shares} if report is not None else None
        out.document({"memory": str(place), **facts, "watched": watched})
        return 0
    if (report is None or not report.frames) and not track:
        out.note("already watched; nothing to do (--rewatch does it again)")
    out.line(str(place))
    return 0


def _relay(bind: str, to: str | None, config: Config, out: Output, *, key: str | None) -> int:
    """Hand on what producers send to ``bind``, until Ctrl-C or SIGTERM."""
    import signal

    from streammem.cli.remote import is_address
    from streammem.errors import InputError
    from streammem.relay import open_relay

    if to is None or not is_address(to) or not is_address(bind):
        raise InputError(
            "a relay needs an address to listen at and one to hand on to",
            hint="streammem watch zmq+tcp://127.0.0.1:5580 --to tcp://HOST:5570",
        )
    with open_relay(bind, to, key=key, config=config.service) as service:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.stop())
        out.note(f"relaying {service.address} to {to}")
        complete = service.run()
    out.note("stopped; everything received is durable there" if complete else "stopped; producers hold the rest")
    return 0 if complete else 1


def _into_service(
    source: str,
    address: str,
    config: Config,
    out: Output,
    *,
    memory: str | None,
    key: str | None,
    rewatch: bool,
    speed: float | None,
) -> int:
    from streammem.cli.present import plain
    from streammem.cli.remote import is_address, watch_to
    from streammem.errors import InputError

    if memory is not None or not is_address(address):
        raise InputError("--to takes the address of a service", hint="tcp://HOST:PORT; --memory DIR takes a directory")
    report = watch_to(source, address, config, out, key=key, rewatch=rewatch, speed=speed)
    if out.as_json:
        out.document({"service": address, "watched": plain(report) | {"rate": report.rate, "shares": report.shares}})
    else:
        out.line(report.stream)
    return 0
