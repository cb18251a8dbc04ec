"""Scores of answers that are judged in the environment: high level (frames) and low level (driving).

``profile="official"`` is bug-compatible with the released evaluator; ``QUIRKS`` names each difference from ``strict``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nav.findingdory import routes
from nav.findingdory.goals import Groups, Profile
from nav.findingdory.predicates import FULL, INF, MEASURES, Judge, Measure, Reading, Thresholds, satisfied
from nav.findingdory.sequencing import Sequencer
from nav.findingdory.tasks import Goal
from streammem.errors import InputError

Failure = Literal[
    "",
    "response_error",
    "num_targets_error",
    "out_of_bounds_pred",
    "oracle_agent_timeout",
    "misidentification",
    "unsolvable",
]
EXCLUDED = -1.0
"""HL-SPL of a multi-goal task: left out of means."""

QUIRKS: Mapping[str, str] = {
    "clipped_indices": "agents clip indices into range before they send them: an answer that can't be read, or [[-1]], "
    "is judged as frame 0, an index beyond the end as the last frame",
    "counts_unsolvable": "a question that no frame solves is judged like any other and counts as a failure",
    "cached_predicates": "a subgoal that held at a stop holds for ever (sequencing.py)",
    "order_merges_roles": "a receptacle's interaction orders don't tell picked from placed (goals.py)",
    "time_names_one": "47/48 accept only the entity that the minute was drawn from (goals.py)",
    "whole_minutes": "49/51 compare whole minutes; the first met wins a tie (goals.py)",
    "unique_targets": "58/59 count a repeated receptacle once online (goals.py)",
    "path_of_objects": "58/59 take the shortest path over the objects instead of the receptacles (tasks.py)",
    "tour_unanchored": "a tour over more than 6 goals is approximate and needn't begin at the start (routes.py)",
    "eleventh_is_10th": "the eleventh item is called the 10th (tasks.py)",
    "exact_is_text": "exact accuracy compares the printed lists character by character (offline.py)",
    "one_sided_goal_dropped": "relaxed accuracy leaves out a goal where one side is empty (offline.py)",
}


@dataclass(frozen=True, slots=True)
class HighLevel:
    """What became of an answer in frames. ``spl`` is -1 for multi-goal tasks (left out of means); ``excluded``: the
    question has no answer and doesn't count (strict)."""

    success: bool
    dtg: bool
    sc: bool
    spl: float
    failure: Failure
    frames: tuple[int, ...] = ()
    excluded: bool = False


def prepare(
    predicted: Sequence[int] | None, frames: int, profile: Profile, *, clipped: bool = True
) -> tuple[tuple[int, ...], Failure]:
    """What an agent says -> what is judged, and why it can't be. ``None``: the answer couldn't be read.

    Official: quirk ``clipped_indices``; ``clipped=False`` is the evaluator alone, for an agent that doesn't clip.
    Strict: unreadable or [-1] is a response_error, out of range a failure of its own."""
    if frames < 1:
        raise InputError(f"an experience of {frames} frames", hint="it has at least one")
    said = tuple(predicted) if predicted is not None else (-1,)
    if profile == "official" and clipped:
        return tuple(min(max(frame, 0), frames - 1) for frame in said), ""
    if not said or said == (-1,):
        return (), "response_error"
    if any(not 0 <= frame < frames for frame in said):
        return said, "out_of_bounds_pred"
    return said, ""


def high_level(
    goal: Goal,
    predicted: Sequence[int] | None,
    judge: Judge,
    *,
    profile: Profile = "strict",
    timeout: bool = False,
    clipped: bool = True,
) -> HighLevel:
    """Judge one answer: ``predicted`` holds one frame for each target (None: the answer couldn't be read).

    ``timeout``: the experience itself wasn't completed. Success is the goal's value after the last frame."""
    if timeout:
        return HighLevel(False, False, False, _no_spl(goal), "oracle_agent_timeout")
    if profile == "strict" and not goal.solvable:
        return HighLevel(False, False, False, _no_spl(goal), "unsolvable", excluded=True)
    said, failure = prepare(predicted, judge.frames, profile, clipped=clipped)
    targets = 1 if goal.mode == "any" else len(goal.groups)
    if not failure and len(said) != targets:
        failure = "num_targets_error"
    if failure:
        return HighLevel(False, False, False, _no_spl(goal), failure, said)
    stops = [{name: judge.reading(name, frame) for name in goal.entities} for frame in said]
    passed = {name: _run(goal, stops, at, profile) for name, at in MEASURES.items()}
    success = passed["full"]
    value = _high_level_spl(goal, stops, judge) if success and goal.mode == "any" else _no_spl(goal)
    return HighLevel(success, passed["dtg"], passed["sc"], value, "" if success else "misidentification", said)


def _no_spl(goal: Goal) -> float:
    return 0.0 if goal.mode == "any" else EXCLUDED


def _run(goal: Goal, stops: Sequence[Mapping[str, Reading]], at: Thresholds, profile: Profile) -> bool:
    if not goal.groups:
        return False
    sequencer = Sequencer(goal.mode, len(goal.groups), profile)
    for readings in stops:
        sequencer.stop(satisfied(goal.target, goal.groups, readings, at))
    return sequencer.state == "done"


def _high_level_spl(goal: Goal, stops: Sequence[Mapping[str, Reading]], judge: Judge) -> float:
    """d_min / max(d_min, d_chosen) from the start pose; chosen is the satisfied entity nearest to the frame."""
    met = [name for name in goal.entities if FULL.holds(goal.target, stops[0][name])]
    chosen = min(met, key=lambda name: (stops[0][name].distance_m, name))
    return choice_spl({name: judge.distance(None, name) for name in goal.entities}, chosen)


def choice_spl(distance_m: Mapping[str, float], chosen: str) -> float:
    """HL-SPL of a success: ``distance_m`` from the start pose to every entity that would do."""
    if distance_m[chosen] == 0:
        return 1.0
    nearest = min(distance_m.values())
    return nearest / max(nearest, distance_m[chosen]) if np.isfinite(distance_m[chosen]) else 0.0


Drive = Literal["stopped", "timeout", "planner_failure"]
LowFailure = Literal["", "timeout", "planner_failure", "incorrect_stop"]
BUDGET = 1000
"""Low-level steps a task; step 1,001 is the timeout."""
NEAR_M = 2.5
"""An incorrect stop is told apart by whether the closest unmet goal is nearer than this."""


@dataclass(slots=True)
class DriveTrace:
    """A driven robot: ``positions`` (x, y) or (x, y, z) metres of every step, from the start on, and what the goal's
    entities looked like at each stop. ``steps`` counts actions; ``step_m`` are geodesic step lengths where they differ
    from Euclidean ones."""

    positions: list[tuple[float, ...]]
    stops: list[Mapping[str, Reading]] = field(default_factory=list)
    steps: int = 0
    ended: Drive = "stopped"
    step_m: list[float] | None = None

    @property
    def length_m(self) -> float:
        if self.step_m is not None:
            return float(sum(self.step_m))
        return routes.path_length(np.array(self.positions)) if len(self.positions) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class LowLevel:
    """``in_view`` and ``near`` split an incorrect stop: was an unmet goal seen, was one nearer than 2.5 m."""

    success: bool
    spl: float
    failure: LowFailure
    length_m: float
    shortest_m: float
    in_view: bool = False
    near: bool = False


def low_level(
    goal: Goal, trace: DriveTrace, judge: Judge, *, profile: Profile = "strict", budget: int = BUDGET
) -> LowLevel:
    """Judge a drive: LL-SR is whether the goal is satisfied by its stops, LL-SPL weighs it by the shortest path.

    A policy that never stops has no stop, so it can't succeed: more than ``budget`` steps are a timeout, whatever it
    says of itself; stops after the budget don't count (the caller shouldn't have let it)."""
    timeout = trace.steps > budget or trace.ended == "timeout"
    shortest = shortest_path(goal, judge, profile)
    length = trace.length_m
    open_groups: Groups = goal.groups
    success = False
    if goal.solvable:
        sequencer = Sequencer(goal.mode, len(goal.groups), profile)
        for readings in trace.stops:
            sequencer.stop(satisfied(goal.target, goal.groups, readings, FULL))
        success = sequencer.state == "done" and not timeout
        open_groups = tuple(g for g, locked in zip(goal.groups, sequencer.locked, strict=True) if not locked)
    if success:
        return LowLevel(True, routes.spl(True, shortest, length), "", length, shortest)
    if timeout or trace.ended == "planner_failure":
        kind: LowFailure = "timeout" if timeout else "planner_failure"
        return LowLevel(False, 0.0, kind, length, shortest)
    if not trace.stops:
        return LowLevel(False, 0.0, "incorrect_stop", length, shortest)
    last = [trace.stops[-1].get(name, Reading()) for group in open_groups for name in group]
    seen = any(reading.coverage >= FULL.coverage or reading.inside for reading in last)
    near = min((reading.distance_m for reading in last), default=INF) < NEAR_M
    return LowLevel(False, 0.0, "incorrect_stop", length, shortest, seen, near)


def shortest_path(goal: Goal, judge: Judge, profile: Profile = "strict") -> float:
    """Geodesic metres of the best drive: to the closest matching entity (single goal), in order, or the best open tour.

    A group's station is its first member that can be reached from the start."""
    groups = goal.path_groups if goal.path_groups is not None and profile == "official" else goal.groups
    if not groups or not all(groups):
        return INF
    if goal.mode == "any":
        return min(judge.distance(None, name) for name in groups[0])
    stations = [min(group, key=lambda name: not np.isfinite(judge.distance(None, name))) for group in groups]

    def distance(a: int, b: int) -> float:
        return judge.distance(stations[a - 1] if a else None, stations[b - 1])

    if goal.mode == "ordered":
        return routes.ordered_length(distance, len(stations))
    return (routes.open_tour_official if profile == "official" else routes.open_tour)(distance, len(stations))


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over questions; ``spl`` over single-goal questions only. ``count`` leaves out what is excluded."""

    count: int
    excluded: int
    hl_sr: float
    dtg_sr: float
    sc_sr: float
    hl_spl: float
    failures: Mapping[str, int]


def summarise(results: Iterable[HighLevel]) -> Summary:
    """Of none at all: zeros and ``count`` 0."""
    given = list(results)
    counted = [one for one in given if not one.excluded]

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else 0.0

    failures: dict[str, int] = {}
    for one in counted:
        if one.failure:
            failures[one.failure] = failures.get(one.failure, 0) + 1
    return Summary(
        count=len(counted),
        excluded=len(given) - len(counted),
        hl_sr=mean([float(one.success) for one in counted]),
        dtg_sr=mean([float(one.dtg) for one in counted]),
        sc_sr=mean([float(one.sc) for one in counted]),
        hl_spl=mean([one.spl for one in counted if one.spl != EXCLUDED]),
        failures=dict(sorted(failures.items())),
    )


__all__ = [
    "BUDGET", "EXCLUDED", "QUIRKS", "DriveTrace", "Failure", "HighLevel", "LowLevel", "Measure", "Summary",
    "choice_spl", "high_level", "low_level", "prepare", "shortest_path", "summarise",
]  # fmt: skip
