"""``streammem eval tracking``: J, F and J&F of the tracker by memory policy, and the occlusion suite; for boxes with
identities HOTA, IDF1 and MOTA (boxes.py)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

if TYPE_CHECKING:
    from perception.trackers.evaluate import ClipScore
    from perception.trackers.evaluate_occlusion import OcclusionScore

app = typer.Typer(add_completion=False)

SUITE = "synthetic:occlusion"
DEFAULT = ("fifo", "gated", "diverse")


@app.command()
def tracking(
    data: Annotated[
        str,
        typer.Argument(metavar=f"DATA|{SUITE}", help="NAME/frames + NAME/masks, DAVIS, or MOTChallenge."),
    ],
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="NAME", help="Memory policy; may be repeated; 'all'.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Only this sequence or kind; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Clips of each kind of the suite.")] = 10,
    frames: Annotated[int | None, typer.Option("--frames", min=3, help="At most so many frames a sequence.")] = None,
    refinement: Annotated[str, typer.Option("--refinement", help="guided, grabcut or none.")] = "none",
    recent: Annotated[int, typer.Option("--recent", min=0, max=6, help="Recent frames that are asked.")] = 3,
    detector: Annotated[
        str | None, typer.Option("--detector", metavar="PATH", help="Boxes: detect with this instead of det.txt.")
    ] = None,
    looks: Annotated[
        str | None, typer.Option("--looks", metavar="lite0|PATH", help="Boxes: what describes how they look.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Boxes: classes of the detector; default person.")
    ] = None,
    blackout: Annotated[
        int, typer.Option("--blackout", min=0, help="Boxes: nothing is detected in so many frames in the middle.")
    ] = 0,
    keep: Annotated[
        Path | None, typer.Option("--keep", help=f"{SUITE}: a file of what is done, added to clip by clip.")
    ] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """How well masks are followed, with the first mask copied as the baseline; or boxes, against SORT and ByteTrack."""
    out = Output(as_json=json, quiet=quiet)
    from perception.trackers.mot import is_mot

    if data != SUITE and Path(data).is_dir() and is_mot(Path(data)):
        from streammem.cli.evals.boxes import score_boxes_in

        return score_boxes_in(
            Path(data), out, only=only or [], detector=detector, looks=looks, classes=label or [], blackout=blackout
        )
    from perception.trackers import evaluate
    from perception.trackers.propagation import PropagationSettings
    from streammem.banks.policies import POLICIES, make_policy
    from streammem.errors import InputError

    names = [name for name in POLICIES if name != "first"] if policy == ["all"] else list(policy or DEFAULT)
    for name in names:
        make_policy(name)
    if refinement not in ("none", "guided", "grabcut"):
        raise InputError(f"there is no refinement {refinement!r}", hint="guided, grabcut or none")
    settings = PropagationSettings(refinement=refinement, recent=recent)  # type: ignore[arg-type]
    names = [evaluate.COPY, *names]
    if data == SUITE:
        from perception.trackers.evaluate_occlusion import run_suite, summarise
        from perception.trackers.occlusion import KINDS

        kinds = [_known(name, KINDS) for name in only or KINDS]
        outcomes = run_suite(
            names,
            kinds=kinds,
            seeds=seeds,
            settings=settings,
            keep=keep,
            progress=lambda kind, seed, found: out.note(
                f"{kind} {seed}: " + ", ".join(f"{one.policy} {one.after:.2f}" for one in found)
            ),
        )
        _show_occlusion(out, summarise(outcomes), kinds, names)
        return 0
    sequences = evaluate.find_sequences(Path(data))
    wanted = [_known(name, [one.name for one in sequences]) for name in only or ()]
    chosen = [one for one in sequences if not wanted or one.name in wanted]
    clips = []
    for sequence in chosen:
        clips += evaluate.score_sequence(sequence, names, settings=settings, most=frames)
        out.note(f"{sequence.name}: " + ", ".join(f"{one.policy} {one.jf:.3f}" for one in clips[-len(names) :]))
    _show_clips(out, clips, [one.name for one in chosen], names)
    return 0


def _known(name: str, names: list[str] | tuple[str, ...]) -> str:
    from streammem.errors import InputError

    if name not in names:
        raise InputError(f"there is no {name!r} in it", hint=f"one of: {', '.join(names)}")
    return name


def _show_clips(out: Output, scores: list[ClipScore], clips: list[str], policies: list[str]) -> None:
    from dataclasses import asdict

    if out.as_json:
        out.document({"clips": [asdict(score) | {"jf": score.jf} for score in scores]})
        return
    from rich.table import Table

    table = Table(*["policy", *clips, "J", "F", "J&F", "CPU s/frame", "frames/s", "MB"])
    for policy in policies:
        mine = [score for score in scores if score.policy == policy]
        n = len(mine)
        wall = sum(score.wall_s for score in mine) / n
        table.add_row(
            policy,
            *(f"{score.jf:.3f}" for score in mine),
            f"{sum(score.j for score in mine) / n:.3f}",
            f"{sum(score.f for score in mine) / n:.3f}",
            f"{sum(score.jf for score in mine) / n:.3f}",
            f"{sum(score.cpu_s for score in mine) / n:.3f}" if wall else "",
            f"{1 / wall:.1f}" if wall else "",
            f"{max(max(score.bytes, default=0) for score in mine) / 1e6:.1f}" if wall else "",
        )
    out.result.print(table)


def _show_occlusion(out: Output, scores: list[OcclusionScore], kinds: list[str], policies: list[str]) -> None:
    from dataclasses import asdict

    if out.as_json:
        out.document({"occlusion": [asdict(score) for score in scores]})
        return
    from rich.table import Table

    table = Table(*["policy", *(f"{kind}: J after" for kind in kinds), "mean", "J before", "false area", "at most"])
    for policy in policies:
        mine = {score.kind: score for score in scores if score.policy == policy}
        found = [mine[kind] for kind in kinds if kind in mine]
        n = len(found)
        table.add_row(
            policy,
            *(f"{score.after:.3f} ({score.low:.2f}–{score.high:.2f})" for score in found),
            f"{sum(score.after for score in found) / n:.3f}",
            f"{sum(score.before for score in found) / n:.3f}",
            f"{sum(score.false_area for score in found) / n:.2%}",
            f"{max(score.false_most for score in found):.2%}",
        )
    out.result.print(table)
