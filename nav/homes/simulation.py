"""A robot in a procedural home: everything of the environment protocol but the picture."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np

from nav.env import Action, AgentPose, CameraSpec, Entity, EnvObservation, moved
from nav.findingdory.clock import DayClock
from nav.homes import catalogue as c
from nav.homes.layout import Home, Thing
from nav.homes.solids import Scene, Solid
from streammem.errors import InputError

Placement = tuple[str, int]
"""A receptacle's id and the slot on it."""


class HomeSimulation:
    """State of one home and one robot. ``draw`` is what a renderer adds.

    Things are carried by magic: :meth:`pick` takes one out of the world, :meth:`place` puts it into a free slot."""

    def __init__(self, home: Home, *, camera: CameraSpec | None = None, clock: DayClock | None = None) -> None:
        self.home = home
        self._camera = camera or CameraSpec()
        self.clock = clock or DayClock()
        self._things = {thing.entity_id: thing for thing in home.things}
        self._start = home.start(random.Random(home.seed))
        self._built = {t.entity_id: c.object_solids(t.model, t.color, t.design, t.instance) for t in home.things}
        self._scene: Scene | None = None
        self.placements: dict[str, Placement] = {}
        self.held: str | None = None
        self.pose, self.steps, self.collided = self._start, 0, False
        self._restore()

    @property
    def camera(self) -> CameraSpec:
        return self._camera

    def draw(self, pose: AgentPose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RGB, metric depth and instances as in :class:`nav.env.EnvObservation`: by rays."""
        rgb, depth, instances = self.scene.render(pose, self._camera)
        return rgb, depth, instances

    def reset(self, seed: int | None = None) -> EnvObservation:
        self.pose = self._start if seed is None else self.home.start(random.Random(seed))
        self.steps, self.collided = 0, False
        self._restore()
        return self.observe()

    def step(self, action: Action) -> EnvObservation:
        self.act(action)
        return self.observe()

    def act(self, action: Action) -> None:
        """A step without a picture. There is no sliding: a forward step goes all the way or not at all."""
        after = moved(self.pose, action)
        blocked = action == "forward" and not self.home.floor.line_is_free(self.pose, after)
        self.pose = self.pose if blocked else after
        self.collided = blocked
        self.steps += 1

    def observe(self) -> EnvObservation:
        rgb, depth, instances = self.draw(self.pose)
        camera = self._camera.pose(self.pose)
        time_ns = self.clock.capture_ns(self.steps)
        return EnvObservation(rgb, depth, instances, self.pose, camera, time_ns, self.collided)

    def set_pose(self, pose: AgentPose) -> None:
        if not self.home.floor.is_free(pose) or not math.isfinite(pose.yaw):
            raise InputError(f"the base doesn't fit at ({pose.x:.2f}, {pose.y:.2f})", hint="snap the point first")
        self.pose = pose

    def geodesic(self, start: Sequence[float], ends: Sequence[Sequence[float]]) -> float:
        return min((self.home.floor.distance(start, end) for end in ends), default=math.inf)

    def path(self, start: Sequence[float], end: Sequence[float]) -> list[tuple[float, float, float]]:
        return [(x, y, 0.0) for x, y in self.home.floor.path(start, end)]

    def snap(self, point: Sequence[float]) -> tuple[float, float, float] | None:
        found = self.home.floor.snap(point)
        return (*found, 0.0) if found is not None else None

    def is_navigable(self, point: Sequence[float]) -> bool:
        return self.home.floor.is_free(point)

    def topdown(self, metres_per_pixel: float = 0.05) -> tuple[np.ndarray, tuple[float, float]]:
        floor = self.home.floor
        if not 0.01 <= metres_per_pixel <= 1:
            raise InputError(f"{metres_per_pixel} m a pixel", hint="use 0.01 to 1")
        if metres_per_pixel == floor.cell_m:
            return floor.free.copy(), floor.origin
        rows, cols = (math.ceil(n * floor.cell_m / metres_per_pixel) for n in floor.free.shape)
        row, col = (
            np.minimum(((np.arange(n) + 0.5) * metres_per_pixel / floor.cell_m).astype(int), limit - 1)
            for n, limit in zip((rows, cols), floor.free.shape, strict=True)
        )
        return floor.free[np.ix_(row, col)], floor.origin

    def region_of(self, point: Sequence[float]) -> str | None:
        return self.home.room_at(point[0], point[1])

    def entities(self) -> list[Entity]:
        made = []
        for one in self.home.receptacles:
            made.append(Entity(one.entity_id, "receptacle", one.model.category, one.instance,
                               (*one.position, one.model.top_m / 2)))  # fmt: skip
        for thing in self.home.things:
            x, y, z = self.where(thing.entity_id)
            made.append(Entity(thing.entity_id, "object", thing.model.category, thing.instance,
                               (x, y, z + thing.model.size_m[2] / 2)))  # fmt: skip
        made += [Entity(r.entity_id, "room", r.category, 0, (*r.middle, 0.0)) for r in self.home.rooms]
        return made

    def close(self) -> None:
        """Nothing is held open."""

    # ---- what the oracle of an experience may do, and no agent

    def thing(self, entity_id: str) -> Thing:
        if entity_id not in self._things:
            raise InputError(f"this home has no object {entity_id!r}", hint="entities() lists them")
        return self._things[entity_id]

    def where(self, entity_id: str) -> tuple[float, float, float]:
        """Where a thing stands; a held one is in the robot's hand."""
        if entity_id == self.held:
            return self.pose.x, self.pose.y, self._camera.above_floor_m
        receptacle, slot = self.placements[self.thing(entity_id).entity_id]
        return self.home.receptacle(receptacle).place(slot)

    def free_slots(self, receptacle: str) -> list[int]:
        taken = {slot for name, slot in self.placements.values() if name == receptacle}
        return [slot for slot in range(self.home.receptacle(receptacle).slots) if slot not in taken]

    def pick(self, entity_id: str) -> None:
        """Take a thing. Raises InputError while another is held."""
        self.thing(entity_id)
        if self.held is not None:
            raise InputError(f"{self.held} is held already", hint="place it first")
        self.held, self._scene = entity_id, None
        del self.placements[entity_id]
        self.moved_things()

    def place(self, receptacle: str, slot: int) -> None:
        """Put down what is held. Raises InputError where nothing is held or the slot is taken."""
        if self.held is None or slot not in self.free_slots(receptacle):
            raise InputError(f"nothing can be placed on slot {slot} of {receptacle}", hint="free_slots() lists them")
        self.placements[self.held] = (receptacle, slot)
        self.held, self._scene = None, None
        self.moved_things()

    def moved_things(self) -> None:
        """Called after things changed their place; a renderer keeps up here."""

    @property
    def scene(self) -> Scene:
        """The solids as they stand now."""
        if self._scene is None:
            self._scene = Scene(
                [*self.home.fixed_solids, *(one for name in self.placements for one in self.solids_of(name))]
            )
        return self._scene

    def local_solids(self, entity_id: str) -> list[Solid]:
        """The solids of a thing that stands at the origin."""
        return self._built[entity_id]

    def yaw_of(self, entity_id: str) -> float:
        """Things stand as the furniture under them."""
        return self.home.receptacle(self.placements[entity_id][0]).yaw

    def solids_of(self, entity_id: str) -> list[Solid]:
        """The solids of a thing where it stands; none while it is held."""
        if entity_id == self.held:
            return []
        where, yaw = self.where(entity_id), self.yaw_of(entity_id)
        return [solid.at(where, yaw) for solid in self._built[entity_id]]

    def arrange(self, placements: dict[str, Placement]) -> None:
        """Put every thing where ``placements`` says: the house as some moment left it."""
        missing = sorted(set(self._things) - set(placements))
        if missing:
            raise InputError(f"no place is given for {missing[0]}", hint="name a receptacle and slot for each object")
        self.placements, self.held, self._scene = dict(placements), None, None
        self.moved_things()

    def _restore(self) -> None:
        self.arrange({thing.entity_id: (thing.receptacle, thing.slot) for thing in self.home.things})
