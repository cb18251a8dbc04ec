"""The options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streammem.settings import Settings

Target = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE|MEMORY|ADDRESS",
        help="A video, a folder of pictures, 'glob*.jpg', rtsp://..., a memory, or a service: tcp://HOST:PORT.",
    ),
]
MemoryArgument = Annotated[
    str, typer.Argument(metavar="MEMORY", help="A memory's directory, or a source watched before.")
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="FILE", envvar="STREAMMEM_KEY", help="Your key file, for a service that other machines reach."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes, no progress.")]
ConfigFile = Annotated[str | None, typer.Option("--config", metavar="FILE", help="A YAML file of settings.")]
Assign = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; may be repeated.")]
Fps = Annotated[str | None, typer.Option("--fps", metavar="N", help="Frames a second that are looked at.")]
MemoryDir = Annotated[
    str | None, typer.Option("--memory", metavar="DIR", help="Keep the memory here, not in the cache.")
]
Rewatch = Annotated[bool, typer.Option("--rewatch", help="Forget an earlier watch of this source and watch it anew.")]
Between = Annotated[
    tuple[str, str] | None,
    typer.Option("--between", metavar="A B", help="Only this time: 14:22 15:00, -10m now, 2026-11-22T14:00Z now."),
]
Streams = Annotated[
    list[str] | None, typer.Option("--stream", metavar="NAME", help="Only this stream; may be repeated.")
]
Count = Annotated[str | None, typer.Option("--k", metavar="N", help="How many moments.")]


def load(
    config: str | None = None,
    assign: list[str] | None = None,
    fps: str | None = None,
    k: str | None = None,
) -> Settings:
    """The settings of this run, flags included. Raises ConfigError."""
    from streammem.settings import load_settings

    flags = {"--fps perception.fps": fps, "--k recall.k": k}
    given = {name: value for name, value in flags.items() if value is not None}
    return load_settings(file=config, flags=given, assignments=assign or ())
