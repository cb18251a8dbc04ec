"""What a memory knows of a day, asked through ``Memory.query`` and by reading its moments: nothing else is looked at.

Things, attributes and what was done with them come from the bank ``entities``, the map from the bank ``spatial``, and
how well a moment shows a thing from the moment's own detections, depth and pose.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from nav.env import rotation_of
from nav.findingdory.dates import date_of, day_meant
from nav.findingdory.instructions import is_furniture
from nav.findingdory.perceive import PICKED, PLACED, UNSEEN
from nav.planner import GridPlanner
from streammem.banks.spatial.geometry import unproject
from streammem.errors import QueryError
from streammem.memory import Memory
from streammem.model import Detection, Pose, Record

_FLOOR_M = 0.15
"""Points lower than this are the floor's: a box of furniture shows some of it."""
_CROWD_M = 3.0
"""Within so far, and with nothing between, counts as the same surroundings when rooms are told apart."""

_RADIUS_M = 0.15
"""Of the robot, on squares of 0.1 m. Its real 0.25 m closes too much: a square is occupied as a whole by what stands in
a part of it (with 0.22 m a tenth of the drives of two homes arrived, with 0.15 m nine tenths of one)."""


@dataclass(frozen=True, slots=True)
class View:
    """A moment that shows a thing. ``away_m`` across the floor from the camera to its nearest seen points, ``area`` of
    its box in the picture (0 to 1), ``point_m`` in the map: the median of what was measured of it. ``whole``: the
    moment is there in full, so that what else it shows is known too."""

    frame: int
    t_ns: int
    away_m: float
    area: float
    point_m: tuple[float, float, float]
    pose: Pose
    whole: bool = True


@dataclass(slots=True)
class Deed:
    """One thing carried. Times are ns of capture: the arm's first and last frame at either end. ``start``, ``goal``:
    tracks of receptacles (empty: not seen); ``thing``: its track; None: never seen."""

    thing: str | None
    category: str
    start: str
    goal: str
    picked_ns: tuple[int, int] | None
    placed_ns: tuple[int, int] | None

    @property
    def span_ns(self) -> tuple[int, int]:
        """From the first frame of the pick to the last of the put, as far as they are known."""
        known = [span for span in (self.picked_ns, self.placed_ns) if span is not None]
        return known[0][0], known[-1][1]


@dataclass(eq=False)
class Recollection:
    """Asked lazily, once; ``records`` limits what is looked at (the short-term memory alone, say)."""

    memory: Memory
    stream: str
    records: Sequence[Record] | None = None
    _distances: dict[tuple[float, float], float] = field(default_factory=dict)
    period: list[Record] = field(init=False)
    """The moments that are asked about: all of them, or one day's."""

    def __post_init__(self) -> None:
        limited = self.records is not None
        if self.records is None:
            self.records = [record for record in self.memory if record.stream == self.stream]
        self.moments = sorted(self.records, key=lambda record: record.t_start_ns)
        self.period = self.moments
        self._starts = [record.t_start_ns for record in self.moments]
        self.category: dict[str, str] = {}
        self.views: dict[str, list[View]] = {}
        for record in self.moments:
            self._look(record)
        if not limited:
            self._look_back()
        self.deeds = self.history = self._deeds()

    def on(self, words: str) -> Recollection:
        """The same, asked about one day ("yesterday", "the first day", a date): what was done and where the robot was
        are that day's; things are where they are now."""
        days = [date_of(record.t_start_ns) for record in self.moments]
        day = day_meant(words, list(dict.fromkeys(days)))
        other = copy.copy(self)
        other.period = [record for record, one in zip(self.moments, days, strict=True) if one == day]
        other.deeds = [deed for deed in self.history if date_of(deed.span_ns[0]) == day]
        return other

    def frame_at(self, t_ns: int) -> int | None:
        """The frame that was showing. A moment that stands for several now (a budget merged them) counts them off
        evenly; None where nothing stands for that time."""
        at = bisect_right(self._starts, t_ns) - 1
        if at < 0:
            return None
        record = self.moments[at]
        if record.count <= 1 or record.t_end_ns <= record.t_start_ns:
            return record.seq if t_ns == record.t_start_ns else None
        share = (t_ns - record.t_start_ns) / (record.t_end_ns - record.t_start_ns)
        return record.seq + round(share * (record.count - 1)) if share <= 1 else None

    # -- things

    def things(self) -> list[str]:
        return [name for name, label in self.category.items() if not is_furniture(label)]

    def receptacles(self) -> list[str]:
        return [name for name, label in self.category.items() if is_furniture(label)]

    def of_category(self, names: Sequence[str], category: str) -> list[str]:
        """Those that are called so."""
        return [name for name in names if self.category.get(name, "").lower() == category.lower()]

    def with_value(self, names: Sequence[str], value: str) -> list[str]:
        """Things of which any attribute had this value."""

        def had(name: str) -> bool:
            return bool(self._query("entities", "history", entity=f"#{name}", value=value, limit=1)["total"])

        return [name for name in names if had(name)]

    def attributes(self, thing: str) -> list[str]:
        """Values of whatever was said of it, what was done with it left out."""
        told = self._query("entities", "history", entity=f"#{thing}", limit=1000)
        none = ("label", "seen", PICKED, PLACED)
        return unique(fact["value"] for fact in told["facts"] if fact["attribute"] not in none)

    def placed_since_ns(self, thing: str) -> int:
        """Since when it stands where it stands."""
        return max((d.placed_ns[0] for d in self.history if d.thing == thing and d.placed_ns), default=-(2**62))

    def views_now(self, thing: str) -> list[View]:
        """Views of it where it is now."""
        since = self.placed_since_ns(thing)
        return [view for view in self.views.get(thing, ()) if view.t_ns >= since]

    def worked_at(self, receptacle: str, t_ns: int) -> bool:
        """Whether the arm was at work on it then: the robot stood where it can be used."""
        spans = [s for d in self.history for n, s in ((d.start, d.picked_ns), (d.goal, d.placed_ns)) if n == receptacle]
        return any(span is not None and span[0] <= t_ns <= span[1] for span in spans)

    def point(self, thing: str) -> tuple[float, float, float] | None:
        """Where it is now, metres: the median of its nearest views."""
        views = sorted(self.views_now(thing), key=lambda view: view.away_m)[:9]
        if not views:
            return None
        x, y, z = np.median([view.point_m for view in views], axis=0).tolist()
        return x, y, z

    # -- places

    @property
    def last(self) -> Record:
        return self.moments[-1]

    @cached_property
    def planner(self) -> GridPlanner | None:
        """Ways on the memory's own map; None where it has none."""
        try:
            answer = self._query("spatial", "map", resolution_m=0.1)
        except QueryError:
            return None
        return GridPlanner.from_answer(answer[0], radius_m=_RADIUS_M, unknown="free") if answer else None

    def way_m(self, to: Sequence[float]) -> float:
        """Metres on foot from where the robot is now, on its own map; in a straight line where that knows no way."""
        here = self.last.pose
        if here is None:
            return 0.0
        start, goal = here.position_m[:2], (to[0], to[1])
        if goal not in self._distances:
            straight = math.dist(start, goal)
            try:
                plan = self.planner.plan(start, goal, snap_m=1.0) if self.planner else None
            except QueryError:
                plan = None
            self._distances[goal] = plan.length_m if plan is not None and plan.found else straight
        return self._distances[goal]

    def busiest(self) -> int:
        """Frame from whose place most moments of the day are seen near by and in a straight line: the middle of the
        room in which most time was spent. The map's walls part the rooms."""
        posed = [record for record in self.period if record.pose is not None]
        spots = np.array([record.pose.position_m[:2] for record in posed if record.pose is not None])
        places, inverse, counts = np.unique(np.round(spots / 0.25), axis=0, return_inverse=True, return_counts=True)
        places = places * 0.25
        near = np.linalg.norm(places[:, None] - places[None], axis=2) <= _CROWD_M
        if self.planner is not None:
            near &= self._see_each_other(places, near)
        best = int((near * counts[None]).sum(axis=1).argmax())
        return posed[int(np.flatnonzero(inverse.ravel() == best)[0])].seq

    def _see_each_other(self, places: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """(n, n) bool: no wall between."""
        planner = self.planner
        seen = np.eye(len(places), dtype=bool)
        if planner is None:
            return ~seen | seen
        height, width = planner.free.shape
        steps = np.linspace(0.0, 1.0, 25)[:, None]
        for a, b in np.argwhere(np.triu(asked, 1)).tolist():
            line = places[a] * (1 - steps) + places[b] * steps
            at = np.floor((line - np.array(planner.origin_m)) / planner.resolution_m).astype(int)
            at = np.clip(at, 0, (width - 1, height - 1))
            seen[a, b] = seen[b, a] = bool(planner.free[at[:, 1], at[:, 0]].all())
        return seen

    # -- inside

    def _query(self, bank: str, question: str, **arguments: Any) -> Any:
        return self.memory.query(bank, question, streams=[self.stream], **arguments)

    def _look(self, record: Record) -> None:
        tracked = [one for one in record.detections if one.track]
        for one in tracked:
            self.category.setdefault(one.track or "", one.label)
        depth = record.arrays.get("depth_m")
        if not tracked or depth is None or record.pose is None or record.intrinsics is None:
            return
        points, rows, columns = unproject(depth, record.intrinsics, record.pose)
        height, width = depth.shape
        u, v = (columns + 0.5) / width, (rows + 0.5) / height
        camera = np.array(record.pose.position_m)
        for one in tracked:
            seen = _inside(one, u, v)
            if is_furniture(one.label):
                seen &= points[:, 2] > _FLOOR_M
            if not seen.any():
                continue
            mine = points[seen]
            away = np.linalg.norm(mine[:, :2] - camera[:2], axis=1)
            near = mine[away <= np.percentile(away, 40)]
            x, y, z = np.median(near, axis=0).tolist()
            x0, y0, x1, y1 = one.box
            view = View(record.seq, record.t_start_ns, float(np.percentile(away, 10)), (x1 - x0) * (y1 - y0),
                        (x, y, z), record.pose)  # fmt: skip
            self.views.setdefault(one.track or "", []).append(view)

    def _look_back(self) -> None:
        """Things and views of moments that lost their detail, from the banks that keep them."""
        for fact in self._query("entities", "entities", limit=1000)["facts"]:
            name = fact["entity"].removeprefix("#").partition("@")[0]
            if fact["entity"].startswith("#") and fact["kind"]:
                self.category.setdefault(name, fact["kind"])
        try:
            kept = self._query("viewpoints", "views")
        except QueryError:
            return  # switched off
        for one in kept:
            self.category.setdefault(one["track"], one["label"])
            views, view = self.views.setdefault(one["track"], []), one["view"]
            if all(view["t_ns"] != other.t_ns for other in views):
                (x0, y0, x1, y1), pose = view["box"], Pose(tuple(view["position_m"]), tuple(view["q_xyzw"]))
                drop = pose.position_m[2] - view["point_m"][2]
                away = math.sqrt(max(view["away_m"] ** 2 - drop**2, 0.0))
                point = tuple(view["point_m"])
                views.append(View(view["seq"], view["t_ns"], away, (x1 - x0) * (y1 - y0), point, pose, whole=False))

    def _deeds(self) -> list[Deed]:
        first, last = self.moments[0].t_start_ns, self.moments[-1].t_end_ns
        told = self._query("entities", "changes_between", t_start_ns=first, t_end_ns=last, attribute=PICKED, limit=1000)
        put = self._query("entities", "changes_between", t_start_ns=first, t_end_ns=last, attribute=PLACED, limit=1000)
        facts = sorted(told["facts"] + put["facts"], key=lambda fact: fact["t_start_ns"])
        deeds: list[Deed] = []
        for fact in facts:
            if self.frame_at(fact["t_start_ns"]) is None:
                continue
            span = (fact["t_start_ns"], fact["t_last_ns"])
            seen = not fact["entity"].startswith(UNSEEN)
            thing = fact["entity"][1:] if seen else None
            if fact["attribute"] == PICKED or not deeds or deeds[-1].placed_ns is not None:
                deeds.append(Deed(thing, fact["kind"], "", "", None, None))
            deed = deeds[-1]
            deed.thing, deed.category = (thing, fact["kind"]) if seen else (deed.thing, deed.category)
            if fact["attribute"] == PICKED:
                deed.start, deed.picked_ns = fact["value"], span
            else:
                deed.goal, deed.placed_ns = fact["value"], span
        return deeds


def _inside(one: Detection, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(n,) bool: pixels in the middle half of the box, where it shows little else."""
    x0, y0, x1, y1 = one.box
    x0, x1, y0, y1 = x0 + (x1 - x0) / 4, x1 - (x1 - x0) / 4, y0 + (y1 - y0) / 4, y1 - (y1 - y0) / 4
    inside: np.ndarray = (u >= x0) & (u <= x1) & (v >= y0) & (v <= y1)
    return inside


def heading(pose: Pose) -> float:
    """Yaw of a camera's view in the floor plane, radians from +x."""
    forward = rotation_of(pose.q_xyzw)[:, 2]
    return math.atan2(float(forward[1]), float(forward[0]))


def turned_rad(pose: Pose, point_m: Sequence[float]) -> float:
    """Unsigned angle in the floor plane between a camera's view and the direction to a point."""
    dx, dy = point_m[0] - pose.position_m[0], point_m[1] - pose.position_m[1]
    return abs(math.remainder(math.atan2(dy, dx) - heading(pose), math.tau))


def shows(pose: Pose, point_m: Sequence[float], within_m: float, angle_rad: float) -> bool:
    """Whether a pose is near a point and turned to it."""
    near = math.dist(pose.position_m[:2], point_m[:2]) <= within_m
    return near and turned_rad(pose, point_m) <= angle_rad


def unique(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name]
