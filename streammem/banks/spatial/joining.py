"""Submaps added up: the joint octree, the graph of places at corrected positions, and everything that was sighted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streammem.banks.spatial import geometry
from streammem.banks.spatial.octree import Octree
from streammem.banks.spatial.submap import SIGHTING, STEP, Submap
from streammem.banks.spatial.topology import Topology
from streammem.banks.spatial.versions import Correction, moved_pose, pose_of, row_of
from streammem.config import SpatialConfig

FREE_LEVELS = 2
"""Free cells are four voxels wide."""


@dataclass(slots=True)
class Joined:
    """A map as of one version. ``steps`` and ``sightings`` (their labels are numbers into ``names``) are corrected and
    in order of submaps. ``up`` (3,): the sum of the cameras' own upward directions."""

    frame_id: str
    map_version: int
    tree: Octree
    free: Octree
    topology: Topology
    steps: np.ndarray
    sightings: np.ndarray
    names: list[str]
    up: np.ndarray


class Joiner:
    """Adds submaps up, each moved by the newest correction that is allowed to count."""

    def __init__(self, config: SpatialConfig, corrections: Sequence[Correction], version: int | None = None) -> None:
        """``version``: corrections of newer versions are ignored; None: all count."""
        self._config = config
        self._corrections = [each for each in corrections if version is None or each.map_version <= version]

    def transform(self, submap: Submap) -> np.ndarray | None:
        """Where the newest correction puts a submap (4, 4); None: where it was."""
        later = [
            each
            for each in self._corrections
            if each.frame_id == submap.frame_id and each.map_version > submap.map_version
        ]
        return max(later, key=lambda each: each.map_version).transform_for(submap.steps) if later else None

    def add(self, tree: Octree, free: Octree, submap: Submap) -> None:
        """One more submap on top of a tree and its free cells."""
        transform = self.transform(submap)
        tree.add(submap.tree, transform)
        free.add(submap.free, transform)

    def trees(self, submaps: Sequence[Submap]) -> tuple[Octree, Octree]:
        """Leaves and free cells of all these submaps."""
        voxel = self._config.voxel_m
        tree, free = Octree(voxel, (0.0, 0.0, 0.0), 8), Octree(voxel * 2**FREE_LEVELS, (0.0, 0.0, 0.0), 8 - FREE_LEVELS)
        for submap in submaps:
            self.add(tree, free, submap)
        return tree, free

    def new_topology(self) -> Topology:
        """Costs are metres: nothing here knows instructions."""
        place_m = self._config.place_m
        return Topology(delta=self._config.place_delta, gate_m=place_m, same_spot_m=place_m / 2, alpha=1.0, beta=0.0)

    def topology(self, submaps: Sequence[Submap]) -> Topology:
        """The graph, as it was decided step by step, at corrected positions."""
        graph = self.new_topology()
        for submap in submaps:
            transform = self.transform(submap)
            vectors = iter(submap.view_vectors)
            for step in submap.steps:
                pose = pose_of(step["pose"], submap.frame_id)
                if transform is not None:
                    pose = moved_pose(pose, transform, 0)
                vector = next(vectors, None) if step["view"] else None
                if not step["linked"]:
                    graph.current = None
                graph.apply(
                    int(step["place"]),
                    pose.position_m,
                    None if vector is None or not len(vector) else vector.astype(np.float32),
                    int(step["t_ns"]),
                    int(step["record"]),
                    direction=geometry.rotation_from_quaternion(pose.q_xyzw)[:, 2],
                    keep_view=bool(step["view"]),
                )
        return graph

    def join(self, submaps: Sequence[Submap], frame_id: str, tree: Octree, free: Octree) -> Joined:
        """Everything of these submaps; ``tree`` and ``free`` are what :meth:`trees` gives of them."""
        names: list[str] = []
        steps, sightings = [np.empty(0, STEP)], [np.empty(0, SIGHTING)]
        up = np.zeros(3)
        for submap in submaps:
            transform = self.transform(submap)
            own_steps, own_sightings = submap.steps.copy(), submap.sightings.copy()
            if transform is not None:
                for step in own_steps:
                    step["pose"] = row_of(moved_pose(pose_of(step["pose"], frame_id), transform, 0))
                own_sightings["point"] = geometry.apply(transform, own_sightings["point"])
            names += [name for name in submap.labels if name not in names]
            if len(own_sightings):
                numbers = np.array([names.index(name) for name in submap.labels], np.int32)
                own_sightings["label"] = numbers[own_sightings["label"]]
            steps.append(own_steps)
            sightings.append(own_sightings)
            for step in own_steps:
                up -= geometry.rotation_from_quaternion(tuple(step["pose"][3:]))[:, 1]
        versions = [submap.map_version for submap in submaps]
        versions += [each.map_version for each in self._corrections if each.frame_id == frame_id]
        return Joined(
            frame_id,
            max(versions, default=0),
            tree,
            free,
            self.topology(submaps),
            np.concatenate(steps),
            np.concatenate(sightings),
            names,
            up,
        )
