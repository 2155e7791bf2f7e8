"""Moving and standing: clearance, sliding, steps, collisions, islands."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.motion import try_step, walk
from memo_habitat.simulator.embree.navgrid import AgentShape, build_navgrid


def box(center, extents, turn=0.0):
    mesh = trimesh.creation.box(extents=extents)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(turn, [0, 1, 0]))
    mesh.apply_translation(center)
    return np.array(mesh.triangles)


def floor(half=3.0):
    return box((0, -0.05, 0), (2 * half, 0.1, 2 * half))


def grid_of(*parts, **shape):
    return build_navgrid(np.concatenate([floor(), *parts]), AgentShape(**shape), "test")


@pytest.mark.parametrize("turn_deg", [20, 45, 70])
def test_sliding_follows_an_oblique_wall(turn_deg):
    turn = math.radians(turn_deg)
    grid = grid_of(box((0, 1, 0), (4.0, 2.0, 0.4), turn))
    along = np.array([math.cos(turn), 0, -math.sin(turn)])
    away = np.array([math.sin(turn), 0, math.cos(turn)])
    start = try_step(grid, -1.0 * along + 0.8 * away, -1.0 * along, sliding=True)
    asked = start + 0.25 * (0.8 * along - 0.6 * away)
    at = start
    for _ in range(4):
        at = try_step(grid, at, at + asked - start)
    assert (at - start) @ along == pytest.approx(4 * 0.25 * 0.8, rel=0.15)
    assert abs((at - start) @ away) < 0.1
    # Without sliding it stays where it met the wall.
    stuck = try_step(grid, start, asked, sliding=False)
    assert np.linalg.norm(stuck - start) < 0.1


def test_a_collision_is_a_move_that_came_less_far_as_habitat_sim_counts():
    grid = grid_of(box((0, 1, -1.0), (4.0, 2.0, 0.4)))  # the agent may come to z = -0.65 or so
    position = np.array([0.0, 0.0, 0.0])
    assert not walk(position, 0.0, 0.25, True, grid.floor_map)
    np.testing.assert_allclose(position, [0, 0, -0.25], atol=1e-12)
    assert not walk(position, 0.0, 0.001, True, grid.floor_map)
    assert walk(position, 0.0, 0.6, True, grid.floor_map)
    assert -0.7 < position[2] < -0.55
    # So near that it makes no difference, nothing collides.
    assert not walk(position, 0.0, 0.003, True, grid.floor_map)


def test_a_move_from_beside_the_floor_begins_at_the_nearest_place():
    grid = grid_of()
    inwards = try_step(grid, np.array([0.0, 0.0, 3.05]), np.array([0.0, 0.0, 2.55]))
    assert 2.2 < inwards[2] < 2.45  # half a metre from the edge of the floor, less the radius
    far = np.array([0.0, 0.0, 9.0])
    np.testing.assert_array_equal(try_step(grid, far, far - [0, 0, 1]), far)
    assert walk(far, 0.0, 0.25, True, grid.floor_map)


@pytest.mark.parametrize(("height", "is_climbed"), [(0.1, True), (0.19, True), (0.3, False)])
def test_low_steps_are_climbed_and_high_ones_block(height, is_climbed):
    grid = grid_of(box((1.5, height / 2, 0), (3.0, height, 6.0)))
    at = np.array([-0.5, 0.0, 0.0])
    for _ in range(4):
        at = try_step(grid, at, at + np.array([0.25, 0, 0]))
    assert (at[0] > 0.4) == is_climbed
    assert at[1] == pytest.approx(height if is_climbed else 0.0, abs=1e-6)


@pytest.mark.parametrize(("slope_deg", "is_walkable"), [(30, True), (60, False)])
def test_gentle_slopes_are_floor_and_steep_ones_are_not(slope_deg, is_walkable):
    rise = math.tan(math.radians(slope_deg)) * 2.0
    ramp = np.array(
        [
            [[0, 0, -1], [0, 0, 1], [2, rise, 1]],
            [[0, 0, -1], [2, rise, 1], [2, rise, -1]],
        ]
    )
    grid = grid_of(ramp)
    middle = np.array([[1.0, rise / 2, 0.0]])
    assert bool(grid.island_at(middle, 0.3)[0] == 1) == is_walkable


def test_low_headroom_blocks_and_enough_does_not():
    low = grid_of(box((0, 1.3 + 0.05, 0), (2, 0.1, 2)))
    high = grid_of(box((0, 1.7 + 0.05, 0), (2, 0.1, 2)))
    under = np.array([[0.0, 0.0, 0.0]])
    assert low.island_at(under, 0.5)[0] == 0
    assert high.island_at(under, 0.5)[0] == 1


def test_thin_posts_block_however_the_grid_falls():
    for shift in (0.0, 0.013, 0.025, 0.041):
        grid = grid_of(box((shift, 1.0, shift), (0.004, 2.0, 0.004)))
        assert grid.island_at(np.array([[shift, 0.0, shift]]))[0] == 0
        assert grid.island_at(np.array([[shift + 0.3, 0.0, shift]]))[0] == 1


def test_a_wider_agent_has_less_room_and_may_be_shut_out():
    parts = [box((0, 1, side * 1.7), (0.1, 2, 2.6)) for side in (-1, 1)]  # a gap of 0.8 m
    thin, thick = grid_of(*parts, radius=0.1), grid_of(*parts, radius=0.4)
    ends = np.array([[-1.0, 0, 0], [1.0, 0, 0]])
    assert thin.island_at(ends).tolist() == [1, 1]
    assert sorted(thick.island_at(ends).tolist()) == [1, 2]
    assert (thick.islands > 0).sum() < (thin.islands > 0).sum()


def test_islands_are_numbered_by_area_with_their_radius():
    grid = grid_of(box((1.0, 1, 0), (0.1, 2, 6)))
    assert grid.island_at(np.array([[-1.0, 0, 0], [2.0, 0, 0]])).tolist() == [1, 2]
    assert grid.radii[0] == pytest.approx(math.hypot(1.85, 2.85), abs=0.15)


def test_the_roof_of_a_closed_house_is_no_floor(sim):
    grid = sim.scene.grid
    levels = grid.floor[grid.islands > 0]
    assert levels.max() < 1.0


def test_a_house_without_floor_names_file_and_remedy():
    wall = box((0, 1, 0), (1, 2, 0.01))
    with pytest.raises(UserError, match=r"navigable in here\.glb.*radius"):
        build_navgrid(wall, AgentShape(), "here.glb")


def test_forward_looks_along_minus_z_at_heading_zero():
    grid = grid_of()
    for heading, ahead in ((0.0, [0, 0, -1]), (math.pi / 2, [-1, 0, 0])):
        position = np.zeros(3)
        walk(position, heading, 1.0, True, grid.floor_map)
        np.testing.assert_allclose(position, ahead, atol=1e-12)
