"""The range scan: free distances around the agent, as walking there in small steps finds them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.extobjnav.floor_map import DIRECTIONS, RANGE, scan
from memo_habitat.tasks.extobjnav.goals import Pose

RESOLUTION = 0.05
TURN = 2.0 * math.pi / DIRECTIONS


def room() -> TopDownMap:
    """A room of 4 by 6 m that fills its map, with a block of 1 m in it; its corner is no origin."""
    free = np.ones((80, 120), dtype=np.bool_)
    free[30:50, 60:80] = False
    return TopDownMap(free, (-3.0, 1.0), RESOLUTION)


def walked(floor: TopDownMap, pose: Pose) -> list[float]:
    """[12] m, by steps of a millimetre."""
    found = []
    for k in range(DIRECTIONS):
        angle, length = pose.heading + k * TURN, 0.0
        forward = np.array([-math.sin(angle), 0.0, -math.cos(angle)])
        while length < RANGE:
            row, column = np.floor(floor.cells(pose.position + length * forward)[0]).astype(int)
            inside = 0 <= row < floor.free.shape[0] and 0 <= column < floor.free.shape[1]
            if not (inside and floor.free[row, column]):
                break
            length += 0.001
        found.append(length)
    return found


@pytest.mark.parametrize("place", [(-2.0, 2.0), (-0.7, 3.1), (1.5, 4.2), (2.9, 1.1)])
@pytest.mark.parametrize("heading", [0.0, 0.3, 2.0, -1.2])
def test_it_is_how_far_one_could_walk(place, heading):
    pose = Pose(np.array([place[0], 0.0, place[1]]), heading)
    found = scan(room(), pose)
    assert found.shape == (DIRECTIONS,) and found.dtype == np.float32
    np.testing.assert_allclose(found, walked(room(), pose), atol=RESOLUTION)


def test_a_turn_to_the_left_moves_the_scan_on_by_one_direction():
    before, after = (
        scan(room(), Pose(np.array([-0.71, 0.0, 3.13]), 0.2 + turns * TURN)) for turns in (0, 1)
    )
    np.testing.assert_allclose(after, np.roll(before, -1), atol=RESOLUTION)
    assert np.ptp(before) > 1.0
