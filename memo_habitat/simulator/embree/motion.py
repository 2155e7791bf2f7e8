"""Kernels that move a cylinder over the navigable grid, sliding along obstacles."""

from __future__ import annotations

import numpy as np

from memo_habitat.simulator.embree.distance_field import crossings, distance_from
from memo_habitat.simulator.embree.navgrid import NavGrid, nearest_free
from memo_habitat.utils.compiled import compiled

#: Of the squared lengths asked for and moved, m2: what Habitat-Sim calls a collision.
COLLISION = 1e-5
#: A move from a place that is not free begins at the nearest one within this, m.
_REACH = 2.0
#: A point before a wall keeps this much of a cell between them.
_GAP = 1e-3
#: Cosine between a wall's normal and an axis of the grid from which on its cells form no stairs.
_STRAIGHT = 0.9995


@compiled
def _free_share(islands, row, column, d_row, d_column):  # type: ignore[no-untyped-def]
    """(share in [0, 1] of a straight move that stays on the island, axis of the face hit)."""
    rows, columns = islands.shape
    i = int(np.floor(row))
    j = int(np.floor(column))
    label = islands[i, j]
    step_i, next_i, delta_i = crossings(row, i, d_row)
    step_j, next_j, delta_j = crossings(column, j, d_column)
    while True:
        if next_i < next_j:
            share = next_i
            axis = 0
            i += step_i
            next_i += delta_i
        else:
            share = next_j
            axis = 1
            j += step_j
            next_j += delta_j
        if share > 1.0:
            return 1.0, -1
        if i < 0 or j < 0 or i >= rows or j >= columns or islands[i, j] != label:
            return max(share, 0.0), axis


@compiled
def _advance(islands, place, d_row, d_column):  # type: ignore[no-untyped-def]
    """Moves place [2] as far as it goes; returns (share moved, axis of the face hit or -1)."""
    length = np.hypot(d_row, d_column)
    if length < 1e-9:
        return 1.0, -1
    share, axis = _free_share(islands, place[0], place[1], d_row, d_column)
    if axis >= 0:
        # Stop short of the face, measured across it.
        across = abs(d_row) if axis == 0 else abs(d_column)
        share = max(share - _GAP / across, 0.0)
    row = place[0] + share * d_row
    column = place[1] + share * d_column
    if islands[int(row), int(column)] == islands[int(place[0]), int(place[1])]:
        place[0] = row
        place[1] = column
        return share, axis
    return 0.0, max(axis, 0)


@compiled
def _slide(islands, away, place, d_row, d_column, sliding):  # type: ignore[no-untyped-def]
    """Moves place [2] (grid coordinates): along a wall the part of the move that points into it is
    lost, as in Habitat-Sim."""
    share, axis = _advance(islands, place, d_row, d_column)
    for _ in range(3):  # a corner stops two slides; what is left after that is lost
        if axis < 0 or not sliding:
            return
        d_row *= 1.0 - share
        d_column *= 1.0 - share
        n_row, n_column = away[int(place[0]), int(place[1])]
        into = d_row * n_row + d_column * n_column
        straight = abs(n_row if axis == 0 else n_column) > _STRAIGHT
        if straight or into >= 0.0:
            if axis == 0:
                d_row = 0.0
            else:
                d_column = 0.0
            share, axis = _advance(islands, place, d_row, d_column)
        else:
            d_row -= into * n_row
            d_column -= into * n_column
            _creep(islands, place, d_row, d_column, n_row, n_column)
            return


@compiled
def _creep(islands, place, d_row, d_column, n_row, n_column):  # type: ignore[no-untyped-def]
    """Follows an oblique wall, which the grid shows as stairs, in short steps: where a stair is
    in the way, a little away from the wall first."""
    parts = int(np.ceil(np.hypot(d_row, d_column) * 4.0))
    label = islands[int(place[0]), int(place[1])]
    for _ in range(parts):
        moved = False
        for aside in range(6):
            row = place[0] + d_row / parts + 0.2 * aside * n_row
            column = place[1] + d_column / parts + 0.2 * aside * n_column
            if islands[int(row), int(column)] == label:
                place[0] = row
                place[1] = column
                moved = True
                break
        if not moved:
            return


@compiled
def _move(position, to_x, to_z, sliding, floor_map):  # type: ignore[no-untyped-def]
    """Moves position [3] m by (to_x, to_z) m as far as the way is free; returns whether it came
    less far. It stays on the floor of the island that it began on."""
    islands, floor, away, origin, cell = floor_map
    row, column = nearest_free(floor_map, position, _REACH, 0)
    moved = 0.0
    if row >= 0.0:
        place = np.array([row, column])
        # Of the end's grid coordinates, so that a move is the same whoever asks for it.
        d_row = (row + to_z / cell) - row
        d_column = (column + to_x / cell) - column
        _slide(islands, away, place, d_row, d_column, sliding)
        x = origin[0] + place[1] * cell
        z = origin[1] + place[0] * cell
        moved = (x - position[0]) ** 2 + (z - position[2]) ** 2
        position[0] = x
        position[1] = floor[int(place[0]), int(place[1])]
        position[2] = z
    return moved + COLLISION < to_x**2 + to_z**2


@compiled
def walk(position, heading, length, sliding, floor_map):  # type: ignore[no-untyped-def]
    """Moves position [3] m ahead by `length` m; returns whether something was in the way, as
    Habitat-Sim counts collisions.

    floor_map: `NavGrid.floor_map`.
    """
    to_x = position[0] + length * -np.sin(heading) - position[0]
    to_z = position[2] + length * -np.cos(heading) - position[2]
    return _move(position, to_x, to_z, sliding, floor_map)


@compiled
def distances_ahead(position, headings, length, sliding, floor_map, field):  # type: ignore[no-untyped-def]
    """[K] m: distances to the goals of a field (see `distance_from`) after a step of `length` m
    with each of K headings."""
    found = np.empty(len(headings))
    for k in range(len(headings)):
        place = position.copy()
        walk(place, headings[k], length, sliding, floor_map)
        found[k] = distance_from(place, floor_map, field)
    return found


def try_step(grid: NavGrid, start: np.ndarray, end: np.ndarray, sliding: bool = True) -> np.ndarray:
    """Where a move from `start` towards `end` ([3] m) comes to; always on the floor of the island
    it began on. From a place that is not navigable it begins at the nearest one."""
    position = np.array(start, dtype=np.float64)
    to_x, _, to_z = np.asarray(end, dtype=np.float64) - position
    _move(position, to_x, to_z, sliding, grid.floor_map)
    return position
