"""``streammem eval findingdory``: what an agent remembers of a day in a house, asked in 60 ways."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

app = typer.Typer(add_completion=False)


@app.command()
def findingdory(
    episodes: Annotated[str, typer.Option("--episodes", metavar="0-19", help="Seeds of homes: 0-19 or 3,5,8.")] = "0-4",
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", metavar="NAME", help="oracle, random, last_visible, memory, fifo...; may be repeated."),
    ] = None,
    env: Annotated[str, typer.Option("--env", help="mujoco, or rays (no OpenGL).")] = "mujoco",
    profile: Annotated[str, typer.Option("--profile", help="strict, or official (bug-compatible).")] = "strict",
    interactions: Annotated[int, typer.Option("--interactions", min=0, max=11, help="0: by the seed.")] = 0,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Of the pictures.")] = "120x160",
    out_dir: Annotated[str, typer.Option("--out", metavar="DIR", help="Where reports and episodes go.")] = "dory",
    drive: Annotated[bool, typer.Option("--drive", help="Agents with a map drive to their answers too.")] = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """The mini benchmark on procedural homes (never a FindingDory score). Goes on where a run into DIR stopped."""
    out = Output(as_json=json, quiet=quiet)
    from nav.findingdory import run as runner
    from nav.findingdory.report import markdown
    from streammem.errors import InputError

    if env not in ("mujoco", "rays"):
        raise InputError(f"there is no environment {env!r}", hint="mujoco or rays")
    if profile not in ("strict", "official"):
        raise InputError(f"there is no profile {profile!r}", hint="strict or official")
    seeds = runner.parse_seeds(episodes)
    setting = runner.Setting(
        draw="gl" if env == "mujoco" else "rays",
        profile="official" if profile == "official" else "strict",
        interactions=interactions,
        size=size,
        drive=drive,
    )
    done = [0]

    def told(seed: int, seconds: float) -> None:
        done[0] += 1
        out.note(f"{done[0]}/{len(seeds)}: home {seed} in {seconds:.1f} s")

    report = runner.run(seeds, agent or ["oracle", "random"], setting, Path(out_dir), told=told)
    if json:
        out.document(report)
    else:
        for line in markdown(report).splitlines():
            out.line(line)
        out.note(f"report, episodes and pictures: {out_dir}")
    return 0
