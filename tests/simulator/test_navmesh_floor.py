"""The floor of a navigation mesh as triangles, which needs no Habitat-Sim."""

from __future__ import annotations

import numpy as np
import pytest

from memo_habitat.simulator.habitat_sim.floor import Floor


def rectangle(x, z, y=0.0):
    """Two triangles over the ranges x and z, at height y."""
    a, b, c, d = ([x[0], y, z[0]], [x[1], y, z[0]], [x[1], y, z[1]], [x[0], y, z[1]])
    return [[a, b, c], [a, c, d]]


@pytest.fixture
def two_rooms():
    """A room of 2 by 1 m and one of 1 by 1 m, without a way between them, which nothing asks."""
    return Floor(np.array(rectangle((0.0, 2.0), (0.0, 1.0)) + rectangle((3.0, 4.0), (0.0, 1.0))))


def test_points_are_drawn_by_area_and_on_the_floor(two_rooms):
    rng = np.random.default_rng(0)
    points = np.array([two_rooms.sample(rng) for _ in range(3000)])
    assert ((points[:, 2] >= 0) & (points[:, 2] <= 1)).all()
    in_first = points[:, 0] <= 2.0
    assert (in_first | (points[:, 0] >= 3.0)).all()
    assert in_first.mean() == pytest.approx(2 / 3, abs=0.03)
    assert points[in_first, 0].mean() == pytest.approx(1.0, abs=0.05)


def test_grid_points_are_those_on_the_floor_each_once(two_rooms):
    points = two_rooms.near(np.array([1.0, 0.0, 0.5]), 10.0, 0.25)
    cells = {tuple(point) for point in np.rint(points[:, [0, 2]] / 0.25).astype(int).tolist()}
    wanted = {(x, z) for x in [*range(9), *range(12, 17)] for z in range(5)}
    assert cells == wanted and len(points) == len(wanted)


def test_grid_points_keep_within_the_radius(two_rooms):
    points = two_rooms.near(np.array([1.0, 0.7, 0.5]), 0.3, 0.25)
    found = {tuple(point) for point in np.round(points, 6).tolist()}
    assert found == {(0.75, 0, 0.5), (1, 0, 0.25), (1, 0, 0.5), (1, 0, 0.75), (1.25, 0, 0.5)}


def test_heights_follow_slopes_and_storeys_are_told_apart():
    ramp = rectangle((0.0, 1.0), (0.0, 1.0))
    ramp = [[[x, 0.2 * x, z] for x, _, z in triangle] for triangle in ramp]
    floor = Floor(np.array(ramp + rectangle((0.0, 1.0), (0.0, 1.0), y=3.0)))
    points = floor.near(np.array([0.5, 0.0, 0.5]), 0.01, 0.5)
    np.testing.assert_allclose(points, [[0.5, 0.1, 0.5], [0.5, 3.0, 0.5]])


def test_the_map_is_free_where_cells_have_their_middle_on_the_floor(two_rooms):
    top = two_rooms.map(0.1)
    assert top.free.sum() == pytest.approx(300, abs=15)
    rows, columns = np.floor(top.cells(np.array([[1.05, 0, 0.55], [2.55, 0, 0.55]]))).astype(int).T
    assert top.free[rows, columns].tolist() == [True, False]
