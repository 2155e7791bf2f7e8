"""What Habitat's measures, maps and actions ask of a simulator's `pathfinder`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from memo_habitat.simulator.house import House
from memo_habitat.simulator.navgrid import ON_FLOOR


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
