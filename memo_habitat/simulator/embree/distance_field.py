"""Distance fields: geodesic distance from every free cell to the nearest of a set of goals.

A field takes a search over the whole house. It is kept in memory while it is in use and on disk
for good, under the hash of what it was computed from.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from habitat.core.logging import logger
from numba import njit

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.navgrid import NEAR_FLOOR, NavGrid, nearest_free
from memo_habitat.simulator.embree.theta_star import compute_distances, line_of_sight
from memo_habitat.utils.files import atomic_write, cache_folder

#: How far beside a free cell a start or goal may lie, m.
REACH = 0.5
#: Part of every file's name: raised when the search or the form of the files changes.
_VERSION = 1


class DistanceField(NamedTuple):
    """Geodesic distances to one goal set, in cells.

    The shortest path from a cell leads straight to a waypoint (a goal, or the middle of a cell at
    a corner) and on from there. Few waypoints serve all cells, so a cell only holds which is its
    own: distances follow, in a sixth of the memory.
    """

    waypoint: np.ndarray  # [Z, X] unsigned, index of the waypoint; K = unreachable
    places: np.ndarray  # [K, 2] float64, grid coordinates of the waypoints
    lengths: np.ndarray  # [K] float64, cells from each to its goal
    following: np.ndarray  # [K] int64, the waypoint after it; -1 at a goal

    def to_bytes(self) -> bytes:
        """The field for a file; most of it compresses well."""
        wide = self.waypoint.dtype == np.uint32
        header = np.array([*self.waypoint.shape, len(self.lengths), wide], dtype=np.int64)
        parts = (header, self.places, self.lengths, self.following, self.waypoint)
        return zlib.compress(b"".join(part.tobytes() for part in parts), level=1)

    @classmethod
    def from_bytes(cls, content: bytes) -> DistanceField:
        """The inverse of `to_bytes`; raises ValueError or zlib.error for anything else."""
        raw = zlib.decompress(content)
        rows, columns, count, wide = np.frombuffer(raw, np.int64, 4)
        places = np.frombuffer(raw, np.float64, 2 * count, 32).reshape(count, 2)
        lengths = np.frombuffer(raw, np.float64, count, 32 + 16 * count)
        following = np.frombuffer(raw, np.int64, count, 32 + 24 * count)
        kind = np.uint32 if wide else np.uint16
        waypoint = np.frombuffer(raw, kind, rows * columns, 32 + 32 * count)
        return cls(waypoint.reshape(rows, columns), places, lengths, following)


@njit(cache=True, nogil=True)
def distance_at(islands, field, row, column):  # type: ignore[no-untyped-def]
    """(distance in cells, first waypoint) of a free point given in grid coordinates.

    Over its own cell's middle (waypoint -1) or, where the way is free, straight to a waypoint of
    its own or a neighbouring cell.
    """
    waypoint, places, lengths, _ = field
    rows, columns = islands.shape
    i = int(row)
    j = int(column)
    k = np.int64(waypoint[i, j])
    chosen = np.int64(-1)
    if k >= len(lengths):
        return np.inf, chosen
    best = lengths[k] + np.hypot(i + 0.5 - places[k, 0], j + 0.5 - places[k, 1])
    best += np.hypot(row - i - 0.5, column - j - 0.5)
    for a in range(max(i - 1, 0), min(i + 2, rows)):
        for b in range(max(j - 1, 0), min(j + 2, columns)):
            if islands[a, b] != islands[i, j]:
                continue
            k = np.int64(waypoint[a, b])
            far = lengths[k] + np.hypot(row - places[k, 0], column - places[k, 1])
            if far < best and line_of_sight(islands, row, column, places[k, 0], places[k, 1]):
                best = far
                chosen = k
    return best, chosen


@njit(cache=True, nogil=True)
def standing_place(floor_map, point):  # type: ignore[no-untyped-def]
    """Grid coordinates (row, column) of where a point [3] m stands, and how many cells it is moved
    for that; the last is inf when it is farther than `REACH` from the floor's edge."""
    _, floor, _, origin, cell = floor_map
    row, column = nearest_free(floor_map, point, REACH, 0)
    if row < 0.0 or not abs(point[1] - floor[int(row), int(column)]) <= NEAR_FLOOR:
        return -1.0, -1.0, np.inf
    aside = row - (point[2] - origin[1]) / cell
    return row, column, np.hypot(aside, column - (point[0] - origin[0]) / cell)


@njit(cache=True, nogil=True)
def distance_from(position, floor_map, field):  # type: ignore[no-untyped-def]
    """Distance in m from a point [3] to the goals of a field (a plain tuple of `DistanceField`);
    inf when none can be reached."""
    islands, _, _, _, cell = floor_map
    row, column, gap = standing_place(floor_map, position)
    if gap == np.inf:
        return np.inf
    return (distance_at(islands, field, row, column)[0] + gap) * cell


class Geodesics:
    """Fields over one grid; the most recently used ones are kept in memory."""

    def __init__(self, grid: NavGrid, capacity: int = 32) -> None:
        self._grid = grid
        self._capacity = capacity
        self._fields: OrderedDict[bytes, DistanceField] = OrderedDict()
        self._of_array: OrderedDict[int, tuple[np.ndarray, DistanceField]] = OrderedDict()

    def field(self, goals: np.ndarray) -> DistanceField:
        """The field of goals [G, 3] m, computed when it is kept neither in memory nor on disk.

        Read-only goals are those of an arrangement, asked for again and again: their fields are
        found by the array itself and kept on disk.
        """
        fixed = not goals.flags.writeable
        if fixed and (known := self._of_array.get(id(goals))) is not None:
            return known[1]
        points = np.ascontiguousarray(goals, dtype=np.float64).reshape(-1, 3)
        key = points.tobytes()
        made = self._fields.get(key)
        if made is None:
            made = self._from_disk(points) if fixed else self._compute(points)
        self._fields[key] = made
        self._fields.move_to_end(key)
        if fixed:
            self._of_array[id(goals)] = goals, made  # with the array, so that its id stays its own
        for kept in (self._fields, self._of_array):
            if len(kept) > self._capacity:
                kept.popitem(last=False)
        return made

    def distance(self, position: np.ndarray, goals: np.ndarray) -> float:
        """Geodesic distance in m from a point [3] to the nearest of goals [G, 3]; inf when none
        can be reached, or the point or every goal is farther than 0.5 m from the floor's edge."""
        point = np.array(position, dtype=np.float64)
        return float(distance_from(point, self._grid.floor_map, tuple(self.field(goals))))

    def path(self, position: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Corners of the shortest path [K, 3] m from a point [3] to the nearest of goals [G, 3],
        both ends included; [0, 3] when none can be reached."""
        field = self.field(goals)
        point = np.array(position, dtype=np.float64)
        row, column, gap = standing_place(self._grid.floor_map, point)
        if not math.isfinite(gap):
            return np.zeros((0, 3))
        cells, waypoint = distance_at(self._grid.islands, tuple(field), row, column)
        if not math.isfinite(cells):
            return np.zeros((0, 3))
        points = [(row, column)]
        if waypoint < 0:
            points.append((int(row) + 0.5, int(column) + 0.5))
            waypoint = field.waypoint[int(row), int(column)]
        while waypoint >= 0:
            points.append(tuple(field.places[waypoint]))
            waypoint = field.following[waypoint]
        return self._grid.world(np.array(points))

    def _from_disk(self, goals: np.ndarray) -> DistanceField:
        """The field in the file of these goals; computed and written where there is none to use."""
        file = self._folder / f"{hashlib.sha1(goals.tobytes()).hexdigest()}.field"
        try:
            return DistanceField.from_bytes(file.read_bytes())
        except (OSError, ValueError, zlib.error):
            made = self._compute(goals)
        try:
            atomic_write(file, made.to_bytes())
        except UserError as error:
            logger.warning(f"distance fields are not kept ({error}); set XDG_CACHE_HOME")
        return made

    @cached_property
    def _folder(self) -> Path:
        """Where the fields of this grid are kept, by what the search depends on."""
        grid = self._grid
        known = hashlib.sha1()
        header = np.array([_VERSION, *grid.origin, grid.cell, *grid.islands.shape])
        for array in (header, grid.islands, grid.floor):
            known.update(array.tobytes())
        return cache_folder() / "distance_fields" / known.hexdigest()

    def _compute(self, goals: np.ndarray) -> DistanceField:
        """Searches from the goals, then tells what was found for each cell by waypoints."""
        found = np.array([standing_place(self._grid.floor_map, goal) for goal in goals])
        found = found.reshape(-1, 3)
        found = found[np.isfinite(found[:, 2])]
        spots, gaps = np.ascontiguousarray(found[:, :2]), np.ascontiguousarray(found[:, 2])
        distance = np.full(self._grid.islands.shape, np.inf)
        parent = np.full(distance.shape, -1, dtype=np.int32)
        compute_distances(self._grid.islands, spots, gaps, distance, parent)
        reached = np.isfinite(distance)
        used, index = np.unique(parent[reached], return_inverse=True)
        kind = np.uint16 if len(used) < 2**16 else np.uint32
        waypoint = np.full(distance.shape, len(used), dtype=kind)
        waypoint[reached] = index.reshape(-1)
        is_goal = used < 0  # sorted: the goals come first
        goal, cell = -1 - used[is_goal], used[~is_goal].astype(np.int64)
        row, column = np.divmod(cell, distance.shape[1])
        return DistanceField(
            waypoint,
            np.concatenate([spots[goal], np.stack([row + 0.5, column + 0.5], axis=1)]),
            np.concatenate([gaps[goal], distance[row, column]]),
            np.concatenate([np.full(len(goal), -1), waypoint[row, column].astype(np.int64)]),
        )
