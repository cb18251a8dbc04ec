"""A graph of places: where the camera was, what it looked like there, and which way leads to which place.

A moment joins the place that looks most like it, if it looks enough like it (``delta``, L2 distance of unit vectors)
*and* is near enough (``gate_m``); else it founds a place. Without the gate look-alikes far apart melt into one and drag
its position between them: that is the published rule, kept as ``gate_m=None`` (mechanism page, section 1.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from streammem.banks.spatial.leaves import grown
from streammem.errors import QueryError

Point = tuple[float, float, float]
NOWHERE: Point = (math.inf, math.inf, math.inf)


@dataclass(slots=True)
class View:
    """A picture that shows a place in its own way: record id, unit vector (d,) float32, direction of view (3,)."""

    record_id: int
    t_ns: int
    vector: np.ndarray | None
    direction: np.ndarray | None


@dataclass(slots=True)
class Place:
    """``position_m`` is the mean of its visits' positions. Times in ns of capture time."""

    place_id: int
    position_m: Point
    visits: int
    first_ns: int
    last_ns: int
    views: list[View] = field(default_factory=list)


@dataclass(slots=True)
class Edge:
    """``weight`` is the mean cost of its traversals, ``length_m`` the mean distance; ``loop`` marks a closed loop."""

    weight: float
    length_m: float
    traversals: int
    loop: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What one moment did to the graph."""

    place_id: int
    created: bool
    kept_view: bool
    from_place: int | None


class Topology:
    """Places by id (0, 1, ... in the order of their founding) and directed edges between them."""

    def __init__(
        self,
        *,
        delta: float = 0.7,
        gate_m: float | None = 1.0,
        same_spot_m: float = 0.0,
        alpha: float = 1.0,
        beta: float = 0.5,
        most_views: int = 8,
        view_delta: float = 0.35,
        view_degrees: float = 40.0,
    ) -> None:
        """``same_spot_m``: nearer than this is the same place whatever it looks like (the camera turned round).
        Edge cost = ``alpha`` x metres + ``beta`` x the cost of its instruction, never negative. A place keeps at most
        ``most_views`` views, each further than ``view_delta`` from the others (``view_degrees`` where there are no
        vectors)."""
        self.delta, self.gate_m, self.same_spot_m = delta, gate_m, same_spot_m
        self.alpha, self.beta = alpha, beta
        self.most_views, self._view_delta = most_views, view_delta
        self._view_cosine = math.cos(math.radians(view_degrees))
        self.places: list[Place] = []
        self.edges: dict[tuple[int, int], Edge] = {}
        self.current: int | None = None
        self._positions = np.empty((16, 3))

    def __len__(self) -> int:
        return len(self.places)

    def known(self) -> list[Place]:
        """Places that weren't forgotten."""
        return [place for place in self.places if place.visits]

    def place(self, place_id: int) -> Place:
        """Raises QueryError for what isn't the id of a place."""
        if isinstance(place_id, bool) or not isinstance(place_id, (int, np.integer)):
            raise QueryError(
                f"a place is named by its number, got {type(place_id).__name__}", hint="give place.place_id"
            )
        if not 0 <= place_id < len(self.places) or not self.places[place_id].visits:
            raise QueryError(f"there is no place {place_id}", hint=f"there are {len(self.places)}, from 0")
        return self.places[place_id]

    @property
    def positions(self) -> np.ndarray:
        """(n, 3) float64, metres."""
        return self._positions[: len(self.places)]

    # -- growing

    def observe(
        self,
        position_m: Point,
        vector: np.ndarray | None,
        t_ns: int,
        record_id: int,
        *,
        direction: np.ndarray | None = None,
        instruction: float = 0.1,
        linked: bool = True,
    ) -> Step:
        """Take in one moment. ``linked=False``: it wasn't reached from the current place (the camera was carried)."""
        found = self.match(position_m, vector)
        if not linked:
            self.current = None
        return self.apply(found, position_m, vector, t_ns, record_id, direction=direction, instruction=instruction)

    def match(self, position_m: Point, vector: np.ndarray | None) -> int | None:
        """The place that a moment belongs to, or None where it founds one. Ties: the lower id."""
        if not self.places:
            return None
        away = np.sqrt(((self.positions - position_m) ** 2).sum(axis=1))
        nearest = int(np.argmin(away))
        if self.gate_m is not None and away[nearest] > self.gate_m:
            return None
        near = range(len(self.places)) if self.gate_m is None else np.flatnonzero(away <= self.gate_m).tolist()
        if vector is not None:
            best, found = math.inf, None
            for place_id in near:
                looks = appearance_distance(vector, self.places[place_id].views)
                if looks < best:
                    best, found = looks, place_id
            if found is not None and best <= self.delta:
                return found
            if self.same_spot_m > 0 and away[nearest] <= self.same_spot_m:
                return nearest
            return nearest if best == math.inf and self.gate_m is not None else None
        return nearest if self.gate_m is not None else None

    def apply(
        self,
        place_id: int | None,
        position_m: Point,
        vector: np.ndarray | None,
        t_ns: int,
        record_id: int,
        *,
        direction: np.ndarray | None = None,
        instruction: float = 0.1,
        keep_view: bool | None = None,
    ) -> Step:
        """The moment at a known place (None or the next id: a new one). ``keep_view`` None: decide it here; a log
        that is played back says what was decided."""
        if place_id is None:
            place_id = len(self.places)
        created = place_id >= len(self.places) or not self.places[place_id].visits
        if created:
            self._found(place_id, position_m, t_ns)
        place = self.places[place_id]
        if not created:
            share = 1.0 / (place.visits + 1)
            x, y, z = (a + (b - a) * share for a, b in zip(place.position_m, position_m, strict=True))
            place.position_m = (x, y, z)
            self._positions[place_id] = place.position_m
            place.visits += 1
            place.first_ns, place.last_ns = min(place.first_ns, t_ns), max(place.last_ns, t_ns)
        kept = self._is_new_view(place, vector, direction) if keep_view is None else keep_view
        if kept:
            place.views.append(View(record_id, t_ns, vector, direction))
        came_from = self.current
        if came_from is not None and came_from != place_id:
            length = math.dist(self.places[came_from].position_m, place.position_m)
            self.add_edge(came_from, place_id, length, instruction)
        self.current = place_id
        return Step(place_id, created, kept, came_from if came_from != place_id else None)

    def _found(self, place_id: int, position_m: Point, t_ns: int) -> None:
        """A log that is played back may name places whose founding was forgotten: they stay empty until then, so that
        the others keep their numbers."""
        while len(self.places) <= place_id:
            self._positions = grown(self._positions, len(self.places) + 1)
            self._positions[len(self.places)] = np.inf
            self.places.append(Place(len(self.places), NOWHERE, 0, t_ns, t_ns))
        self._positions[place_id] = position_m
        self.places[place_id] = Place(place_id, position_m, 1, t_ns, t_ns)

    def _is_new_view(self, place: Place, vector: np.ndarray | None, direction: np.ndarray | None) -> bool:
        if len(place.views) >= self.most_views:
            return False
        if vector is not None:
            return appearance_distance(vector, place.views) > self._view_delta
        if direction is None:
            return not place.views
        known = [view.direction for view in place.views if view.direction is not None]
        return all(float(direction @ other) < self._view_cosine for other in known)

    def add_edge(self, start: int, end: int, length_m: float, instruction: float = 0.1) -> Edge:
        """One traversal. Raises QueryError for unknown places; a place has no edge to itself."""
        self.place(start)
        self.place(end)
        if start == end:
            raise QueryError(f"place {start} can't have an edge to itself", hint="give two places")
        weight = max(0.0, self.alpha * length_m + self.beta * instruction)
        edge = self.edges.get((start, end))
        if edge is None:
            edge = self.edges[start, end] = Edge(weight, length_m, 1)
        else:
            # A true mean; halving old and new, as published, forgets the first traversals.
            edge.traversals += 1
            edge.weight += (weight - edge.weight) / edge.traversals
            edge.length_m += (length_m - edge.length_m) / edge.traversals
        return edge

    def close_loop(self, first: int, second: int, length_m: float | None = None) -> None:
        """The hook of a loop closure: two places that are known to be next to each other, walkable both ways."""
        a, b = self.place(first), self.place(second)
        length = math.dist(a.position_m, b.position_m) if length_m is None else length_m
        for start, end in ((first, second), (second, first)):
            if (start, end) not in self.edges:
                self.add_edge(start, end, length, 0.0).loop = True

    def loop_candidates(self, delta: float | None = None) -> list[tuple[int, int, float]]:
        """Pairs of places that look alike, with the distance of their looks, though the gate kept them apart: for a
        front end that can check them. The most alike first."""
        limit = self.delta if delta is None else delta
        found = []
        for place in self.places:
            for other in self.places[: place.place_id]:
                looks = min(
                    (appearance_distance(view.vector, other.views) for view in place.views if view.vector is not None),
                    default=math.inf,
                )
                if looks <= limit:
                    found.append((other.place_id, place.place_id, looks))
        return sorted(found, key=lambda pair: (pair[2], pair[0], pair[1]))

    # -- asking

    def route(self, start: int, goal: int, *, directed: bool = False) -> tuple[list[int], float]:
        """Cheapest way as place ids, and its cost; ``([], inf)`` where there is none, ``([start], 0)`` on the spot.

        ``directed``: only the way round that edges were walked; else both ways at the cheaper cost."""
        self.place(start)
        self.place(goal)
        if start == goal:
            return [start], 0.0
        import rustworkx  # a compiled library that only questions need

        graph = self._graph(directed)
        paths = rustworkx.dijkstra_shortest_paths(graph, start, target=goal, weight_fn=float)
        if goal not in paths:
            return [], math.inf
        path = list(paths[goal])
        return path, math.fsum(self._cost(a, b, directed) for a, b in pairwise(path))

    def _cost(self, start: int, end: int, directed: bool) -> float:
        both = ((start, end),) if directed else ((start, end), (end, start))
        return min(self.edges[pair].weight for pair in both if pair in self.edges)

    def _graph(self, directed: bool):  # type: ignore[no-untyped-def]  # rustworkx has no stubs for its generics
        import rustworkx

        graph = rustworkx.PyDiGraph(multigraph=True)
        graph.add_nodes_from(range(len(self.places)))
        edges = [(start, end, edge.weight) for (start, end), edge in sorted(self.edges.items())]
        if not directed:
            edges += [(end, start, weight) for start, end, weight in edges]
        graph.add_edges_from(edges)
        return graph

    def rooms(self, span_m: float) -> list[list[int]]:
        """Places in groups whose members are at most ``span_m`` of walking apart (complete linkage on the lengths of
        the ways), each sorted, in the order of their lowest id. What no way joins is another room."""
        known = [place.place_id for place in self.places if place.visits]
        if len(known) < 2:
            return [[place_id] for place_id in known]
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import shortest_path
        from scipy.spatial.distance import squareform

        number = {place_id: at for at, place_id in enumerate(known)}
        pairs: dict[tuple[int, int], float] = {}
        for (start, end), edge in self.edges.items():
            pair = (number[min(start, end)], number[max(start, end)])
            # csgraph reads 0 as "no edge".
            pairs[pair] = min(pairs.get(pair, math.inf), max(edge.length_m, 1e-9))
        rows, columns = [a for a, _ in pairs], [b for _, b in pairs]
        matrix = coo_matrix((list(pairs.values()), (rows, columns)), shape=(len(known), len(known))).tocsr()
        apart = shortest_path(matrix, directed=False)
        apart[~np.isfinite(apart)] = 1e12
        np.fill_diagonal(apart, 0.0)
        groups = fcluster(linkage(squareform(apart, checks=False), "complete"), span_m, criterion="distance")
        members: dict[int, list[int]] = {}
        for place_id, group in zip(known, groups.tolist(), strict=True):
            members.setdefault(group, []).append(place_id)
        return sorted(members.values())

    @property
    def nbytes(self) -> int:
        vectors = sum(view.vector.nbytes for place in self.places for view in place.views if view.vector is not None)
        views = sum(len(place.views) for place in self.places)
        return vectors + 300 * len(self.places) + 200 * views + 250 * len(self.edges)


def appearance_distance(vector: np.ndarray, views: list[View]) -> float:
    """L2 distance to the view that looks most alike; infinite where none has a vector of this length."""
    stack = [view.vector for view in views if view.vector is not None and len(view.vector) == len(vector)]
    if not stack:
        return math.inf
    away = np.stack(stack) - vector
    return float(np.sqrt((away * away).sum(axis=1).min()))
