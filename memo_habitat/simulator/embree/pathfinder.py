"""The next best action: which turn, followed by a step, comes nearest to a goal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from memo_habitat.simulator.embree.navgrid import ON_FLOOR
from memo_habitat.simulator.embree.scene import House


class PathFinder:
    """A facade over a house's grid and distance fields with Habitat-Sim's names."""

    def __init__(self, house: House, rng: np.random.Generator) -> None:
        self._house = house
        self._rng = rng

    @property
    def is_loaded(self) -> bool:
        """Whether there is something to navigate on: always."""
        return True

    @property
    def navigable_area(self) -> float:
        """Area of all islands, m2."""
        grid = self._house.grid
        return float(np.count_nonzero(grid.islands)) * grid.cell**2

    def seed(self, seed: int) -> None:
        """Begins the sequence of random points anew."""
        self._rng = np.random.default_rng(seed)

    def get_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner [3] m of the navigable grid."""
        grid = self._house.grid
        rows, columns = grid.islands.shape
        heights = grid.floor[grid.islands > 0]
        low = np.array([grid.origin[0], heights.min(), grid.origin[1]])
        high = low + np.array([columns * grid.cell, 0.0, rows * grid.cell])
        high[1] = heights.max()
        return low, high

    def is_navigable(self, point: Any, max_y_delta: float = ON_FLOOR) -> bool:
        """Whether the agent can stand at the point [3], at most `max_y_delta` m off the floor."""
        return bool(self._house.grid.island_at(np.asarray(point), max_y_delta)[0])

    def snap_point(self, point: Any, island_index: int = -1) -> np.ndarray:
        """The navigable point [3] nearest to `point` (NaN where there is none within 4 m)."""
        label = island_index + 1 if island_index >= 0 else 0
        place = self._house.grid.snap(np.asarray(point, dtype=np.float64), 4.0, label)
        if place is None:
            return np.full(3, np.nan)
        return self._house.grid.world(place)[0]

    def get_island(self, point: Any) -> int:
        """Index of the island under a point: 0 is the largest, -1 none."""
        return int(self._house.grid.island_at(np.asarray(point), ON_FLOOR)[0]) - 1

    def island_radius(self, point: Any) -> float:
        """Distance in m from the middle of the point's island to its farthest cell; 0 off it."""
        island = self.get_island(point)
        return float(self._house.grid.radii[island]) if island >= 0 else 0.0

    def get_random_navigable_point(self, max_tries: int = 10, island_index: int = -1) -> np.ndarray:
        """A point [3] m drawn uniformly from one island, or from all of them."""
        return sample_point(self._house, self._rng, island_index)

    def distance_to_closest_obstacle(self, point: Any, max_search_radius: float = 2.0) -> float:
        """Distance in m from a point [3] to what is in the way there, at most the radius."""
        grid = self._house.grid
        row, column = np.floor(grid.grid(point)[0]).astype(int)
        if not (0 <= row < grid.islands.shape[0] and 0 <= column < grid.islands.shape[1]):
            return 0.0
        return min(float(grid.clearance[row, column]), max_search_radius)

    def get_topdown_view(self, meters_per_pixel: float, height: float, eps: float = 0.5) -> Any:
        """[Z, X] bool: where one can stand within `eps` m of `height`, over `get_bounds`."""
        grid = self._house.grid
        rows, columns = (
            max(math.ceil(size * grid.cell / meters_per_pixel), 1) for size in grid.islands.shape
        )
        row = np.minimum(
            ((np.arange(rows) + 0.5) * meters_per_pixel / grid.cell).astype(int),
            grid.islands.shape[0] - 1,
        )
        column = np.minimum(
            ((np.arange(columns) + 0.5) * meters_per_pixel / grid.cell).astype(int),
            grid.islands.shape[1] - 1,
        )
        with np.errstate(invalid="ignore"):
            level = np.abs(grid.floor - height) <= eps
        return ((grid.islands > 0) & level)[np.ix_(row, column)]

    def find_path(self, path: Any) -> bool:
        """Fills `geodesic_distance` and `points` of a path object that has `requested_start` and
        `requested_end` or `requested_ends`; returns whether there is a way."""
        ends = getattr(path, "requested_ends", None)
        goals = np.asarray(path.requested_end if ends is None else ends, dtype=np.float64)
        goals = goals.reshape(-1, 3)
        start = np.asarray(path.requested_start, dtype=np.float64)
        path.geodesic_distance = self._house.geodesics.distance(start, goals)
        path.points = list(self._house.geodesics.path(start, goals))
        return math.isfinite(path.geodesic_distance)

    def try_step(self, start: Any, end: Any) -> np.ndarray:
        """Where a move from `start` to `end` ([3] m) comes to, sliding along walls."""
        return self._house.mover.step(np.asarray(start), np.asarray(end), sliding=True)

    def try_step_no_sliding(self, start: Any, end: Any) -> np.ndarray:
        """Where a move from `start` to `end` ([3] m) comes to, stopping at walls."""
        return self._house.mover.step(np.asarray(start), np.asarray(end), sliding=False)


def sample_point(house: House, rng: np.random.Generator, island: int = -1) -> np.ndarray:
    """A point [3] m drawn uniformly from island `island` (0 the largest; -1: from all)."""
    grid = house.grid
    wanted = grid.islands == island + 1 if island >= 0 else grid.islands > 0
    cells = np.flatnonzero(wanted)
    row, column = divmod(int(cells[rng.integers(len(cells))]), grid.islands.shape[1])
    return grid.world(np.array([row, column]) + rng.uniform(0.0, 1.0, size=2))[0]


#: A turn must be worth this many metres, so that equal ways do not alternate.
_TURN_COST = 1e-3


def forward(position: np.ndarray, heading: float, length: float) -> np.ndarray:
    """The point [3] `length` m ahead of a pose."""
    return position + length * np.array([-math.sin(heading), 0.0, -math.cos(heading)])


def next_best_action(
    position: np.ndarray,
    heading: float,
    step: float,
    turn: float,
    move: Callable[[np.ndarray, np.ndarray], np.ndarray],
    distance: Callable[[np.ndarray], float],
    reach: float | None = None,
) -> str | None:
    """The first action of the best sequence "turn k times one way, then step".

    Args:
        position: [3] m.
        heading: rad.
        step: length of move_forward, m.
        turn: angle of turn_left and turn_right, rad.
        move: where a move from one point towards another ends.
        distance: geodesic distance of a point to the goals, m.
        reach: so near to a goal counts as arrived, m; half a step when not given.

    Returns:
        None when a goal is within reach, when no step comes nearer to one within a step, or
        when none can be reached.
    """
    left = distance(position)
    if left <= (step / 2 if reach is None else reach) or not math.isfinite(left):
        return None
    best, action, nearest = math.inf, None, math.inf
    for k in sorted(range(-int(math.pi / turn), int(math.pi / turn) + 1), key=abs):
        ahead = forward(position, heading + k * turn, step)
        there = distance(move(position, ahead))
        if there + _TURN_COST * abs(k) < best:
            best = there + _TURN_COST * abs(k)
            nearest = there
            action = "move_forward" if k == 0 else ("turn_left" if k > 0 else "turn_right")
    if nearest >= left - _TURN_COST and left <= step:
        return None
    return action


class GreedyFollower:
    """What Habitat's `ShortestPathFollower` asks of the simulator: actions towards one goal."""

    def __init__(self, choose: Callable[[np.ndarray, float], str | None], keys: Any, radius: float):
        """`choose(goals, reach)` gives an action's name or None; `keys` maps names (and "stop")
        to what `next_action_along` returns; `radius` m around the goal counts as arrived."""
        self._choose, self._keys, self._radius = choose, keys, radius

    def next_action_along(self, goal: Any) -> Any:
        """The key of the next action towards a point [3]."""
        goals = np.asarray(goal, dtype=np.float64).reshape(1, 3)
        return self._keys[self._choose(goals, self._radius) or "stop"]

    def reset(self) -> None:
        """Nothing is remembered between actions."""
