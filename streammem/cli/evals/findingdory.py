"""``streammem eval findingdory``: what an agent remembers of a day in a house, asked in 60 ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

if TYPE_CHECKING:
    from nav.findingdory.metered import Metered
    from streammem.config import Config

app = typer.Typer(add_completion=False)

ENVIRONMENTS = ("mujoco", "rays", "habitat", "offline")


@app.command()
def findingdory(
    episodes: Annotated[
        str, typer.Option("--episodes", metavar="0-19", help="Of homes: seeds, 0-19 or 3,5,8; else ids, ep_1,ep_14.")
    ] = "",
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", metavar="NAME", help="oracle, random, last_visible, memory, pixels, llm...; repeat."),
    ] = None,
    env: Annotated[
        str, typer.Option("--env", help="mujoco; rays (no OpenGL); habitat; offline (the published questions, videos).")
    ] = "mujoco",
    data: Annotated[
        str, typer.Option("--data", metavar="DIR", help="The published files, for habitat and offline.")
    ] = "",
    split: Annotated[str, typer.Option("--split", help="Of the published files: validation or train.")] = "validation",
    frames: Annotated[
        int, typer.Option("--frames", help="Offline: 96 for the subsampled set, 0 for full-length videos.")
    ] = 0,
    scenes: Annotated[
        str, typer.Option("--scenes", metavar="FILE", help="Habitat: the .scene_dataset_config.json of the houses.")
    ] = "",
    profile: Annotated[str, typer.Option("--profile", help="strict, or official (bug-compatible).")] = "strict",
    interactions: Annotated[int, typer.Option("--interactions", min=0, max=11, help="0: by the seed.")] = 0,
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Of the pictures.")] = "120x160",
    out_dir: Annotated[str, typer.Option("--out", metavar="DIR", help="Where reports and episodes go.")] = "dory",
    drive: Annotated[bool, typer.Option("--drive", help="Agents with a map drive to their answers too.")] = False,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="A model's server, for llm.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Its model, or a model's folder.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="N=V,...", help="calls, tokens, seconds of llm in an episode.")
    ] = None,
    days: Annotated[
        str,
        typer.Option("--days", metavar="1,3,10", help="Lives in one home and one memory, asked after so many days."),
    ] = "",
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """FindingDory's questions: on procedural homes (never a FindingDory score), in Habitat, or on the published videos.

    Goes on where a run into DIR stopped."""
    settings = o.load(config, set_).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.errors import InputError

    if env not in ENVIRONMENTS:
        raise InputError(f"there is no environment {env!r}", hint=f"use one of {', '.join(ENVIRONMENTS)}")
    if profile not in ("strict", "official"):
        raise InputError(f"there is no profile {profile!r}", hint="strict or official")
    if env in ("habitat", "offline") and not data:
        raise InputError(
            f"where are the files of --env {env}?", hint="--data DIR; docs/findingdory.md says how to get them"
        )
    chat = _model(settings, endpoint, model, budget)
    folder = Path(out_dir)
    if days:
        report, lines = _lives(days, env, episodes, agent, folder, out,
                               profile=profile, interactions=interactions, size=size)  # fmt: skip
    elif env == "offline":
        report, lines = _offline(data, split, frames, episodes, agent, folder, settings, chat, out)
    else:
        report, lines = _worlds(env, data, split, scenes, episodes, agent, folder, chat, out,
                                profile=profile, interactions=interactions, size=size, drive=drive)  # fmt: skip
    if json:
        out.document(report)
    else:
        for line in lines.splitlines():
            out.line(line)
        out.note(f"report, episodes and pictures: {folder}")
    return 0


def _model(settings: Config, endpoint: str | None, model: str | None, budget: str | None) -> Callable[[], Metered]:
    """The model of the agent ``llm``, made when it is asked for."""

    def made() -> Metered:
        from nav.findingdory.metered import Metered
        from streammem.cli.reasoned import chat_model
        from streammem.reason.base import Budget

        return Metered(chat_model(settings.reason, endpoint, model), Budget.parse(budget or ""))

    return made


def _offline(
    data: str,
    split: str,
    frames: int,
    episodes: str,
    names: list[str] | None,
    folder: Path,
    settings: Config,
    chat: Callable[[], Metered],
    out: Output,
) -> tuple[dict[str, Any], str]:
    """The published rows and videos."""
    from nav.findingdory import offline_run
    from nav.findingdory.dataset import OfflineSet
    from perception.encoders.suite import EncoderSuite
    from streammem.errors import InputError

    if frames not in (0, 96):
        raise InputError(f"no set has {frames} frames", hint="--frames 96, or 0 for full-length videos")
    rows = OfflineSet(data, split, frames=frames or None)  # type: ignore[arg-type]
    wanted = _ids(episodes)
    chat_id = chat().id if "llm" in (names or ()) else ""
    report = offline_run.run(
        rows,
        names or ["oracle", "random", "pixels"],
        folder,
        make=lambda name: offline_run.make_agent(
            name, lambda config: EncoderSuite(config.perception, cache=config.cache_dir), settings, chat
        ),
        episodes=wanted,
        told=_progress(out, len(wanted) or len(rows.episodes())),
        missed=lambda error: out.note(f"left out: {error.message}; {error.hint}"),
        made_with={"perception": settings.perception.model_dump(mode="json"), "model": chat_id},
    )
    return report, offline_run.markdown(report)


def _worlds(
    env: str,
    data: str,
    split: str,
    scenes: str,
    episodes: str,
    names: list[str] | None,
    folder: Path,
    chat: Callable[[], Metered],
    out: Output,
    **setting: Any,
) -> tuple[dict[str, Any], str]:
    """Homes of a simulator."""
    from nav.findingdory import run as runner
    from nav.findingdory.report import markdown

    wanted: list[Any] = list(_ids(episodes) if env == "habitat" else runner.parse_seeds(episodes or "0-4"))
    model = chat().id if "llm" in (names or ()) else ""
    llm = {"llm": lambda world, asked: runner.model_agent(chat)}
    if env == "habitat":
        from nav.findingdory.dataset import EpisodeSet
        from nav.habitat_day import NOTE, open_days

        read = EpisodeSet(data, split)  # type: ignore[arg-type]
        worlds = open_days(read, wanted, scenes=scenes, size=str(setting["size"]))
        told = _progress(out, len(worlds))
        made = runner.Setting(draw="habitat", model=model, data=read.fingerprint, **setting)
        report = runner.run_worlds(worlds, names or ["oracle", "random"], made, folder, NOTE, told=told, agents=llm)
    else:
        told = _progress(out, len(wanted))
        made = runner.Setting(draw="gl" if env == "mujoco" else "rays", model=model, **setting)
        report = runner.run(wanted, names or ["oracle", "random"], made, folder, told=told, agents=llm)
    return report, markdown(report)


def _progress(out: Output, total: int) -> Callable[[str, float], None]:
    """A note for each episode: how far, how long it took, how long still at the pace of those that were run now."""
    took: list[float] = []

    def told(episode: str, seconds: float) -> None:
        took.append(seconds)
        run = [one for one in took if one > 0.05] or [0.0]  # what an earlier run did takes no time
        left = sum(run) / len(run) * (total - len(took))
        ahead = f", about {left:.0f} s left" if left >= 1 else ""
        out.note(f"{len(took)}/{total}: {episode} in {seconds:.1f} s{ahead}")

    return told


def _ids(episodes: str) -> list[str]:
    return [name.strip() for name in episodes.split(",") if name.strip()]


def _lives(
    days: str, env: str, episodes: str, names: list[str] | None, folder: Path, out: Output, **setting: Any
) -> tuple[dict[str, Any], str]:
    """Days in a row, in homes of our own."""
    from nav.findingdory import lives
    from nav.findingdory.run import Setting, parse_seeds
    from streammem.errors import InputError

    if env not in ("mujoco", "rays"):
        raise InputError(f"lives of days aren't lived in {env}", hint="use --env mujoco or rays")
    made = Setting(draw="gl" if env == "mujoco" else "rays", **setting)
    report = lives.run(
        parse_seeds(episodes or "0-2"),
        names or lives.DEFAULT,
        lives.parse_days(days),
        made,
        folder,
        told=lambda seed, seconds: out.note(f"home {seed} in {seconds:.1f} s"),
    )
    return report, lives.markdown(report)
