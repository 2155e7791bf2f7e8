"""The reward of the step before, as agents need it that learn from trial to trial (RL2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gym import spaces
from habitat.core.registry import registry

from memo_habitat.sensors.base import TaskSensor, real_box

_LARGE = float(np.finfo(np.float32).max)


@registry.register_sensor(name="LastRewardSensor")
class LastRewardSensor(TaskSensor):
    """`[1]` float32: reward of the trial's previous step; 0 at the trial's first step.

    The reward that ends an episode is seen in the next episode's first observation. Habitat works
    a reward out after the observation of the same step: the sensor declares the place, and the
    environments of training and evaluation (`trainer.worker.TrialEnv`) fill it in. In a plain
    `habitat.Env`, which knows no rewards, it stays 0.
    """

    cls_uuid = "last_reward"

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        return real_box(-_LARGE, _LARGE, 1)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the place of the reward."""
        return np.zeros(1, dtype=np.float32)
