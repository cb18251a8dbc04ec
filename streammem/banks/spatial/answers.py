"""What the questions to the spatial memory return. Positions: metres in the frame ``frame_id`` of ``map_version``."""

from __future__ import annotations

import msgspec

from streammem.model import Evidence

Point = tuple[float, float, float]


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    """Sightings of one name at one place. ``placed``: measured with depth; else ``point_m`` is where the camera was.

    ``there``: "yes" (its leaves are occupied), "gone" (looked there since: empty), "unknown" (never measured).
    ``looked_ns``: when somebody last looked at the spot."""

    label: str
    score: float
    point_m: Point
    frame_id: str
    map_version: int
    placed: bool
    there: str
    sightings: int
    first_ns: int
    last_ns: int
    looked_ns: int | None
    place: int | None
    room: str | None
    distance_m: float | None
    evidence: Evidence


class PlaceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A place of the graph. ``ways``: neighbours as (place, metres, traversals)."""

    stream: str
    place: int
    room: str
    position_m: Point
    frame_id: str
    map_version: int
    visits: int
    first_ns: int
    last_ns: int
    ways: list[tuple[int, float, int]]
    distance_m: float | None
    evidence: Evidence


class Nearby(msgspec.Struct, frozen=True, kw_only=True):
    """What is around a point. ``leaves``: occupied leaves; ``nearest_m``: the nearest one; ``labels`` their weights;
    ``moments``: how often the camera was there."""

    frame_id: str
    map_version: int
    leaves: int
    nearest_m: float | None
    labels: dict[str, float]
    moments: int
    things: list[Thing]
    places: list[PlaceInfo]


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Places that are near each other on foot. ``labels``: names seen there and how often."""

    room: str
    stream: str
    frame_id: str
    map_version: int
    places: list[int]
    centre_m: Point
    labels: dict[str, int]
    evidence: Evidence


class LastSeen(msgspec.Struct, frozen=True, kw_only=True):
    """``seen_ns``: the last sighting, or the last point measured there; ``looked_ns``: the last look, whatever was
    seen; ``there`` as in :class:`Thing`."""

    what: str
    seen_ns: int
    looked_ns: int | None
    there: str
    point_m: Point
    frame_id: str
    map_version: int
    evidence: Evidence


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A group of neighbouring leaves that appeared where free space had been seen, or are gone; or a thing that is
    sighted somewhere else than before (``kind`` "moved", with ``from_m``)."""

    kind: str
    centre_m: Point
    size_m: Point
    leaves: int
    labels: list[str]
    frame_id: str
    map_version: int
    from_m: Point | None
    evidence: Evidence


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A way along places. ``start_m``/``goal_m`` are what was asked for; the way leads from place to place."""

    found: bool
    stream: str
    places: list[int]
    waypoints_m: list[Point]
    length_m: float
    start_m: Point
    goal_m: Point
    frame_id: str
    map_version: int
    evidence: Evidence


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What was recalled: ``source`` "short_term" or "long_term"; each item is (kind of key, its number, cosine, record
    id), the most alike first; evidence of the same moments."""

    stream: str
    source: str
    items: list[tuple[str, int, float, int]]
    frame_id: str
    map_version: int
    evidence: list[Evidence]


class TopDown(msgspec.Struct, frozen=True, kw_only=True):
    """The map from above. ``cells``: ``height`` rows of ``width`` bytes, 0 unknown, 1 free, 2 occupied (base64 once it
    has crossed a wire). Cell (row, column) covers ``origin_m + (column, row) * resolution_m`` of the axes ``across``
    and ``down`` of the map (0 x, 1 y, 2 z); ``up`` is the axis against gravity and ``up_sign`` its direction."""

    frame_id: str
    map_version: int
    resolution_m: float
    width: int
    height: int
    origin_m: tuple[float, float]
    across: int
    down: int
    up: int
    up_sign: int
    floor_m: float
    cells: bytes
    path_m: list[Point]


class Cloud(msgspec.Struct, frozen=True, kw_only=True):
    """Occupied leaves as points: (n, 3) float32 metres and (n, 3) uint8 colours, as bytes. ``step``: every step-th leaf
    in the order of their codes was taken."""

    frame_id: str
    map_version: int
    count: int
    step: int
    points: bytes
    colours: bytes


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A map version of a stream; ``known_ns`` None: the one that it began with. ``moved_m``: how far the submaps of
    older versions were moved, on average."""

    stream: str
    frame_id: str
    map_version: int
    known_ns: int | None
    submaps: int
    moved_m: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What is held of a stream, in numbers."""

    stream: str
    frames: list[str]
    map_versions: list[int]
    moments: int
    places: int
    edges: int
    sightings: int
    submaps: int
    coarsened: int
    lost: int
    leaves: int
    occupied: int
    volume_m3: float
    bytes: int
    cap_bytes: int
    rejected: dict[str, int]
