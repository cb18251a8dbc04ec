"""Waypoints on the grid and on the graph, against Dijkstra of networkx."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import networkx
import numpy as np
import pytest
from box_room_samples import centre_of, moment, opened
from hypothesis import given, settings
from hypothesis import strategies as st

from nav.planner import GridPlanner, corners, graph_plan, grown_free, next_waypoint
from streammem.errors import QueryError


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 0.5))
def test_grid_ways_are_as_short_as_networkx(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    cells = np.where(rng.random((9, 11)) < density, 2, 1).astype(np.uint8)
    cells[0, 0] = cells[8, 10] = 1
    planner = GridPlanner(cells, 1.0, radius_m=0.0)
    oracle = networkx.Graph()
    oracle.add_nodes_from(((0, 0), (8, 10)))
    for row, column in np.argwhere(cells == 1).tolist():
        for r, c in ((0, 1), (1, 0), (1, 1), (1, -1)):
            there = (row + r, column + c)
            if not (0 <= there[0] < 9 and 0 <= there[1] < 11) or cells[there] != 1:
                continue
            if r and c and (cells[row, there[1]] != 1 or cells[there[0], column] != 1):
                continue
            oracle.add_edge((row, column), there, weight=math.hypot(r, c))
    squares, cost = planner.shortest((0, 0), (8, 10))
    if not networkx.has_path(oracle, (0, 0), (8, 10)):
        assert (squares, cost) == ([], math.inf)
        return
    assert cost == pytest.approx(networkx.dijkstra_path_length(oracle, (0, 0), (8, 10)))
    assert squares[0] == (0, 0) and squares[-1] == (8, 10)
    assert all(max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1 for a, b in pairwise(squares))


def test_obstacles_grow_by_the_robot() -> None:
    cells = np.ones((11, 11), np.uint8)
    cells[5, :] = 2
    cells[5, 5] = 1  # a gap of one square
    assert GridPlanner(cells, 0.1, radius_m=0.0).plan((0.55, 0.05), (0.55, 1.05)).found
    tight = GridPlanner(cells, 0.1, radius_m=0.15).plan((0.55, 0.05), (0.55, 1.05))
    assert not tight.found and tight.why == "no free squares lead there"
    cells[:] = 0
    assert not grown_free(cells, 0, False).any() and grown_free(cells, 0, True).all()
    with pytest.raises(QueryError, match="outside the map"):
        GridPlanner(cells, 0.1).plan((9, 9), (0, 0))
    with pytest.raises(QueryError, match="no grid"):
        GridPlanner(cells[0], 0.1)
    assert corners([(0, 0), (0, 1), (0, 2), (1, 3), (2, 4)]) == [(0, 0), (0, 2), (2, 4)]


def test_from_the_memory_to_waypoints(tmp_path: Path) -> None:
    with opened(tmp_path) as memory:
        memory.write([moment(n) for n in range(24)])
        planner = GridPlanner.from_answer(memory.query("spatial", "map")[0], radius_m=0.15)
        places = memory.query("spatial", "places")
        thing = memory.query("spatial", "where", text="mug")[0]
        start = places[0]["position_m"]
        plan = planner.plan(start[:2], thing["point_m"][:2], snap_m=1.0)
        assert plan.found and math.dist(plan.waypoints_m[-1], centre_of("mug")[:2]) < 1.0
        assert plan.length_m >= math.dist(plan.waypoints_m[0], plan.waypoints_m[-1]) - 1e-9
        goal = len(places) - 1
        walked = graph_plan(places, 0, goal)
        asked = memory.query("spatial", "route", start=0, goal=goal)[0]
        assert walked.length_m == pytest.approx(asked["length_m"], abs=1e-5)
        assert next_waypoint(walked, walked.waypoints_m[0]) == walked.waypoints_m[1]
        assert next_waypoint(walked, walked.waypoints_m[-1]) is None
        with pytest.raises(QueryError, match="no place 99"):
            graph_plan(places, 0, 99)
