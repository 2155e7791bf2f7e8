"""The map of a floor: how far it is free around the agent, as a laser scanner just above it would
tell, and ways over a coarser one: what comes into view, what is nearest, what lies ahead."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from memo_habitat.simulator.interface import TaskSimulator, TopDownMap
from memo_habitat.tasks.extobjnav.goals import Pose
from memo_habitat.utils.compiled import compiled

#: Directions, counter-clockwise from straight ahead, and how far they reach, m.
DIRECTIONS, RANGE = 12, 3.0
_RESOLUTION = 0.05  # m per cell of the map that is scanned
_HALF_VIEW = math.radians(43.0)  # within the 90 degrees of the camera
_RAYS = 31
#: Longer than any way.
FAR = 2**30


def floor_of(simulator: TaskSimulator) -> TopDownMap:
    """The map of the current house that `scan` wants; to be kept while the house stays."""
    return simulator.top_down_map(_RESOLUTION)


def scan(floor: TopDownMap, pose: Pose) -> NDArray[np.float32]:
    """[12] m up to where the agent's centre could go in each direction, at most `RANGE`."""
    # `floor.cells` of one point, without its arrays: this is done at every step.
    row = (float(pose.position[2]) - floor.origin[1]) / floor.resolution
    column = (float(pose.position[0]) - floor.origin[0]) / floor.resolution
    limit = RANGE / floor.resolution
    cells: NDArray[np.float32] = _scan(floor.free, row, column, pose.heading, limit)
    return np.float32(floor.resolution) * cells


@compiled
def _scan(free, row, column, heading, limit):  # type: ignore[no-untyped-def]
    """[12] cells; half a cell at a time, which is as fine as the map is."""
    out = np.empty(DIRECTIONS, dtype=np.float32)
    for k in range(DIRECTIONS):
        angle = heading + 2.0 * math.pi * k / DIRECTIONS
        d_row = -math.cos(angle)
        d_column = -math.sin(angle)
        length = 0.0
        while length < limit:
            i = math.floor(row + d_row * (length + 0.5))
            j = math.floor(column + d_column * (length + 0.5))
            if i < 0 or j < 0 or i >= free.shape[0] or j >= free.shape[1] or not free[i, j]:
                break
            length += 0.5
        out[k] = min(length, limit)
    return out


def coarser(floor: TopDownMap, every: int) -> TopDownMap:
    """The map with `every` by `every` cells made one, free where its middle is.

    What is cut off by that from the largest part is left out, or who began in a corner would stay.
    """
    free = floor.free[every // 2 :: every, every // 2 :: every]
    parts, _ = ndimage.label(free)
    sizes = np.bincount(parts.ravel())[1:]
    largest = parts == (sizes.argmax() + 1 if len(sizes) else 1)
    return TopDownMap(largest, floor.origin, every * floor.resolution)


def disc(shape: tuple[int, ...], centre: tuple[int, int], radius: float) -> NDArray[np.bool_]:
    """The cells within `radius` of the one at `centre`."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2)


@compiled
def reveal(free, known, at, heading, reach):  # type: ignore[no-untyped-def]
    """Mark the cells [Z, X] around `at` and those in view, up to `reach` cells away."""
    rows, columns = free.shape
    for i in range(max(at[0] - 1, 0), min(at[0] + 2, rows)):
        for j in range(max(at[1] - 1, 0), min(at[1] + 2, columns)):
            known[i, j] = True
    for ray in range(_RAYS):
        angle = heading - _HALF_VIEW + 2.0 * _HALF_VIEW * ray / (_RAYS - 1)
        distance = 0.0
        while distance < reach:
            distance += 0.5
            i = math.floor(at[0] + 0.5 - math.cos(angle) * distance)
            j = math.floor(at[1] + 0.5 - math.sin(angle) * distance)
            if i < 0 or j < 0 or i >= rows or j >= columns:
                break
            known[i, j] = True
            if not free[i, j] and distance > 1.0:
                break


@compiled
def shortest(free, allowed, goal, at, previous):  # type: ignore[no-untyped-def]
    """The nearest cell of `goal` that can be walked to over `allowed` ones, as a flat index, and
    how long the way is; -1 if there is none.

    A step costs 2, a diagonal one 3, so that whole numbers serve as distances: cells wait in four
    queues by distance modulo 4 (Dial 1969). `previous` [Z, X] tells the way back.
    """
    rows, columns = free.shape
    distance = np.full(free.shape, FAR)
    waiting = np.empty((4, 8 * free.size), dtype=np.int64)
    count = np.zeros(4, dtype=np.int64)
    distance[at] = 0
    previous[at] = -1
    waiting[0, 0] = at[0] * columns + at[1]
    count[0] = 1
    now = 0
    idle = 0
    while idle < 4:
        queue = now % 4
        idle = 0 if count[queue] else idle + 1
        for k in range(count[queue]):
            cell = waiting[queue, k]
            i = cell // columns
            j = cell % columns
            if distance[i, j] != now:
                continue
            if goal[i, j]:
                return cell, now
            if now > 0 and not allowed[i, j]:
                continue
            for a in range(max(i - 1, 0), min(i + 2, rows)):
                for b in range(max(j - 1, 0), min(j + 2, columns)):
                    if not free[a, b]:
                        continue
                    straight = a == i or b == j
                    if not straight and not (free[a, j] and free[i, b]):
                        continue
                    length = now + (2 if straight else 3)
                    if length < distance[a, b]:
                        distance[a, b] = length
                        previous[a, b] = cell
                        into = length % 4
                        waiting[into, count[into]] = a * columns + b
                        count[into] += 1
        count[queue] = 0
        now += 1
    return -1, 0


@compiled
def way_ahead(free, previous, cell, place, limit):  # type: ignore[no-untyped-def]
    """(row, column) of the farthest point of the way to `cell` that can be walked to straight.

    free: cells that may be walked over; besides the last one and, where the agent stands in none
        of them, what is within a cell of it.
    place: (row, column) of the agent; limit: how far ahead at most, cells.
    """
    rows, columns = free.shape
    goal = cell
    is_lost = not free[min(int(place[0]), rows - 1), min(int(place[1]), columns - 1)]
    row = cell // columns + 0.5
    column = cell % columns + 0.5
    while previous[cell // columns, cell % columns] >= 0:
        row = cell // columns + 0.5
        column = cell % columns + 0.5
        d_row = row - place[0]
        d_column = column - place[1]
        steps = int(4.0 * max(abs(d_row), abs(d_column))) + 1
        clear = d_row * d_row + d_column * d_column <= limit * limit
        for k in range(steps + 1):
            if not clear:
                break
            i = min(int(place[0] + d_row * k / steps), rows - 1)
            j = min(int(place[1] + d_column * k / steps), columns - 1)
            is_beside = is_lost and k * max(abs(d_row), abs(d_column)) < steps
            clear = free[i, j] or is_beside or i * columns + j == goal
        if clear:
            break
        cell = previous[cell // columns, cell % columns]
    return row, column
