"""Going there: from where the day ended to the places of the answer, on the memory's own map.

The way is planned by ``nav.planner`` on what ``query("spatial", "map")`` returns and followed by the benchmark's
actions (0.25 m, 10 degrees). What the robot bumps into is entered into its own copy of the map, and it plans again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from nav.env import FORWARD_M, TURN_RAD, Action, AgentPose
from nav.findingdory.metrics import BUDGET, DriveTrace
from nav.findingdory.predicates import Reading
from nav.findingdory.recollection import Recollection, heading
from nav.planner import GridPlanner, Plan
from streammem.errors import QueryError

REACHED_M = 0.15
"""Half a step and a little: nearer can't be asked of steps of 0.25 m."""
_AHEAD_M = 0.6
"""How far along the way the next point lies that is steered for."""
_BUMPS = 12


class Body(Protocol):
    """What a drive has of the robot: its odometry, its bumper, its legs."""

    @property
    def pose(self) -> AgentPose: ...

    @property
    def collided(self) -> bool: ...

    def act(self, action: Action) -> None: ...


Seen = Callable[[AgentPose], Mapping[str, Reading]]
"""What the judge reads where the robot stops; the drive doesn't look at it."""


def stations(known: Recollection, frames: Sequence[int]) -> list[tuple[float, float, float]]:
    """(x, y, yaw) at which the answer's frames were seen."""
    pose_of = {record.seq: record.pose for record in known.moments}
    found = []
    for frame in frames:
        pose = pose_of.get(frame)
        if pose is not None:
            found.append((pose.position_m[0], pose.position_m[1], heading(pose)))
    return found


def drive(
    body: Body, planner: GridPlanner, targets: Sequence[tuple[float, float, float]], seen: Seen, budget: int = BUDGET
) -> DriveTrace:
    """Visit the targets in their order, stop at each. ``ended`` says planner_failure where no way is known."""
    trace = DriveTrace([(body.pose.x, body.pose.y)])
    free = planner.free.copy()
    try:
        for x, y, yaw in targets:
            if not _walk(body, planner, (x, y), trace, budget):
                trace.ended = "timeout" if trace.steps >= budget else "planner_failure"
                return trace
            _turn(body, yaw, trace, budget)
            trace.steps += 1
            if trace.steps > budget:
                trace.ended = "timeout"
                return trace
            trace.stops.append(seen(body.pose))
    finally:
        planner.free = free
    return trace


def _walk(body: Body, planner: GridPlanner, goal: tuple[float, float], trace: DriveTrace, budget: int) -> bool:
    bumps = 0
    plan = _plan(planner, body.pose, goal)
    while trace.steps < budget:
        here = (body.pose.x, body.pose.y)
        away = math.dist(here, goal)
        if away <= REACHED_M:
            return True
        if not plan.found:
            # Within a step of it: as near as it gets.
            return away <= 2 * FORWARD_M
        point = goal if away <= _AHEAD_M else _ahead(plan, here)
        off = math.remainder(math.atan2(point[1] - here[1], point[0] - here[0]) - body.pose.yaw, math.tau)
        if away < FORWARD_M and abs(off) > math.pi / 3:
            return True  # a step would lead past it
        if abs(off) > TURN_RAD / 2 + 1e-9:
            _do(body, "left" if off > 0 else "right", trace)
            continue
        _do(body, "forward", trace)
        if body.collided:
            bumps += 1
            if bumps > _BUMPS:
                return False
            _block(planner, body.pose)
            plan = _plan(planner, body.pose, goal)
    return False


def _plan(planner: GridPlanner, pose: AgentPose, goal: tuple[float, float]) -> Plan:
    try:
        return planner.plan((pose.x, pose.y), goal, snap_m=0.8)
    except QueryError as error:
        return Plan((), math.inf, str(error))


def _ahead(plan: Plan, here: tuple[float, float]) -> tuple[float, float]:
    """The point of the way that lies ``_AHEAD_M`` behind the one nearest to here."""
    dense: list[tuple[float, float]] = []
    for a, b in zip(plan.waypoints_m[:-1], plan.waypoints_m[1:], strict=True):
        count = max(1, math.ceil(math.dist(a, b) / 0.1))
        dense += [(a[0] + (b[0] - a[0]) * i / count, a[1] + (b[1] - a[1]) * i / count) for i in range(count)]
    dense.append((plan.waypoints_m[-1][0], plan.waypoints_m[-1][1]))
    nearest = min(range(len(dense)), key=lambda i: math.dist(dense[i], here))
    return dense[min(len(dense) - 1, nearest + round(_AHEAD_M / 0.1))]


def _block(planner: GridPlanner, pose: AgentPose) -> None:
    """What was bumped into is somewhere on the step ahead: the squares around its end."""
    ahead = (pose.x + FORWARD_M * math.cos(pose.yaw), pose.y + FORWARD_M * math.sin(pose.yaw))
    try:
        row, column = planner.square(ahead)
    except QueryError:
        return
    for r in range(max(0, row - 1), min(planner.free.shape[0], row + 2)):
        for c in range(max(0, column - 1), min(planner.free.shape[1], column + 2)):
            if math.dist(planner.centre((r, c)), (pose.x, pose.y)) > FORWARD_M / 2:
                planner.free[r, c] = False


def _turn(body: Body, yaw: float, trace: DriveTrace, budget: int) -> None:
    while trace.steps < budget:
        off = math.remainder(yaw - body.pose.yaw, math.tau)
        if abs(off) <= TURN_RAD / 2 + 1e-9:
            return
        _do(body, "left" if off > 0 else "right", trace)


def _do(body: Body, action: Action, trace: DriveTrace) -> None:
    body.act(action)
    trace.steps += 1
    trace.positions.append((body.pose.x, body.pose.y))
