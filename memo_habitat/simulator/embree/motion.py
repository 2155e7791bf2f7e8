"""Moving a cylinder over the navigable grid, sliding along obstacles, and the best next move."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from scipy import ndimage

from memo_habitat.simulator.embree.distance_field import Geodesics, distance_from
from memo_habitat.simulator.embree.navgrid import NavGrid

#: Of the squared lengths asked for and moved, m2: what Habitat-Sim calls a collision.
COLLISION = 1e-5
#: A point before a wall keeps this much of a cell between them.
_GAP = 1e-3
#: Cosine between a wall's normal and an axis of the grid from which on its cells form no stairs.
_STRAIGHT = 0.9995


@njit(cache=True, nogil=True)
def _free_share(islands, row, column, d_row, d_column):  # type: ignore[no-untyped-def]
    """(share in [0, 1] of a straight move that stays on the island, axis of the face hit)."""
    rows, columns = islands.shape
    i = int(np.floor(row))
    j = int(np.floor(column))
    label = islands[i, j]
    step_i = 1 if d_row > 0 else -1
    step_j = 1 if d_column > 0 else -1
    next_i = (i + (1 if step_i > 0 else 0) - row) / d_row if d_row != 0 else np.inf
    next_j = (j + (1 if step_j > 0 else 0) - column) / d_column if d_column != 0 else np.inf
    delta_i = abs(1.0 / d_row) if d_row != 0 else np.inf
    delta_j = abs(1.0 / d_column) if d_column != 0 else np.inf
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def slide(islands, normals, start, end, sliding, out):  # type: ignore[no-untyped-def]
    """Moves from start to end (grid coordinates [2]) into out [2].

    normals [Z, X, 2]: unit directions (row, column) away from obstacles. Along a wall the part
    of the move that points into it is lost, as in Habitat-Sim.
    """
    out[0] = start[0]
    out[1] = start[1]
    d_row = end[0] - start[0]
    d_column = end[1] - start[1]
    share, axis = _advance(islands, out, d_row, d_column)
    for _ in range(3):
        if axis < 0 or not sliding:
            return
        d_row *= 1.0 - share
        d_column *= 1.0 - share
        i = int(out[0])
        j = int(out[1])
        n_row = normals[i, j, 0]
        n_column = normals[i, j, 1]
        into = d_row * n_row + d_column * n_column
        straight = abs(n_row if axis == 0 else n_column) > _STRAIGHT
        if straight or into >= 0.0:
            if axis == 0:
                d_row = 0.0
            else:
                d_column = 0.0
            share, axis = _advance(islands, out, d_row, d_column)
        else:
            d_row -= into * n_row
            d_column -= into * n_column
            _creep(islands, out, d_row, d_column, n_row, n_column)
            return


@njit(cache=True, nogil=True)
def _creep(islands, out, d_row, d_column, n_row, n_column):  # type: ignore[no-untyped-def]
    """Follows an oblique wall, which the grid shows as stairs, in short steps: where a stair is
    in the way, a little away from the wall first."""
    length = np.hypot(d_row, d_column)
    parts = int(np.ceil(length * 4.0))
    label = islands[int(out[0]), int(out[1])]
    for _ in range(parts):
        moved = False
        for away in range(6):
            row = out[0] + d_row / parts + 0.2 * away * n_row
            column = out[1] + d_column / parts + 0.2 * away * n_column
            if islands[int(row), int(column)] == label:
                out[0] = row
                out[1] = column
                moved = True
                break
        if not moved:
            return


@njit(cache=True, nogil=True)
def walk(position, heading, length, sliding, normals, floor_map):  # type: ignore[no-untyped-def]
    """Moves position [3] m ahead by `length` m, to the last bit as `Mover.try_step` would.

    normals: as for `slide`; floor_map: `NavGrid.floor_map`.

    Returns:
        1 if something was in the way, 0 if not; -1 when the position is not free and nothing was
        moved.
    """
    islands, floor, origin, cell = floor_map
    begin = np.array([(position[2] - origin[1]) / cell, (position[0] - origin[0]) / cell])
    if not (0.0 <= begin[0] < islands.shape[0] and 0.0 <= begin[1] < islands.shape[1]):
        return -1
    if islands[int(begin[0]), int(begin[1])] == 0:
        return -1
    to_x = position[0] + length * -np.sin(heading) - position[0]
    to_z = position[2] + length * -np.cos(heading) - position[2]
    end = np.array([begin[0] + to_z / cell, begin[1] + to_x / cell])
    out = np.empty(2)
    slide(islands, normals, begin, end, sliding, out)
    x = origin[0] + out[1] * cell
    z = origin[1] + out[0] * cell
    moved = (x - position[0]) ** 2 + (z - position[2]) ** 2
    position[0] = x
    position[1] = floor[int(out[0]), int(out[1])]
    position[2] = z
    return 1 if moved + COLLISION < to_x**2 + to_z**2 else 0


class Mover:
    """Moves of an agent over one grid."""

    def __init__(self, grid: NavGrid) -> None:
        self._grid = grid
        # Obstacles are smoothed over a few cells: the normal of an oblique wall, not of a stair.
        smooth = ndimage.gaussian_filter(grid.clearance.astype(np.float64), 1.5, mode="nearest")
        normals = np.stack(np.gradient(smooth), axis=-1)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        self.normals = np.ascontiguousarray(normals / np.maximum(length, 1e-12))
        self.floor_map = grid.floor_map

    def try_step(self, start: np.ndarray, end: np.ndarray, sliding: bool = True) -> np.ndarray:
        """Where a move from `start` towards `end` ([3] m) comes to; always on the floor of the
        island it began on. From a place that is not navigable it begins at the nearest one."""
        start = np.asarray(start, dtype=np.float64)
        begin = self._grid.snap(start, reach=2.0)
        if begin is None:
            return start.copy()
        grid = self._grid
        shift = (np.asarray(end, dtype=np.float64) - start)[[2, 0]] / grid.cell
        out = np.empty(2)
        slide(grid.islands, self.normals, begin, begin + shift, sliding, out)
        level = grid.floor[int(out[0]), int(out[1])]
        return np.array(
            [grid.origin[0] + out[1] * grid.cell, level, grid.origin[1] + out[0] * grid.cell]
        )


def collided(start: np.ndarray, asked: np.ndarray, reached: np.ndarray) -> bool:
    """Whether a move ended nearer to its start than asked for (all [3] m), as in Habitat-Sim."""
    moved = float(np.sum((reached - start)[[0, 2]] ** 2))
    wanted = float(np.sum((asked - start)[[0, 2]] ** 2))
    return moved + COLLISION < wanted


#: A turn must be worth this many metres, so that equal ways do not alternate.
_TURN_COST = 1e-3


def point_ahead(position: np.ndarray, heading: float, length: float) -> np.ndarray:
    """The point [3] `length` m ahead of a pose."""
    return position + length * np.array([-math.sin(heading), 0.0, -math.cos(heading)])


@njit(cache=True, nogil=True)
def distances_ahead(  # type: ignore[no-untyped-def]
    position, headings, length, sliding, normals, floor_map, field
):
    """Distances (m) to the goals of `field` after a step of `length` m with each heading [K]; -1
    where an end is not on free floor.

    normals and floor_map: as for `walk`; field: waypoint, places and lengths of a `DistanceField`.
    """
    waypoint, places, lengths = field
    found = np.empty(len(headings))
    for k in range(len(headings)):
        place = position.copy()
        found[k] = -1.0
        if walk(place, headings[k], length, sliding, normals, floor_map) >= 0:
            found[k] = distance_from(place, floor_map, waypoint, places, lengths)
    return found


def next_best_action(
    scene_floor: tuple[Mover, Geodesics],
    pose: tuple[np.ndarray, float],
    sizes: tuple[float, float, bool],
    goals: np.ndarray,
    reach: float | None = None,
) -> str | None:
    """The first action of the best sequence "turn k times one way, then step".

    Args:
        scene_floor: moves and distances of a house.
        pose: position [3] m and heading in rad.
        sizes: length of move_forward in m, angle of a turn in rad, and whether moves slide.
        goals: [G, 3] m.
        reach: so near to a goal counts as arrived, m; half a step when not given.

    Returns:
        None when a goal is within reach, when no step comes nearer to one within a step, or
        when none can be reached.
    """
    (mover, geodesics), (position, heading), (step, turn, sliding) = scene_floor, pose, sizes
    left = geodesics.distance(position, goals)
    if left <= (step / 2 if reach is None else reach) or not math.isfinite(left):
        return None
    field = geodesics.field(goals)
    most = int(math.pi / turn)
    turns = np.array(sorted(range(-most, most + 1), key=abs))
    ahead = distances_ahead(
        position,
        heading + turns * turn,
        step,
        sliding,
        mover.normals,
        mover.floor_map,
        (field.waypoint, field.places, field.lengths),
    )
    for k in np.flatnonzero(ahead < 0.0):
        asked = point_ahead(position, heading + turns[k] * turn, step)
        ahead[k] = geodesics.distance(mover.try_step(position, asked, sliding), goals)
    # The first of the best: as few turns as possible.
    best = int(np.argmin(ahead + _TURN_COST * np.abs(turns)))
    if not math.isfinite(ahead[best]) or (ahead[best] >= left - _TURN_COST and left <= step):
        return None
    return (
        "move_forward" if turns[best] == 0 else ("turn_left" if turns[best] > 0 else "turn_right")
    )


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
