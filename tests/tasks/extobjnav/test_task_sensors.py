"""What the agent is told: target, pose in the trial's frame, the trial's step."""

from __future__ import annotations

import math

import habitat
import numpy as np
import pytest

from memo_habitat.tasks.extobjnav.goals import Pose, in_frame
from memo_habitat.testing.tasks import episode_record, write_episodes
from tests.factories.simulators import flat_room_config

STOP, FORWARD, LEFT, RIGHT, UP, DOWN = range(6)
OBJECTS = [("mug", (3.0, 0.2, 0.0)), ("box", (-3.0, 0.2, 1.0)), ("hat", (0.0, 0.2, 2.0))]
CATEGORIES = ["vase", "mug", "sun", "box", "hat"]


@pytest.fixture
def env(tmp_path):
    path = write_episodes(tmp_path / "e.json.gz", [episode_record(OBJECTS)], CATEGORIES)
    with habitat.Env(flat_room_config(path, overrides={"task.trial_steps": 40})) as environment:
        yield environment


def test_observations_lie_in_their_spaces(env):
    observations = env.reset()
    expected = {
        "one_hot_target_sensor": ((5,), np.float32),
        "gps": ((2,), np.float32),
        "compass": ((1,), np.float32),
        "trial_step": ((1,), np.int64),
    }
    for _ in range(5):
        for name, (shape, dtype) in expected.items():
            space = env.observation_space.spaces[name]
            assert (space.shape, space.dtype) == (shape, dtype)
            assert observations[name].dtype == dtype
            assert space.contains(observations[name])
        observations = env.step(LEFT)


def test_the_target_is_one_hot_in_the_data_sets_order(env):
    for _ in range(8):
        observations = env.reset()
        target = observations["one_hot_target_sensor"]
        assert target.sum() == 1.0
        assert CATEGORIES[int(target.argmax())] == env.current_episode.target_category


def test_a_trial_begins_at_the_origin_looking_forward(env):
    observations = env.reset()
    assert observations["gps"] == pytest.approx([0.0, 0.0])
    assert observations["compass"] == pytest.approx([0.0])
    for _ in range(3):
        observations = env.step(FORWARD)
    moved = 0.25 * 3 - sum(observations["gps"][:1])
    assert env.get_metrics()["collisions"]["count"] > 0 or moved == pytest.approx(0.0, abs=1e-6)
    observations = env.step(LEFT)
    assert observations["compass"] == pytest.approx([math.radians(30)], abs=1e-6)
    observations = env.step(RIGHT)
    observations = env.step(RIGHT)
    assert observations["compass"] == pytest.approx([-math.radians(30)], abs=1e-6)


def test_the_frame_stays_the_same_for_all_episodes_of_a_trial_and_changes_with_it(env):
    env.reset()
    frames = []
    for _ in range(12):  # 40 steps of a trial hold eight episodes of five steps
        origin = env.current_episode.trial.origin
        frames.append((tuple(origin.position), origin.heading, env.current_episode.trial.trial_id))
        for action in (FORWARD, LEFT, FORWARD, LEFT, STOP):
            observations = env.step(action)
            pose = Pose(*env.sim.agent_pose())
            assert observations["gps"] == pytest.approx(in_frame(origin, pose.position), abs=1e-5)
            turned = math.remainder(pose.heading - origin.heading, 2 * math.pi)
            assert math.cos(observations["compass"][0]) == pytest.approx(math.cos(turned), abs=1e-5)
        env.reset()
    assert len(set(frames[:8])) == 1
    assert len(set(frames)) == 2


def test_the_trials_step_counts_through_its_episodes_and_starts_again(env):
    steps = [int(env.reset()["trial_step"][0])]
    for _ in range(16):
        for action in (LEFT, LEFT, FORWARD, FORWARD):
            steps.append(int(env.step(action)["trial_step"][0]))
        env.step(STOP)
        steps.append(int(env.reset()["trial_step"][0]))
    assert steps == [i % 40 for i in range(81)]


def test_observations_are_not_overwritten_by_later_steps(env):
    first = env.reset()
    kept = {name: np.copy(value) for name, value in first.items()}
    for _ in range(4):
        env.step(FORWARD)
    for name, value in kept.items():
        assert np.array_equal(first[name], value)


def test_the_target_counts_as_found_where_a_stop_succeeds(tmp_path):
    from omegaconf import OmegaConf

    from memo_habitat.config.task import SENSORS

    path = write_episodes(tmp_path / "e.json.gz", [episode_record(OBJECTS)], CATEGORIES)
    config = flat_room_config(path, overrides={"task.trial_steps": 400})
    with habitat.config.read_write(config):
        config.habitat.task.lab_sensors["target_found_sensor"] = OmegaConf.structured(
            SENSORS["target_found_sensor"]
        )
    rng = np.random.default_rng(0)
    seen = set()
    with habitat.Env(config) as env:
        for _ in range(40):
            found = env.reset()["target_found"]
            for _ in range(int(rng.integers(12))):
                found = env.step(int(rng.integers(1, 4)))["target_found"]
                if env.episode_over:
                    break
            if not env.episode_over:
                env.step(STOP)
                assert env.get_metrics()["extobjnav_success"] == found[0]
                seen.add(float(found[0]))
    assert seen == {0.0, 1.0}


def test_the_cameras_tilt_is_told_stays_within_its_limit_and_is_level_in_the_next_episode(env):
    observations, told = env.reset(), []
    for action in (UP, UP, UP, LEFT, DOWN, DOWN, DOWN, DOWN, DOWN, UP):
        observations = env.step(action)
        told.append(round(math.degrees(observations["camera_tilt"][0])))
    assert told == [30, 60, 60, 60, 30, 0, -30, -60, -60, -30]
    env.step(STOP)
    assert env.reset()["camera_tilt"] == pytest.approx([0.0])


def test_free_distances_are_shares_of_three_metres(env):
    observations = env.reset()
    space = env.observation_space.spaces["range_scan"]
    for _ in range(20):
        assert space.contains(observations["range_scan"])
        ahead = observations["range_scan"][0]
        before = env.sim.agent_pose()[0]
        observations = env.step(FORWARD if ahead > 0.1 else LEFT)
        if ahead > 0.1 and not env.episode_over:
            assert not np.allclose(before, env.sim.agent_pose()[0])
