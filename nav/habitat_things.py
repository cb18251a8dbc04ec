"""Rigid objects of an episode in a running habitat-sim: put in, labelled, hidden while carried, put down.

They are kinematic: placed, never simulated, so that the same episode gives the same pictures. Poses are (4, 4) in
Habitat's frame. Labels are semantic ids, which the instance pictures show.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nav.habitat_frames import quaternion_from_matrix
from streammem.errors import SourceError

_AWAY_M = -1000.0
"""Where a carried thing is: far under the floor. Removing it would change the ids of the others."""


class HabitatThings:
    """``module`` is habitat_sim, ``simulator`` a running ``habitat_sim.Simulator``."""

    def __init__(self, module: Any, simulator: Any) -> None:
        self._habitat = module
        self._templates = simulator.get_object_template_manager()
        self._objects = simulator.get_rigid_object_manager()

    def load(self, folders: list[str]) -> None:
        """Make the assets of these folders known. Raises SourceError for a folder without any."""
        for folder in folders:
            if not self._templates.load_configs(folder):
                raise SourceError(
                    f"{folder}: no objects are here",
                    hint="hf download ai-habitat/OVMM_objects --repo-type dataset --local-dir data/objects",
                )

    def add(self, asset: str, matrix: np.ndarray) -> str:
        """Put one thing into the scene; returns its handle. Raises SourceError for an unknown asset."""
        # Found by a part of the name: the shortest is the asset itself.
        handles = sorted(self._templates.get_template_handles(asset), key=len)
        made = self._objects.add_object_by_template_handle(handles[0]) if handles else None
        if made is None:
            raise SourceError(f"the asset {asset!r} isn't known", hint="are all object folders of the episode there?")
        made.motion_type = self._habitat.physics.MotionType.KINEMATIC
        self._put(made, matrix)
        return str(made.handle)

    def place(self, handle: str, matrix: np.ndarray) -> None:
        self._put(self._one(handle), matrix)

    def hide(self, handle: str) -> None:
        """The robot carries it."""
        self._one(handle).translation = np.array([0.0, _AWAY_M, 0.0], np.float32)

    def label(self, handle: str, instance: int) -> None:
        """What the semantic sensor shows for it."""
        self._one(handle).semantic_id = instance

    def __contains__(self, handle: str) -> bool:
        return handle in self._objects.get_object_handles()

    def position(self, handle: str) -> np.ndarray:
        """(3,) metres, Habitat's frame."""
        return np.asarray(self._one(handle).translation, float)

    def _one(self, handle: str) -> Any:
        found = self._objects.get_object_by_handle(handle)
        if found is None:
            raise SourceError(f"the scene has no object {handle!r}", hint="are scene and episode of one release?")
        return found

    def _put(self, thing: Any, matrix: np.ndarray) -> None:
        common = self._habitat.utils.common
        # Coefficients are x, y, z, w; the simulator wants its own quaternion.
        thing.rotation = common.quat_to_magnum(common.quat_from_coeffs(list(quaternion_from_matrix(matrix[:3, :3]))))
        thing.translation = np.asarray(matrix[:3, 3], np.float32)
