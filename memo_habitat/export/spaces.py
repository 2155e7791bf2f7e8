"""What an agent observes and does, as JSON: without it a policy cannot be built where no
environment is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gym import spaces
from habitat_baselines.common.env_spec import EnvironmentSpec
from omegaconf import DictConfig
from pydantic import BaseModel

from memo_habitat.utils.files import read_json, write_json

SPACES_FILE = "spaces.json"


class Sensor(BaseModel):
    """One observation: shape, NumPy's name of the type, and range (None: unbounded)."""

    shape: tuple[int, ...]
    dtype: str
    low: float | None
    high: float | None


class Spaces(BaseModel):
    """What is observed, by name, before any transform; the actions, by index."""

    observations: dict[str, Sensor]
    actions: list[str]

    @classmethod
    def of_envs(cls, config: DictConfig) -> Spaces:
        """Those of one environment of `config`, which is made for it and closed."""
        from habitat.config import read_write
        from habitat.config.default import patch_config
        from hydra.utils import instantiate

        config = patch_config(config.copy())
        with read_write(config):
            config.habitat_baselines.num_environments = 1
        factory = instantiate(config.habitat_baselines.vector_env_factory)
        envs = factory.construct_envs(config)
        try:
            observed = envs.observation_spaces[0].spaces
        finally:
            envs.close()
        sensors = {name: _sensor(space) for name, space in sorted(observed.items())}
        return cls(observations=sensors, actions=list(config.habitat.task.actions))

    @classmethod
    def read(cls, folder: Path) -> Spaces | None:
        """Those in an exported folder; None where there are none, UserError if malformed."""
        path = folder / SPACES_FILE
        return read_json(path, cls.model_validate) if path.is_file() else None

    def write(self, folder: Path) -> None:
        """Write them into the folder."""
        write_json(folder / SPACES_FILE, self.model_dump())

    def spec(self) -> EnvironmentSpec:
        """As Habitat-Baselines hands them to policies."""
        boxes = {name: _box(sensor) for name, sensor in self.observations.items()}
        actions = spaces.Discrete(len(self.actions))
        return EnvironmentSpec(spaces.Dict(boxes), actions, actions)

    def missing(self, observations: Mapping[str, Any]) -> list[str]:
        """What is not among the given observations."""
        return sorted(set(self.observations) - set(observations))


def _sensor(space: spaces.Box) -> Sensor:
    least, most = _limits(space.dtype)
    low, high = float(np.min(space.low)), float(np.max(space.high))
    return Sensor(
        shape=space.shape,
        dtype=space.dtype.name,
        low=low if low > float(least) else None,
        high=high if high < float(most) else None,
    )


def _box(sensor: Sensor) -> spaces.Box:
    dtype = np.dtype(sensor.dtype)
    least, most = _limits(dtype)
    low = least if sensor.low is None else dtype.type(sensor.low)
    high = most if sensor.high is None else dtype.type(sensor.high)
    return spaces.Box(low, high, sensor.shape, dtype.type)


def _limits(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The least and the greatest number of a type."""
    limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return limits.min, limits.max
