"""What the sensors of the task have in common: a uuid, a box of values, and the task they read."""

from __future__ import annotations

from typing import Any

import numpy as np
from gym import spaces
from habitat.core.simulator import Sensor, SensorTypes

from memo_habitat.task.task import ExtObjNavTask


class TaskSensor(Sensor):
    """A sensor that reads the task; observations are freshly made arrays, never shared ones."""

    cls_uuid: str
    sensor_kind: SensorTypes = SensorTypes.MEASUREMENT

    def __init__(self, *args: Any, config: Any, task: ExtObjNavTask, **kwargs: Any) -> None:
        """Keep the task and describe the observation."""
        self._task = task
        super().__init__(config=config)

    def _get_uuid(self, *args: Any, **kwargs: Any) -> str:
        return self.cls_uuid

    def _get_sensor_type(self, *args: Any, **kwargs: Any) -> SensorTypes:
        return self.sensor_kind

    def _get_observation_space(self, *args: Any, **kwargs: Any) -> spaces.Space:
        return self.observation_box()

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        raise NotImplementedError


def real_box(low: float, high: float, length: int) -> spaces.Box:
    """Box of `length` float32 numbers between `low` and `high`."""
    return spaces.Box(low=low, high=high, shape=(length,), dtype=np.float32)
