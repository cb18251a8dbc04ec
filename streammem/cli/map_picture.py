"""The map from above as a picture, and the point cloud as a file. Works on what the spatial memory's questions return,
so that a service's map is drawn as one of this process is."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streammem.errors import StorageFull
from streammem.printable import printable

UNKNOWN, FREE, OCCUPIED = (200, 199, 195), (252, 252, 250), (52, 56, 66)
PATH_OLD, PATH_NEW, PLACE, HIT, GONE, WAY = (
    (150, 190, 235),
    (20, 90, 190),
    (22, 128, 74),
    (200, 40, 40),
    (176, 112, 8),
    (120, 40, 170),
)
LONGEST = 1400
"""Pixels of the longer side."""
LARGEST_SQUARE = 24
_MARGIN = 60


def draw(
    top_down: Mapping[str, Any],
    places: Sequence[Mapping[str, Any]] = (),
    things: Sequence[Mapping[str, Any]] = (),
    way: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """(h, w, 3) uint8 RGB: unknown grey, free white, occupied dark; the path from pale to dark blue in order of time,
    places as numbered circles, things as dots with their names (orange: gone since), a way in purple, a scale."""
    height, width = top_down["height"], top_down["width"]
    cells = np.frombuffer(_bytes(top_down["cells"]), np.uint8).reshape(height, width)
    colours = np.array([UNKNOWN, FREE, OCCUPIED], np.uint8)[cells]
    flipped = _is_flipped(top_down["up"], top_down["up_sign"])
    if flipped:
        colours = colours[::-1]
    square = max(1, min(LARGEST_SQUARE, LONGEST // max(height, width, 1)))
    picture = colours.repeat(square, axis=0).repeat(square, axis=1)
    canvas = np.full((picture.shape[0] + 2 * _MARGIN, max(picture.shape[1], 420) + 2 * _MARGIN, 3), 250, np.uint8)
    canvas[_MARGIN : _MARGIN + picture.shape[0], _MARGIN : _MARGIN + picture.shape[1]] = picture
    scale = square / top_down["resolution_m"]
    across, down = top_down["across"], top_down["down"]
    x0, y0 = top_down["origin_m"]

    def at(point: Sequence[float]) -> tuple[int, int]:
        x, y = (point[across] - x0) * scale, (point[down] - y0) * scale
        return _MARGIN + round(x), _MARGIN + round(picture.shape[0] - y if flipped else y)

    path = top_down["path_m"]
    for number in range(1, len(path)):
        # A jump is no walk: the camera was carried, or the poses are of two recordings.
        if math.dist(path[number - 1], path[number]) < 1.5:
            share = number / len(path)
            shade = tuple(round(a + (b - a) * share) for a, b in zip(PATH_OLD, PATH_NEW, strict=True))
            cv2.line(canvas, at(path[number - 1]), at(path[number]), shade, 2, cv2.LINE_AA)
    if way is not None and way["found"]:
        points = [way["start_m"], *way["waypoints_m"], way["goal_m"]]
        for a, b in pairwise(points):
            cv2.line(canvas, at(a), at(b), WAY, 4, cv2.LINE_AA)
    for place in places:
        centre = at(place["position_m"])
        cv2.circle(canvas, centre, 9, PLACE, 2, cv2.LINE_AA)
        _write(canvas, str(place["place"]), centre[0] + 11, centre[1] + 5, PLACE)
    for thing in things:
        colour = GONE if thing["there"] == "gone" else HIT
        centre = at(thing["point_m"])
        cv2.circle(canvas, centre, 7, colour, -1 if thing["placed"] else 2, cv2.LINE_AA)
        _write(canvas, printable(thing["label"], 40) or "looks like it", centre[0] + 11, centre[1] + 5, colour)
    _legend(canvas, top_down, scale)
    return canvas


def _is_flipped(up: int, up_sign: int) -> bool:
    """Whether rows grow upward, so that left and right are as somebody sees them who looks down: across x down points
    along -up for the axis y, along up for x and z."""
    return (up_sign > 0) == (up != 1)


def _legend(canvas: np.ndarray, top_down: Mapping[str, Any], scale: float) -> None:
    bar = next(metres for metres in (0.5, 1, 2, 5, 10, 20, 50, 100, 1e9) if metres * scale >= 60)
    bottom = canvas.shape[0] - 28
    end = _MARGIN + round(min(bar * scale, canvas.shape[1] - 2 * _MARGIN))
    cv2.line(canvas, (_MARGIN, bottom), (end, bottom), OCCUPIED, 3)
    _write(canvas, f"{bar:g} m", end + 10, bottom + 5, OCCUPIED)
    axes = "xyz"
    name = printable(str(top_down["frame_id"]), 60)
    title = f"{name}, map version {top_down['map_version']}, {axes[top_down['across']]} to the right"
    _write(canvas, title, _MARGIN, 34, OCCUPIED)


def _write(canvas: np.ndarray, text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, (x, y), colour, cv2.FontFace("sans"), 18, 500)


def _bytes(value: str | bytes) -> bytes:
    """Bytes cross the plain form of an answer as base64."""
    return base64.b64decode(value) if isinstance(value, str) else value


def write_ply(path: Path, clouds: Sequence[Mapping[str, Any]]) -> int:
    """Binary little-endian PLY (Stanford's format, version 1.0) with x, y, z and red, green, blue. Returns the points.

    Raises StorageFull where it can't be written."""
    points = [np.frombuffer(_bytes(each["points"]), "<f4").reshape(-1, 3) for each in clouds]
    colours = [np.frombuffer(_bytes(each["colours"]), np.uint8).reshape(-1, 3) for each in clouds]
    xyz, rgb = (
        np.concatenate([np.empty((0, 3), "<f4"), *points]),
        np.concatenate([np.empty((0, 3), np.uint8), *colours]),
    )
    rows = np.empty(len(xyz), [("xyz", "<f4", (3,)), ("rgb", "u1", (3,))])
    rows["xyz"], rows["rgb"] = xyz, rgb
    header = ["ply", "format binary_little_endian 1.0", "comment streammem map", f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in "xyz"] + [
        f"property uchar {name}" for name in ("red", "green", "blue")
    ]
    text = "\n".join([*header, "end_header"]) + "\n"
    try:
        path.write_bytes(text.encode("ascii") + rows.tobytes())
    except OSError as error:
        raise StorageFull(f"{path}: {error.strerror}", hint="another folder, or free some space") from error
    return len(rows)
