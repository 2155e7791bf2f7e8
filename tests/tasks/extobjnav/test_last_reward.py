"""The last reward as training and evaluation see it: across episodes, anew with each trial."""

from __future__ import annotations

import habitat
import numpy as np
import pytest
from habitat.gym.gym_env_obs_dict_wrapper import EnvObsDictWrapper

import memo_habitat.register  # noqa: F401
from memo_habitat.testing.tasks import task_config
from memo_habitat.trainer.env_worker import make_env
from tests.factories.houses import write_test_house

TRIAL, STOP = 20, 0


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    house = write_test_house(tmp_path_factory.mktemp("house"))
    sizes = {"task.trial_steps": TRIAL, "environment.max_episode_steps": 7, "dataset.split": "test"}
    return task_config(house.episode_file, simulator="EmbreeSim-v0", overrides=sizes)


def play(env, steps):
    """As a vector environment does it: (observation, reward of the step before, new episode)."""
    rng = np.random.default_rng(3)
    seen = [(env.reset(), 0.0, True)]
    for _ in range(steps):
        action = STOP if rng.random() < 0.2 else int(rng.integers(1, 4))
        observation, reward, done, _ = env.step(action)
        seen.append((env.reset() if done else observation, reward, done))
    return seen


def test_each_observation_tells_the_reward_of_the_trials_previous_step(config, tmp_path):
    env = EnvObsDictWrapper(make_env(config, str(tmp_path / "note")))
    space = env.observation_space.spaces["last_reward"]
    assert (space.shape, space.dtype) == ((1,), np.float32)
    boundaries = {"episode": 0, "trial": 0}
    for observation, reward, done in play(env, 3 * TRIAL + 5):
        told = observation["last_reward"]
        assert space.contains(told)
        if observation["trial_step"][0] == 0:
            boundaries["trial"] += 1
            assert told[0] == 0.0
            continue
        assert told[0] == np.float32(reward) != 0.0
        boundaries["episode"] += done
    env.close()
    assert boundaries["trial"] == 4
    assert boundaries["episode"] > 4


def test_a_reset_in_mid_episode_belongs_to_the_same_trial(config, tmp_path):
    env = make_env(config, str(tmp_path / "note"))
    env.reset()
    _, reward, _, _ = env.step(1)
    observation = env.reset()
    assert observation["trial_step"][0] == 1
    assert observation["last_reward"][0] == np.float32(reward) != 0.0
    env.close()


def test_an_environment_without_the_sensor_stays_as_it_was(config, tmp_path):
    without = config.copy()
    with habitat.config.read_write(without):
        del without.habitat.task.lab_sensors["last_reward_sensor"]
    env = make_env(without, str(tmp_path / "note"))
    assert "last_reward" not in env.reset()
    assert "last_reward" not in env.step(1)[0]
    env.close()
