"""From where each tracked thing was seen best: a few poses a thing, which stay when the moments themselves lose detail.

A robot that is sent to a thing needs a place to stand and the frame that shows it. Moments hold that (pose, depth,
box), but a budget takes depth first and merges moments next; then nothing says any more from where the mug was seen.
For each thing that a detector or tracker names (``Detection.track``) this bank keeps the moments that show it largest,
one for each viewpoint (half a metre, about 45 degrees), with the pose and the point that was measured. When there are
too many, what shows the thing elsewhere than now goes first, the oldest first; then the view from furthest away.

Needs ``depth_m``, a pose and intrinsics. The whole bank is its state, one blob a stream: at most
``tracks.viewpoints`` x ``tracks.max_objects`` views of about 0.3 KB. It returns no records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from streammem.banks.base import Question, Reader, Recall
from streammem.banks.spatial.geometry import camera_for, rotation_from_quaternion
from streammem.config import TracksConfig
from streammem.errors import CorruptData, StreammemError
from streammem.model import Box, Detection, Record

SPOT_M = 0.5
"""Cameras in one cube of this side that look the same way are one viewpoint."""
DIRECTIONS = 1.3
"""Steps of a unit vector's coordinates: about 45 degrees."""
SAMPLES = 8
"""Depth is read at 8 x 8 places in the middle half of a box, where it shows little else."""
ELSEWHERE_M = 0.5
"""A thing whose measured point is further off than this, and than its own size, was moved."""
VIEW_BYTES = 340
"""RAM of a view with its numbers (tracemalloc, rounded up)."""


class View(msgspec.Struct, array_like=True):
    """A moment that shows a thing. ``point_m``: median of the nearest measured points of its box, in the map;
    ``away_m`` from the camera to the nearest of them, ``radius_m`` half their extent; ``position_m`` and ``q_xyzw`` are
    the camera's ``map_from_camera``."""

    t_ns: int
    record_id: int
    session: str
    seq: int
    box: Box
    point_m: tuple[float, float, float]
    away_m: float
    radius_m: float
    position_m: tuple[float, float, float]
    q_xyzw: tuple[float, float, float, float]

    @property
    def area(self) -> float:
        return max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1])


class Viewed(msgspec.Struct, array_like=True):
    """The views of one thing, by viewpoint, in order of time."""

    label: str
    last_ns: int
    views: dict[str, View] = {}


class Viewpoint(msgspec.Struct, frozen=True):
    """An answer: ``view`` of ``track`` (called ``label``) of a stream."""

    stream: str
    track: str
    label: str
    view: dict[str, object]


_Stream = dict[str, Viewed]


class ViewpointsBank:
    """All streams. ``TracksConfig`` says how many views of how many things."""

    name = "viewpoints"

    def __init__(self, config: TracksConfig) -> None:
        self._most, self._things = config.viewpoints, config.max_objects
        self._streams: dict[str, _Stream] = {}

    def observe(self, record: Record) -> Sequence[Record]:
        depth = record.arrays.get("depth_m")
        seen = [one for one in record.detections if one.track]
        if not seen or depth is None or record.pose is None or record.intrinsics is None or depth.ndim != 2:
            return ()
        try:
            found = _measured(record, seen, depth)
        except StreammemError:
            return ()  # a pose or camera that can't be used; the spatial bank counts those
        things = self._streams.setdefault(record.stream, {})
        for one, view, key in found:
            self._keep(things, one, view, key)
        return ()

    def _keep(self, things: _Stream, one: Detection, view: View, key: str) -> None:
        name = one.track or ""
        known = things.get(name)
        if known is None:
            if len(things) >= self._things:
                del things[min(things, key=lambda other: (things[other].last_ns, other))]
            known = things[name] = Viewed(one.label, view.t_ns, {})
        known.label, known.last_ns = one.label, max(known.last_ns, view.t_ns)
        before = known.views.get(key)
        if before is not None and before.area > view.area and not _elsewhere(before, view):
            return
        known.views[key] = view
        if len(known.views) > self._most:
            views = known.views
            moved = [name for name in views if _elsewhere(views[name], view)]
            worst = (
                min(moved, key=lambda name: (views[name].t_ns, name))
                if moved
                else max(views, key=lambda name: (views[name].away_m, -views[name].t_ns, name))
            )
            del views[worst]

    def questions(self) -> Mapping[str, Question]:
        return {"views": self._ask_views}

    def _ask_views(
        self, reader: Reader, *, streams: Sequence[str] | None, tracks: Sequence[str] | None = None, label: str = ""
    ) -> list[Viewpoint]:
        """Every view that is kept, of these ``tracks``, or of things that are called ``label``; by stream and track,
        then by time."""
        found = []
        for stream in sorted(self._streams):
            if streams is not None and stream not in streams:
                continue
            for track, known in sorted(self._streams[stream].items()):
                if (tracks is None or track in tracks) and (not label or known.label.lower() == label.lower()):
                    for view in sorted(known.views.values(), key=lambda one: (one.t_ns, one.seq)):
                        found.append(Viewpoint(stream, track, known.label, msgspec.structs.asdict(view)))
        return found

    # -- saving and forgetting

    def state(self, stream: str) -> bytes:
        return msgspec.msgpack.encode(self._streams[stream]) if stream in self._streams else b""

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        if not state:
            return
        try:
            self._streams[stream] = msgspec.msgpack.decode(state, type=dict[str, Viewed])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise CorruptData(f"the saved viewpoints of {stream!r} can't be read: {error}") from error

    def ram_bytes(self) -> int:
        return sum(200 + VIEW_BYTES * len(one.views) for things in self._streams.values() for one in things.values())

    @property
    def cap_bytes(self) -> int:
        """Of every stream there is."""
        return (200 + VIEW_BYTES * self._most) * self._things * max(1, len(self._streams))

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        things = self._streams.get(stream, {})
        gone = 0
        for name in list(things):
            known = things[name]
            kept = {key: view for key, view in known.views.items() if not t_start_ns <= view.t_ns <= t_end_ns}
            gone += len(known.views) - len(kept)
            known.views = kept
            known.last_ns = max((view.t_ns for view in kept.values()), default=known.last_ns)
            if not kept:
                del things[name]
        if not things:
            self._streams.pop(stream, None)
        return gone

    def digest(self, stream: str) -> bytes:
        return hashlib.blake2b(self.state(stream), digest_size=16).digest() if stream in self._streams else b""


def _elsewhere(one: View, other: View) -> bool:
    away = np.linalg.norm(np.subtract(one.point_m, other.point_m))
    return bool(away > ELSEWHERE_M + max(one.radius_m, other.radius_m))


def _measured(record: Record, seen: Sequence[Detection], depth: np.ndarray) -> list[tuple[Detection, View, str]]:
    """A view of each thing whose box has depth, all of them at once: (n, 64) readings."""
    pose, camera = record.pose, record.intrinsics
    assert pose is not None and camera is not None
    own = camera_for(camera, depth.shape)
    height, width = depth.shape
    boxes = np.array([one.box for one in seen])
    # The middle half of each box, in its own eight rows and columns.
    steps = 0.25 + 0.5 * (np.arange(SAMPLES) + 0.5) / SAMPLES
    u = np.floor((boxes[:, :1] + (boxes[:, 2:3] - boxes[:, :1]) * steps) * width).clip(0, width - 1).astype(int)
    v = np.floor((boxes[:, 1:2] + (boxes[:, 3:] - boxes[:, 1:2]) * steps) * height).clip(0, height - 1).astype(int)
    z = depth[v[:, :, None], u[:, None, :]].reshape(len(seen), -1).astype(np.float64)
    x = np.broadcast_to(((u - own.cx) / own.fx)[:, None, :], (len(seen), SAMPLES, SAMPLES)).reshape(z.shape)
    y = np.broadcast_to(((v - own.cy) / own.fy)[:, :, None], (len(seen), SAMPLES, SAMPLES)).reshape(z.shape)
    good = np.isfinite(z) & (z > 0)
    rotation = rotation_from_quaternion(pose.q_xyzw)
    forward = np.rint(rotation[:, 2] * DIRECTIONS).astype(int)
    spot = np.floor(np.asarray(pose.position_m) / SPOT_M).astype(int)
    key = ",".join(str(number) for number in (*spot.tolist(), *forward.tolist()))
    found = []
    for row, one in enumerate(seen):
        inside = good[row]
        if not inside.any():
            continue
        ray = np.stack([x[row, inside] * z[row, inside], y[row, inside] * z[row, inside], z[row, inside]])
        away = np.sqrt((ray * ray).sum(axis=0))
        order = np.argsort(away, kind="stable")
        near = ray[:, order[: max(1, len(order) * 2 // 5)]]
        middle = rotation @ np.median(near, axis=1) + np.asarray(pose.position_m)
        view = View(
            record.t_start_ns, record.record_id, record.session, record.seq, one.box,
            _point(middle), round(float(away[order[len(order) // 10]]), 4),
            round(float(np.ptp(near, axis=1).max() / 2), 4),
            _point(np.asarray(pose.position_m)), pose.q_xyzw,
        )  # fmt: skip
        found.append((one, view, key))
    return found


def _point(values: np.ndarray) -> tuple[float, float, float]:
    """Rounded to a tenth of a millimetre: no order of addition shows in a digest."""
    x, y, z = (round(float(value), 4) for value in values)
    return x, y, z


__all__ = ["View", "Viewpoint", "ViewpointsBank"]
