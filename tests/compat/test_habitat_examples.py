"""What Habitat-Lab's examples and tutorials do, from outside, on EmbreeSim.

Own sensors, measures, actions and tasks, agents in a loop, Gym, maps as pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gym
import habitat
import habitat.gym
import numpy as np
import pytest
import quaternion
from gym import spaces
from habitat.config.default import patch_config
from habitat.config.default_structured_configs import (
    ActionConfig,
    LabSensorConfig,
    MeasurementConfig,
)
from habitat.sims.habitat_simulator.actions import HabitatSimActions
from habitat.tasks.nav.nav import NavigationTask, SimulatorTaskAction
from habitat.utils.visualizations import maps

from memo_habitat.config.compose import compose_config

POINTNAV, EXTOBJNAV = "nav/ppo_pointnav_studio", "extobjnav/studio"
QUIET = ["habitat.seed=3", "habitat.environment.max_episode_steps=40"]


def config_of(name: str, *overrides: str) -> Any:
    return patch_config(compose_config(name, [*QUIET, *overrides]))


@habitat.registry.register_measure
class EpisodeFacts(habitat.Measure):
    """All attributes of the episode, and a number of the config after a reset only."""

    cls_uuid = "episode_facts"

    def __init__(self, sim: Any, config: Any, **_: Any) -> None:
        self._config = config
        super().__init__()

    def _get_uuid(self, *_: Any, **__: Any) -> str:
        return self.cls_uuid

    def reset_metric(self, *_: Any, episode: Any, **__: Any) -> None:
        self._metric = {**vars(episode), "number": self._config.number}

    def update_metric(self, *_: Any, episode: Any, **__: Any) -> None:
        self._metric = {**vars(episode)}


@dataclass
class EpisodeFactsConfig(MeasurementConfig):
    type: str = "EpisodeFacts"
    number: int = -1


@habitat.registry.register_sensor(name="where_it_stands")
class WhereItStands(habitat.Sensor):
    """The agent's position in the world, [3] m."""

    cls_uuid = "where_it_stands"

    def __init__(self, sim: Any, config: Any, **_: Any) -> None:
        self._sim = sim
        super().__init__(config=config)

    def _get_uuid(self, *_: Any, **__: Any) -> str:
        return self.cls_uuid

    def _get_sensor_type(self, *_: Any, **__: Any) -> Any:
        return habitat.SensorTypes.POSITION

    def _get_observation_space(self, *_: Any, **__: Any) -> spaces.Space:
        limit = np.finfo(np.float32).max
        return spaces.Box(-limit, limit, shape=(3,), dtype=np.float32)

    def get_observation(self, *_: Any, **__: Any) -> Any:
        return self._sim.get_agent_state().position


@dataclass
class StrafeActionConfig(ActionConfig):
    type: str = "StrafeRight"
    metres: float = 0.1


@habitat.registry.register_task_action
class StrafeRight(SimulatorTaskAction):
    """To the right without turning, as far as the floor goes."""

    def _get_uuid(self, *_: Any, **__: Any) -> str:
        return "strafe_right"

    def step(self, *_: Any, **__: Any) -> None:
        state = self._sim.get_agent_state()
        right = quaternion.rotate_vectors(state.rotation, np.array([1.0, 0.0, 0.0]))
        wanted = state.position + self._config.metres * right
        reached = self._sim.pathfinder.try_step(state.position, wanted)
        self._sim.set_agent_state(reached, state.rotation, reset_sensors=False)


@habitat.registry.register_task(name="UntilABump-v0")
class UntilABump(NavigationTask):
    """Ends where the agent bumps into something."""

    def _check_episode_is_active(self, *_: Any, **__: Any) -> bool:
        return not self._sim.previous_step_collided


@pytest.mark.parametrize("name", [POINTNAV, EXTOBJNAV])
def test_an_own_sensor_and_an_own_measure(name):
    config = config_of(name)
    with habitat.config.read_write(config):
        task = config.habitat.task
        task.measurements["episode_facts"] = EpisodeFactsConfig(number=5)
        task.lab_sensors["where_it_stands"] = LabSensorConfig(type="where_it_stands")
    with habitat.Env(config) as env:
        observed = env.reset()
        facts = env.get_metrics()["episode_facts"]
        assert facts["number"] == 5
        assert facts["scene_id"] == env.current_episode.scene_id
        np.testing.assert_allclose(
            observed["where_it_stands"], env.sim.get_agent_state().position, atol=1e-6
        )
        moved = env.step({"action": "move_forward"})["where_it_stands"]
        assert "number" not in env.get_metrics()["episode_facts"]
        np.testing.assert_allclose(moved, env.sim.get_agent_state().position, atol=1e-6)


@pytest.mark.parametrize("name", [POINTNAV, EXTOBJNAV])
def test_an_own_action_by_name(name):
    config = config_of(name)
    with habitat.config.read_write(config):
        config.habitat.task.actions["strafe_right"] = StrafeActionConfig(metres=0.05)
    with habitat.Env(config) as env:
        env.reset()
        for _ in range(12):  # some way along which there is room
            before = env.sim.get_agent_state()
            seen = env.step({"action": "strafe_right"})
            after = env.sim.get_agent_state()
            assert env.sim.pathfinder.is_navigable(after.position)
            # It looks where it looked, and along the way to the right.
            assert quaternion.isclose(before.rotation, after.rotation, atol=1e-6)
            way = quaternion.rotate_vectors(before.rotation.inverse(), after.position)
            way -= quaternion.rotate_vectors(before.rotation.inverse(), before.position)
            if np.linalg.norm(way) > 0.049:
                np.testing.assert_allclose(way, [0.05, 0.0, 0.0], atol=2e-3)
                break
            env.step({"action": "turn_left"})
        else:
            pytest.fail("there was no room to the right of any heading")
        # The picture is taken from the new place.
        drawn = env.sim.get_observations_at(after.position, after.rotation)
        camera = next(key for key in seen if "rgb" in key)
        np.testing.assert_array_equal(seen[camera], drawn[camera])


def test_an_own_task_ends_its_episodes_itself():
    config = config_of(POINTNAV, "habitat.environment.max_episode_steps=500")
    with habitat.config.read_write(config):
        config.habitat.task.type = "UntilABump-v0"
    with habitat.Env(config) as env:
        env.reset()
        steps = 0
        while not env.episode_over:
            env.step({"action": "move_forward", "action_args": None})
            steps += 1
        assert env.sim.previous_step_collided and steps < 500


class ForwardUntilNear(habitat.Agent):
    """Walks straight on and stops where the goal is near."""

    def reset(self) -> None:
        pass

    def act(self, observations: Any) -> dict[str, Any]:
        near = observations["pointgoal_with_gps_compass"][0] <= 0.2
        return {"action": HabitatSimActions.stop if near else HabitatSimActions.move_forward}


def test_an_agent_in_habitats_loop():
    agent = ForwardUntilNear()
    with habitat.Env(config_of(POINTNAV)) as env:
        for _ in range(3):
            observed, before = env.reset(), env.get_metrics()["distance_to_goal"]
            agent.reset()
            while not env.episode_over:
                observed = env.step(agent.act(observed))
            distance, angle = observed["pointgoal_with_gps_compass"]
            metrics = env.get_metrics()
            assert math.isfinite(distance) and -math.pi <= angle <= math.pi
            assert metrics["distance_to_goal"] != before
            assert 0.0 <= metrics["spl"] <= metrics["success"] <= 1.0


@pytest.mark.parametrize("name", [POINTNAV, EXTOBJNAV])
def test_gym_makes_it_from_the_config(name):
    with habitat.gym.make_gym_from_config(config_of(name)) as env:
        assert isinstance(env, gym.Env)
        assert env.observation_space.contains(env.reset())
        ended, steps = False, 0
        while not ended:
            observed, reward, ended, info = env.step(steps % 3 + 1)
            steps += 1
        assert steps <= 40 and math.isfinite(reward) and "distance_to_goal" in info
        assert env.observation_space.contains(observed)


@pytest.mark.parametrize("name", [POINTNAV, EXTOBJNAV])
def test_the_map_of_habitat_becomes_a_picture(name):
    added = "+habitat/task/measurements@habitat.task.measurements.top_down_map=top_down_map"
    with habitat.Env(config_of(name, added)) as env:
        env.reset()
        for action in ("move_forward", "turn_left", "move_forward"):
            env.step({"action": action})
        info = env.get_metrics()["top_down_map"]
        picture = maps.colorize_draw_agent_and_fit_to_height(info, 128)
        assert picture.shape[0] == 128 and picture.dtype == np.uint8
        # Walls, floor, and the way that was walked.
        assert {maps.MAP_INVALID_POINT, maps.MAP_VALID_POINT} <= set(np.unique(info["map"]))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
