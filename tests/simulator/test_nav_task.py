"""Habitat's own Nav-v0 with its own measures on EmbreeSim-v0, by configuration alone."""

from __future__ import annotations

import gzip
import json

import habitat
import numpy as np
import pytest

import memo_habitat.register  # noqa: F401
from memo_habitat.tasks.extobjnav.goals import soft_spl, spl


@pytest.fixture
def env(house, tmp_path):
    episodes = [
        {
            "episode_id": str(index),
            "scene_id": house.scene_id,
            "scene_dataset_config": house.scene_dataset_config,
            "start_position": start,
            "start_rotation": [0.0, 0.0, 0.0, 1.0],
            "goals": [{"position": goal, "radius": None}],
            "info": {},
            "shortest_paths": None,
        }
        for index, (start, goal) in enumerate(
            [([-3.0, 0.0, 0.5], [3.0, 0.0, -1.0]), ([1.0, 0.0, 1.0], [-1.0, 0.0, -1.5])]
        )
    ]
    path = tmp_path / "episodes.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"episodes": episodes}).encode()))
    config = habitat.get_config(
        "benchmark/nav/pointnav/pointnav_gibson.yaml",
        overrides=[
            "habitat.simulator.type=EmbreeSim-v0",
            "habitat.simulator.turn_angle=30",
            "habitat.simulator.agents.main_agent.sim_sensors.rgb_sensor.width=32",
            "habitat.simulator.agents.main_agent.sim_sensors.rgb_sensor.height=32",
            "habitat.simulator.agents.main_agent.sim_sensors.depth_sensor.width=32",
            "habitat.simulator.agents.main_agent.sim_sensors.depth_sensor.height=32",
            "+habitat/task/measurements@habitat.task.measurements.collisions=collisions",
            "+habitat/task/measurements@habitat.task.measurements.top_down_map=top_down_map",
            "+habitat/task/measurements@habitat.task.measurements.soft_spl=soft_spl",
            "habitat.task.measurements.top_down_map.map_resolution=128",
            f"habitat.dataset.data_path={path}",
            "habitat.dataset.scenes_dir=''",
            "habitat.environment.iterator_options.shuffle=False",
        ],
    )
    with habitat.Env(config) as environment:
        yield environment


@pytest.mark.slow
def test_an_oracle_succeeds_with_high_spl_by_habitats_own_measures(env):
    for _ in range(2):
        observations = env.reset()
        assert observations["rgb"].shape == (32, 32, 3)
        assert observations["depth"].shape == (32, 32, 1)
        assert 0.0 <= observations["depth"].min() <= observations["depth"].max() <= 1.0
        goal = np.array([env.current_episode.goals[0].position])
        begun = env.get_metrics()["distance_to_goal"]
        assert begun == pytest.approx(env.sim.distance_to(env.sim.agent_pose()[0], goal))
        polar = observations["pointgoal_with_gps_compass"]
        straight = np.linalg.norm(goal[0] - env.sim.agent_pose()[0])
        assert polar[0] == pytest.approx(straight, abs=1e-3)
        while (action := env.sim.next_best_action(goal)) is not None:
            env.step(action)
            assert not env.episode_over
        env.step("stop")
        metrics = env.get_metrics()
        assert env.episode_over and metrics["success"] == 1.0
        assert metrics["distance_to_goal"] < 0.2 < begun
        assert 0.8 < metrics["spl"] <= 1.0
        assert metrics["top_down_map"]["map"].max() > 1


def test_our_spl_of_habitats_episodes_is_habitats(env):
    shares = []
    for turns, stops_early in ((0, False), (3, False), (0, True)):
        env.reset()
        goal = np.array([env.current_episode.goals[0].position])
        start, place, path = env.get_metrics()["distance_to_goal"], env.sim.agent_pose()[0], 0.0
        # With a detour, and short of the goal: success, a part of it, and none.
        actions = ["turn_left"] * turns + ["move_forward"] * 4 * (turns > 0)
        while actions or (action := env.sim.next_best_action(goal)) is not None:
            env.step(actions.pop(0) if actions else action)
            moved = env.sim.agent_pose()[0]
            path += float(np.linalg.norm(moved - place))
            place = moved
            if stops_early and env.get_metrics()["distance_to_goal"] < 0.7 * start:
                break
        env.step("stop")
        metrics = env.get_metrics()
        shares.append(metrics["spl"])
        assert spl(metrics["success"], start, path) == pytest.approx(metrics["spl"], abs=1e-6)
        ours = soft_spl(start, metrics["distance_to_goal"], path)
        assert ours == pytest.approx(metrics["soft_spl"], abs=1e-6)
    assert 0.0 == shares[2] < shares[1] < shares[0] <= 1.0


def test_running_into_a_wall_counts_as_collisions(env):
    env.reset()
    for _ in range(12):
        env.step("move_forward")
    metrics = env.get_metrics()
    assert metrics["collisions"]["count"] >= 1 and metrics["collisions"]["is_collision"]
    env.step("turn_left")
    assert not env.get_metrics()["collisions"]["is_collision"]


def test_habitats_observation_space_holds_what_is_observed(env):
    observations = env.reset()
    for _ in range(5):
        for name, space in env.observation_space.spaces.items():
            assert space.contains(observations[name]), name
        observations = env.step(env.action_space.sample())
        if env.episode_over:
            observations = env.reset()


def test_habitats_shortest_path_follower_reaches_the_goal(env):
    from habitat.tasks.nav.shortest_path_follower import ShortestPathFollower

    env.reset()
    goal = env.current_episode.goals[0].position
    follower = ShortestPathFollower(env.sim, goal_radius=0.15, return_one_hot=False)
    while not env.episode_over:
        env.step(follower.get_next_action(goal))
    assert env.get_metrics()["success"] == 1.0
