"""Yesterday: an oracle carries things about in a home, by the primitive actions that the benchmark's robot has.

nav_pick -> pick -> nav_place -> place for each interaction, then a walk to the final pose. A pure function of the home
and the seed: no renderer runs. :meth:`Experience.replay` puts a simulation into each frame again, to draw it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from nav.env import FORWARD_M, TURN_RAD, Action, AgentPose
from nav.findingdory.clock import DayClock
from nav.findingdory.log import Interaction, InteractionLog, RoomInfo
from nav.homes.floor import FloorMap
from nav.homes.layout import Home
from nav.homes.simulation import HomeSimulation, Placement
from streammem.errors import InputError

if TYPE_CHECKING:
    from nav.homes.truth import Truth

STAND_M = 0.55
"""From the front edge at which the oracle stops: low couches and high counters are in the tilted camera's view."""
_HAND_STEPS = (8, 15)
"""Steps that pick and place take, fewest and most: durations must differ for tasks 49 and 51."""
_MOST_STEPS = 400
"""Steps of one walk; the longest seen is 120."""

_DETOURS = 2
"""Looks at a receptacle between interactions: without them hardly one is seen that wasn't used (tasks 4, 11, 22)."""

Mode = Literal["nav", "manip"]


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One frame: where the robot is, what it does next, what it holds. ``mark`` names what begins here."""

    step: int
    pose: AgentPose
    mode: Mode
    action: Action
    room: str | None
    held: str | None = None
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """From frame ``step`` on the thing is held (``place`` None) or stands on a receptacle."""

    step: int
    object_id: str
    place: Placement | None


@dataclass(eq=False)
class Experience:
    """What happened in one home, and everything that follows from it."""

    home: Home
    seed: int
    frames: list[FrameRecord]
    events: list[Event]
    interactions: list[Interaction]
    clock: DayClock = field(default_factory=DayClock)

    @property
    def final_pose(self) -> AgentPose:
        return self.frames[-1].pose

    def placements(self, step: int | None = None) -> tuple[dict[str, Placement], str | None]:
        """Where everything stood at a frame (None: at the end), and what was held."""
        places = {thing.entity_id: (thing.receptacle, thing.slot) for thing in self.home.things}
        held = None
        for event in self.events:
            if step is not None and event.step > step:
                break
            if event.place is None:
                held = event.object_id
            else:
                places[event.object_id], held = event.place, None
        return places, held

    def replay(self, simulation: HomeSimulation, frames: Sequence[int] | None = None) -> Iterator[FrameRecord]:
        """Put the simulation into each of ``frames`` (None: all), in rising order, and hand out its record."""
        last: tuple[dict[str, Placement], str | None] | None = None
        for number in range(len(self.frames)) if frames is None else frames:
            record = self.frames[number]
            now = self.placements(number)
            if now != last:
                places, held = now
                simulation.arrange(places)
                if held is not None:
                    simulation.pick(held)
                last = now
            simulation.pose, simulation.steps = record.pose, record.step
            yield record

    @cached_property
    def truth(self) -> Truth:
        """The judge. Not for agents."""
        from nav.homes.truth import Truth

        return Truth(self)

    @cached_property
    def log(self) -> InteractionLog:
        """What every goal set is a function of."""
        steps = {room.entity_id: 0 for room in self.home.rooms}
        for record in self.frames:
            if record.room is not None:
                steps[record.room] += 1
        log = InteractionLog(
            objects=tuple(thing.info for thing in self.home.things),
            receptacles=tuple(one.info for one in self.home.receptacles),
            rooms=tuple(RoomInfo(entity_id=r.entity_id, category=r.category, steps=steps[r.entity_id])
                        for r in self.home.rooms),
            interactions=tuple(self.interactions),
            start_room=self.frames[0].room or "",
            steps=len(self.frames),
            distance_m=self.truth.distances(),
            steps_daily=self.clock.steps_daily,
        )  # fmt: skip
        log.check()
        return log


@dataclass(frozen=True, slots=True)
class Morning:
    """How a later day of a life begins: its ``number`` (from 1), where the robot stands, and what it will let be as
    long as there is something else to carry."""

    number: int
    pose: AgentPose
    rested: frozenset[str] = frozenset()


def make_experience(
    home: Home,
    seed: int = 0,
    *,
    interactions: int | None = None,
    clock: DayClock | None = None,
    morning: Morning | None = None,
) -> Experience:
    """An experience of ``interactions`` (2 to 11; None: 3 to 8 by the seed); ``morning`` None: the first one. Raises
    InputError where the home has fewer things or places than that needs."""
    rng = random.Random(f"{home.seed}/{seed}" if morning is None else f"{home.seed}/{seed}/{morning.number}")
    count = interactions if interactions is not None else 3 + int(rng.random() * 6)
    if not 2 <= count <= 11:
        raise InputError(f"an experience of {count} interactions", hint="use 2 to 11, as the benchmark has")
    return _Oracle(home, rng, clock or DayClock(), morning).run(count, seed)


class _Oracle:
    def __init__(self, home: Home, rng: random.Random, clock: DayClock, morning: Morning | None) -> None:
        self.home, self.rng, self.clock = home, rng, clock
        self.rested = morning.rested if morning is not None else frozenset()
        self.simulation = HomeSimulation(home, clock=clock)
        self.simulation.pose = home.start(rng) if morning is None else morning.pose
        self.frames: list[FrameRecord] = []
        self.events: list[Event] = []
        self.mark = ""

    def run(self, count: int, seed: int) -> Experience:
        made: list[Interaction] = []
        moved: set[str] = set()
        sim = self.simulation
        detours = {int(self.rng.random() * count) for _ in range(_DETOURS)}
        for k in range(count):
            if k in detours:
                one = self.home.receptacles[int(self.rng.random() * len(self.home.receptacles))]
                self._go(one.entity_id, 0, f"look_{k}")
            thing, goal = self._choose(moved)
            moved.add(thing)
            start_id, slot = sim.placements[thing]
            self._go(start_id, slot, f"nav_pick_{k}")
            start_room = self.home.receptacle(start_id).room
            pick_step = len(self.frames)
            self._hands(f"pick_{k}", lambda thing=thing: self._pick(thing))
            nav_place_step = len(self.frames)
            free = sim.free_slots(goal)
            slot = free[int(self.rng.random() * len(free))]
            self._go(goal, slot, f"nav_place_{k}")
            place_step = len(self.frames)
            self._hands(f"place_{k}", lambda goal=goal, slot=slot: self._place(goal, slot))
            made.append(
                Interaction(
                    object_id=thing, start_id=start_id, goal_id=goal, start_room=start_room,
                    goal_room=self.home.receptacle(goal).room, pick_step=pick_step, nav_place_step=nav_place_step,
                    place_step=place_step, end_step=len(self.frames) - 1,
                )
            )  # fmt: skip
        self.mark = "leave"
        away = self.home.start(self.rng)
        for _ in range(1 + int(self.rng.random() * 6)):
            self._do("left")
        self._walk((away.x, away.y))
        self._record("stop", "nav")
        return Experience(self.home, seed, self.frames, self.events, made, self.clock)

    def _choose(self, moved: set[str]) -> tuple[str, str]:
        """A thing that wasn't moved yet, and another receptacle with a free slot."""
        sim = self.simulation
        things = [t.entity_id for t in self.home.things if t.entity_id not in moved]
        things = [name for name in things if name not in self.rested] or things
        if not things:
            raise InputError(f"home {self.home.seed} has no more than {len(moved)} things", hint="ask for fewer")
        thing = things[int(self.rng.random() * len(things))]
        here = sim.placements[thing][0]
        goals = [
            one.entity_id for one in self.home.receptacles if one.entity_id != here and sim.free_slots(one.entity_id)
        ]
        if not goals:
            raise InputError(f"home {self.home.seed} has no free place for {thing}", hint="use another seed")
        return thing, goals[int(self.rng.random() * len(goals))]

    def _go(self, receptacle: str, slot: int, mark: str) -> None:
        self.mark = mark
        one = self.home.receptacle(receptacle)
        x, y, _ = one.place(slot)
        edge = one.model.depth / 2 - min(0.16, one.model.depth / 2)  # of the slot's row, from the middle
        away = one.model.depth / 2 - edge + STAND_M
        target = (x + math.sin(one.yaw) * away, y - math.cos(one.yaw) * away)
        self._walk(target)
        self._face((x, y))

    def _walk(self, target: tuple[float, float]) -> None:
        goal = self.home.floor.snap(target)
        if goal is None:
            raise InputError(f"nobody can stand at {target}", hint="report the seed: layouts should rule this out")
        action: Action = "stop"
        for _ in range(_MOST_STEPS):
            action = next_action(self.home.floor, self.simulation.pose, goal, action)
            if action == "stop":
                return
            self._do(action)
            if self.simulation.collided:
                return  # as near as the floor's grid lets it come
        raise InputError(f"home {self.home.seed}: no way to {goal} in {_MOST_STEPS} steps", hint="report the seed")

    def _face(self, point: tuple[float, float]) -> None:
        for _ in range(18):
            pose = self.simulation.pose
            off = math.remainder(math.atan2(point[1] - pose.y, point[0] - pose.x) - pose.yaw, math.tau)
            if abs(off) <= TURN_RAD / 2 + 1e-9:
                return
            self._do("left" if off > 0 else "right")

    def _hands(self, mark: str, act: object) -> None:
        self.mark = mark
        low, high = _HAND_STEPS
        steps = low + int(self.rng.random() * (high - low + 1))
        for i in range(steps):
            if i == steps // 2 and callable(act):
                act()
            self._record("stop", "manip")
            self.simulation.act("stop")

    def _pick(self, thing: str) -> None:
        self.simulation.pick(thing)
        self.events.append(Event(len(self.frames), thing, None))

    def _place(self, goal: str, slot: int) -> None:
        thing = self.simulation.held or ""
        self.simulation.place(goal, slot)
        self.events.append(Event(len(self.frames), thing, (goal, slot)))

    def _do(self, action: Action) -> None:
        self._record(action, "nav")
        self.simulation.act(action)

    def _record(self, action: Action, mode: Mode) -> None:
        pose = self.simulation.pose
        room = self.home.room_at(pose.x, pose.y)
        self.frames.append(FrameRecord(len(self.frames), pose, mode, action, room, self.simulation.held, self.mark))
        self.mark = ""


def next_action(
    floor: FloorMap, pose: AgentPose, goal: tuple[float, float], previous: Action = "stop", near_m: float = 0.2
) -> Action:
    """The primitive action that leads on to ``goal`` by the shortest way; "stop" within ``near_m`` of it, and where no
    step leads nearer.

    Of the 36 headings that turns reach, the one whose forward step ends nearest to the goal is turned to. A turn that
    was begun (``previous``) goes on in its direction: two headings that lead equally well would be swapped for ever."""
    here = floor.to_go(np.array([pose[:2]]), goal)[0]
    if math.dist(pose[:2], goal) <= near_m or not np.isfinite(here):
        return "stop"
    yaws = pose.yaw + _TURNS * TURN_RAD
    ends = np.array(pose[:2]) + FORWARD_M * np.stack([np.cos(yaws), np.sin(yaws)], axis=1)
    turns = _TURNS % 36 if previous == "left" else -_TURNS % 36 if previous == "right" else np.abs(_TURNS)
    # A turn costs as much as 2 cm: a detour of a few degrees is not corrected at once.
    cost = np.where(floor.lines_are_free(pose, ends), floor.to_go(ends, goal) + 0.02 * turns, np.inf)
    best = int(cost.argmin())
    if not np.isfinite(cost[best]):
        return "stop"
    if _TURNS[best] == 0:
        return "forward" if cost[best] < here else "stop"
    if previous in ("left", "right"):
        return previous
    return "left" if _TURNS[best] > 0 else "right"


_TURNS = np.array(sorted(range(-17, 19), key=abs))
