"""The task in real geometry: the test house and a shipped studio, on the embedded simulator."""

from __future__ import annotations

import habitat
import numpy as np
import pytest

import memo_habitat.register  # noqa: F401
from memo_habitat.testing.tasks import task_config
from tests.factories.houses import write_test_house

SHIPPED = "data/studios/episodes/{split}.json.gz"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return write_test_house(tmp_path_factory.mktemp("house"))


def _env(data_path, **overrides):
    options = {"dataset.split": "test", **overrides}
    return habitat.Env(
        task_config(data_path, simulator="EmbreeSim-v0", oracle=True, overrides=options)
    )


def _play_oracle(env, episodes):
    outcomes = []
    for _ in range(episodes):
        observations = env.reset()
        while not env.episode_over:
            observations = env.step(int(observations["oracle_action"][0]))
        metrics = env.get_metrics()
        if not metrics["episode_record"]["truncated"]:
            outcomes.append(metrics)
    return outcomes


def test_the_oracle_finds_everything_in_the_test_house(house):
    with _env(house.episode_file) as env:
        outcomes = _play_oracle(env, 30)
    assert {o["episode_record"]["target_category"] for o in outcomes} == set(house.categories)
    assert all(outcome["extobjnav_success"] == 1.0 for outcome in outcomes)
    assert np.mean([outcome["spl"] for outcome in outcomes]) > 0.8


def test_the_oracle_finds_nearly_everything_in_a_shipped_studio():
    with _env(SHIPPED) as env:
        outcomes = _play_oracle(env, 30)
    assert np.mean([outcome["extobjnav_success"] for outcome in outcomes]) >= 0.9


def test_viewpoints_see_their_instance_over_the_counter_but_not_through_the_wall(house):
    with _env(house.episode_file) as env:
        while env.current_episode.target_category != "blue_ball":
            env.reset()
        points, (ball,) = env.task.goals.viewpoints, env.task.goals.positions
        assert np.hypot(points[:, 0] - ball[0], points[:, 2] - ball[2]).max() <= 2.0
        assert points[:, 0].max() < 0.0  # the ball's room ends at the wall at x = 0
        assert all(env.sim.is_navigable(point) for point in points)


def test_the_same_trial_and_actions_give_the_same_observations(house):
    runs = []
    for _ in range(2):
        with _env(house.episode_file, **{"task.trial_steps": 60}) as env:
            observations = [env.reset()]
            for action in np.random.default_rng(5).integers(0, 6, 80):
                observations.append(env.reset() if env.episode_over else env.step(int(action)))
            runs.append(observations)
    for first, second in zip(*runs, strict=True):
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_both_arrangements_of_the_house_take_their_turns(house):
    with _env(house.episode_file, **{"task.trial_steps": 5}) as env:
        placed = []
        for _ in range(4):
            env.reset()
            placed.append(len(env.task.simulator.instances))
            while not env.episode_over:
                env.step("turn_left")
    assert placed == [3, 2, 3, 2]
