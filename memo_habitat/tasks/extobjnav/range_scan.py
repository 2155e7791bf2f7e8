"""How far the floor is free around the agent, as a laser scanner just above it would tell."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from memo_habitat.simulator.interface import TaskSimulator, TopDownMap
from memo_habitat.tasks.extobjnav.goals import Pose
from memo_habitat.utils.compiled import compiled

#: Directions, counter-clockwise from straight ahead, and how far they reach, m.
DIRECTIONS, RANGE = 12, 3.0
_RESOLUTION = 0.05  # m per cell of the map that is scanned


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
