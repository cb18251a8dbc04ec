"""Observations of a room of boxes, rendered; what a robot with a perfect detector would send."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import streammem.memory
from streammem.banks.spatial.geometry import pose_from_matrix
from streammem.benchmarks._boxes import CAMERA, BoxRoom, furnished, pose, walk
from streammem.config import Config, MemoryConfig, SpatialConfig
from streammem.model import Observation

SECOND = 10**9
ROOM = furnished()


STEPS = 24


def seen(number: int, without: str = "") -> tuple[np.ndarray, tuple[Any, ...], np.ndarray]:
    return _rendered(number % STEPS, without)


@cache
def _rendered(number: int, without: str) -> tuple[np.ndarray, tuple[Any, ...], np.ndarray]:
    """Depth, detections and matrix of a step of the walk; ``without`` takes a thing out of the room."""
    matrix = walk(STEPS)[number]
    room = ROOM
    if without:
        kept = [at for at, name in enumerate(ROOM.names) if name != without]
        room = BoxRoom(ROOM.inside, ROOM.boxes[kept], tuple(ROOM.names[at] for at in kept))
    depth, which = room.render(pose(matrix), matrix)
    return depth, room.detections(which), matrix


def moment(
    number: int,
    *,
    stream: str = "robot",
    moved: np.ndarray | None = None,
    frame_id: str = "flat",
    map_version: int = 0,
    without: str = "",
    **changes: Any,
) -> Observation:
    """Observation ``number`` of the walk, in a world that was ``moved`` (4 x 4)."""
    depth, detections, matrix = seen(number, without=without)
    if moved is not None:
        matrix = moved @ matrix
    picture = np.full((CAMERA.height, CAMERA.width, 3), 60 + number, np.uint8)
    given: dict[str, Any] = {
        "stream": stream,
        "seq": number,
        "capture_ns": number * SECOND,
        "depth_m": depth,
        "intrinsics": CAMERA,
        "pose": pose_from_matrix(matrix, frame_id, map_version),
        "detections": detections,
        "thumbnail": cv2.imencode(".jpg", picture)[1].tobytes(),
    }
    return Observation(**(given | changes))


def spatial_config(**changes: Any) -> Config:
    """Seals often, so that restarts meet sealed and open submaps."""
    settings: dict[str, Any] = {"voxel_m": 0.1, "points": 5000}
    return Config(memory=MemoryConfig(seal_bytes=600_000), spatial=SpatialConfig(**(settings | changes)))


def opened(directory: Path, **changes: Any) -> streammem.memory.Memory:
    return streammem.memory.open(directory, config=spatial_config(**changes))


def centre_of(name: str) -> np.ndarray:
    return ROOM.boxes[ROOM.names.index(name)].mean(axis=0)


def visible(first: int, last: int) -> str:
    """A thing that is seen in some moment of [first, last)."""
    names = [found.label for number in range(first, last) for found in seen(number)[1]]
    return max(sorted(set(names)), key=names.count)
