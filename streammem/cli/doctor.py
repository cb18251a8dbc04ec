"""``streammem doctor``: what works on this machine and what doesn't, and what to do about it."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

if TYPE_CHECKING:
    from perception.encoders.weights import WeightFile
    from streammem.config import Config
    from streammem.doctor import Check

app = typer.Typer(add_completion=False)

FAILED = 2


@app.command()
def doctor(
    memory: Annotated[
        str | None, typer.Argument(metavar="[MEMORY]", help="Check every byte of this memory too.")
    ] = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    json: o.Json = False,
) -> int:
    """Check the machine, the encoders and, where one is named, a memory. Exit code 2 where something fails."""
    from streammem import doctor as checks_of
    from streammem.cli.watched import existing_memory

    settings = o.load(config, set_)
    out = Output(as_json=json)
    # Named first, checked last: a wrong name must not cost the minute that the rest may take.
    place = existing_memory(memory, settings.config) if memory is not None else None
    checks: list[Check] = []
    section = ""
    for check in _all(settings.config, place):
        checks.append(check)
        if not json:
            section = _print(check, section, out)
    level = checks_of.worst(checks)
    if json:
        shown = [
            {"section": c.section, "name": c.name, "level": c.level, "detail": c.detail, "hint": c.hint} for c in checks
        ]
        out.document({"level": level, "settings": str(settings.file) if settings.file else None, "checks": shown})
    else:
        counts = {name: sum(check.level == name for check in checks) for name in ("ok", "warn", "fail")}
        out.line("")
        out.line(
            f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} broken",
            {"ok": "green", "warn": "yellow", "fail": "red"}[level],
        )
    return FAILED if level == "fail" else 0


def _all(config: Config, memory: Path | None) -> Iterator[Check]:
    from streammem.doctor import machine_checks, memory_checks

    yield from machine_checks(config)
    yield from weight_checks()
    yield from signal_checks(config)
    yield from space_checks(config)
    yield from decoder_checks(config)
    if memory is not None:
        yield from memory_checks(memory)


def weight_checks() -> Iterator[Check]:
    """Every weight file: present, and with the expected hash. All bytes are read: about a second."""
    from perception.encoders import weights
    from streammem.doctor import Check
    from streammem.errors import ModelUnavailable

    for weight in weights.ALL:
        try:
            if weight is weights.WHISPER_BASE:
                _check_joined(weight, weights.WHISPER_BASE_REST)
            else:
                weights.read_verified(weight)
        except ModelUnavailable as error:
            # A missing file turns one signal off; only a wrong one is a fault.
            missing = "missing" in error.message
            yield Check("weights", weight.name, "warn" if missing else "fail", error.message, error.hint)
        else:
            yield Check("weights", weight.name, "ok", f"{weight.sha256[:12]}, {weight.licence} ({weight.package})")


def _check_joined(first: WeightFile, rest: WeightFile) -> None:
    """A model that comes in two packages has one hash, that of both parts together. Raises ModelUnavailable."""
    from perception.encoders import weights

    digest = hashlib.sha256()
    for part in (first, rest):
        with weights.find(part).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    weights.expect(first, digest.hexdigest(), f"{weights.find(first)} + {rest.package}")


def signal_checks(config: Config) -> Iterator[Check]:
    """What the encoders can tell with this configuration, and why a signal is off."""
    from perception.encoders.suite import EncoderSuite
    from streammem.doctor import Check
    from streammem.errors import StreammemError

    try:
        signals = EncoderSuite(config.perception).signals()
    except StreammemError as error:
        yield Check("signals", config.perception.space, "fail", error.message, error.hint)
        return
    for name, state in signals.items():
        if state == "on":
            yield Check("signals", name, "ok", "on")
        else:
            chosen = "configuration" in state or "turned off" in state
            yield Check("signals", name, "ok" if chosen else "warn", f"off: {state}", "" if chosen else "optional")


def space_checks(config: Config) -> Iterator[Check]:
    """The embedding spaces that are installed, and whether the configured one is."""
    from streammem.doctor import Check
    from streammem.spaces import available_spaces

    names = available_spaces()
    for name in names:
        used = " (used)" if name == config.perception.space else ""
        detail = "installed" + used
        if name in ("clip", "siglip2"):
            hub = importlib.util.find_spec("transformers") is not None
            detail += "; needs weights: --set perception.model=FOLDER" if hub else "; pip install 'streammem[models]'"
        yield Check("spaces", name, "ok", detail)
    if config.perception.space not in names:
        hint = f"choose one of {', '.join(names)}" if names else "pip install -e . registers them"
        yield Check("spaces", config.perception.space, "fail", "not installed", hint)


def decoder_checks(config: Config) -> Iterator[Check]:
    """The decoders, and which of the common codecs PyAV's FFmpeg can read."""
    from perception.decoders import DECODERS
    from streammem.doctor import Check, Level

    modules = {"pyav": "av", "decord": "decord", "opencv": "cv2"}
    for name in DECODERS:
        used = " (used)" if name == config.perception.decoder else ""
        if importlib.util.find_spec(modules[name]) is None:
            level: Level = "fail" if used else "warn"
            yield Check("decoders", name, level, f"not installed{used}", f"pip install {modules[name]}")
            continue
        detail = "installed"
        if name == "pyav":
            import av
            from av.codec import codecs_available

            wanted = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "prores", "ffv1")
            missing = [codec for codec in wanted if codec not in codecs_available]
            detail = f"{av.__version__}, reads {', '.join(codec for codec in wanted if codec not in missing)}"
        yield Check("decoders", name, "ok", detail + used)


def _print(check: Check, section: str, out: Output) -> str:
    from rich.text import Text

    from streammem.printable import printable

    if check.section != section:
        out.line("")
        out.line(check.section, "bold")
    mark, style = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}[check.level]
    line = Text.assemble((f"  {mark} ", style), f"{check.name:<26} ", (printable(check.detail, 300), "dim"))
    out.result.print(line, soft_wrap=True)
    if check.hint and check.level != "ok":
        out.line(f"      -> {check.hint}", style.removeprefix("bold "))
    return check.section
