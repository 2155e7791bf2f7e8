"""Distance fields against a brute-force search over every pair of cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from memo_habitat.simulator.embree.distance_field import Geodesics
from memo_habitat.simulator.embree.navgrid import NavGrid

CELL = 0.05


def grid_of(free):
    from scipy import ndimage

    islands = ndimage.label(free)[0].astype(np.int32)
    floor = np.where(free, 0.0, np.nan)
    return NavGrid(islands, floor, free.astype(np.float32), (0.0, 0.0), CELL)


def cluttered(seed, size=20):
    rng = np.random.default_rng(seed)
    free = np.zeros((size, size), dtype=bool)
    free[1:-1, 1:-1] = True
    for _ in range(6):
        i, j = rng.integers(1, size - 4, size=2)
        free[i : i + rng.integers(2, 7), j : j + rng.integers(2, 7)] = False
    return free


def brute_force(free):
    """All-pairs lengths (in cells) of the shortest paths whose corners are cell middles: two cells
    are joined where every point of the segment, a hair to one side or the other, is free."""
    cells = np.argwhere(free) + 0.5
    shares = np.linspace(0, 1, 500)[None, :, None]
    lengths = np.zeros((len(cells), len(cells)))
    for a in range(len(cells) - 1):
        ways = cells[a + 1 :] - cells[a]
        straight = np.linalg.norm(ways, axis=1)
        aside = 2e-3 * ways[:, ::-1] * [1, -1] / np.maximum(straight, 1.0)[:, None]
        points = cells[a] + shares * ways[:, None, :]
        left, right = (
            free[tuple(np.floor(points + sign * aside[:, None, :]).astype(int).transpose(2, 0, 1))]
            for sign in (-1, 1)
        )
        joined = (left | right).all(axis=1)
        lengths[a, a + 1 :][joined] = straight[joined]
    return cells, dijkstra(csr_matrix(lengths), directed=False)


def middle(cell):
    return np.array([cell[1] * CELL, 0.0, cell[0] * CELL])


@pytest.mark.parametrize("seed", range(4))
def test_distances_agree_with_brute_force(seed):
    free = cluttered(seed)
    cells, expected = brute_force(free)
    grid = grid_of(free)
    geodesics = Geodesics(grid)
    rng = np.random.default_rng(seed)
    for goal in rng.choice(len(cells), 12, replace=False):
        for start in range(0, len(cells), 3):
            found = geodesics.distance(middle(cells[start]), middle(cells[goal])[None]) / CELL
            wanted = expected[goal, start]
            if math.isinf(wanted):
                assert math.isinf(found)
            else:
                assert wanted - 1e-6 <= found <= 1.02 * wanted + 1e-6


@pytest.mark.parametrize("seed", range(2))
def test_distance_to_many_goals_is_the_least_of_the_single_ones(seed):
    free = cluttered(seed)
    grid = grid_of(free)
    geodesics = Geodesics(grid, capacity=64)
    rng = np.random.default_rng(seed)
    cells = np.argwhere(free) + 0.5
    goals = np.stack([middle(cell) for cell in rng.choice(cells, 5)])
    for cell in rng.choice(cells, 40):
        singles = [geodesics.distance(middle(cell), goal[None]) for goal in goals]
        together = geodesics.distance(middle(cell), goals)
        assert together == pytest.approx(min(singles), rel=0.02, abs=1e-6)


def test_in_the_open_the_distance_is_the_straight_line_for_any_point():
    free = np.zeros((60, 80), dtype=bool)
    free[1:-1, 1:-1] = True
    geodesics = Geodesics(grid_of(free))
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (np.array([rng.uniform(0.1, 3.9), 0, rng.uniform(0.1, 2.9)]) for _ in range(2))
        assert geodesics.distance(a, b[None]) == pytest.approx(np.linalg.norm(a - b), abs=1e-9)
    assert geodesics.distance(a, a[None]) == 0.0


def test_the_distance_falls_by_what_is_walked_along_the_path():
    free = cluttered(2, 40)
    geodesics = Geodesics(grid_of(free))
    cells = np.argwhere(geodesics._grid.islands == 1) + 0.5
    a, b = middle(cells[0]), middle(cells[-1])
    path = geodesics.path(a, b[None])
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-9)
    assert lengths.sum() == pytest.approx(geodesics.distance(a, b[None]), abs=1e-9)
    for corner, left in zip(path, lengths.sum() - np.cumsum([0, *lengths]), strict=True):
        assert geodesics.distance(corner, b[None]) == pytest.approx(left, abs=1e-6)


def test_nothing_squeezes_between_obstacles_that_touch_at_a_corner():
    free = np.ones((6, 6), dtype=bool)
    free[:3, :3] = free[3:, 3:] = False
    geodesics = Geodesics(grid_of(free))
    assert math.isinf(geodesics.distance(middle((0.5, 5.5)), middle((5.5, 0.5))[None]))


def test_unreachable_and_outside_points_are_infinitely_far():
    free = np.ones((20, 60), dtype=bool)
    free[:, 20:40] = False
    geodesics = Geodesics(grid_of(free))
    left, right = middle((10, 5)), middle((10, 55))
    assert math.isinf(geodesics.distance(left, right[None]))
    assert len(geodesics.path(left, right[None])) == 0
    assert math.isinf(geodesics.distance(left, np.zeros((0, 3))))
    assert math.isinf(geodesics.distance(left + np.array([0, 9, 0]), left[None]))
    assert math.isinf(geodesics.distance(left - [30, 0, 0], left[None]))
    assert math.isinf(geodesics.distance(np.array([np.nan, 0, 0]), left[None]))


def test_a_goal_a_little_off_the_floor_counts_with_the_gap():
    free = np.ones((20, 20), dtype=bool)
    free[:, 10:] = False
    geodesics = Geodesics(grid_of(free))
    goal = middle((10.5, 14.5))
    expected = np.linalg.norm(middle((10.5, 9.5)) - middle((10.5, 2.5))) + 5 * CELL
    assert geodesics.distance(middle((10.5, 2.5)), goal[None]) == pytest.approx(expected)


def test_one_field_serves_a_goal_set_until_it_is_the_least_recently_used():
    geodesics = Geodesics(grid_of(np.ones((10, 10), dtype=bool)), capacity=2)
    goals = [middle((i + 0.5, 2.5))[None] for i in range(3)]
    first = geodesics.field(goals[0])
    assert geodesics.field(goals[0].copy()) is first
    second = geodesics.field(goals[1])
    assert geodesics.field(goals[0]) is first
    geodesics.field(goals[2])  # drops goals[1]
    assert geodesics.field(goals[0]) is first
    assert geodesics.field(goals[1]) is not second


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where fields are kept, and goals of the kind whose fields are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    goals = middle((10.5, 14.5))[None]
    goals.setflags(write=False)
    return tmp_path / "memo-habitat", goals


def test_fields_of_read_only_goals_are_read_from_disk_the_next_time(kept, monkeypatch):
    folder, goals = kept
    grid = grid_of(cluttered(3))
    points = [middle(cell + 0.5) for cell in np.argwhere(cluttered(3))[::7]]
    computed = [Geodesics(grid).distance(point, goals) for point in points]
    assert len(list(folder.rglob("*.field"))) == 1
    monkeypatch.setattr(Geodesics, "_compute", lambda *args: pytest.fail("computed again"))
    again = Geodesics(grid)
    assert [again.distance(point, goals) for point in points] == computed
    assert len(again.path(points[0], goals)) >= 2


def test_fields_of_read_only_goals_that_are_in_use_stay(kept):
    geodesics = Geodesics(grid_of(np.ones((10, 10), dtype=bool)), capacity=2)
    goals = [middle((i + 0.5, 2.5))[None] for i in range(4)]
    for each in goals:
        each.setflags(write=False)
    first = geodesics.field(goals[0])
    for other in goals[1:]:
        geodesics.field(other)
        assert geodesics.field(goals[0]) is first


def test_another_house_or_other_goals_have_files_of_their_own(kept):
    folder, goals = kept
    Geodesics(grid_of(cluttered(3))).field(goals)
    Geodesics(grid_of(cluttered(4))).field(goals)
    other = middle((2.5, 2.5))[None]
    other.setflags(write=False)
    Geodesics(grid_of(cluttered(4))).field(other)
    assert len(list(folder.rglob("*.field"))) == 3


def test_goals_that_may_change_leave_nothing_on_disk(kept):
    folder, goals = kept
    geodesics, point = Geodesics(grid_of(np.ones((20, 20), dtype=bool))), middle((10.5, 2.5))
    moving = goals.copy()
    assert geodesics.distance(point, moving) == pytest.approx(12 * CELL)
    moving[0] = middle((10.5, 4.5))
    assert geodesics.distance(point, moving) == pytest.approx(2 * CELL)
    assert not folder.exists()


@pytest.mark.parametrize("content", [b"", b"not a field"])
def test_a_file_that_is_no_field_is_written_again(kept, content):
    folder, goals = kept
    grid, point = grid_of(np.ones((20, 20), dtype=bool)), middle((10.5, 2.5))
    Geodesics(grid).field(goals)
    (file,) = folder.rglob("*.field")
    file.write_bytes(content)
    assert Geodesics(grid).distance(point, goals) == pytest.approx(12 * CELL)
    assert len(file.read_bytes()) > len(content)


def test_without_a_place_on_disk_distances_are_worked_out_all_the_same(kept):
    folder, goals = kept
    folder.write_text("in the way")
    geodesics = Geodesics(grid_of(np.ones((20, 20), dtype=bool)))
    assert geodesics.distance(middle((10.5, 2.5)), goals) == pytest.approx(12 * CELL)
