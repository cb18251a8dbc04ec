"""The graph of places (mechanism page, acceptance 3), routes against networkx, rooms."""

from __future__ import annotations

import math
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammem.banks.spatial.topology import Topology
from streammem.errors import QueryError


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def at_distance(looks: float) -> np.ndarray:
    """A unit vector so far from (1, 0)."""
    cosine = 1 - looks * looks / 2
    return np.array([cosine, math.sqrt(1 - cosine * cosine)], np.float32)


@pytest.mark.parametrize(("looks", "places"), [(0.69, 1), (0.71, 2)])
def test_3_appearance_decides(looks: float, places: int) -> None:
    graph = Topology(delta=0.7, gate_m=None)
    graph.observe((0, 0, 0), unit(1, 0), 0, 1)
    graph.observe((0, 0, 0), at_distance(looks), 1, 2)
    assert len(graph) == places


def test_3_the_gate_keeps_lookalikes_apart() -> None:
    open_graph, gated = Topology(gate_m=None), Topology(gate_m=1.0)
    for graph in (open_graph, gated):
        graph.observe((0, 0, 0), unit(1, 0), 0, 1)
        graph.observe((50, 0, 0), unit(1, 0), 1, 2)
    assert len(open_graph) == 1 and open_graph.place(0).position_m[0] == 25.0, "without a gate the place is dragged"
    assert len(gated) == 2
    assert [pair[:2] for pair in gated.loop_candidates()] == [(0, 1)]


def test_3_edge_weights() -> None:
    graph = Topology(alpha=1.0, beta=0.5)
    graph.observe((0, 0, 0), None, 0, 1)
    graph.observe((3, 4, 0), None, 1, 2, instruction=0.1)
    assert graph.edges[0, 1].weight == pytest.approx(5.05)
    graph.add_edge(0, 1, 5.0, 2.1)
    assert graph.edges[0, 1].weight == pytest.approx(5.55) and graph.edges[0, 1].traversals == 2
    assert graph.add_edge(1, 0, -7.0, 0.0).weight == 0.0
    del graph.edges[1, 0]
    assert graph.route(1, 0, directed=True) == ([], math.inf)
    assert graph.route(1, 0)[0] == [1, 0] and graph.route(0, 0) == ([0], 0.0)
    wrong: Any
    for wrong in (graph.place(0), "0", 7, -1, True):
        with pytest.raises(QueryError):
            graph.route(0, wrong)
    with pytest.raises(QueryError, match="itself"):
        graph.add_edge(0, 0, 1.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 14), st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13), st.floats(0, 9)), max_size=50))
def test_3_routes_are_as_short_as_networkx(n: int, ways: list[tuple[int, int, float]]) -> None:
    graph = Topology(beta=0.0, gate_m=0.1)
    oracle = networkx.DiGraph()
    oracle.add_nodes_from(range(n))
    for number in range(n):
        graph.observe((10.0 * number, 0, 0), None, number, number, linked=False)
    for start, end, length in ways:
        if start < n and end < n and start != end:
            oracle.add_edge(start, end, weight=graph.add_edge(start, end, length).weight)
    both = networkx.Graph()
    both.add_nodes_from(range(n))
    for start, end, data in oracle.edges(data=True):
        known = both.get_edge_data(start, end, {"weight": math.inf})["weight"]
        both.add_edge(start, end, weight=min(known, data["weight"]))
    for directed, other in ((True, oracle), (False, both)):
        for goal in range(n):
            way, cost = graph.route(0, goal, directed=directed)
            try:
                wanted = networkx.dijkstra_path_length(other, 0, goal)
            except networkx.NetworkXNoPath:
                assert (way, cost) == ([], math.inf)
                continue
            assert cost == pytest.approx(wanted) and way[0] == 0 and way[-1] == goal


def test_views_of_a_place_are_different_ones() -> None:
    graph = Topology(gate_m=1.0, same_spot_m=1.0, most_views=3)
    for number in range(40):
        angle = number * math.pi / 20
        step = graph.observe((0.01 * number, 0, 0), unit(math.cos(angle), math.sin(angle)), number, number)
        assert step.place_id == 0
    assert [view.record_id for view in graph.place(0).views] == [0, 3, 6]
    blind = Topology(gate_m=1.0)
    for degrees in range(0, 360, 10):
        turn = math.radians(degrees)
        blind.observe((0, 0, 0), None, degrees, degrees, direction=np.array([math.cos(turn), math.sin(turn), 0]))
    assert [view.record_id for view in blind.place(0).views] == [0, 50, 100, 150, 200, 250, 300]


def test_rooms_are_places_that_are_near_on_foot() -> None:
    graph = Topology(gate_m=0.5, beta=0.0)
    for x in range(4):
        graph.observe((float(x), 0, 0), None, x, x)
    graph.observe((30.0, 0, 0), None, 9, 9)  # a long corridor
    for x in range(31, 34):
        graph.observe((float(x), 0, 0), None, x, x)
    graph.observe((1.0, 0.9, 0), None, 99, 99, linked=False)  # next door, but no way is known
    assert graph.rooms(6.0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    graph.close_loop(1, 8, 0.9)
    assert graph.rooms(6.0) == [[0, 1, 2, 3, 8], [4, 5, 6, 7]] and graph.edges[1, 8].loop


def test_forgotten_places_keep_the_others_numbers() -> None:
    graph = Topology()
    graph.apply(2, (5.0, 0, 0), None, 0, 1)
    assert [place.place_id for place in graph.known()] == [2] and graph.rooms(6.0) == [[2]]
    assert graph.match((5.1, 0, 0), None) == 2 and graph.match((0.0, 0, 0), None) is None
    with pytest.raises(QueryError):
        graph.route(0, 2)
