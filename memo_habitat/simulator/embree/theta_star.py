"""The search behind the distance fields, and lines of sight over free cells.

Lazy Theta* (Nash, Koenig and Tovey 2010), run outwards from the goals over the whole grid: a cell
remembers the corner or goal in line of sight through which its shortest path leads, so distances
are Euclidean and not those of a path along grid directions.
"""

from __future__ import annotations

import heapq

import numpy as np
from numba import njit

_TIE = 1e-9


@njit(cache=True, nogil=True)
def crossings(start, cell, way):  # type: ignore[no-untyped-def]
    """Where a line from `start` in `cell` crosses the grid's lines along one axis: the step to the
    next cell, then the shares of `way` up to the first crossing and between two."""
    step = 1 if way > 0 else -1
    if way == 0:
        return step, np.inf, np.inf
    return step, (cell + (1 if way > 0 else 0) - start) / way, abs(1.0 / way)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _parent_point(parent, distance, goals, extra, columns):  # type: ignore[no-untyped-def]
    """(row, column, distance) of the point that a parent stands for."""
    if parent < 0:
        goal = -1 - parent
        return goals[goal, 0], goals[goal, 1], extra[goal]
    row = parent // columns
    column = parent - row * columns
    return row + 0.5, column + 0.5, distance[row, column]


@njit(cache=True, nogil=True)
def compute_distances(islands, goals, extra, distance, parent):  # type: ignore[no-untyped-def]
    """Fills distance [Z, X] (cells, given as inf) and parent [Z, X] for goals [G, 2]."""
    rows, columns = islands.shape
    closed = np.zeros((rows, columns), dtype=np.bool_)
    seen = np.zeros((rows, columns), dtype=np.bool_)  # the way to the parent was checked
    heap = [(np.float64(0.0), np.int64(0)) for _ in range(0)]
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
            continue
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
                    continue
                far = base + np.hypot(a + 0.5 - row, b + 0.5 - column)
                if far < distance[a, b] - _TIE:
                    distance[a, b] = far
                    parent[a, b] = parent[i, j]
                    seen[a, b] = False
                    heapq.heappush(heap, (far, np.int64(a * columns + b)))


@njit(cache=True, nogil=True)
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
