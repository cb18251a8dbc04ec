"""The questions to the spatial memory: where, near, in_room, last_seen, what_changed, route, places, map, ...

Arguments and answers are plain, so that they cross a wire. Times are ns of capture time, positions metres.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streammem.banks.base import Question, Reader
from streammem.banks.spatial import changes
from streammem.banks.spatial.answers import (
    Change,
    LastSeen,
    Nearby,
    PlaceInfo,
    Room,
    Route,
    Thing,
)
from streammem.banks.spatial.finding import find_things, lookalikes, room_numbers
from streammem.banks.spatial.scope import (
    Asking,
    Between,
    Scene,
    evidence_of,
    in_time,
    point,
    point_of,
    steps_of_records,
)
from streammem.errors import QueryError
from streammem.model import Why


class Questions(Asking):
    """Read-only. ``streams`` None: all of them; ``frame``: the frame of reference, where there are several;
    ``map_version``: as it was believed in that version; ``between``: two times, None leaves an end open."""

    def table(self) -> dict[str, Question]:
        return {
            "where": self.where,
            "near": self.near,
            "in_room": self.in_room,
            "rooms": self.rooms,
            "last_seen": self.last_seen,
            "what_changed": self.what_changed,
            "route": self.route,
            "places": self.places,
        }

    def where(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        text: str,
        between: Between = None,
        near: Sequence[float] | None = None,
        radius_m: float | None = None,
        room: str | None = None,
        frame: str | None = None,
        map_version: int | None = None,
        k: int = 5,
    ) -> list[Thing]:
        """Things whose label has these words, the best first; combined with a time, a surrounding, a room. Where no
        label has them: the views that look most like the words, with ``there`` "unknown"."""
        if not text.strip():
            raise QueryError("where takes a few words", hint='where(text="mug")')
        centre = None if near is None else point_of(near, "near")
        found: list[Thing] = []
        chosen = self._scenes(streams, frame, map_version, one_frame=near is not None)
        for scene in chosen:
            found += find_things(
                reader, scene, text, between=between, centre=centre, radius_m=radius_m, rooms=room_numbers(scene, room)
            )
        if not found:
            for scene in chosen:
                found += lookalikes(reader, scene, text, between, centre, radius_m, room_numbers(scene, room))
        found.sort(key=lambda thing: (-thing.score, thing.distance_m or 0.0, -thing.last_ns))
        return found[: max(1, k)]

    def near(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        position: Sequence[float],
        radius_m: float = 1.0,
        text: str | None = None,
        between: Between = None,
        frame: str | None = None,
        map_version: int | None = None,
    ) -> list[Nearby]:
        """What is within ``radius_m`` of a point: leaves, labels, things (of these words), places, moments. One entry a
        map."""
        centre = point_of(position, "position")
        answers = []
        for scene in self._scenes(streams, frame, map_version, one_frame=True):
            tree = scene.view.tree
            rows = tree.radius(centre, radius_m)
            rows = rows[tree.occupied[rows] & in_time(tree.column("last_ns")[rows], between)]
            weights: dict[str, float] = {}
            for name in tree.labels.names:
                labelled, weight = tree.labels.rows(name)
                total = float(weight[np.isin(labelled, rows)].sum())
                if total:
                    weights[name] = round(total, 3)
            steps = scene.view.steps
            close = np.linalg.norm(steps["pose"][:, :3] - centre, axis=1) <= radius_m
            places = self._places_of(reader, scene, centre)
            gaps = np.linalg.norm(tree.centres(rows) - centre, axis=1)
            answers.append(
                Nearby(
                    frame_id=scene.view.frame_id,
                    map_version=scene.view.map_version,
                    leaves=len(rows),
                    nearest_m=float(gaps.min()) if len(gaps) else None,
                    labels=dict(sorted(weights.items(), key=lambda item: (-item[1], item[0]))),
                    moments=int((close & in_time(steps["t_ns"], between)).sum()),
                    things=find_things(reader, scene, text, between=between, centre=centre, radius_m=radius_m),
                    places=[each for each in places if (each.distance_m or 0.0) <= radius_m],
                )
            )
        return answers

    def in_room(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        room: str,
        text: str | None = None,
        between: Between = None,
        frame: str | None = None,
        map_version: int | None = None,
    ) -> list[Thing]:
        """Things of a room: ``room-1``, ``STREAM/room-1``, or the words of a label that is seen there."""
        found: list[Thing] = []
        for scene in self._scenes(streams, frame, map_version):
            numbers = room_numbers(scene, room)
            if numbers is not None and numbers:
                found += find_things(reader, scene, text, between=between, rooms=numbers)
        return sorted(found, key=lambda thing: (-thing.score, thing.label, -thing.last_ns))

    def rooms(
        self, reader: Reader, *, streams: Sequence[str] | None, frame: str | None = None, map_version: int | None = None
    ) -> list[Room]:
        """Places in groups that are near each other on foot."""
        found = []
        for scene in self._scenes(streams, frame, map_version):
            view = scene.view
            for number, members in enumerate(scene.rooms, 1):
                steps = np.flatnonzero(np.isin(view.steps["place"], members))
                records = view.steps["record"][steps]
                seen = view.sightings[np.isin(view.sightings["record"], records)]
                counts = np.bincount(seen["label"], minlength=len(view.names))
                labels = {name: int(n) for name, n in zip(view.names, counts.tolist(), strict=True) if n}
                found.append(
                    Room(
                        room=f"{scene.stream}/room-{number}",
                        stream=scene.stream,
                        frame_id=view.frame_id,
                        map_version=view.map_version,
                        places=members,
                        centre_m=point(view.topology.positions[members].mean(axis=0)),
                        labels=dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))[:20]),
                        evidence=evidence_of(reader, scene, steps.tolist(), 1.0, Why("place", 1.0, "was there")),
                    )
                )
        return found

    def last_seen(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        text: str | None = None,
        position: Sequence[float] | None = None,
        radius_m: float = 0.25,
        between: Between = None,
        frame: str | None = None,
        map_version: int | None = None,
    ) -> list[LastSeen]:
        """When a thing was last sighted, or a spot was last looked at, the newest first."""
        if (text is None) == (position is None):
            raise QueryError("last_seen takes words or a position", hint='text="mug", or position=[x, y, z]')
        found = []
        for scene in self._scenes(streams, frame, map_version, one_frame=position is not None):
            if text is not None:
                for thing in find_things(reader, scene, text, between=between):
                    found.append(
                        LastSeen(
                            what=thing.label,
                            seen_ns=thing.last_ns,
                            looked_ns=thing.looked_ns,
                            there=thing.there,
                            point_m=thing.point_m,
                            frame_id=thing.frame_id,
                            map_version=thing.map_version,
                            evidence=thing.evidence,
                        )
                    )
                continue
            tree, centre = scene.view.tree, point_of(position, "position")
            rows = tree.radius(centre, radius_m)
            rows = rows[(tree.column("points")[rows] > 0) & in_time(tree.column("last_ns")[rows], between)]
            steps = steps_of_records(scene.view, tree.column("record")[rows])
            if len(rows) and steps:
                last = int(tree.column("last_ns")[rows].max())
                newest = [row for row in steps if int(scene.view.steps["t_ns"][row]) == last] or steps
                found.append(
                    LastSeen(
                        what=f"within {radius_m:g} m",
                        seen_ns=last,
                        looked_ns=int(tree.column("looked_ns")[rows].max()),
                        there="yes" if bool(tree.occupied[rows].any()) else "gone",
                        point_m=point(centre),
                        frame_id=scene.view.frame_id,
                        map_version=scene.view.map_version,
                        evidence=evidence_of(reader, scene, newest, 1.0, Why("depth", 1.0, "measured there")),
                    )
                )
        return sorted(found, key=lambda each: -each.seen_ns)

    def what_changed(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        between: Sequence[int],
        least: int = 4,
        frame: str | None = None,
    ) -> list[Change]:
        """What appeared where free space had been seen, what is gone, what moved, from the map as of the first time to
        that as of the second (to the submap: at most a minute). Groups of at least ``least`` leaves."""
        if len(between) != 2 or between[0] is None or between[1] is None or between[0] > between[1]:
            raise QueryError("what_changed takes two times, the earlier one first", hint="between=[t0_ns, t1_ns]")
        found: list[Change] = []
        before = self._scenes(streams, frame, None, until_ns=between[0])
        after = {(s.stream, s.view.frame_id): s for s in self._scenes(streams, frame, None, until_ns=between[1])}
        for scene in before:
            later = after.get((scene.stream, scene.view.frame_id))
            if later is not None:
                found += changes.between_views(reader, scene, later, (between[0], between[1]), least)
        return found

    def route(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        start: Sequence[float] | int | str,
        goal: Sequence[float] | int | str,
        frame: str | None = None,
        map_version: int | None = None,
    ) -> list[Route]:
        """The shortest way that was walked, from one place to another. Each end is a position, the number of a place,
        or the words of a thing. One entry a map where both ends are known, the shortest first."""
        positions = not isinstance(start, (int, str)) or not isinstance(goal, (int, str))
        found = []
        for scene in self._scenes(streams, frame, map_version, one_frame=positions):
            first, last = self._end(reader, scene, start, "start"), self._end(reader, scene, goal, "goal")
            if first is None or last is None:
                continue
            (a, here), (b, there) = first, last
            graph = scene.view.topology
            way, length = graph.route(a, b)
            steps = np.flatnonzero(np.isin(scene.view.steps["place"], way or [a, b])).tolist()
            found.append(
                Route(
                    found=bool(way),
                    stream=scene.stream,
                    places=way,
                    waypoints_m=[point(graph.positions[place]) for place in way],
                    length_m=length if way else -1.0,
                    start_m=point(here),
                    goal_m=point(there),
                    frame_id=scene.view.frame_id,
                    map_version=scene.view.map_version,
                    evidence=evidence_of(reader, scene, steps, 1.0, Why("place", 1.0, "was walked")),
                )
            )
        return sorted(found, key=lambda each: (not each.found, each.length_m, each.stream))

    @staticmethod
    def _end(
        reader: Reader, scene: Scene, value: Sequence[float] | int | str, name: str
    ) -> tuple[int, np.ndarray] | None:
        """A place and the point that was meant; None where these words aren't on this map."""
        if isinstance(value, str):
            things = find_things(reader, scene, value)
            if not things:
                return None
            best = max(things, key=lambda thing: (thing.score, thing.last_ns))
            target = np.array(best.point_m)
        elif isinstance(value, (int, np.integer)):
            return int(value), np.array(scene.view.topology.place(value).position_m)
        else:
            target = point_of(value, name)
        place, _ = scene.place_near(target)
        return None if place is None else (place, target)

    def places(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        near: Sequence[float] | None = None,
        between: Between = None,
        frame: str | None = None,
        map_version: int | None = None,
    ) -> list[PlaceInfo]:
        """The places, in the order of their founding, or by distance from a point."""
        centre = None if near is None else point_of(near, "near")
        found = []
        for scene in self._scenes(streams, frame, map_version, one_frame=near is not None):
            kept = set(scene.view.steps["place"][in_time(scene.view.steps["t_ns"], between)].tolist())
            found += [each for each in self._places_of(reader, scene, centre) if each.place in kept]
        return found if centre is None else sorted(found, key=lambda each: each.distance_m or 0.0)

    @staticmethod
    def _places_of(reader: Reader, scene: Scene, centre: np.ndarray | None) -> list[PlaceInfo]:
        graph = scene.view.topology
        ways: dict[int, list[tuple[int, float, int]]] = {}
        for (start, end), edge in sorted(graph.edges.items()):
            ways.setdefault(start, []).append((end, round(edge.length_m, 6), edge.traversals))
        found = []
        for place in graph.known():
            steps = steps_of_records(scene.view, (view.record_id for view in place.views))
            if not steps:
                steps = np.flatnonzero(scene.view.steps["place"] == place.place_id).tolist()
            away = None if centre is None else float(np.linalg.norm(np.array(place.position_m) - centre))
            found.append(
                PlaceInfo(
                    stream=scene.stream,
                    place=place.place_id,
                    room=scene.room_of(place.place_id) or "",
                    position_m=point(np.array(place.position_m)),
                    frame_id=scene.view.frame_id,
                    map_version=scene.view.map_version,
                    visits=place.visits,
                    first_ns=place.first_ns,
                    last_ns=place.last_ns,
                    ways=ways.get(place.place_id, []),
                    distance_m=away,
                    evidence=evidence_of(reader, scene, steps, 1.0, Why("place", 1.0, f"{place.visits} moments")),
                )
            )
        return found
