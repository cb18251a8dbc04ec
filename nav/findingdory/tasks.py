"""The 60 task types as data, every way of asking each about an experience, and what would be right.

Wording is ours: the benchmark's templates are in its data, not in its code. The ids, categories and goal sets are the
benchmark's. ``questions(log)`` asks each task once; ``task(7).goal(log, slots)`` is a pure function.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from nav.findingdory import goals as g
from nav.findingdory.clock import clock_text
from nav.findingdory.goals import GOALS, Groups, Profile, Slots
from nav.findingdory.log import InteractionLog
from streammem.errors import InputError

Target = Literal["object", "receptacle", "room"]
Mode = Literal["any", "all", "ordered"]
Ways = Callable[[InteractionLog], list[dict[str, Any]]]

CATEGORIES = (
    "Object Recall",
    "Interaction",
    "Conditional Interaction",
    "Object Attributes",
    "Spatial Relationship",
    "Room Visitation",
    "Interaction Order",
    "Time-Based",
    "Duration Tracking",
    "Unordered Revisitation",
    "Ordered Revisitation",
)
GROUPS = ("Single-Goal Spatial Tasks", "Single-Goal Temporal Tasks", "Multi-Goal Tasks")
MOST_ORDERED = 11
"""Stops of an order: the most interactions that a day of the benchmark has. Longer lives are asked for some of them."""
SKIPPED_IN_VALIDATION = {30: ("ep_17", "ep_35", "ep_59", "ep_66")}
"""The benchmark leaves these out of its validation set."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What to reach. ``any``: one group, any member. ``all``: each group once, in any order. ``ordered``: in order.

    ``path_groups``: where the shortest path of LL-SPL goes, if that differs (a quirk)."""

    target: Target
    mode: Mode
    groups: Groups
    path_groups: Groups | None = None

    @property
    def solvable(self) -> bool:
        return bool(self.groups) and all(self.groups)

    @property
    def entities(self) -> tuple[str, ...]:
        return g.unique(name for group in self.groups for name in group)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A task filled in for one experience."""

    task: int
    slots: Mapping[str, Any]
    text: str
    goal: Goal


@dataclass(frozen=True, slots=True)
class TaskType:
    """One of the 60. ``memory``: what must be remembered (S spatial, C category, I interactions, A attribute, R room,
    O order, T clock, D duration, M many goals). ``minimum``: interactions needed. ``symbolic``: can't be seen, only
    looked up in the attribute table."""

    number: int
    category: str
    target: Target
    mode: Mode
    memory: str
    template: str
    ways: Ways
    minimum: int = 1
    symbolic: bool = False

    @property
    def group(self) -> str:
        return GROUPS[0 if self.number <= 30 else 1 if self.number <= 51 else 2]

    def goal(self, log: InteractionLog, slots: Slots | None = None, profile: Profile = "strict") -> Goal:
        """What would be right. Raises InputError where the log has no such instance."""
        try:
            groups = GOALS[self.number](log, slots or {}, profile)
        except (KeyError, IndexError) as error:
            raise InputError(
                f"task {self.number} can't be asked with {dict(slots or {})!r}: {error}",
                hint="task(n).ways(log) lists every way it can",
            ) from None
        path = None
        if profile == "official" and self.number in (58, 59) and slots:
            # Quirk path_of_objects: the shortest path goes over the objects, not over the receptacles.
            path = GOALS[60](log, slots, profile)
        return Goal(target=self.target, mode=self.mode, groups=groups, path_groups=path)

    def text(self, log: InteractionLog, slots: Slots, profile: Profile = "strict") -> str:
        """The instruction in words."""
        words = dict(slots)
        if "n" in slots:
            words["n"] = ordinal(slots["n"], profile)
        for name in ("a", "b"):
            if name in slots:
                words[name] = interacted_name(log, slots[name], profile)
        if "minute" in slots:
            words["time"] = clock_text(slots["minute"]).lstrip("0")  # the hour is not padded in the benchmark
        if "order" in slots:
            words["order"] = ", then the ".join(ordinal(k + 1, profile) for k in slots["order"])
        return self.template.format(**words)

    def draw(
        self, log: InteractionLog, rng: random.Random, profile: Profile = "strict", *, solvable: bool = True
    ) -> Question | None:
        """The task asked in one of its ways, chosen by ``rng``; None where the experience has no instance of it."""
        ways = self.ways(log) if len(log.interactions) >= self.minimum else []
        made = [(slots, self.goal(log, slots, profile)) for slots in ways]
        made = [(slots, goal) for slots, goal in made if goal.solvable or not solvable]
        if not made:
            return None
        slots, goal = made[int(rng.random() * len(made))]
        if self.mode == "ordered":
            # Any permutation; `ways` lists the rotations only, because ten interactions have 3.6 million.
            order = sorted(slots["order"], key=lambda _: rng.random())
            slots = {"order": tuple(order[:MOST_ORDERED])}
            goal = self.goal(log, slots, profile)
        return Question(task=self.number, slots=slots, text=self.text(log, slots, profile), goal=goal)


_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def ordinal(n: int, profile: Profile = "strict") -> str:
    """``first`` ... ``tenth``, then ``11th``, ``21st``. Quirk ``eleventh_is_10th`` (official): one too
    low."""
    if n < 1:
        raise InputError(f"there is no {n}th interaction", hint="they count from 1")
    if n <= len(_ORDINALS):
        return _ORDINALS[n - 1]
    if profile == "official":
        return f"{n - 1}th"
    return f"{n}th" if n % 100 in (11, 12, 13) else f"{n}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th') }"


def interacted_name(log: InteractionLog, k: int, profile: Profile = "strict") -> str:
    """The category of interaction ``k``'s object, with an ordinal where that category was picked more than once."""
    names = [log.category(name) for name in g.objects(log)]
    if not 0 <= k < len(names):
        raise InputError(f"interaction {k} of {len(names)}", hint="they count from 0")
    if names.count(names[k]) == 1:
        return names[k]
    return f"{ordinal(names[: k + 1].count(names[k]), profile)} {names[k]}"


def _once(log: InteractionLog) -> list[dict[str, Any]]:
    return [{}]


def _each(key: str, values: Callable[[InteractionLog], Iterable[Any]]) -> Ways:
    return lambda log: [{key: value} for value in dict.fromkeys(values(log)) if value != ""]


def _category(key: str, ids: Callable[[InteractionLog], Iterable[str]]) -> Ways:
    return _each(key, lambda log: (log.category(name) for name in ids(log)))


def _attribute(name: str) -> Ways:
    return _each("value", lambda log: (getattr(log.object(one), name) for one in g.objects(log)))


_nth = _each("n", lambda log: range(1, len(log.interactions) + 1))


def _neighbour(sign: int, *, far: bool = False) -> Ways:
    """``a`` such that the interaction one (``far``: m >= 2) before or after it exists."""

    def ways(log: InteractionLog) -> list[dict[str, Any]]:
        count = len(log.interactions)
        steps = range(2, count) if far else range(1, 2)
        found = [(a, m) for m in steps for a in range(count) if 0 <= a + sign * m < count]
        return [{"a": a, "m": m} if far else {"a": a} for a, m in found]

    return ways


def _pairs(log: InteractionLog) -> list[dict[str, Any]]:
    count = len(log.interactions)
    return [{"a": a, "b": b} for a in range(count) for b in range(a + 2, count)]


def _minutes(spans: Callable[[InteractionLog], list[tuple[str, range]]]) -> Ways:
    """Every minute in which exactly one entity was interacted with."""

    def ways(log: InteractionLog) -> list[dict[str, Any]]:
        at: dict[int, set[str]] = {}
        for name, minutes in spans(log):
            for minute in minutes:
                at.setdefault(minute, set()).add(name)
        return [{"minute": minute, "chosen": min(names)} for minute, names in sorted(at.items()) if len(names) == 1]

    return ways


def _orders(log: InteractionLog) -> list[dict[str, Any]]:
    count = len(log.interactions)
    return [{"order": tuple((i + shift) % count for i in range(count))} for shift in range(count)]


def _table() -> Iterable[TaskType]:
    recall, inter, cond, attr, spatial, room, order, clock, duration, unordered, ordered = CATEGORIES
    obj: Target = "object"
    rec: Target = "receptacle"
    rows: list[tuple[int, str, Target, Mode, str, str, Ways]] = [
        (1, recall, obj, "any", "SC", "Go to a {category}.", _category("category", _all_objects)),
        (2, recall, rec, "any", "SC", "Go to a {receptacle}.", _category("receptacle", _all_receptacles)),
        (3, inter, rec, "any", "I", "Go to any receptacle that you interacted with.", _once),
        (4, inter, rec, "any", "I", "Go to any receptacle that you did not interact with.", _once),
        (5, inter, obj, "any", "I", "Go to any object that you interacted with.", _once),
        (6, inter, obj, "any", "I", "Go to any object that you did not interact with.", _once),
        (7, inter, rec, "any", "I", "Go to any receptacle that you picked an object from.", _once),
        (8, inter, rec, "any", "I", "Go to any receptacle that you placed an object on.", _once),
        (9, cond, obj, "any", "IC", "Go to the {category} that you interacted with.", _category("category", g.objects)),
        (10, cond, obj, "any", "IC", "Go to a {category} that you did not interact with.",
         _category("category", g.unmoved)),
        (11, cond, rec, "any", "IC", "Go to a {receptacle} that you did not interact with.",
         _category("receptacle", g.untouched)),
        (12, cond, rec, "any", "IC", "Go to a {receptacle} that you picked an object from.",
         _category("receptacle", g.starts)),
        (13, cond, rec, "any", "IC", "Go to a {receptacle} that you placed an object on.",
         _category("receptacle", g.ends)),
        (14, cond, rec, "any", "IC", "Go to the receptacle that you picked the {category} from.",
         _category("category", g.objects)),
        (15, cond, obj, "any", "IC", "Go to an object that you picked from the {receptacle}.",
         _category("receptacle", g.starts)),
        (16, attr, obj, "any", "AI", "Go to a {value} object that you interacted with.", _attribute("shape")),
        (17, attr, obj, "any", "AI", "Go to a {value} object that you interacted with.", _attribute("color")),
        (18, attr, obj, "any", "AI", "Go to an object with a {value} design that you interacted with.",
         _attribute("print_or_design")),
        (19, attr, obj, "any", "AI", "Go to an object made of {value} that you interacted with.",
         _attribute("material")),
        (20, attr, obj, "any", "AI", "Go to an object used for {value} that you interacted with.",
         _attribute("functionality")),
        (21, spatial, rec, "any", "SI", "Go to the farthest receptacle that you interacted with.", _once),
        (22, spatial, rec, "any", "SI", "Go to the farthest receptacle that you did not interact with.", _once),
        (23, spatial, rec, "any", "SI", "Go to the farthest receptacle that you picked an object from.", _once),
        (24, spatial, rec, "any", "SI", "Go to the farthest receptacle that you placed an object on.", _once),
        (25, spatial, obj, "any", "SI", "Go to the farthest object that you interacted with.", _once),
        (26, room, "room", "any", "RO", "Go to the room in which you picked the {n} object.", _nth),
        (27, room, "room", "any", "RO", "Go to the room in which you placed the {n} object.", _nth),
        (28, room, "room", "any", "RC", "Go to the room in which you picked the {category}.",
         _category("category", g.objects)),
        (29, room, "room", "any", "RC", "Go to the room in which you placed the {category}.",
         _category("category", g.objects)),
        (30, room, "room", "any", "R", "Go to a room that you did not visit; if there is none, to the room in which "
         "you started.", _once),
        (31, order, obj, "any", "O", "Go to the {n} object that you interacted with.", _nth),
        (32, order, rec, "any", "O", "Go to the {n} receptacle that you picked from.", _nth),
        (33, order, rec, "any", "O", "Go to the {n} receptacle that you placed on.", _nth),
        (34, order, rec, "any", "O", "Go to the receptacle that the {n} object came from.", _nth),
        (35, order, obj, "any", "O", "Go to the object that you took from the {n} receptacle.", _nth),
        (36, order, obj, "any", "OC", "Go to the object that you moved right after the {a}.", _neighbour(1)),
        (37, order, obj, "any", "OC", "Go to the object that you moved right before the {a}.", _neighbour(-1)),
        (38, order, obj, "any", "OC", "Go to the object that you moved {m} interactions after the {a}.",
         _neighbour(1, far=True)),
        (39, order, obj, "any", "OC", "Go to the object that you moved {m} interactions before the {a}.",
         _neighbour(-1, far=True)),
        (40, order, obj, "any", "OC", "Go to an object that you moved between the {a} and the {b}.", _pairs),
        (41, order, rec, "any", "OC", "Go to the receptacle that you placed on right before you began with the {a}.",
         _neighbour(-1)),
        (42, order, rec, "any", "OC", "Go to the receptacle that you picked from right after you were done with the "
         "{a}.", _neighbour(1)),
        (43, order, rec, "any", "OC", "Go to the receptacle that you placed on {m} interactions before the {a}.",
         _neighbour(-1, far=True)),
        (44, order, rec, "any", "OC", "Go to the receptacle that you picked from {m} interactions after the {a}.",
         _neighbour(1, far=True)),
        (45, order, rec, "any", "OC", "Go to a receptacle that you placed on between the {a} and the {b}.", _pairs),
        (46, order, rec, "any", "OC", "Go to a receptacle that you picked from between the {a} and the {b}.", _pairs),
        (47, clock, rec, "any", "TI", "Go to the receptacle that you interacted with at {time}.",
         _minutes(g.receptacle_minutes)),
        (48, clock, obj, "any", "TI", "Go to the object that you interacted with at {time}.",
         _minutes(g.object_minutes)),
        (49, duration, obj, "any", "D", "Go to the object that took you longest to move.", _once),
        (50, duration, "room", "any", "DR", "Go to the room in which you spent most time.", _once),
        (51, duration, obj, "any", "D", "Go to the object that took you shortest to move.", _once),
        (52, unordered, rec, "all", "MI", "Revisit all receptacles that you picked objects from.", _once),
        (53, unordered, rec, "all", "MI", "Revisit all receptacles that you placed objects on.", _once),
        (54, unordered, rec, "all", "MC", "Revisit every {receptacle} that you placed an object on.",
         _category("receptacle", g.ends)),
        (55, unordered, rec, "all", "MC", "Revisit every {receptacle} that you picked an object from.",
         _category("receptacle", g.starts)),
        (56, unordered, obj, "all", "MI", "Revisit all objects that you interacted with.", _once),
        (57, unordered, rec, "all", "MI", "Revisit all receptacles that you interacted with.", _once),
        (58, ordered, rec, "ordered", "MO", "Revisit the receptacles that you picked from in this order: the {order}.",
         _orders),
        (59, ordered, rec, "ordered", "MO", "Revisit the receptacles that you placed on in this order: the {order}.",
         _orders),
        (60, ordered, obj, "ordered", "MO", "Revisit the objects that you moved in this order: the {order}.", _orders),
    ]  # fmt: skip
    least = {36: 2, 37: 2, 41: 2, 42: 2, **dict.fromkeys((38, 39, 40, 43, 44, 45, 46), 3), 58: 2, 59: 2, 60: 2}
    for number, category, target, mode, memory, template, ways in rows:
        yield TaskType(
            number, category, target, mode, memory, template, ways,
            minimum=least.get(number, 1), symbolic=number in (19, 20),
        )  # fmt: skip


def _all_objects(log: InteractionLog) -> Iterable[str]:
    return (one.entity_id for one in log.objects)


def _all_receptacles(log: InteractionLog) -> Iterable[str]:
    return (one.entity_id for one in log.receptacles)


TASKS: Mapping[int, TaskType] = {one.number: one for one in _table()}


def task(number: int) -> TaskType:
    """Raises InputError for a number that is none of the 60 (the code mentions a task_67, which isn't one)."""
    if number not in TASKS:
        raise InputError(f"there is no task {number}", hint="tasks are 1 to 60")
    return TASKS[number]


def questions(log: InteractionLog, *, seed: int = 0, profile: Profile = "strict") -> list[Question]:
    """Each task that this experience has an instance of, asked once. The seed decides the way, task by task: adding a
    task doesn't change the others."""
    made = (one.draw(log, random.Random(seed * 1000 + one.number), profile) for one in TASKS.values())
    return [question for question in made if question is not None]


def answer_groups(log: InteractionLog, question: Question) -> Groups:
    """Groups of the *offline* answer: one list for each item of an ordered sequence, also where one comes twice."""
    return task(question.task).goal(log, question.slots, "strict").groups if question.goal.mode == "ordered" else (
        question.goal.groups
    )  # fmt: skip
