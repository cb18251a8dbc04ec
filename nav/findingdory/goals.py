"""Goal sets of the 60 tasks: pure functions of an interaction log and of how a template was filled in.

A function of ``GOALS`` gives the groups to reach: one group (any member will do) for a single-goal task, one group for
each target of a multi-goal task. A receptacle's group holds its connected ones too. Two readings exist where the
benchmark's code and its description differ: ``official`` follows the code, quirk by quirk, ``strict`` the description.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from nav.findingdory.log import ATTRIBUTES, InteractionLog

Profile = Literal["official", "strict"]
Slots = Mapping[str, Any]
"""How a template is filled in: ``category`` and ``receptacle`` (names), ``n`` (ordinal from 1), ``a`` and ``b``
(interactions from 0), ``m`` (distance in interactions), ``value`` (of an attribute), ``minute`` and ``chosen``,
``order`` (a permutation of interactions from 0)."""
Groups = tuple[tuple[str, ...], ...]
GoalRule = Callable[[InteractionLog, Slots, Profile], Groups]


def unique(ids: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the order in which it was met first."""
    return tuple(dict.fromkeys(ids))


def objects(log: InteractionLog) -> tuple[str, ...]:
    """O+: the object of each interaction."""
    return tuple(one.object_id for one in log.interactions)


def starts(log: InteractionLog) -> tuple[str, ...]:
    return tuple(one.start_id for one in log.interactions)


def ends(log: InteractionLog) -> tuple[str, ...]:
    return tuple(one.goal_id for one in log.interactions)


def connected(log: InteractionLog, ids: Iterable[str]) -> tuple[str, ...]:
    """Receptacles together with those of the same asset."""
    return unique(name for one in unique(ids) for name in (one, *log.receptacle(one).connected))


def touched(log: InteractionLog) -> tuple[str, ...]:
    """R+: receptacles picked from or placed on, in order of time, with the connected ones."""
    return connected(log, (name for one in log.interactions for name in (one.start_id, one.goal_id)))


def untouched(log: InteractionLog) -> tuple[str, ...]:
    """R-."""
    used = set(touched(log))
    return tuple(one.entity_id for one in log.receptacles if one.entity_id not in used)


def unmoved(log: InteractionLog) -> tuple[str, ...]:
    """O-."""
    used = set(objects(log))
    return tuple(one.entity_id for one in log.objects if one.entity_id not in used)


def farthest(log: InteractionLog, ids: Sequence[str]) -> tuple[str, ...]:
    """The one that is farthest from the final pose; the first met of several. What can't be reached doesn't count."""
    near = [name for name in unique(ids) if log.distance_m.get(name, float("inf")) < float("inf")]
    return (max(near, key=lambda name: log.distance_m[name]),) if near else ()


def of_category(log: InteractionLog, ids: Iterable[str], category: str) -> tuple[str, ...]:
    return tuple(name for name in ids if log.category(name) == category)


def receptacle_minutes(log: InteractionLog) -> list[tuple[str, range]]:
    """When each receptacle was interacted with, in whole minutes: a start from the first pick step to the start of the
    way to the goal, a goal from the first place step to the end."""
    spans = []
    minute = log.clock.minute
    for one in log.interactions:
        spans.append((one.start_id, range(minute(one.pick_step), minute(one.nav_place_step) + 1)))
        spans.append((one.goal_id, range(minute(one.place_step), minute(one.end_step) + 1)))
    return spans


def object_minutes(log: InteractionLog) -> list[tuple[str, range]]:
    """When each object was interacted with: from the first pick step to the end of the place."""
    minute = log.clock.minute
    return [(one.object_id, range(minute(one.pick_step), minute(one.end_step) + 1)) for one in log.interactions]


def _duration(longest: bool) -> GoalRule:
    def rule(log: InteractionLog, slots: Slots, profile: Profile) -> Groups:
        total: dict[str, int] = {}
        for one, (_, minutes) in zip(log.interactions, object_minutes(log), strict=True):
            # The benchmark counts whole minutes; steps tell apart what a minute can't.
            took = minutes[-1] - minutes[0] if profile == "official" else one.end_step - one.pick_step + 1
            total[one.object_id] = total.get(one.object_id, 0) + took
        if not total:
            return ((),)
        best = max(total.values()) if longest else min(total.values())
        return ((next(name for name, took in total.items() if took == best),),)

    return rule


def _attribute(name: str) -> GoalRule:
    assert name in ATTRIBUTES

    def rule(log: InteractionLog, slots: Slots, profile: Profile) -> Groups:
        return (tuple(one for one in unique(objects(log)) if getattr(log.object(one), name) == slots["value"]),)

    return rule


def _single(pick: Callable[[InteractionLog, Slots], Iterable[str]]) -> GoalRule:
    return lambda log, slots, profile: (unique(pick(log, slots)),)


def _receptacle(pick: Callable[[InteractionLog, Slots], Iterable[str]]) -> GoalRule:
    return lambda log, slots, profile: (connected(log, pick(log, slots)),)


def _every(pick: Callable[[InteractionLog, Slots], Iterable[str]]) -> GoalRule:
    return lambda log, slots, profile: tuple((name,) for name in unique(pick(log, slots)))


def _every_receptacle(pick: Callable[[InteractionLog, Slots], Iterable[str]]) -> GoalRule:
    return lambda log, slots, profile: tuple(connected(log, (name,)) for name in unique(pick(log, slots)))


def _nth(role: Literal["start", "goal"], interaction: Callable[[Slots], Iterable[int]]) -> GoalRule:
    """Receptacle of given interactions in one role.

    Quirk ``order_merges_roles`` (official): a receptacle has one set of interaction orders for both of its roles, so
    "first placed on" also matches one that was picked from first and placed on later."""

    def rule(log: InteractionLog, slots: Slots, profile: Profile) -> Groups:
        mine, other = (starts(log), ends(log)) if role == "start" else (ends(log), starts(log))
        found = []
        for k in interaction(slots):
            found.append(mine[k])
            if profile == "official" and other[k] in mine:
                found.append(other[k])
        return (connected(log, found),)

    return rule


def _at_minute(spans: Callable[[InteractionLog], list[tuple[str, range]]]) -> GoalRule:
    """Quirk ``time_names_one`` (official): the entity from whose interval the minute was drawn, even where others were
    interacted with in the same minute."""

    def rule(log: InteractionLog, slots: Slots, profile: Profile) -> Groups:
        if profile == "official":
            return ((slots["chosen"],),)
        return (unique(name for name, minutes in spans(log) if slots["minute"] in minutes),)

    return rule


def _ordered(pick: Callable[[InteractionLog], tuple[str, ...]], receptacle: bool) -> GoalRule:
    """Quirk ``unique_targets`` (official, 58 and 59): a receptacle that comes twice is one target online, while the
    offline answer has a group for each item of the sequence (:func:`nav.findingdory.tasks.answer_groups`)."""

    def rule(log: InteractionLog, slots: Slots, profile: Profile) -> Groups:
        items: Iterable[str] = [pick(log)[k] for k in slots["order"]]
        items = unique(items) if profile == "official" else items
        return tuple(connected(log, (name,)) if receptacle else (name,) for name in items)

    return rule


def _room_30(log: InteractionLog, slots: Slots, profile: Profile) -> Groups:
    return (tuple(room.entity_id for room in log.rooms if room.steps == 0) or (log.start_room,),)


def _room_50(log: InteractionLog, slots: Slots, profile: Profile) -> Groups:
    best = max(log.rooms, key=lambda room: room.steps, default=None)
    return ((best.entity_id,) if best is not None and best.steps else (),)


def _after(slots: Slots) -> list[int]:
    return [slots["a"] + slots.get("m", 1)]


def _before(slots: Slots) -> list[int]:
    return [slots["a"] - slots.get("m", 1)]


def _between(slots: Slots) -> range:
    return range(slots["a"] + 1, slots["b"])


def _nth_is(slots: Slots) -> list[int]:
    return [slots["n"] - 1]


def _object_at(which: Callable[[Slots], Iterable[int]]) -> GoalRule:
    return _single(lambda log, slots: (objects(log)[k] for k in which(slots)))


def _cat(ids: Callable[[InteractionLog], Iterable[str]]) -> Callable[[InteractionLog, Slots], Iterable[str]]:
    return lambda log, slots: of_category(log, ids(log), slots["category"])


def _rec(ids: Callable[[InteractionLog], Iterable[str]]) -> Callable[[InteractionLog, Slots], Iterable[str]]:
    return lambda log, slots: of_category(log, ids(log), slots["receptacle"])


GOALS: dict[int, GoalRule] = {
    1: _single(_cat(lambda log: (one.entity_id for one in log.objects))),
    2: _single(_rec(lambda log: (one.entity_id for one in log.receptacles))),
    3: _single(lambda log, slots: touched(log)),
    4: _single(lambda log, slots: untouched(log)),
    5: _single(lambda log, slots: objects(log)),
    6: _single(lambda log, slots: unmoved(log)),
    7: _receptacle(lambda log, slots: starts(log)),
    8: _receptacle(lambda log, slots: ends(log)),
    9: _single(_cat(objects)),
    10: _single(_cat(unmoved)),
    11: _single(_rec(untouched)),
    12: _receptacle(_rec(starts)),
    13: _receptacle(_rec(ends)),
    14: _receptacle(
        lambda log, slots: (i.start_id for i in log.interactions if log.category(i.object_id) == slots["category"])
    ),
    15: _single(
        lambda log, slots: (i.object_id for i in log.interactions if log.category(i.start_id) == slots["receptacle"])
    ),
    **{16 + i: _attribute(name) for i, name in enumerate(("shape", "color", "print_or_design"))},
    19: _attribute("material"),
    20: _attribute("functionality"),
    21: _single(lambda log, slots: farthest(log, touched(log))),
    22: _single(lambda log, slots: farthest(log, untouched(log))),
    23: _single(lambda log, slots: farthest(log, connected(log, starts(log)))),
    24: _single(lambda log, slots: farthest(log, connected(log, ends(log)))),
    25: _single(lambda log, slots: farthest(log, objects(log))),
    26: _single(lambda log, slots: (log.interactions[slots["n"] - 1].start_room,)),
    27: _single(lambda log, slots: (log.interactions[slots["n"] - 1].goal_room,)),
    28: _single(
        lambda log, slots: (i.start_room for i in log.interactions if log.category(i.object_id) == slots["category"])
    ),
    29: _single(
        lambda log, slots: (i.goal_room for i in log.interactions if log.category(i.object_id) == slots["category"])
    ),
    30: _room_30,
    31: _object_at(_nth_is),
    32: _nth("start", _nth_is),
    33: _nth("goal", _nth_is),
    34: _nth("start", _nth_is),
    35: _object_at(_nth_is),
    36: _object_at(_after),
    37: _object_at(_before),
    38: _object_at(_after),
    39: _object_at(_before),
    40: _object_at(_between),
    41: _nth("goal", _before),
    42: _nth("start", _after),
    43: _nth("goal", _before),
    44: _nth("start", _after),
    45: _nth("goal", _between),
    46: _nth("start", _between),
    47: _at_minute(receptacle_minutes),
    48: _at_minute(object_minutes),
    49: _duration(longest=True),
    50: _room_50,
    51: _duration(longest=False),
    52: _every_receptacle(lambda log, slots: starts(log)),
    53: _every_receptacle(lambda log, slots: ends(log)),
    54: _every_receptacle(_rec(ends)),
    55: _every_receptacle(_rec(starts)),
    56: _every(lambda log, slots: objects(log)),
    57: _every_receptacle(lambda log, slots: (n for i in log.interactions for n in (i.start_id, i.goal_id))),
    58: _ordered(starts, receptacle=True),
    59: _ordered(ends, receptacle=True),
    60: _ordered(objects, receptacle=False),
}
