"""A home from a seed: rooms, doors, walls, furniture along the walls, things on the furniture."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from nav.env import RADIUS_M, AgentPose
from nav.findingdory.log import ObjectInfo, ReceptacleInfo
from nav.homes import catalogue as c
from nav.homes.floor import CELL_M, FloorMap
from nav.homes.solids import Solid
from streammem.errors import InputError

WALL_M, WALL_HIGH_M, DOOR_M = 0.1, 2.4, 1.0
SMALLEST_ROOM_M = 2.8
_TRIES = 60

T = TypeVar("T")
Rect = tuple[float, float, float, float]
"""x0, y0, x1, y1."""


@dataclass(frozen=True, slots=True)
class Room:
    entity_id: str
    category: str
    rect: Rect

    @property
    def middle(self) -> tuple[float, float]:
        return (self.rect[0] + self.rect[2]) / 2, (self.rect[1] + self.rect[3]) / 2

    def holds(self, x: float, y: float) -> bool:
        """Half open, so that a point belongs to one room only."""
        return self.rect[0] <= x < self.rect[2] and self.rect[1] <= y < self.rect[3]


@dataclass(frozen=True, slots=True)
class Receptacle:
    entity_id: str
    model: c.ReceptacleModel
    position: tuple[float, float]
    yaw: float
    room: str
    instance: int

    @property
    def rect(self) -> Rect:
        """Footprint."""
        turned = abs(math.sin(self.yaw)) > 0.5
        w, d = (self.model.depth, self.model.width) if turned else (self.model.width, self.model.depth)
        x, y = self.position
        return x - w / 2, y - d / 2, x + w / 2, y + d / 2

    def place(self, slot: int) -> tuple[float, float, float]:
        """Where the thing in this slot stands, map frame."""
        x, y = c.places_of(self.model)[slot]
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return self.position[0] + cos * x - sin * y, self.position[1] + sin * x + cos * y, self.model.top_m

    @property
    def slots(self) -> int:
        return len(c.places_of(self.model))

    @property
    def info(self) -> ReceptacleInfo:
        return ReceptacleInfo(entity_id=self.entity_id, category=self.model.category)


@dataclass(frozen=True, slots=True)
class Thing:
    """An object that can be carried, and where it is at first."""

    entity_id: str
    model: c.ObjectModel
    color: str
    design: str
    instance: int
    receptacle: str
    slot: int

    @property
    def info(self) -> ObjectInfo:
        return c.object_info(self.entity_id, self.model, self.color, self.design)


@dataclass(eq=False)
class Home:
    """A house and what is in it at first. Never changed; :class:`nav.homes.simulation.HomeSimulation` moves things."""

    seed: int
    rooms: list[Room]
    doors: list[tuple[float, float, bool]]
    """Middle (x, y); true where the wall runs along x."""
    receptacles: list[Receptacle]
    things: list[Thing]
    walls: list[Solid] = field(default_factory=list)

    @cached_property
    def fixed_solids(self) -> list[Solid]:
        """Floors, walls and furniture."""
        made = []
        for room in self.rooms:
            x0, y0, x1, y1 = room.rect
            floor = c.ROOMS[room.category][0]
            made.append(Solid("box", ((x1 - x0) / 2, (y1 - y0) / 2, 0.05), (*room.middle, -0.05), colour=floor))
        made += self.walls
        for one in self.receptacles:
            made += [solid.at((*one.position, 0.0), one.yaw) for solid in c.receptacle_solids(one.model, one.instance)]
        return made

    @cached_property
    def floor(self) -> FloorMap:
        """Where the middle of the base may be, and is reached from the largest part."""
        from scipy.ndimage import distance_transform_edt

        x0 = min(room.rect[0] for room in self.rooms) - WALL_M
        y0 = min(room.rect[1] for room in self.rooms) - WALL_M
        x1 = max(room.rect[2] for room in self.rooms) + WALL_M
        y1 = max(room.rect[3] for room in self.rooms) + WALL_M
        rows, cols = math.ceil((y1 - y0) / CELL_M), math.ceil((x1 - x0) / CELL_M)
        x = x0 + (np.arange(cols) + 0.5) * CELL_M
        y = y0 + (np.arange(rows) + 0.5) * CELL_M
        open_ = np.zeros((rows, cols), bool)
        for room in self.rooms:
            open_ |= _inside(room.rect, x, y)
        for solid in self.walls:
            px, py, _ = solid.position
            open_ &= ~_inside((px - solid.size[0], py - solid.size[1], px + solid.size[0], py + solid.size[1]), x, y)
        for one in self.receptacles:
            open_ &= ~_inside(one.rect, x, y)
        # Distance is measured between cell middles; an obstacle begins half a cell before its cell's middle.
        free = distance_transform_edt(open_) * CELL_M - CELL_M / 2 >= RADIUS_M
        map_ = FloorMap(free, (x0, y0))
        sizes = np.bincount(map_.islands.ravel())
        if len(sizes) < 2:
            return map_
        return FloorMap(map_.islands == 1 + int(sizes[1:].argmax()), (x0, y0))

    def room_at(self, x: float, y: float) -> str | None:
        return next((room.entity_id for room in self.rooms if room.holds(x, y)), None)

    def receptacle(self, entity_id: str) -> Receptacle:
        return next(one for one in self.receptacles if one.entity_id == entity_id)

    def arranged(self, placements: Mapping[str, tuple[str, int]]) -> Home:
        """The same home with its things on other receptacles and slots; what was computed of its floor is shared."""
        other = copy.copy(self)
        other.things = [replace(t, receptacle=placements[t.entity_id][0], slot=placements[t.entity_id][1])
                        for t in self.things]  # fmt: skip
        return other

    def start(self, rng: random.Random) -> AgentPose:
        """A random place with a random heading of the 36 that turns of 10 degrees can reach."""
        cells = np.argwhere(self.floor.free)
        x, y = self.floor.middle(tuple(cells[int(rng.random() * len(cells))]))
        return AgentPose(x, y, 0.0, math.remainder(math.radians(10) * int(rng.random() * 36), math.tau))


def _inside(rect: Rect, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return ((y >= rect[1]) & (y < rect[3]))[:, None] & ((x >= rect[0]) & (x < rect[2]))[None]


def make_home(seed: int, *, rooms: int | None = None) -> Home:
    """A home of 3 to 7 rooms with 8 to 14 receptacles and 12 to 20 things. Same seed, same home, on every machine.

    Layouts with closed-off rooms or furniture that can't be reached are thrown away; raises InputError if two hundred
    in a row are."""
    if seed < 0 or (rooms is not None and not 3 <= rooms <= 7):
        raise InputError(f"no home has seed {seed} and {rooms} rooms", hint="seeds count from 0, rooms are 3 to 7")
    count = rooms or 3 + int(random.Random(seed).random() * 5)
    for attempt in range(200):
        # random.random() alone is promised to be the same on every Python version.
        home = _attempt(seed, random.Random(seed * 1000 + attempt), count)
        if home is not None:
            return home
    raise InputError(f"no usable home comes of seed {seed}", hint="use another seed")


def _attempt(seed: int, rng: random.Random, count: int) -> Home | None:
    for _ in range(_TRIES):
        area = count * (12.5 + 6 * rng.random())
        width = math.sqrt(area * (0.8 + 1.2 * rng.random()))
        rects = _split((0.0, 0.0, round(width, 1), round(area / width, 1)), count, rng)
        if rects:
            break
    else:
        return None
    names = ["kitchen", "bedroom", *_shuffled([n for n in c.ROOMS if n not in ("kitchen", "bedroom")], rng)][:count]
    rooms = [
        Room(f"room_{name.replace(' ', '_')}", name, rect)
        for name, rect in zip(_shuffled(names, rng), rects, strict=True)
    ]
    doors = _doors(rooms, rng)
    if doors is None:
        return None
    walls = _walls(rooms, doors)
    receptacles = _furnish(rooms, doors, rng)
    if len(receptacles) < 8:
        return None
    home = Home(seed, rooms, doors, receptacles, [], walls)
    reached = {home.room_at(*home.floor.middle(tuple(cell))) for cell in np.argwhere(home.floor.free)[::7]}
    if reached != {room.entity_id for room in rooms}:
        return None
    if any(not _front_is_free(home, one) for one in receptacles):
        return None
    home.things = _things(receptacles, rng)
    return home if len(home.things) >= 12 else None


def _split(rect: Rect, count: int, rng: random.Random) -> list[Rect]:
    """Cut the larger side again and again; rooms get areas by how many they will be cut into."""
    if count == 1:
        return [rect]
    x0, y0, x1, y1 = rect
    first = count // 2 + (1 if count % 2 and rng.random() < 0.5 else 0)
    share = first / count + (rng.random() - 0.5) * 0.12
    along_x = (x1 - x0) >= (y1 - y0)
    low, high = (x0, x1) if along_x else (y0, y1)
    cut = round(low + (high - low) * share, 1)
    if min(cut - low, high - cut) < SMALLEST_ROOM_M:
        return []
    parts: tuple[Rect, Rect] = (
        ((x0, y0, cut, y1), (cut, y0, x1, y1)) if along_x else ((x0, y0, x1, cut), (x0, cut, x1, y1))
    )
    both = [_split(part, n, rng) for part, n in zip(parts, (first, count - first), strict=True)]
    return both[0] + both[1] if all(both) else []


def _shared(a: Rect, b: Rect) -> tuple[float, float, float, bool] | None:
    """(line, low, high, runs along x) of the wall between two rooms, or None."""
    for line, other in ((a[2], b[0]), (b[2], a[0])):
        low, high = max(a[1], b[1]), min(a[3], b[3])
        if abs(line - other) < 1e-6 and high - low > 0:
            return line, low, high, False
    for line, other in ((a[3], b[1]), (b[3], a[1])):
        low, high = max(a[0], b[0]), min(a[2], b[2])
        if abs(line - other) < 1e-6 and high - low > 0:
            return line, low, high, True
    return None


def _doors(rooms: Sequence[Room], rng: random.Random) -> list[tuple[float, float, bool]] | None:
    """Doors that join all rooms (a random spanning tree), and some more."""
    pairs = [(i, j) for i in range(len(rooms)) for j in range(i)]
    group = list(range(len(rooms)))
    doors = []
    for i, j in _shuffled(pairs, rng):
        wall = _shared(rooms[i].rect, rooms[j].rect)
        margin = DOOR_M / 2 + 0.25
        if wall is None or wall[2] - wall[1] < 2 * margin:
            continue
        if group[i] == group[j] and rng.random() > 0.3:
            continue
        group = [group[j] if g == group[i] else g for g in group]
        line, low, high, along_x = wall
        at = low + margin + (high - low - 2 * margin) * rng.random()
        doors.append((at, line, True) if along_x else (line, at, False))
    return doors if len(set(group)) == 1 else None


def _walls(rooms: Sequence[Room], doors: Sequence[tuple[float, float, bool]]) -> list[Solid]:
    """Each room's own half of its walls, in its colour, with gaps where doors are."""
    made = []
    for room in rooms:
        x0, y0, x1, y1 = room.rect
        colour = c.ROOMS[room.category][1]
        t = WALL_M / 4  # each side's half of the thickness, halved
        sides = ((y0 + t, x0, x1, True), (y1 - t, x0, x1, True), (x0 + t, y0, y1, False), (x1 - t, y0, y1, False))
        for line, low, high, along_x in sides:
            gaps = sorted(
                ((x if along_x else y) - DOOR_M / 2, (x if along_x else y) + DOOR_M / 2)
                for x, y, along in doors
                if along == along_x
                and abs((y if along_x else x) - line) < WALL_M
                and low < (x if along_x else y) < high
            )
            at = low
            for start, end in [*gaps, (high, high)]:
                if start - at > 1e-6:
                    half, middle, z = (start - at) / 2, (start + at) / 2, WALL_HIGH_M / 2
                    size, where = ((half, t, z), (middle, line, z)) if along_x else ((t, half, z), (line, middle, z))
                    made.append(Solid("box", size, where, colour=colour))
                at = end
    return made


def _furnish(rooms: Sequence[Room], doors: Sequence[tuple[float, float, bool]], rng: random.Random) -> list[Receptacle]:
    wanted = min(14, max(8, 2 * len(rooms) + int(rng.random() * 4)))
    placed: list[Receptacle] = []
    for turn in range(_TRIES * 3):
        if len(placed) >= wanted:
            break
        room = rooms[turn % len(rooms)]
        fitting = [m for m in c.RECEPTACLES if not m.rooms or room.category in m.rooms]
        own = [m for m in fitting if m.rooms]
        # The first piece of a room is one that it is known by: the bed of the bedroom.
        pool = own if own and not any(one.room == room.entity_id for one in placed) else fitting
        model = pool[int(rng.random() * len(pool))]
        spot = _against_wall(model, room, doors, placed, rng)
        if spot is not None:
            number = sum(one.model.category == model.category for one in placed)
            name = f"{model.category.replace(' ', '_')}_{number}"
            placed.append(Receptacle(name, model, spot[0], spot[1], room.entity_id, len(placed) + 1))
    return placed


def _against_wall(
    model: c.ReceptacleModel,
    room: Room,
    doors: Sequence[tuple[float, float, bool]],
    placed: Sequence[Receptacle],
    rng: random.Random,
) -> tuple[tuple[float, float], float] | None:
    x0, y0, x1, y1 = room.rect
    gap = WALL_M / 2 + 0.01
    for _ in range(8):
        side = int(rng.random() * 4)
        # Its back (+y of its own frame) turns to the wall.
        yaw = (0.0, math.pi, math.pi / 2, -math.pi / 2)[side]
        along = (x1 - x0 if side < 2 else y1 - y0) - model.width - 2 * gap
        away = gap + model.depth / 2
        if along < 0:
            continue
        at = gap + model.width / 2 + along * rng.random()
        x, y = ((x0 + at, y1 - away), (x0 + at, y0 + away), (x0 + away, y0 + at), (x1 - away, y0 + at))[side]
        spot = Receptacle("", model, (x, y), yaw, "", 0).rect
        # 0.75 m between pieces: the base (0.5 m wide) passes. 0.8 m before a door stays empty.
        near = any(_gap(spot, other.rect) < 0.75 for other in placed if other.room == room.entity_id)
        blocked = any(_gap(spot, (dx, dy, dx, dy)) < 0.85 for dx, dy, _ in doors)
        if not near and not blocked and x0 <= spot[0] and y0 <= spot[1] and spot[2] <= x1 and spot[3] <= y1:
            return (x, y), yaw
    return None


def _gap(a: Rect, b: Rect) -> float:
    """Between two upright rectangles; 0 where they touch."""
    dx = max(a[0] - b[2], b[0] - a[2], 0.0)
    dy = max(a[1] - b[3], b[1] - a[3], 0.0)
    return math.hypot(dx, dy)


def _front_is_free(home: Home, one: Receptacle) -> bool:
    """Whether the robot can stand before it: 0.25 m of base and a hand's breadth."""
    away = one.model.depth / 2 + 0.45
    front = one.position[0] + math.sin(one.yaw) * away, one.position[1] - math.cos(one.yaw) * away
    return home.floor.is_free(front)


def _things(receptacles: Sequence[Receptacle], rng: random.Random) -> list[Thing]:
    """12 to 20 things of 8 to 12 categories, no two alike; at most all but one place of a receptacle is taken."""
    wanted = 12 + int(rng.random() * 9)
    models = _shuffled(list(c.OBJECTS), rng)[: 8 + int(rng.random() * 5)]
    places = [
        (one, slot) for one in receptacles for slot in _shuffled(list(range(one.slots)), rng)[: max(1, one.slots - 1)]
    ]
    looks: set[tuple[str, str, str]] = set()
    made: list[Thing] = []
    for i, (where, slot) in enumerate(_shuffled(places, rng)):
        if len(made) >= wanted:
            break
        model = models[i % len(models)]
        options = [(model.category, color, design) for color in model.colours for design in model.designs]
        options = [look for look in options if look not in looks]
        if not options:
            continue
        _, color, design = options[int(rng.random() * len(options))]
        looks.add((model.category, color, design))
        number = sum(one.model.category == model.category for one in made)
        made.append(Thing(f"{model.category}_{number}", model, color, design, 100 + len(made), where.entity_id, slot))
    return made


def _shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    """random.shuffle may differ between Python versions; sorting by random() doesn't."""
    keys = [rng.random() for _ in items]
    return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]
