"""Which maps a question is about, and evidence for what it finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streammem.banks.base import Reader
from streammem.banks.spatial.joining import Joined
from streammem.banks.spatial.stream_map import StreamMap
from streammem.banks.spatial.versions import pose_of
from streammem.config import SpatialConfig
from streammem.errors import QueryError
from streammem.model import Evidence, FrameRef, Why

Between = Sequence[int | None] | None
MOST_FRAMES = 5


@dataclass(frozen=True, slots=True)
class Scene:
    """One stream's map in one frame, as of one version."""

    stream: str
    map: StreamMap
    view: Joined
    rooms: list[list[int]]

    def room_of(self, place: int | None) -> str | None:
        for number, members in enumerate(self.rooms, 1):
            if place in members:
                return f"{self.stream}/room-{number}"
        return None

    def place_near(self, point_m: np.ndarray) -> tuple[int | None, float]:
        """The place nearest to a point, and how far it is."""
        places = self.view.topology
        if not places.known():
            return None, np.inf
        away = np.sqrt(((places.positions - point_m) ** 2).sum(axis=1))
        best = int(np.argmin(away))
        return best, float(away[best])


def scenes(
    maps: Mapping[str, StreamMap],
    streams: Sequence[str] | None,
    *,
    frame: str | None = None,
    map_version: int | None = None,
    until_ns: int | None = None,
    one_frame: bool = False,
    room_m: float = 6.0,
) -> list[Scene]:
    """The maps in scope, by stream and frame. ``one_frame``: the question holds positions, so all must be in one frame
    of reference. Raises QueryError that names the frames where they are several, or where the wanted one is missing."""
    chosen = [maps[name] for name in sorted(maps) if streams is None or name in streams]
    frames = sorted({name for each in chosen for name in each.frames()})
    if frame is not None and frame not in frames:
        known = f"known: {', '.join(frames)}" if frames else "no stream here sends poses"
        raise QueryError(f"nothing is mapped in the frame {frame!r}", hint=known)
    if one_frame and frame is None and len(frames) > 1:
        raise QueryError(
            f"these streams are mapped in different frames of reference: {' and '.join(map(repr, frames))}",
            hint="name one with frame=, or the streams",
        )
    found = []
    for each in chosen:
        for name in each.frames():
            if frame is None or name == frame:
                view = each.view(name, version=map_version, until_ns=until_ns)
                if len(view.steps):
                    found.append(Scene(each.stream, each, view, view.topology.rooms(room_m)))
    return found


def in_time(times_ns: np.ndarray, between: Between) -> np.ndarray:
    """(n,) bool: inside the closed interval. Raises QueryError for something else than two times."""
    kept = np.ones(len(times_ns), bool)
    if between is None:
        return kept
    if len(between) != 2:
        raise QueryError(f"between takes two times in ns, got {len(between)}", hint="None leaves an end open")
    start, end = between
    if start is not None:
        kept &= times_ns >= start
    if end is not None:
        kept &= times_ns <= end
    return kept


def point_of(value: object, name: str) -> np.ndarray:
    """Three finite numbers. Raises QueryError that names the argument."""
    try:
        point = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        point = np.empty(0)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise QueryError(f"{name} must be three finite numbers in metres", hint="[x, y, z] in the frame of the map")
    return point


def evidence_of(reader: Reader, scene: Scene, steps: Iterable[int], score: float, why: Why) -> Evidence:
    """Evidence from steps (rows of the view's steps), the newest at most :data:`MOST_FRAMES` of them shown as frames;
    its pose is that of the newest one, in the version of the view."""
    view = scene.view
    rows = sorted(steps, key=lambda row: int(view.steps["t_ns"][row]))
    shown = rows[-MOST_FRAMES:]
    times = [int(view.steps["t_ns"][row]) for row in rows]
    ids = [int(view.steps["record"][row]) for row in shown]
    frames = tuple(
        FrameRef(scene.stream, int(view.steps["t_ns"][row]), number, "memory")
        for row, number in zip(shown, ids, strict=True)
        if reader.thumbnail(number) is not None
    )
    return Evidence(
        stream=scene.stream,
        t_start_ns=times[0],
        t_end_ns=times[-1],
        frames=frames,
        record_ids=tuple(ids),
        score=score,
        why=(why,),
        pose=pose_of(view.steps["pose"][shown[-1]], view.frame_id, view.map_version),
    )


def steps_of_records(view: Joined, records: Iterable[int]) -> list[int]:
    """Rows of the steps of these moments."""
    wanted = np.fromiter((int(number) for number in records), np.uint64)
    return np.flatnonzero(np.isin(view.steps["record"], wanted)).tolist()


def point(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (round(float(value), 6) for value in values)
    return x, y, z


class Asking:
    """Questions share the maps and the settings."""

    def __init__(self, maps: Mapping[str, StreamMap], config: SpatialConfig) -> None:
        self.maps = maps
        self.config = config

    def _scenes(
        self,
        streams: Sequence[str] | None,
        frame: str | None,
        map_version: int | None,
        *,
        one_frame: bool = False,
        until_ns: int | None = None,
    ) -> list[Scene]:
        return scenes(
            self.maps,
            streams,
            frame=frame,
            map_version=map_version,
            until_ns=until_ns,
            one_frame=one_frame,
            room_m=self.config.room_m,
        )
