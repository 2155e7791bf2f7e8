"""What Habitat's own code, and code written for Habitat-Sim, asks of EmbreeSim and of the task."""

from __future__ import annotations

import habitat
import numpy as np
import pytest
from habitat.config.default import patch_config
from habitat.utils.visualizations.utils import observations_to_image, overlay_frame

from memo_habitat.config.compose import compose_config

APARTMENT = ["habitat.dataset.split=val", "habitat.dataset.content_scenes=[apartment_1_val_000]"]
FORWARD = 1


@pytest.mark.slow
def test_a_step_of_the_task_becomes_a_picture_with_habitats_own_code():
    config = compose_config("extobjnav/apartments", APARTMENT)
    with habitat.Env(patch_config(config)) as env:
        env.seed(0)
        env.reset()
        assert env.render("rgb_array").shape == env.render("rgb").shape == (64, 64, 3)
        hits, before = 0, 0
        for _ in range(60):
            observations, metrics = env.step(FORWARD), env.get_metrics()
            picture = observations_to_image(observations, metrics)
            assert overlay_frame(picture.copy(), metrics).shape[1:] == (64, 3)
            hits, before = metrics["collisions"]["count"], hits
            assert metrics["collisions"]["is_collision"] == (hits > before)
            # A collision draws a red border.
            is_as_seen = np.array_equal(picture, observations["head_rgb"])
            assert is_as_seen != metrics["collisions"]["is_collision"]
        assert hits > 0


def test_stock_measures_and_sensors_are_added_from_the_command_line():
    added = [
        "+habitat/task/measurements@habitat.task.measurements.top_down_map=top_down_map",
        "+habitat/task/lab_sensors@habitat.task.lab_sensors.heading=compass_sensor",
    ]
    task = compose_config("extobjnav/apartments", added).habitat.task
    assert task.measurements.top_down_map.type == "TopDownMap"
    assert task.lab_sensors.heading.type == "CompassSensor"


def test_random_points_near_a_centre(sim):
    finder, center = sim.pathfinder, np.array([1.5, 0.0, 0.5])
    finder.seed(0)
    points = np.array([finder.get_random_navigable_point_near(center, 0.8) for _ in range(200)])
    assert all(finder.is_navigable(point) for point in points)
    distances = np.hypot(*(points - center)[:, [0, 2]].T)
    assert distances.max() <= 0.8
    # Uniform over a disk that is free: a quarter of them in its inner half.
    assert 0.15 < (distances < 0.4).mean() < 0.36
    assert np.isnan(finder.get_random_navigable_point_near([50.0, 0.0, 0.0], 1.0)).all()
    of_island = finder.get_random_navigable_point_near(center, 0.8, island_index=0)
    assert finder.get_island(of_island) == 0


def test_islands_have_areas(sim):
    finder = sim.pathfinder
    areas = [finder.island_area(index) for index in range(finder.num_islands)]
    assert areas == sorted(areas, reverse=True) and areas[-1] > 0.0
    assert sum(areas) == pytest.approx(finder.navigable_area)
    assert finder.island_area() == finder.navigable_area


def test_the_nearest_obstacle_is_where_the_clearance_says(sim):
    finder = sim.pathfinder
    finder.seed(3)
    for _ in range(20):
        point = finder.get_random_navigable_point()
        hit = finder.closest_obstacle_surface_point(point)
        clearance = finder.distance_to_closest_obstacle(point)
        assert hit.hit_dist == pytest.approx(clearance, abs=0.06)
        np.testing.assert_allclose(point - hit.hit_pos, hit.hit_dist * hit.hit_normal, atol=1e-6)
        assert not finder.is_navigable(hit.hit_pos)
    assert np.isinf(finder.closest_obstacle_surface_point(point, 0.01).hit_dist)


def test_semantic_annotations_are_of_what_the_panoptic_image_shows(sim):
    scene = sim.semantic_annotations()
    assert {o.semantic_id: o.category.name() for o in scene.objects} == {
        i.id: i.category for i in sim.instances
    }
    for thing, instance in zip(scene.objects, sim.instances, strict=True):
        np.testing.assert_allclose(thing.aabb.center, instance.position, atol=1e-6)
        assert (thing.aabb.sizes > 0.0).all()
        assert scene.categories[thing.category.index()].name() == instance.category
