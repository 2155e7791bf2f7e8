"""Observation and action space of a config, without a simulator's world."""

from __future__ import annotations

from typing import Any

import hydra
from gym import spaces
from habitat.config import read_write
from habitat.config.default import get_agent_config
from habitat.core.registry import registry
from habitat.core.simulator import SensorSuite
from habitat.gym import make_gym_from_config
from habitat_baselines.common.env_spec import EnvironmentSpec
from habitat_baselines.common.obs_transformers import (
    apply_obs_transforms_obs_space,
    get_active_obs_transforms,
)
from omegaconf import DictConfig

from memo_habitat.config.simulator import options_of
from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.sim import EmbreeSim

_SIMULATOR = "SensorsOnly-v0"


@registry.register_simulator(name=_SIMULATOR)
class SensorsOnlySim(EmbreeSim):
    """Habitat's sensors as configured, and no house: what there is to observe, never observed.

    It stands in for any simulator, installed or not: the shape of an image is its sensor's config.
    """

    instances = ()

    def __init__(self, config: Any) -> None:
        self.habitat_config = config
        sensors = get_agent_config(config, 0).sim_sensors
        self._sizes = {c.uuid: (int(c.height), int(c.width)) for c in sensors.values()}
        observed = sensors if options_of(config).render_images else {}
        self._suite = SensorSuite([_sensor(name, c) for name, c in observed.items()])

    @property
    def sensor_suite(self) -> SensorSuite:
        """Habitat's sensors of the agent."""
        return self._suite

    @property
    def camera_uuids(self) -> tuple[str, ...]:
        """The agent's cameras."""
        return tuple(self._sizes)

    def image_size(self, sensor: str) -> tuple[int, int]:
        """Height and width of a camera's image."""
        return self._sizes[sensor]

    def seed(self, seed: int) -> None:
        """Nothing is random here."""


def environment_spec(config: DictConfig) -> EnvironmentSpec:
    """The spaces that the trainer would learn from its environments.

    A factory of environments that knows them by itself says so by a method of this name. Otherwise
    the data set is read, for it holds the vocabulary of targets; no scene is loaded.

    Raises:
        UserError: the data set is missing, or a sensor is not known.
    """
    factory = hydra.utils.instantiate(config.habitat_baselines.vector_env_factory)
    if hasattr(factory, "environment_spec"):
        known: EnvironmentSpec = factory.environment_spec()
        return known
    config = config.copy()
    with read_write(config):
        config.habitat.simulator.type = _SIMULATOR
    env = make_gym_from_config(config)
    observed = apply_obs_transforms_obs_space(
        env.observation_space, get_active_obs_transforms(config)
    )
    if not isinstance(observed, spaces.Dict):
        raise UserError(
            "habitat.gym.obs_keys leaves one observation, which has no name: leave it empty"
        )
    return EnvironmentSpec(
        observation_space=observed,
        action_space=env.action_space,
        orig_action_space=env.original_action_space,
    )


def _sensor(name: str, config: Any) -> Any:
    kind = registry.get_sensor(config.type)
    if kind is None:
        raise UserError(f"sim_sensors.{name}.type={config.type!r} is not a registered sensor")
    return kind(config)
