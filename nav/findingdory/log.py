"""What happened in an experience: the interaction log that every goal set is a pure function of. No renderer needed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import msgspec

from nav.findingdory.clock import STEPS_DAILY, DayClock
from streammem.errors import InputError

ATTRIBUTES = ("shape", "color", "material", "functionality", "print_or_design")
"""FindingDory's attribute columns, in its order. Empty text: the object has none (129 of its 240 rows, for prints)."""


class ObjectInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A thing that can be carried."""

    entity_id: str
    category: str
    shape: str = ""
    color: str = ""
    material: str = ""
    functionality: str = ""
    print_or_design: str = ""


class ReceptacleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A thing that others are put on. ``connected``: receptacles of the same 3-D asset; they count as this one."""

    entity_id: str
    category: str
    connected: tuple[str, ...] = ()


class RoomInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A room; ``steps``: how many steps of the experience were spent in it (0: never visited)."""

    entity_id: str
    category: str = ""
    steps: int = 0


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """One pick-and-place. Steps: ``pick_step`` is the first of the pick skill, ``nav_place_step`` the first of the way
    to the goal, ``place_step`` the first of the place skill, ``end_step`` the last of it."""

    object_id: str
    start_id: str
    goal_id: str
    start_room: str
    goal_room: str
    pick_step: int
    nav_place_step: int
    place_step: int
    end_step: int


class InteractionLog(msgspec.Struct, frozen=True, kw_only=True):
    """An experience, told by who knows.

    ``distance_m``: geodesic metres from the final pose to each object and receptacle (to the nearest view point of a
    receptacle); ``inf`` where it can't be reached. ``interactions`` are in order of time.
    """

    objects: tuple[ObjectInfo, ...]
    receptacles: tuple[ReceptacleInfo, ...]
    rooms: tuple[RoomInfo, ...]
    interactions: tuple[Interaction, ...]
    start_room: str
    steps: int
    distance_m: Mapping[str, float] = msgspec.field(default_factory=dict)
    steps_daily: int = STEPS_DAILY

    @property
    def entities(self) -> list[ObjectInfo | ReceptacleInfo | RoomInfo]:
        """Objects, receptacles, rooms."""
        return [*self.objects, *self.receptacles, *self.rooms]

    @property
    def clock(self) -> DayClock:
        return DayClock(self.steps_daily)

    def object(self, entity_id: str) -> ObjectInfo:
        return _one(self.objects, entity_id, "object")

    def receptacle(self, entity_id: str) -> ReceptacleInfo:
        return _one(self.receptacles, entity_id, "receptacle")

    def category(self, entity_id: str) -> str:
        """Of an object, receptacle or room."""
        known = {one.entity_id: one.category for one in self.entities}
        if entity_id in known:
            return known[entity_id]
        raise InputError(f"the log knows no entity {entity_id!r}", hint="check the ids of its interactions")

    def check(self) -> None:
        """Raises InputError that names the first thing that doesn't fit: ids, times, order."""
        ids = [entity.entity_id for entity in self.entities]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise InputError(f"the log has two entities called {twice[0]!r}", hint="ids must be unique")
        rooms = {room.entity_id for room in self.rooms}
        previous = -1
        for number, one in enumerate(self.interactions):
            self.object(one.object_id)
            self.receptacle(one.start_id)
            self.receptacle(one.goal_id)
            missing = [name for name in (one.start_room, one.goal_room) if name not in rooms]
            if missing:
                raise InputError(f"interaction {number}: no room {missing[0]!r}", hint="rooms must be listed")
            times = (previous, one.pick_step, one.nav_place_step, one.place_step, one.end_step)
            if any(late < early for early, late in pairwise(times)) or one.end_step >= self.steps:
                raise InputError(f"interaction {number}: steps {times[1:]} of {self.steps}", hint="they must not fall")
            previous = one.end_step


def _one(group: tuple[Any, ...], entity_id: str, kind: str) -> Any:
    for entity in group:
        if entity.entity_id == entity_id:
            return entity
    raise InputError(f"the log knows no {kind} {entity_id!r}", hint="check the ids of its interactions")
