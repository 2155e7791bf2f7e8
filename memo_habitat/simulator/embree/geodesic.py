"""Distance fields: geodesic distance from every free cell to the nearest of a set of goals.

Any-angle search over the whole grid (Theta*, Nash et al. 2007, run outwards from the goals): a
cell remembers the corner or goal in straight view through which its shortest path leads, so that
distances are Euclidean and not those of a path along grid directions.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from memo_habitat.simulator.embree.navgrid import NEAR_FLOOR, NavGrid
from memo_habitat.simulator.embree.theta_star import distance_at, solve

#: How far beside a free cell a start or goal may lie, m.
REACH = 0.5


@dataclass(frozen=True)
class Field:
    """Geodesic distances to one goal set, in cells."""

    distance: np.ndarray  # [Z, X] float64, cells; inf = unreachable
    parent: np.ndarray  # [Z, X] int32: cell >= 0, or -1 - goal, through which the path leads
    goals: np.ndarray  # [G, 2] float64, grid coordinates
    extra: np.ndarray  # [G] float64, cells between the goal asked for and where it was snapped


class Geodesics:
    """Fields over one grid, the most recently used ones kept."""

    def __init__(self, grid: NavGrid, capacity: int = 32) -> None:
        self._grid = grid
        self._capacity = capacity
        self._fields: OrderedDict[bytes, Field] = OrderedDict()

    def field(self, goals: np.ndarray) -> Field:
        """The field of goals [G, 3] m, computed when it is not kept from before."""
        goals = np.ascontiguousarray(goals, dtype=np.float64).reshape(-1, 3)
        key = goals.tobytes()
        known = self._fields.get(key)
        if known is not None:
            self._fields.move_to_end(key)
            return known
        made = self._compute(goals)
        self._fields[key] = made
        if len(self._fields) > self._capacity:
            self._fields.popitem(last=False)
        return made

    def distance(self, position: np.ndarray, goals: np.ndarray) -> float:
        """Geodesic distance in m from a point [3] to the nearest of goals [G, 3]; inf when none
        can be reached, or the point or every goal is farther than 0.5 m from the floor's edge."""
        field = self.field(goals)
        place, extra = self._place(position)
        if place is None:
            return math.inf
        cells, _ = distance_at(
            self._grid.islands, field.distance, field.parent, field.goals, field.extra, place
        )
        return float(cells + extra) * self._grid.cell

    def path(self, position: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Corners of the shortest path [K, 3] m from a point [3] to the nearest of goals [G, 3],
        both ends included; [0, 3] when none can be reached."""
        field = self.field(goals)
        place, _ = self._place(position)
        if place is None:
            return np.zeros((0, 3))
        cells, parent = distance_at(
            self._grid.islands, field.distance, field.parent, field.goals, field.extra, place
        )
        if not math.isfinite(cells):
            return np.zeros((0, 3))
        columns = self._grid.islands.shape[1]
        points = [place]
        while parent >= 0:
            row, column = divmod(int(parent), columns)
            points.append(np.array([row + 0.5, column + 0.5]))
            parent = field.parent[row, column]
        points.append(field.goals[-1 - parent])
        return self._grid.world(np.stack(points))

    def _place(self, position: np.ndarray) -> tuple[np.ndarray | None, float]:
        """Grid coordinates [2] where a point stands, and how many cells it was moved."""
        grid = self._grid
        place = grid.snap(position, REACH)
        if place is None:
            return None, 0.0
        level = float(grid.floor[int(place[0]), int(place[1])])
        if not abs(float(position[1]) - level) <= NEAR_FLOOR:
            return None, 0.0
        row = (float(position[2]) - grid.origin[1]) / grid.cell
        column = (float(position[0]) - grid.origin[0]) / grid.cell
        return place, math.hypot(float(place[0]) - row, float(place[1]) - column)

    def _compute(self, goals: np.ndarray) -> Field:
        places = [self._place(goal) for goal in goals]
        kept = [(place, extra) for place, extra in places if place is not None]
        shape = self._grid.islands.shape
        distance = np.full(shape, np.inf)
        parent = np.full(shape, -1, dtype=np.int32)
        spots = np.array([place for place, _ in kept]).reshape(-1, 2)
        extra = np.array([gap for _, gap in kept])
        solve(self._grid.islands, spots, extra, distance, parent)
        return Field(distance, parent, spots, extra)
