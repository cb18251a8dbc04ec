"""A submap: what a stream saw of its surroundings during a short stretch of time, in one frame of reference.

The map of a stream is the sum of its submaps in order of time. A submap that is complete is one record of the bank:
its leaves, its steps (moments with pose and place), the views that were kept, what was sighted where. Everything else
(the joint octree, the graph of places, the objects) is made from these again, so that forgetting, restarting and a
corrected pose are the same operation: take the submaps that remain and add them up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from streammem.banks.spatial import morton
from streammem.banks.spatial.leaves import COLUMNS, NEVER
from streammem.banks.spatial.octree import Octree
from streammem.banks.spatial.versions import pose_of
from streammem.errors import CorruptData
from streammem.model import Label, Producer, Record

BANK = "spatial"
MOST_LABELS = 64
PRODUCER = Producer("streammem.banks.spatial", revision="1")
STEP = np.dtype(
    [
        ("t_ns", "<i8"),
        ("record", "<u8"),
        ("place", "<i4"),
        ("linked", "?"),
        ("view", "?"),
        ("depth", "?"),
        ("pose", "<f8", (7,)),
    ]
)
"""One moment: capture time, record id, place, whether it was walked to, whether it was kept as a view of the place,
whether its depth was used, and ``map_from_camera`` as x, y, z, qx, qy, qz, qw."""
SIGHTING = np.dtype(
    [
        ("t_ns", "<i8"),
        ("record", "<u8"),
        ("label", "<i4"),
        ("placed", "?"),
        ("score", "<f4"),
        ("point", "<f8", (3,)),
        ("radius", "<f4"),
    ]
)
"""A name seen somewhere: ``placed``: its point was measured (a box with depth); else it is where the camera was."""


@dataclass(slots=True)
class Submap:
    """``number`` counts from 0 within its stream. ``labels`` are the names that sightings and leaves refer to."""

    number: int
    frame_id: str
    map_version: int
    tree: Octree
    free: Octree
    """Coarse cells that were looked through: only that they are there counts."""
    steps: np.ndarray = field(default_factory=lambda: np.empty(0, STEP))
    sightings: np.ndarray = field(default_factory=lambda: np.empty(0, SIGHTING))
    labels: list[str] = field(default_factory=list)
    view_vectors: list[np.ndarray] = field(default_factory=list)
    """Vectors (d,) float16 of the steps whose ``view`` is set, in their order; empty (0,) where a view has none."""
    record_id: int = 0

    @property
    def span(self) -> tuple[int, int]:
        """First and last capture time. Only of a submap with steps."""
        times = self.steps["t_ns"]
        return int(times.min()), int(times.max())

    def label_number(self, name: str) -> int:
        if name not in self.labels:
            self.labels.append(name)
        return self.labels.index(name)

    @property
    def nbytes(self) -> int:
        return (
            self.tree.nbytes
            + self.free.nbytes
            + self.steps.nbytes
            + self.sightings.nbytes
            + sum(vector.nbytes + 100 for vector in self.view_vectors)
            + 1000
        )


def arrays_of(submap: Submap, *, exact: bool) -> dict[str, np.ndarray]:
    """A submap as arrays that a record or a state can hold. ``exact`` keeps every bit (an open submap that must go on
    after a restart); else colours and places inside voxels become bytes and times and ids become numbers of steps:
    28 bytes a leaf instead of 106."""
    tree = submap.tree
    order = np.argsort(tree.codes, kind="stable")
    grid = np.array([tree.voxel_m, *tree.origin_m.tolist(), tree.depth, submap.number, submap.map_version], np.float64)
    rows, numbers, weights = tree.labels.pairs()
    place_of = np.empty(len(order), np.int64)
    place_of[order] = np.arange(len(order))
    by_place = np.lexsort((numbers, place_of[rows]))
    rows, numbers, weights = rows[by_place], numbers[by_place], weights[by_place]
    arrays: dict[str, np.ndarray] = {
        "grid": grid,
        "codes": tree.codes[order],
        "steps": packed(submap.steps),
        "sightings": packed(submap.sightings),
        "leaf_labels": np.stack((place_of[rows], numbers), axis=1).astype(np.int32).reshape(-1, 2),
        "free": submap.free.codes[np.argsort(submap.free.codes)],
        "free_grid": np.array([submap.free.voxel_m, *submap.free.origin_m.tolist(), submap.free.depth], np.float64),
        "leaf_weights": weights.astype(np.float32),
        "view_sizes": np.array([len(vector) for vector in submap.view_vectors], np.int32),
        "view_values": np.concatenate([np.empty(0, np.float16), *submap.view_vectors]).astype(np.float16),
        "names": _packed_names(submap.labels),
        "leaf_names": _packed_names(tree.labels.names),
    }
    if exact:
        arrays |= {name: tree.column(name)[order] for name in COLUMNS}
    else:
        arrays |= _rounded(submap, order)
    return arrays


def _rounded(submap: Submap, order: np.ndarray) -> dict[str, np.ndarray]:
    tree, steps = submap.tree, submap.steps
    points = np.maximum(tree.column("points")[order], 1)[:, None]
    step_of = {int(record): number for number, record in enumerate(steps["record"].tolist())}

    def number(column: str) -> np.ndarray:
        return np.array([step_of.get(int(value), 65535) for value in tree.column(column)[order]], np.uint16)

    looked = np.searchsorted(np.sort(steps["t_ns"]), tree.column("looked_ns")[order])
    return {
        "points": tree.column("points")[order],
        "shift": tree.column("shift")[order],
        "low": tree.column("low")[order],
        "high": tree.column("high")[order],
        "rgb8": tree.colours(order),
        "shaded": tree.column("shades")[order] > 0,
        "inside8": np.minimum(tree.column("inside")[order] / points * 256.0, 255).astype(np.uint8),
        "first_step": number("first_record"),
        "last_step": number("record"),
        "looked_step": np.minimum(looked, 65534).astype(np.uint16),
    }


def submap_from(arrays: Mapping[str, np.ndarray], frame_id: str, record_id: int) -> Submap:
    """The way back. Raises CorruptData where an array is missing or doesn't fit."""
    try:
        voxel_m, x, y, z, depth, number, version = arrays["grid"].tolist()
        tree = Octree(voxel_m, (x, y, z), int(depth))
        free = _free_from(arrays)
        steps = unpacked(arrays.get("steps"), STEP)
        names = _names(arrays.get("names"))
        codes = arrays.get("codes", np.empty(0, np.int64))
        if len(codes):
            leaves = {name: arrays[name] for name in COLUMNS} if "inside" in arrays else _unrounded(arrays, steps)
            tree.fold(leaves, np.asarray(codes, np.int64))
            pairs = arrays.get("leaf_labels", np.empty((0, 2), np.int32))
            weights = arrays.get("leaf_weights", np.empty(0, np.float32))
            for number_of, name in enumerate(_names(arrays.get("leaf_names"))):
                chosen = pairs[:, 1] == number_of
                tree.labels.add(pairs[chosen, 0].astype(np.int64), name, weights[chosen])
        sizes = arrays.get("view_sizes", np.empty(0, np.int32))
        values = arrays.get("view_values", np.empty(0, np.float16))
        ends = np.cumsum(sizes)
        vectors = [values[end - size : end].copy() for size, end in zip(sizes.tolist(), ends.tolist(), strict=True)]
        sightings = unpacked(arrays.get("sightings"), SIGHTING)
        return Submap(int(number), frame_id, int(version), tree, free, steps, sightings, names, vectors, record_id)
    except (KeyError, ValueError, IndexError, msgspec.DecodeError) as error:
        raise CorruptData(f"a submap of the spatial memory can't be read: {error}") from error


def _free_from(arrays: Mapping[str, np.ndarray]) -> Octree:
    voxel_m, x, y, z, depth = arrays["free_grid"].tolist()
    free = Octree(voxel_m, (x, y, z), int(depth))
    codes = np.asarray(arrays.get("free", np.empty(0, np.int64)), np.int64)
    if len(codes):
        free.look_at((morton.decode(codes) + 0.5) * voxel_m + free.origin_m, 0)
    return free


def _unrounded(arrays: Mapping[str, np.ndarray], steps: np.ndarray) -> dict[str, np.ndarray]:
    times = np.append(steps["t_ns"], NEVER)
    records = np.append(steps["record"], 0)
    in_order = np.append(np.sort(steps["t_ns"]), NEVER)
    last = len(steps)
    first, final = np.minimum(arrays["first_step"], last), np.minimum(arrays["last_step"], last)
    points = arrays["points"].astype(np.float64)[:, None]
    shaded = arrays["shaded"][:, None]
    return {
        "points": arrays["points"],
        "shift": arrays["shift"],
        "low": arrays["low"],
        "high": arrays["high"],
        "first_ns": times[first],
        "last_ns": times[final],
        "looked_ns": in_order[np.minimum(arrays["looked_step"], last)],
        "first_record": records[first],
        "record": records[final],
        "shades": np.where(arrays["shaded"], arrays["points"], 0),
        "rgb": np.where(shaded, arrays["rgb8"] * points, 0.0),
        "inside": (arrays["inside8"] + 0.5) / 256.0 * points,
    }


def record_of(submap: Submap, stream: str, number: int, arrays: Mapping[str, np.ndarray]) -> Record:
    """A complete submap as the bank's record: its parents are its moments, its labels the names sighted, its pose that
    of its first moment."""
    first, last = submap.span
    best: dict[str, float] = {}
    for row in submap.sightings:
        name = submap.labels[int(row["label"])]
        best[name] = max(best.get(name, 0.0), min(1.0, float(row["score"])))
    labels = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:MOST_LABELS]
    return Record(
        record_id=number,
        bank=BANK,
        stream=stream,
        t_start_ns=first,
        t_end_ns=last,
        session="submap",
        seq=submap.number,
        count=len(submap.steps),
        parents=tuple(int(parent) for parent in submap.steps["record"]),
        producer=PRODUCER,
        labels=tuple(Label(name, score) for name, score in labels),
        pose=pose_of(submap.steps["pose"][0], submap.frame_id, submap.map_version),
        stats={"leaves": float(len(submap.tree)), "sightings": float(len(submap.sightings))},
        arrays={name: array for name, array in arrays.items() if len(array)},
    )


def packed(table: np.ndarray) -> np.ndarray:
    """A structured array as bytes (n, itemsize) uint8: segments hold plain numbers only."""
    return np.ascontiguousarray(table).view(np.uint8).reshape(len(table), table.dtype.itemsize).copy()


def unpacked(table: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    if table is None or not len(table):
        return np.empty(0, dtype)
    return np.ascontiguousarray(table).reshape(-1).view(dtype).copy()


def _packed_names(names: list[str]) -> np.ndarray:
    return np.frombuffer(msgspec.msgpack.encode(names), np.uint8)


def _names(data: np.ndarray | None) -> list[str]:
    return [] if data is None or not len(data) else msgspec.msgpack.decode(bytes(data), type=list[str])
