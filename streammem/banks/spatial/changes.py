"""What is different between two states of one map."""

from __future__ import annotations

import numpy as np

from streammem.banks.base import Reader
from streammem.banks.spatial.answers import Change
from streammem.banks.spatial.finding import find_things
from streammem.banks.spatial.scope import Scene, evidence_of, point, steps_of_records
from streammem.banks.spatial.things import SAME_M
from streammem.model import Why

_NEIGHBOURS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])


def between_views(reader: Reader, before: Scene, after: Scene, between: tuple[int, int], least: int) -> list[Change]:
    """Leaves that appeared (free space had been seen there), leaves that are gone (looked there since: empty), things
    sighted elsewhere; the largest first."""
    difference = before.view.tree.difference(after.view.tree)
    tree, free = before.view.tree, before.view.free
    # A coarse free cell that held anything is the edge of it: finer leaves there are noise, not news.
    held = free.find(tree.surface(np.flatnonzero(tree.occupied)))
    empty = np.ones(len(free) + 1, bool)
    empty[held[held >= 0]] = False
    cell = free.find(difference.appeared_m)
    seen_free = (cell >= 0) & empty[cell]
    found = _groups(reader, after, "appeared", difference.appeared_m[seen_free], least)
    found += _groups(reader, after, "gone", difference.gone_m, least)
    found.sort(key=lambda change: (-change.leaves, change.kind, change.centre_m))
    return found + _moved(reader, after, between)


def _groups(reader: Reader, scene: Scene, kind: str, centres_m: np.ndarray, least: int) -> list[Change]:
    tree = scene.view.tree
    found = []
    for members in touching(np.floor((centres_m - tree.origin_m) / tree.voxel_m).astype(np.int64)):
        if len(members) < least:
            continue
        points = centres_m[members]
        rows = tree.find(points)
        rows = rows[rows >= 0]
        if kind == "appeared":
            steps = steps_of_records(scene.view, tree.column("record")[rows])
        else:
            looked = tree.column("looked_ns")[rows]
            steps = np.flatnonzero(np.isin(scene.view.steps["t_ns"], looked)).tolist()
        labels = sorted({name for row in rows.tolist() for name in tree.labels.of(row)})
        if steps:
            found.append(
                Change(
                    kind=kind,
                    centre_m=point(points.mean(axis=0)),
                    size_m=point(np.ptp(points, axis=0) + tree.voxel_m),
                    leaves=len(members),
                    labels=labels,
                    frame_id=scene.view.frame_id,
                    map_version=scene.view.map_version,
                    from_m=None,
                    evidence=evidence_of(reader, scene, steps, 1.0, Why("depth", 1.0, f"{len(members)} leaves")),
                )
            )
    return found


def touching(cells: np.ndarray) -> list[np.ndarray]:
    """Groups of cells (n, 3) that touch by face, edge or corner: numbers of their members, each group sorted."""
    number = {tuple(cell): at for at, cell in enumerate(cells.tolist())}
    group = np.full(len(cells), -1, np.int64)
    found: list[np.ndarray] = []
    for start in range(len(cells)):
        if group[start] >= 0:
            continue
        group[start] = len(found)
        members, todo = [start], [start]
        while todo:
            for cell in (cells[todo.pop()] + _NEIGHBOURS).tolist():
                at = number.get(tuple(cell))
                if at is not None and group[at] < 0:
                    group[at] = len(found)
                    members.append(at)
                    todo.append(at)
        found.append(np.array(sorted(members)))
    return found


def _moved(reader: Reader, after: Scene, between: tuple[int, int]) -> list[Change]:
    """A measured thing of a label that has exactly one, before and since, at another place."""
    found = []
    old = [thing for thing in find_things(reader, after, between=(None, between[0])) if thing.placed]
    new = [thing for thing in find_things(reader, after, between=(between[0] + 1, between[1])) if thing.placed]
    for label in sorted({thing.label for thing in old} & {thing.label for thing in new}):
        was, now = ([thing for thing in things if thing.label == label] for things in (old, new))
        if len(was) != 1 or len(now) != 1:
            continue
        away = float(np.linalg.norm(np.array(was[0].point_m) - np.array(now[0].point_m)))
        if away > SAME_M:
            found.append(
                Change(
                    kind="moved",
                    centre_m=now[0].point_m,
                    size_m=(0.0, 0.0, 0.0),
                    leaves=0,
                    labels=[label],
                    frame_id=after.view.frame_id,
                    map_version=after.view.map_version,
                    from_m=was[0].point_m,
                    evidence=now[0].evidence,
                )
            )
    return found
