"""The oracle finds what can be found, and gives up where nothing can be."""

from __future__ import annotations

import math

import habitat
import numpy as np
import pytest

from memo_habitat.tasks.extobjnav.goals import CategoryGoals, Pose
from memo_habitat.tasks.extobjnav.oracle import Oracle, OracleOptions
from memo_habitat.testing.tasks import episode_record, write_episodes
from tests.factories.simulators import flat_room_config

OBJECTS = [
    ("mug", (3.0, 0.1, 0.0)),
    ("box", (-3.0, 0.9, 1.0)),
    ("mug", (-1.0, 1.8, -2.0)),
    ("hat", (0.0, 0.1, 2.9)),
]
OPTIONS = OracleOptions(
    turn_angle=math.radians(30),
    tilt_angle=math.radians(30),
    tilt_limit=math.radians(60),
    eye_height=1.2,
    reach=2.0,
)


def _env(tmp_path, **overrides):
    path = write_episodes(tmp_path / "e.json.gz", [episode_record(OBJECTS)])
    overrides.setdefault("task.trial_steps", 10**6)
    return habitat.Env(flat_room_config(path, oracle=True, overrides=overrides))


def _play(env, episodes):
    outcomes = []
    for _ in range(episodes):
        observations = env.reset()
        while not env.episode_over:
            observations = env.step(int(observations["oracle_action"][0]))
        outcomes.append(env.get_metrics())
    return outcomes


def test_the_oracle_finds_every_target_of_the_empty_room_by_a_short_way(tmp_path):
    outcomes = _play(_env(tmp_path), 60)
    assert [outcome["extobjnav_success"] for outcome in outcomes] == [1.0] * 60
    assert max(outcome["num_steps"] for outcome in outcomes) < 60
    assert np.mean([outcome["spl"] for outcome in outcomes]) > 0.75


def test_the_oracle_does_without_look_actions(tmp_path):
    path = write_episodes(tmp_path / "e.json.gz", [episode_record([("box", (-3.0, 0.9, 1.0))])])
    config = flat_room_config(path, oracle=True)
    for name in ("look_up", "look_down"):
        del config.habitat.task.actions[name]
    env = habitat.Env(config)
    assert all(outcome["extobjnav_success"] == 1.0 for outcome in _play(env, 5))


def test_the_oracle_gives_up_instead_of_looking_for_ever(tmp_path):
    env = _env(tmp_path, **{"task.min_visible_pixels": 10**6, "environment.max_episode_steps": 0})
    outcomes = _play(env, 3)
    assert all(outcome["extobjnav_success"] == 0.0 for outcome in outcomes)
    assert max(outcome["num_steps"] for outcome in outcomes) < 1000


def test_the_oracle_sets_an_agent_right_that_did_something_else(tmp_path):
    env = _env(tmp_path)
    rng = np.random.default_rng(0)
    for _ in range(10):
        observations = env.reset()
        for _ in range(30):
            observations = env.step(int(rng.integers(1, 6)))
        while not env.episode_over:
            observations = env.step(int(observations["oracle_action"][0]))
        assert env.get_metrics()["extobjnav_success"] == 1.0


class _Stuck:
    """A simulator in which no action has any effect."""

    def distance_to(self, position, goals):
        return float(np.linalg.norm(goals - position, axis=1).min())

    def next_best_action(self, goals):
        return "move_forward"


def test_the_oracle_gives_up_viewpoints_that_it_does_not_get_closer_to():
    goals = CategoryGoals(
        "mug", (), np.array([[5.0, 0.0, 0.0]]), np.array([[4.0, 0.0, 0.0], [4.0, 0.0, 3.0]])
    )
    oracle = Oracle(_Stuck(), goals, OPTIONS, lambda: False)
    actions = []
    while not actions or actions[-1] != "stop":
        actions.append(oracle.next_action(Pose(np.zeros(3), 0.0)))
        oracle.saw_action(actions[-1])
        assert len(actions) < 200
    assert len(actions) > OPTIONS.patience


@pytest.mark.parametrize("missing", ["stop", "move_forward", "turn_left", "turn_right"])
def test_actions_that_the_oracle_needs_are_named(tmp_path, missing):
    path = write_episodes(tmp_path / "e.json.gz", [episode_record(OBJECTS)])
    config = flat_room_config(path, oracle=True)
    del config.habitat.task.actions[missing]
    with pytest.raises(Exception, match=missing):
        habitat.Env(config)
