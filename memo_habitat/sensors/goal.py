"""The target: its category, and, for auxiliary losses, whether it has been found."""

from __future__ import annotations

from typing import Any

import numpy as np
from gym import spaces
from habitat.core.registry import registry
from habitat.core.simulator import SensorTypes

from memo_habitat.sensors.base import TaskSensor, real_box
from memo_habitat.task.episode import ExtObjNavEpisode
from memo_habitat.task.task import ExtObjNavTask


@registry.register_sensor(name="OneHotTargetSensor")
class OneHotTargetSensor(TaskSensor):
    """`[n_categories]` float32: 1 at the target's place in the data set's `categories`."""

    cls_uuid = "one_hot_target_sensor"
    sensor_kind = SensorTypes.SEMANTIC

    def __init__(self, *args: Any, config: Any, task: ExtObjNavTask, **kwargs: Any) -> None:
        """Read the vocabulary."""
        self._index = {name: index for index, name in enumerate(task.categories)}
        super().__init__(config=config, task=task)

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        return real_box(0.0, 1.0, len(self._index))

    def get_observation(self, *args: Any, episode: ExtObjNavEpisode, **kwargs: Any) -> np.ndarray:
        """Return the one-hot vector of the episode's target."""
        observation = np.zeros(len(self._index), dtype=np.float32)
        observation[self._index[str(episode.target_category)]] = 1.0
        return observation


@registry.register_sensor(name="TargetFoundSensor")
class TargetFoundSensor(TaskSensor):
    """`[1]` float32: 1 where stopping now would succeed, else 0.

    It knows the house: something for auxiliary losses to predict, never an input of a policy.
    """

    cls_uuid = "target_found"

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        return real_box(0.0, 1.0, 1)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return whether the target is in reach and in view."""
        return np.array([self._task.target_is_found()], dtype=np.float32)
