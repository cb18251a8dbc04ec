"""From sightings to things: the same name at about the same place is one thing."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from streammem.banks.spatial.joining import Joined
from streammem.banks.spatial.octree import Octree

SAME_M = 0.5
"""Sightings of one name this near to the mean of the others are one thing."""
GONE = 0.3
"""A thing is gone when less than this share of its leaves is still occupied."""
CORE = 0.5
_WORD = re.compile(r"[^\W_]+")
_FILLER = frozenset("a an the my our your his her their of in on at is are was were where some any".split())


@dataclass(slots=True)
class Cluster:
    """``rows`` are numbers of sightings in the view, in order of time."""

    label: str
    placed: bool
    point_m: np.ndarray
    rows: list[int]
    weight: float
    radius_m: float


def match(label: str, text: str) -> float:
    """1 for the same words, 0.8 where the label holds all words of the text, 0.6 the other way round, else 0."""
    have, want = words(label), words(text)
    if not have or not want:
        return 0.0
    if have == want:
        return 1.0
    return 0.8 if want <= have else 0.6 if have <= want else 0.0


def words(text: str) -> frozenset[str]:
    """Words in lower case without fillers and without the plural's s."""
    found = (word for word in _WORD.findall(text.casefold()) if word not in _FILLER)
    return frozenset(word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word for word in found)


def clusters(view: Joined, label: str, rows: np.ndarray) -> list[Cluster]:
    """Things of one label among these sightings (in order of time). A sighting joins the nearest thing within
    :data:`SAME_M` or the thing's own radius; measured ones and guessed ones don't mix."""
    found: list[Cluster] = []
    for row in rows.tolist():
        sighting = view.sightings[row]
        point, score = sighting["point"].astype(np.float64), max(float(sighting["score"]), 1e-3)
        best, nearest = None, np.inf
        for cluster in found:
            away = float(np.linalg.norm(cluster.point_m - point))
            if cluster.placed == bool(sighting["placed"]) and away < nearest:
                best, nearest = cluster, away
        if best is None or nearest > max(SAME_M, best.radius_m):
            found.append(Cluster(label, bool(sighting["placed"]), point, [row], score, float(sighting["radius"])))
            continue
        best.weight += score
        best.point_m = best.point_m + (point - best.point_m) * (score / best.weight)
        best.radius_m += (float(sighting["radius"]) - best.radius_m) / (len(best.rows) + 1)
        best.rows.append(row)
    return found


def presence(tree: Octree, cluster: Cluster) -> tuple[str, int | None]:
    """Whether a thing's leaves are still occupied ("yes", "gone", "unknown"), and when they were last looked at."""
    if not cluster.placed:
        return "unknown", None
    labelled, _ = tree.labels.rows(cluster.label)
    # The middle of what was seen: at its edge are leaves of what it stands on, and they stay.
    near = tree.radius(cluster.point_m, max(CORE * cluster.radius_m, 1.5 * tree.voxel_m))
    rows = np.intersect1d(labelled, near)
    if not len(rows):
        return "unknown", None
    looked = int(tree.column("looked_ns")[rows].max())
    return ("gone" if float(tree.occupied[rows].mean()) < GONE else "yes"), looked
