"""Distance fields: geodesic distance from every free cell to the nearest of a set of goals.

A field takes a search over the whole house: Lazy Theta* (Nash, Koenig and Tovey 2010), outwards
from the goals. A cell remembers the corner or goal in line of sight through which its shortest path
leads, so distances are Euclidean and not those of a path along grid directions. A field is kept in
memory while it is in use and on disk for good, under the hash of what it was computed from.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import zlib
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from habitat.core.logging import logger

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.navgrid import NEAR_FLOOR, NavGrid, nearest_free
from memo_habitat.utils.compiled import compiled
from memo_habitat.utils.files import atomic_write, cache_folder
from memo_habitat.utils.recent import Recent

#: How far beside a free cell a start or goal may lie, m.
REACH = 0.5
#: Part of every file's name: raised when the search or the form of the files changes.
_VERSION = 1
#: Lengths in cells that differ by less are equal.
_TIE = 1e-9


@compiled
def crossings(start, cell, way):  # type: ignore[no-untyped-def]
    """Where a line from `start` in `cell` crosses the grid's lines along one axis: the step to the
    next cell, then the shares of `way` up to the first crossing and between two."""
    step = 1 if way > 0 else -1
    if way == 0:
        return step, np.inf, np.inf
    return step, (cell + (1 if way > 0 else 0) - start) / way, abs(1.0 / way)


@compiled
def line_of_sight(islands, row0, column0, row1, column1):  # type: ignore[no-untyped-def]
    """Whether the straight line between two points (grid coordinates) stays on one island.

    A line may graze the corner of an obstacle but not squeeze between two that touch.
    """
    rows, columns = islands.shape
    i = int(np.floor(row0))
    j = int(np.floor(column0))
    i_end = int(np.floor(row1))
    j_end = int(np.floor(column1))
    if i < 0 or j < 0 or i >= rows or j >= columns:
        return False
    label = islands[i, j]
    if label == 0:
        return False
    d_row = row1 - row0
    d_column = column1 - column0
    step_i, next_i, delta_i = crossings(row0, i, d_row)
    step_j, next_j, delta_j = crossings(column0, j, d_column)
    for _ in range(abs(i_end - i) + abs(j_end - j) + 2):
        if i == i_end and j == j_end:
            return True
        if abs(next_i - next_j) < _TIE:
            if next_i > 1.0 + _TIE:
                return True
            if not (0 <= i + step_i < rows and 0 <= j + step_j < columns):
                return False
            if islands[i + step_i, j] != label and islands[i, j + step_j] != label:
                return False
            i += step_i
            j += step_j
            next_i += delta_i
            next_j += delta_j
        elif next_i < next_j:
            if next_i > 1.0:
                return True
            i += step_i
            next_i += delta_i
        else:
            if next_j > 1.0:
                return True
            j += step_j
            next_j += delta_j
        if i < 0 or j < 0 or i >= rows or j >= columns or islands[i, j] != label:
            return False
    return True


@compiled
def _parent_point(parent, distance, goals, extra, columns):  # type: ignore[no-untyped-def]
    """(row, column, distance) of the point that a parent stands for."""
    if parent < 0:
        goal = -1 - parent
        return goals[goal, 0], goals[goal, 1], extra[goal]
    row = parent // columns
    column = parent - row * columns
    return row + 0.5, column + 0.5, distance[row, column]


@compiled
def compute_distances(islands, goals, extra, distance, parent):  # type: ignore[no-untyped-def]
    """Fills distance [Z, X] (cells, given as inf) and parent [Z, X] for goals [G, 2]."""
    rows, columns = islands.shape
    closed = np.zeros((rows, columns), dtype=np.bool_)
    # Whether the way to a cell's parent is free is checked only when the cell's turn comes: most
    # entries of the heap are overtaken by a shorter way before that.
    seen = np.zeros((rows, columns), dtype=np.bool_)
    heap = [(np.float64(0.0), np.int64(0)) for _ in range(0)]  # empty, but Numba knows of what
    for g in range(goals.shape[0]):
        i = int(goals[g, 0])
        j = int(goals[g, 1])
        far = extra[g] + np.hypot(goals[g, 0] - i - 0.5, goals[g, 1] - j - 0.5)
        if far < distance[i, j]:
            distance[i, j] = far
            parent[i, j] = -1 - g
            seen[i, j] = True
            heapq.heappush(heap, (far, np.int64(i * columns + j)))
    while heap:
        key, cell = heapq.heappop(heap)
        i = cell // columns
        j = cell - i * columns
        if closed[i, j] or key > distance[i, j]:
            continue  # since then a shorter way was found
        if not seen[i, j]:
            seen[i, j] = True
            far = _set_vertex(islands, goals, extra, distance, parent, closed, i, j)
            if far > key:
                distance[i, j] = far
                heapq.heappush(heap, (far, np.int64(cell)))
                continue
        closed[i, j] = True
        row, column, base = _parent_point(parent[i, j], distance, goals, extra, columns)
        for di in range(-1, 2):
            for dj in range(-1, 2):
                a = i + di
                b = j + dj
                if a < 0 or b < 0 or a >= rows or b >= columns:
                    continue
                if closed[a, b] or islands[a, b] != islands[i, j]:
                    continue
                if islands[a, j] != islands[i, j] and islands[i, b] != islands[i, j]:
                    continue  # between two obstacles that touch
                far = base + np.hypot(a + 0.5 - row, b + 0.5 - column)
                if far < distance[a, b] - _TIE:
                    distance[a, b] = far
                    parent[a, b] = parent[i, j]
                    seen[a, b] = False
                    heapq.heappush(heap, (far, np.int64(a * columns + b)))


@compiled
def _set_vertex(islands, goals, extra, distance, parent, closed, i, j):  # type: ignore[no-untyped-def]
    """The distance of cell (i, j) over ways that are really free; sets its parent."""
    rows, columns = islands.shape
    row, column, base = _parent_point(parent[i, j], distance, goals, extra, columns)
    if line_of_sight(islands, i + 0.5, j + 0.5, row, column):
        return distance[i, j]
    best = np.inf
    chosen = parent[i, j]
    for di in range(-1, 2):
        for dj in range(-1, 2):
            a = i + di
            b = j + dj
            if a < 0 or b < 0 or a >= rows or b >= columns or not closed[a, b]:
                continue
            if islands[a, j] != islands[i, j] and islands[i, b] != islands[i, j]:
                continue
            far = distance[a, b] + np.hypot(float(di), float(dj))
            if far < best:
                best = far
                chosen = a * columns + b
            row, column, base = _parent_point(parent[a, b], distance, goals, extra, columns)
            far = base + np.hypot(i + 0.5 - row, j + 0.5 - column)
            if far < best and line_of_sight(islands, i + 0.5, j + 0.5, row, column):
                best = far
                chosen = parent[a, b]
    parent[i, j] = chosen
    return best


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


@compiled
def distance_at(islands, field, row, column):  # type: ignore[no-untyped-def]
    """(distance in cells, first waypoint) of a free point given in grid coordinates.

    Over its own cell's middle (waypoint -1) or, where the way is free, straight to a waypoint of
    its own or a neighbouring cell.
    """
    waypoint, places, lengths = field
    rows, columns = islands.shape
    i = int(row)
    j = int(column)
    k = np.int64(waypoint[i, j])
    chosen = np.int64(-1)
    if k >= len(lengths):
        return np.inf, chosen
    # The way over the middle is always free, but bends there: the last resort.
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


@compiled
def standing_place(floor_map, point):  # type: ignore[no-untyped-def]
    """Grid coordinates (row, column) of where a point [3] m stands, and how many cells it is moved
    for that; the last is inf when it is farther than `REACH` from the floor's edge."""
    _, floor, _, origin, cell = floor_map
    row, column = nearest_free(floor_map, point, REACH, 0)
    if row < 0.0 or not abs(point[1] - floor[int(row), int(column)]) <= NEAR_FLOOR:
        return -1.0, -1.0, np.inf
    aside = row - (point[2] - origin[1]) / cell
    return row, column, np.hypot(aside, column - (point[0] - origin[0]) / cell)


@compiled
def distance_from(position, floor_map, field):  # type: ignore[no-untyped-def]
    """Distance in m from a point [3] to the goals of a field; inf when none can be reached.

    field: waypoint, places and lengths of a `DistanceField`.
    """
    islands, _, _, _, cell = floor_map
    row, column, gap = standing_place(floor_map, position)
    if gap == np.inf:
        return np.inf
    return (distance_at(islands, field, row, column)[0] + gap) * cell


class Geodesics:
    """Fields over one grid; the most recently used ones are kept in memory."""

    def __init__(self, grid: NavGrid, capacity: int = 32) -> None:
        self._grid = grid
        self._fields: Recent[DistanceField] = Recent(capacity)
        self._of_array: Recent[tuple[np.ndarray, DistanceField]] = Recent(capacity)

    def field(self, goals: np.ndarray) -> DistanceField:
        """The field of goals [G, 3] m, computed when it is kept neither in memory nor on disk.

        Read-only goals are those of an arrangement, asked for again and again: their fields are
        found by the array itself and kept on disk.
        """
        if goals.flags.writeable:
            return self._of_points(goals, self._compute)
        # With the array, so that its id stays its own.
        kept = self._of_array.get(
            id(goals), lambda: (goals, self._of_points(goals, self._from_disk))
        )
        return kept[1]

    def _of_points(
        self, goals: np.ndarray, make: Callable[[np.ndarray], DistanceField]
    ) -> DistanceField:
        points = np.ascontiguousarray(goals, dtype=np.float64).reshape(-1, 3)
        return self._fields.get(points.tobytes(), lambda: make(points))

    def distance(self, position: np.ndarray, goals: np.ndarray) -> float:
        """Geodesic distance in m from a point [3] to the nearest of goals [G, 3]; inf when none
        can be reached, or the point or every goal is farther than 0.5 m from the floor's edge."""
        point = np.array(position, dtype=np.float64)
        return float(distance_from(point, self._grid.floor_map, self.field(goals)[:3]))

    def path(self, position: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Corners of the shortest path [K, 3] m from a point [3] to the nearest of goals [G, 3],
        both ends included; [0, 3] when none can be reached."""
        field = self.field(goals)
        point = np.array(position, dtype=np.float64)
        row, column, gap = standing_place(self._grid.floor_map, point)
        if not math.isfinite(gap):
            return np.zeros((0, 3))
        cells, waypoint = distance_at(self._grid.islands, field[:3], row, column)
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
        except UserError:
            _warn_that_none_is_kept(cache_folder())
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


@cache  # once: there is a field for every goal
def _warn_that_none_is_kept(folder: Path) -> None:
    logger.warning(f"distance fields are not kept, {folder} cannot be written: set XDG_CACHE_HOME")
