"""What the task relies on, for every simulator that implements `TaskSimulator`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from memo_habitat.errors import UserError
from memo_habitat.simulator.interface import task_simulator
from memo_habitat.testing.houses import ARRANGEMENTS, HALF_X, HALF_Z

IMPLEMENTATIONS = ("EmbreeSim-v0",)
CAMERA = "head_rgb"


@pytest.fixture(params=IMPLEMENTATIONS)
def both(request, make_sim):
    """The Habitat simulator and its interface to the task."""
    sim = make_sim()
    return sim, task_simulator(sim)


def test_the_interface_is_implemented(both):
    assert both[1] is both[0]


def test_other_simulators_are_refused_by_name():
    with pytest.raises(UserError, match=r"list, which lacks action_sizes.*EmbreeSim-v0"):
        task_simulator([])


def test_instances_are_named_numbered_and_placed_as_the_episode_says(both):
    instances = both[1].instances
    assert [i.name for i in instances] == ["red_cube_:0000", "blue_ball_:0000", "red_cube_:0001"]
    assert [i.category for i in instances] == ["red_cube", "blue_ball", "red_cube"]
    assert [i.id for i in instances] == [100, 101, 102]
    for instance, (_, position, _) in zip(instances, ARRANGEMENTS[0], strict=True):
        np.testing.assert_allclose(instance.position, position, atol=1e-5)


def test_reset_starts_where_it_was_told_with_the_camera_level(both):
    sim, task = both
    task.start_next_episode_at(np.array([1.5, 0.0, 0.5]), 2.0)
    level = sim.reset()
    np.testing.assert_allclose(task.agent_pose()[0], [1.5, 0.0, 0.5])
    assert task.agent_pose()[1] == pytest.approx(2.0)
    sim.step(5)
    task.start_next_episode_at(np.array([1.5, 0.0, 0.5]), 2.0)
    np.testing.assert_array_equal(sim.reset()[CAMERA], level[CAMERA])


def test_floor_points_are_drawn_everywhere_on_the_largest_island_and_from_the_generator(both):
    task = both[1]
    rng = np.random.default_rng(0)
    points = np.stack([task.sample_floor_point(rng) for _ in range(400)])
    again = np.random.default_rng(0)
    np.testing.assert_array_equal(points[0], task.sample_floor_point(again))
    assert (np.abs(points[:, 0]) < HALF_X).all() and (np.abs(points[:, 2]) < HALF_Z).all()
    for sign_x in (-1, 1):
        for sign_z in (-1, 1):
            assert ((points[:, 0] * sign_x > 0) & (points[:, 2] * sign_z > 0)).sum() > 50
    assert all(math.isfinite(task.distance_to(point, points[:1])) for point in points[:50])


def test_floor_points_near_lie_on_the_world_grid_within_the_radius(both):
    center = np.array([2.03, 0.15, 1.01])
    points = both[1].floor_points_near(center, 1.0, 0.1)
    np.testing.assert_allclose(points[:, [0, 2]] / 0.1, np.rint(points[:, [0, 2]] / 0.1), atol=1e-6)
    gaps = np.hypot(points[:, 0] - center[0], points[:, 2] - center[2])
    assert gaps.max() <= 1.0 and len(np.unique(points, axis=0)) == len(points)
    x, z = (np.arange(-40, 41) * 0.1 for _ in range(2))
    inside = [
        (a, b)
        for a in x
        for b in z
        if math.hypot(a - 2.03, b - 1.01) <= 1.0 and abs(b) < HALF_Z - 0.16
    ]
    assert len(points) == len(inside)
    moved = both[1].floor_points_near(center + np.array([0.04, 0, 0]), 1.0, 0.1)
    shared = {tuple(np.rint(p * 1000).astype(int)) for p in points}
    assert len(shared & {tuple(np.rint(p * 1000).astype(int)) for p in moved}) > 0.9 * len(points)


def test_walls_and_furniture_hide_an_instance_and_open_space_does_not(both):
    task = both[1]
    eyes = np.array(
        [
            [2.0, 1.2, -1.0],  # same room as the cube on the floor
            [-2.0, 1.2, 0.5],  # the other room; the line to the cube passes beside the door
            [-2.0, 1.2, -1.0],  # this one leads through the door
        ]
    )
    assert task.sees_instance(eyes, 100).tolist() == [True, False, True]
    # The ball lies behind nothing in its own room; the cube's room is behind the wall.
    assert task.sees_instance(np.array([[-3.0, 1.2, 1.0], [3.0, 1.2, -1.5]]), 101).tolist() == [
        True,
        False,
    ]
    assert task.sees_instance(np.zeros((0, 3)), 100).shape == (0,)


def test_the_counter_hides_what_lies_behind_it(both):
    low_eye = np.array([[-2.0, 0.3, 0.5]])
    assert not both[1].sees_instance(low_eye, 102)[0]  # the cube stands on the counter
    assert both[1].sees_instance(np.array([[-2.0, 1.2, 0.3]]), 102)[0]


def test_distances_go_through_the_door(both):
    task = both[1]
    start, goal = np.array([-2.0, 0.0, -1.5]), np.array([2.0, 0.0, -1.5])
    around = 2 * math.hypot(2.0 - 0.1, 1.5 - 0.4)
    assert around <= task.distance_to(start, goal[None]) <= 1.1 * around + 0.3
    near = np.array([-2.0, 0.0, -0.5])
    assert task.distance_to(start, np.stack([goal, near])) == pytest.approx(1.0, abs=0.02)
    assert task.distance_to(start, start[None]) == pytest.approx(0.0, abs=1e-6)
    assert math.isinf(task.distance_to(start, np.array([[50.0, 0.0, 0.0]])))


def test_visible_pixels_agree_with_the_panoptic_image(both):
    sim, task = both
    task.start_next_episode_at(np.array([-2.3, 0.0, -1.0]), math.pi)
    observations = sim.reset()
    for instance in task.instances:
        shown = int((observations["head_panoptic"] == instance.id).sum())
        assert task.visible_pixels([instance.id], CAMERA) == [shown]


def test_unknown_instances_and_cameras_are_named(both):
    with pytest.raises(UserError, match="7"):
        both[1].sees_instance(np.zeros((1, 3)), 7)
    both[0].reset()
    with pytest.raises(UserError, match="no_camera"):
        both[1].visible_pixels([100], "no_camera")


def test_next_best_actions_lead_to_the_goal_from_everywhere(both):
    sim, task = both
    rng = np.random.default_rng(5)
    for _ in range(15):
        start, goal = task.sample_floor_point(rng), task.sample_floor_point(rng)
        task.start_next_episode_at(start, float(rng.uniform(-3, 3)))
        sim.reset()
        steps = 0
        shortest = task.distance_to(start, goal[None])
        while (action := task.next_best_action(goal[None])) is not None:
            assert action in ("move_forward", "turn_left", "turn_right")
            sim.step(action)
            steps += 1
            assert steps < 200
        assert task.distance_to(task.agent_pose()[0], goal[None]) <= 0.25
        assert steps <= shortest / 0.25 * 1.8 + 12


def test_no_action_at_the_goal_or_without_a_way(both):
    sim, task = both
    task.start_next_episode_at(np.array([2.0, 0.0, 0.0]), 0.0)
    sim.reset()
    assert task.next_best_action(np.array([[2.1, 0.0, 0.0]])) is None
    assert task.next_best_action(np.array([[50.0, 0.0, 0.0]])) is None


def test_the_map_shows_the_floor(both):
    top = both[1].top_down_map(0.05)
    rows, columns = (
        np.floor(top.cells(np.array([[2.0, 0, 0], [-2.0, 0, 1.2], [0, 0, 0], [0, 0, 1.5]])))
        .astype(int)
        .T
    )
    assert top.free[rows, columns].tolist() == [True, False, True, False]
    area = top.free.sum() * top.resolution**2
    assert 0.7 * 4 * HALF_X * HALF_Z < area < 4 * HALF_X * HALF_Z
