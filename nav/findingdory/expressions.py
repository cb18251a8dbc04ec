"""Goal expressions of the published episodes, read into our goals, and written by our generator.

An instruction's ``goal_expr`` is a quantifier over one typed entity with required properties, and a predicate::

    {"expr_type": "AND", "quantifier": "EXISTS", "sub_exprs": ["robot_at_object(x)"],
     "inputs": [{"name": "x", "expr_type": "mug", "properties": [
         {"_target_": "DiscPddlEntityProperty", "name": "interacted", "value": true}]}]}

It is met by every entity of the type whose properties contain the required ones. EXISTS: any of them will do;
FORALL...: all of them, in the order of ``sequential_goals`` (indices of interactions) where that says so. What
properties there are is known after the experience: :func:`properties`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from nav.findingdory import goals as g
from nav.findingdory.clock import clock_text
from nav.findingdory.goals import Profile
from nav.findingdory.log import ATTRIBUTES, InteractionLog, ObjectInfo, ReceptacleInfo, RoomInfo
from nav.findingdory.tasks import Goal, Mode, Question, Target, ordinal, task
from streammem.errors import SourceError

PREDICATES: Mapping[str, Target] = {
    "robot_at_object": "object",
    "robot_at_receptacle": "receptacle",
    "robot_in_room": "room",
}
ANY_TYPE: Mapping[str, Target] = {
    "movable_entity_type": "object",
    "static_receptacle_entity_type": "receptacle",
    "room_region_entity": "room",
}
"""Types that mean every object, receptacle or room; all others are names of categories."""
TIME_PLACEHOLDER = "XX:XX"
_DEPTH = 8
Facts = dict[str, dict[str, set[Any]]]


def properties(log: InteractionLog, profile: Profile = "strict") -> Facts:
    """Entity -> property -> values, as the benchmark registers them after the experience.

    ``order_start`` and ``order_goal`` are ours: the strict profile's reading of ``interaction_order``, by role."""
    made: Facts = {}

    def add(name: str, key: str, value: Any) -> None:
        made.setdefault(name, {}).setdefault(key, set()).add(value)

    moved, used = set(g.objects(log)), set(g.touched(log))
    for thing in log.objects:
        add(thing.entity_id, "interacted", thing.entity_id in moved)
        for attribute in ATTRIBUTES:
            if thing.entity_id in moved and getattr(thing, attribute):
                add(thing.entity_id, attribute, getattr(thing, attribute))
    for one in log.receptacles:
        add(one.entity_id, "interacted", one.entity_id in used)
    for k, each in enumerate(log.interactions):
        nth, kind = ordinal(k + 1, profile), log.category(each.object_id)
        add(each.object_id, "interaction_order", nth)
        add(each.object_id, "start_receptacle", log.category(each.start_id))
        for name in g.connected(log, (each.start_id,)):
            add(name, "start_receptacle", True)
            add(name, "interaction_order", nth)
            add(name, "order_start", nth)
            add(name, "initial_object", kind)
        for name in g.connected(log, (each.goal_id,)):
            add(name, "goal_receptacle", True)
            add(name, "interaction_order", nth)
            add(name, "order_goal", nth)
        for room, when in ((each.start_room, "initial"), (each.goal_room, "final")):
            add(room, f"{when}_room", True)
            add(room, f"obj_idx_{when}", nth)
            add(room, f"obj_cat_{when}", kind)
    for number, (key, value) in _EXTREMES.items():
        for group in task(number).goal(log, {}, profile).groups:
            for name in group:
                add(name, key, value)
    for room_info in log.rooms:
        add(room_info.entity_id, "visited", room_info.steps > 0)
    return made


_EXTREMES: Mapping[int, tuple[str, bool]] = {
    21: ("farthest_rec_interacted", True),
    22: ("farthest_rec_non_interacted", True),
    23: ("farthest_start_rec", True),
    24: ("farthest_goal_rec", True),
    25: ("farthest_obj_interacted", True),
    49: ("longest_interaction_time", True),
    50: ("longest_time_spent", True),
    51: ("shortest_interaction_time", True),
}


def goal_of(
    expression: object, sequential: Mapping[str, Any] | None, log: InteractionLog, profile: Profile = "strict"
) -> Goal:
    """Raises SourceError for an expression that isn't one."""
    found = _quantified(expression, _DEPTH)
    target = _target(found)
    names = _members(found["inputs"][0], target, log, profile)
    quantifier = str(found["quantifier"])
    if quantifier == "EXISTS":
        return Goal(target=target, mode="any", groups=(g.unique(names),))
    if not quantifier.startswith("FORALL"):
        raise SourceError(f"the quantifier {quantifier!r} isn't known", hint="EXISTS, FORALL, FORALL_SEQUENTIAL_...")
    mode: Mode = "ordered" if quantifier.endswith("_ORDERED") and not quantifier.endswith("_UNORDERED") else "all"
    if mode == "ordered":
        names = _in_order(found["inputs"][0], target, sequential, log)
        names = list(g.unique(names)) if profile == "official" else names
    else:
        # One target stands for the connected ones: in multi-goal tasks only what was handled itself is registered.
        handled = {n for i in log.interactions for n in (i.object_id, i.start_id, i.goal_id)}
        names = [name for name in g.unique(names) if name in handled]
    groups = tuple(g.connected(log, (name,)) if target == "receptacle" else (name,) for name in names)
    return Goal(target=target, mode=mode, groups=groups)


def timed(text: str, goal: Goal, log: InteractionLog, chosen: str | None, rng: random.Random) -> tuple[str, Goal]:
    """The words and the goal of a question about a minute: the minute is drawn from one of the chosen entity's
    intervals, as the benchmark does when the experience is over; the goal is that entity."""
    name = chosen if chosen in goal.entities else next(iter(goal.entities), "")
    spans = g.object_minutes(log) if goal.target == "object" else g.receptacle_minutes(log)
    mine = [minutes for one, minutes in spans if one == name]
    if not mine:
        return text, Goal(target=goal.target, mode="any", groups=((),))
    minutes = mine[int(rng.random() * len(mine))]
    minute = minutes[int(rng.random() * len(minutes))]
    words = text.replace(TIME_PLACEHOLDER, clock_text(minute).lstrip("0"))
    return words, Goal(target=goal.target, mode="any", groups=((name,),))


def expression_of(question: Question, log: InteractionLog) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """``goal_expr`` and ``sequential_goals`` of one of our questions, in the published layout."""
    one, slots = task(question.task), question.slots
    kind = slots.get("category") or slots.get("receptacle")
    named = isinstance(kind, str) and question.task in (1, 2, 9, 10, 11, 12, 13, 54, 55)
    wanted = [(key, value) for key, value in _REQUIRED[question.task](slots, log) if value is not None]
    any_type = next(name for name, target in ANY_TYPE.items() if target == one.target)
    predicate = next(name for name, target in PREDICATES.items() if target == one.target)
    quantifier = {"any": "EXISTS", "all": "FORALL_SEQUENTIAL_UNORDERED", "ordered": "FORALL_SEQUENTIAL_ORDERED"}
    order = slots.get("order")
    sequential = None if one.mode == "any" else {"ordered": order is not None, "sequence": list(order or ())}
    return {
        "expr_type": "AND",
        "quantifier": quantifier[one.mode],
        "inputs": [
            {
                "name": "x",
                "expr_type": kind if named else any_type,
                "properties": [
                    {"_target_": "DiscPddlEntityProperty", "name": key, "value": value} for key, value in wanted
                ],
            }
        ],
        "sub_exprs": [f"{predicate}(x)"],
    }, sequential


def _quantified(expression: object, depth: int) -> Mapping[str, Any]:
    """The innermost part that quantifies an entity."""
    if isinstance(expression, dict) and depth:
        if expression.get("quantifier") and expression.get("inputs"):
            return expression
        parts = expression.get("sub_exprs")
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict):
                return _quantified(part, depth - 1)
    raise SourceError(f"no goal expression: {str(expression)[:120]}", hint="expected a quantifier over typed inputs")


def _target(found: Mapping[str, Any]) -> Target:
    for part in found.get("sub_exprs") or ():
        name = str(part).partition("(")[0].strip()
        if name in PREDICATES:
            return PREDICATES[name]
    raise SourceError(
        f"no predicate of the benchmark: {str(found.get('sub_exprs'))[:120]}", hint=f"known are {', '.join(PREDICATES)}"
    )


def _wanted(given: Mapping[str, Any]) -> list[tuple[str, Any]]:
    try:
        return [(str(one["name"]), one["value"]) for one in given.get("properties") or ()]
    except (KeyError, TypeError):
        raise SourceError(f"properties without name and value: {str(given)[:120]}", hint="check the file") from None


_INFO: Mapping[Target, type] = {"object": ObjectInfo, "receptacle": ReceptacleInfo, "room": RoomInfo}


def _members(given: Mapping[str, Any], target: Target, log: InteractionLog, profile: Profile) -> list[str]:
    kind = str(given.get("expr_type", ""))
    group = [one for one in log.entities if isinstance(one, _INFO[target])]
    named = kind.removeprefix("region_")
    pool = [one.entity_id for one in group if kind in ANY_TYPE or log.category(one.entity_id) == named]
    facts, wanted = properties(log, profile), _wanted(given)
    roles = {key for key, value in wanted if key in ("start_receptacle", "goal_receptacle") and value is True}
    if profile == "strict" and target == "receptacle" and len(roles) == 1:
        # Quirk order_merges_roles: an order counts in the role that is asked for.
        mine = "order_start" if roles == {"start_receptacle"} else "order_goal"
        wanted = [(mine if key == "interaction_order" else key, value) for key, value in wanted]
    chosen = [name for name in pool if all(_has(facts.get(name, {}).get(key, set()), v) for key, v in wanted)]
    if ("visited", False) in wanted and not chosen:
        return [log.start_room]
    met = g.unique(name for i in log.interactions for name in (i.object_id, i.start_id, i.goal_id))
    return sorted(chosen, key=lambda name: met.index(name) if name in met else len(met))


def _has(values: set[Any], wanted: Any) -> bool:
    """Several wanted values: any of them (our "between")."""
    return bool(values & set(wanted)) if isinstance(wanted, list) else wanted in values


def _in_order(
    given: Mapping[str, Any], target: Target, sequential: Mapping[str, Any] | None, log: InteractionLog
) -> list[str]:
    sequence = (sequential or {}).get("sequence")
    if not isinstance(sequence, Sequence) or not all(
        isinstance(k, int) and 0 <= k < len(log.interactions) for k in sequence
    ):
        raise SourceError(f"sequential_goals {sequential!r} name no interactions", hint="check the file")
    wanted = {key for key, value in _wanted(given) if value is True}
    side = g.objects(log) if target == "object" else g.ends(log) if "goal_receptacle" in wanted else g.starts(log)
    return [side[k] for k in sequence]


def _nths(ks: Sequence[int]) -> Any:
    names = [ordinal(k + 1) for k in ks]
    return names[0] if len(names) == 1 else names


_IN, _START, _GOAL = ("interacted", True), ("start_receptacle", True), ("goal_receptacle", True)
_OUT = ("interacted", False)


def _order_at(number: int, *more: tuple[str, Any]) -> Any:
    """Properties of what stands a fixed number of interactions from the anchor of the slots, or between two."""

    def required(slots: Mapping[str, Any], log: InteractionLog) -> list[tuple[str, Any]]:
        if "n" in slots:
            at = [slots["n"] - 1]
        elif "b" in slots:
            at = list(range(slots["a"] + 1, slots["b"]))
        else:
            sign = -1 if number in (37, 39, 41, 43) else 1
            at = [slots["a"] + sign * slots.get("m", 1)]
        return [*more, ("interaction_order", _nths(at))]

    return required


def _fixed(*wanted: tuple[str, Any]) -> Any:
    return lambda slots, log: list(wanted)


def _slot(key: str, slot: str, *more: tuple[str, Any]) -> Any:
    return lambda slots, log: [*more, (key, slots.get(slot))]


def _room_index(key: str) -> Any:
    return lambda slots, log: [(key, ordinal(slots["n"]))]


_REQUIRED: Mapping[int, Any] = {
    **dict.fromkeys((1, 2), _fixed()),
    **dict.fromkeys((3, 5, 9, 47, 48, 56, 57, 60), _fixed(_IN)),
    **dict.fromkeys((4, 6, 10, 11), _fixed(_OUT)),
    **dict.fromkeys((7, 12, 52, 55, 58), _fixed(_IN, _START)),
    **dict.fromkeys((8, 13, 53, 54, 59), _fixed(_IN, _GOAL)),
    14: _slot("initial_object", "category", _START),
    15: _slot("start_receptacle", "receptacle", _IN),
    16: _slot("shape", "value", _IN),
    17: _slot("color", "value", _IN),
    18: _slot("print_or_design", "value", _IN),
    19: _slot("material", "value", _IN),
    20: _slot("functionality", "value", _IN),
    **{number: _fixed(fact) for number, fact in _EXTREMES.items()},
    26: _room_index("obj_idx_initial"),
    27: _room_index("obj_idx_final"),
    28: _slot("obj_cat_initial", "category"),
    29: _slot("obj_cat_final", "category"),
    30: _fixed(("visited", False)),
    **{n: _order_at(n, _IN) for n in (31, 35, 36, 37, 38, 39, 40)},
    **{n: _order_at(n, _START) for n in (32, 34, 42, 44, 46)},
    **{n: _order_at(n, _GOAL) for n in (33, 41, 43, 45)},
}
