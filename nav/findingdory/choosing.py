"""From an instruction and a recollection to frames: which entities are meant, and which moment shows each best."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from nav.findingdory.instructions import Anchor, Instruction
from nav.findingdory.recollection import Deed, Recollection, View, shows, turned_rad, unique

NEAR_M = {"object": 1.7, "receptacle": 0.9}
"""Nearer than this counts as being there; the benchmark's limits are 2.0 m on foot and a metre or so."""


class KnowsDeeds(Protocol):
    """As much of a recollection as tells interactions apart."""

    deeds: list[Deed]

    def of_category(self, names: Sequence[str], category: str) -> list[str]: ...


def frames_for(asked: Instruction, known: Recollection) -> list[int] | None:
    """One frame for each place to go to; None where the memory holds nothing that fits."""
    if asked.day:
        known = known.on(asked.day)
    if not known.period:
        return None
    if asked.target == "room":
        return _room(asked, known)
    wanted = entities_for(asked, known)
    if not wanted:
        return None
    if not asked.every:
        if asked.extreme == "farthest":
            wanted = _farthest(wanted, asked, known)
        best = max(wanted, key=lambda name: _quality(name, best_view(name, asked, known), asked, known))
        view = best_view(best, asked, known)
        return None if view is None else [view.frame]
    frames = []
    for name in wanted:
        view = best_view(name, asked, known, [other for other in wanted if other != name])
        frames.append(view.frame if view is not None else known.last.seq)
    return frames


def entities_for(asked: Instruction, known: Recollection) -> list[str]:
    """Tracks of the things or receptacles that are meant; in an order, one for each of its places."""
    if asked.order:
        deeds = [known.deeds[k - 1] for k in asked.order if 0 < k <= len(known.deeds)]
        return [name for deed in deeds for name in _side(deed, asked)[:1] if name]
    pool = known.receptacles() if asked.target == "receptacle" else known.things()
    if asked.role == "untouched":
        touched = {name for deed in known.deeds for name in (deed.thing, deed.start, deed.goal)}
        pool = [name for name in pool if name not in touched]
    elif asked.role or asked.nth or asked.anchors or asked.start or asked.extreme or asked.minute >= 0:
        pool = unique(name or "" for deed in deeds_for(asked, known) for name in _side(deed, asked))
    if asked.category:
        pool = known.of_category(pool, asked.category)
    if asked.value:
        pool = known.with_value(pool, asked.value)
    return pool


def deeds_for(asked: Instruction, known: KnowsDeeds) -> list[Deed]:
    """The interactions that are meant, in order of time."""
    deeds = known.deeds
    if asked.nth:
        return deeds[asked.nth - 1 : asked.nth]
    if asked.anchors:
        at = [_anchor(anchor, known) for anchor in asked.anchors]
        if any(k < 0 for k in at):
            return []
        if asked.offset:
            k = at[0] + asked.offset
            return deeds[k : k + 1] if k >= 0 else []
        return deeds[min(at) + 1 : max(at)]
    if asked.minute >= 0:
        return [deed for deed in deeds if any(_meets(span, asked.minute) for span in _spans(deed, asked))]
    if asked.extreme in ("longest", "shortest"):
        sign = 1 if asked.extreme == "longest" else -1
        whole = [deed for deed in deeds if deed.picked_ns and deed.placed_ns]
        # A thing that was carried twice took both times; things that weren't seen are told apart by when.
        names = [deed.thing or f"at {deed.span_ns[0]}" for deed in whole]
        took = dict.fromkeys(names, 0)
        for name, deed in zip(names, whole, strict=True):
            took[name] += deed.span_ns[1] - deed.span_ns[0]
        best = min(names, key=lambda name: -sign * took[name], default="")
        return [deed for name, deed in zip(names, whole, strict=True) if name == best][:1]
    if asked.thing:
        meant = known.of_category([deed.thing or "" for deed in deeds], asked.thing)
        deeds = [deed for deed in deeds if deed.thing in meant]
    if asked.start:
        meant = known.of_category([deed.start for deed in deeds], asked.start)
        deeds = [deed for deed in deeds if deed.start in meant]
    return deeds


def best_view(name: str, asked: Instruction, known: Recollection, others: Sequence[str] = ()) -> View | None:
    """The moment that shows an entity best: near, and large in the picture. ``others`` must not be at hand too: a stop
    in a tour that reaches two goals at once counts for one of them only."""
    views = known.views_now(name) if asked.target == "object" else known.views.get(name, [])
    if others:
        alone = [view for view in views if not any(_at_hand(view, other, asked, known) for other in others)]
        near = [view for view in alone if view.away_m <= NEAR_M[asked.target]]
        views = near or views
    return max(views, key=lambda view: _quality(name, view, asked, known), default=None)


def _quality(name: str, view: View | None, asked: Instruction, known: Recollection) -> float:
    """Things: near ones by their size in the picture, then by distance. Receptacles: where the arm worked on them, then
    near and in the middle of the picture."""
    if view is None:
        return -1e9
    if view.away_m > NEAR_M[asked.target]:
        return -10 - view.away_m
    if asked.target == "object":
        return view.area
    work = 5.0 if known.worked_at(name, view.t_ns) else 0.0
    centre = known.point(name) or view.point_m
    return work + min(view.area, 0.2) - 2 * max(view.away_m, 0.5) - turned_rad(view.pose, centre)


def _at_hand(view: View, other: str, asked: Instruction, known: Recollection) -> bool:
    if asked.target == "object":
        point = known.point(other)
        return point is not None and shows(view.pose, point, 2.3, 0.45)
    seen = known.views.get(other, ())
    if view.whole:
        return any(one.frame == view.frame and one.away_m <= 1.2 for one in seen)
    return any(shows(view.pose, one.point_m, 1.2, 1.57) for one in seen)


def _farthest(names: Sequence[str], asked: Instruction, known: Recollection) -> list[str]:
    def way(name: str) -> float:
        if asked.target == "receptacle":
            # As far as one has to go to stand at it: the stored moment that was nearest to it.
            at = min(known.views[name], key=lambda view: view.away_m).pose.position_m if known.views.get(name) else None
        else:
            at = known.point(name)
        return known.way_m(at) if at is not None else -1.0

    return [max(names, key=way)]


def _room(asked: Instruction, known: Recollection) -> list[int] | None:
    if asked.extreme == "busiest":
        return [known.busiest()]
    if asked.extreme == "unvisited":
        # No moment shows a room from inside that was never entered: what is left to name is where the day began.
        return [known.period[0].seq]
    for deed in deeds_for(asked, known):
        span = deed.picked_ns if asked.role == "picked" else deed.placed_ns
        frame = known.frame_at(span[0]) if span is not None else None
        if frame is not None:
            return [frame]
    return None


def _side(deed: Deed, asked: Instruction) -> Sequence[str | None]:
    if asked.target == "object":
        return [deed.thing]
    if asked.minute >= 0:
        return [name for name, span in ((deed.start, deed.picked_ns), (deed.goal, deed.placed_ns))
                if span is not None and _meets(span, asked.minute)]  # fmt: skip
    return {"picked": [deed.start], "placed": [deed.goal]}.get(asked.role, [deed.start, deed.goal])


def _spans(deed: Deed, asked: Instruction) -> list[tuple[int, int]]:
    if asked.target == "object":
        return [deed.span_ns]
    return [span for span in (deed.picked_ns, deed.placed_ns) if span is not None]


def _meets(span: tuple[int, int], minute: int) -> bool:
    """Whether a minute of the day lies in an interval, both in whole minutes."""
    first, last = (_minute(t_ns) for t_ns in span)
    return first <= minute <= last


def _minute(t_ns: int) -> int:
    at = datetime.fromtimestamp(t_ns // 10**9, UTC)
    return at.hour * 60 + at.minute


def _anchor(anchor: Anchor, known: KnowsDeeds) -> int:
    meant = known.of_category([deed.thing or "" for deed in known.deeds], anchor.category)
    named = [k for k, deed in enumerate(known.deeds) if deed.thing in meant]
    return named[anchor.nth - 1] if len(named) >= anchor.nth else -1
