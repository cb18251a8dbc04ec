"""``streammem eval tracking`` on sequences with boxes: HOTA, IDF1, MOTA and identity switches, against baselines."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from streammem.cli.output import Output

if TYPE_CHECKING:
    from perception.trackers.evaluate_boxes import BoxRun


def score_boxes_in(
    folder: Path,
    out: Output,
    *,
    only: list[str],
    detector: str | None,
    looks: str | None,
    classes: list[str],
    blackout: int = 0,
) -> int:
    """Run every tracker over every sequence of ``folder`` and show a table."""
    from perception.trackers import baselines, evaluate_boxes
    from perception.trackers.appearance import open_appearance
    from perception.trackers.association import AssociationSettings
    from perception.trackers.detectors import open_detector
    from perception.trackers.mot import find_mot
    from streammem.errors import InputError

    sequences = find_mot(folder)
    known = [one.name for one in sequences]
    for name in only:
        if name not in known:
            raise InputError(f"there is no {name!r} in it", hint=f"one of: {', '.join(known)}")
    chosen = [one for one in sequences if not only or one.name in only]
    finder = open_detector(detector, classes=classes or ["person"]) if detector else None
    if finder is not None:
        for one in chosen:
            if one.video is None and not one.pictures:
                out.note(f"{one.name}: no pictures to detect in, left out")
        chosen = [one for one in chosen if one.video is not None or one.pictures]
    describer = open_appearance(looks) if looks else None
    rivals = list(baselines.BASELINES) if baselines.available() else []
    if not rivals:
        out.note(f"no baselines: the packages trackers and supervision aren't installed ({baselines.HINT})")
    runs: list[BoxRun] = []
    for sequence in chosen:
        plain, described = evaluate_boxes.detections(sequence, finder, describer)
        if blackout:
            plain = evaluate_boxes.blacked_out(plain, blackout)
            described = evaluate_boxes.blacked_out(described, blackout) if described is not None else None
        for name in [*rivals, evaluate_boxes.OURS]:
            runs.append(evaluate_boxes.run_tracker(sequence, name, plain))
        if described is not None and describer is not None:
            settings = AssociationSettings(alike=describer.alike)
            runs.append(evaluate_boxes.run_tracker(sequence, evaluate_boxes.WITH_LOOKS, described, settings))
        out.note(
            f"{sequence.name}: " + ", ".join(f"{run.tracker} {run.score.idf1:.3f}" for run in _of(runs, sequence.name))
        )
    if out.as_json:
        out.document({"runs": [asdict(run) for run in runs]})
        return 0
    _show(out, runs)
    return 0


def _of(runs: list[BoxRun], sequence: str) -> list[BoxRun]:
    return [run for run in runs if run.sequence == sequence]


def _show(out: Output, runs: list[BoxRun]) -> None:
    from rich.table import Table

    from perception.trackers.evaluate_boxes import mean_of

    names = (
        "sequence",
        "tracker",
        "IDF1",
        "HOTA",
        "MOTA",
        "switches",
        "tracks",
        "DetA",
        "AssA",
        "found",
        "false",
        "ms",
    )
    table = Table(*names, box=None, pad_edge=False)
    trackers = list(dict.fromkeys(run.tracker for run in runs))
    sequences = list(dict.fromkeys(run.sequence for run in runs))
    rows = [(run.sequence, run.tracker, run.score, run.ms) for run in runs]
    for tracker in trackers:
        mine = [run for run in runs if run.tracker == tracker]
        if len(mine) == len(sequences) > 1:
            rows.append(("mean / sum", tracker, mean_of(mine), sum(run.ms for run in mine) / len(mine)))
    for sequence, tracker, score, ms in rows:
        shares = (f"{value:.3f}" for value in (score.idf1, score.hota, score.mota))
        counts = (str(score.switches), str(score.tracks), f"{score.det:.3f}", f"{score.ass:.3f}")
        table.add_row(sequence, tracker, *shares, *counts, str(score.found), str(score.false), f"{ms:.2f}")
    out.result.print(table)
