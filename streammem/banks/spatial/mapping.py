"""One moment goes into an open submap: its points, the free space before them, the things that it shows."""

from __future__ import annotations

import numpy as np

from streammem.banks.spatial import seeing
from streammem.banks.spatial.joining import FREE_LEVELS
from streammem.banks.spatial.octree import Octree
from streammem.banks.spatial.seeing import Points
from streammem.banks.spatial.submap import SIGHTING, Submap
from streammem.config import SpatialConfig
from streammem.model import Pose, Record

_LEVELS = 9
LOOK_EVERY = 2
"""Free space is looked for in every second moment with depth, which then counts for two: it costs as much as the
points."""
MARGIN = 1.5
"""A leaf is looked through when what is behind it is so many voxels further away."""


def begin(number: int, pose: Pose, config: SpatialConfig) -> Submap:
    """An empty submap: a cube of 25.6 m (5 cm voxels) around the pose, on the grid that all submaps share."""
    side = config.voxel_m * 2 ** (_LEVELS - 1)
    x, y, z = (np.floor(np.array(pose.position_m) / side - 0.5) * side).tolist()
    tree = Octree(config.voxel_m, (x, y, z), _LEVELS)
    free = Octree(config.voxel_m * 2**FREE_LEVELS, (x, y, z), _LEVELS - FREE_LEVELS)
    return Submap(number, pose.frame_id, pose.map_version, tree, free)


def points(record: Record, pose: Pose, config: SpatialConfig) -> Points | None:
    """The moment's points, or None where it has no depth. Raises ObservationError for depth that can't be used."""
    return seeing.points_of(record, pose, most=config.points, farthest_m=config.farthest_m)


def add(submap: Submap, record: Record, pose: Pose, seen: Points, config: SpatialConfig, base: Octree | None) -> None:
    """Points become leaves. With ``base``, the leaves of the closed submaps: what of them and of this submap was looked
    through is noted, and the free space before the points."""
    camera, depth, t_ns = record.intrinsics, record.arrays["depth_m"], record.t_start_ns
    if base is not None and camera is not None:
        here, reach = np.asarray(pose.position_m), config.farthest_m
        for tree in (base, submap.tree):
            rows = tree.box(here - reach, here + reach)
            rows = rows[tree.occupied[rows]]
            surface = tree.surface(rows)
            through = seeing.seen_through(surface, depth, camera, pose, MARGIN * config.voxel_m)
            submap.tree.look_at(surface[through], t_ns, LOOK_EVERY)
        spacing = submap.free.voxel_m
        submap.free.look_at(seeing.free_points(depth, camera, pose, spacing_m=spacing, farthest_m=reach), t_ns)
    submap.tree.insert(seen.xyz, t_ns, record.record_id, seen.rgb)


def sight(submap: Submap, record: Record, pose: Pose, points_: Points | None, config: SpatialConfig) -> None:
    """Detections and labels become sightings; the leaves of measured things get their names."""
    for thing in seeing.things_of(record, pose, least_score=config.label_score, farthest_m=config.farthest_m):
        number = submap.label_number(thing.name)
        row = (record.t_start_ns, record.record_id, number, thing.placed, thing.score, thing.point_m, thing.radius_m)
        submap.sightings = np.append(submap.sightings, np.array([row], SIGHTING))
        if thing.placed and points_ is not None:
            rows = seeing.rows_of_thing(submap.tree, thing, points_, record.arrays["depth_m"])
            if len(rows):
                submap.tree.labels.add(rows, thing.name, thing.score)
