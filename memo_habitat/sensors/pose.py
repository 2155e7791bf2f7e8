"""Where the agent is: position and heading in a frame fixed for the trial, and the trial's step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gym import spaces
from habitat.core.registry import registry
from habitat.core.simulator import SensorTypes

from memo_habitat.sensors.base import TaskSensor, real_box
from memo_habitat.task.geometry import in_frame, wrap_angle

_FAR = float(np.finfo(np.float32).max)


@registry.register_sensor(name="TrialGPSSensor")
class TrialGPSSensor(TaskSensor):
    """`[2]` float32 m: (forward, left) of the trial's first start pose.

    The frame stays the same for the whole trial, so that places seen in one episode keep their
    coordinates in the next.
    """

    cls_uuid = "gps"
    sensor_kind = SensorTypes.POSITION

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        return real_box(-_FAR, _FAR, 2)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the position."""
        place = in_frame(self._task.origin, self._task.pose.position)
        return np.array(place, dtype=np.float32)


@registry.register_sensor(name="TrialCompassSensor")
class TrialCompassSensor(TaskSensor):
    """`[1]` float32 rad in (-pi, pi]: heading from the trial's first one, positive to the left."""

    cls_uuid = "compass"
    sensor_kind = SensorTypes.HEADING

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        return real_box(-math.pi, math.pi, 1)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the heading."""
        turned = self._task.pose.heading - self._task.origin.heading
        return np.array([wrap_angle(turned)], dtype=np.float32)


@registry.register_sensor(name="TrialStepSensor")
class TrialStepSensor(TaskSensor):
    """`[1]` int64: steps taken in the trial before this observation; 0 at its first one."""

    cls_uuid = "trial_step"

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        return spaces.Box(low=0, high=np.iinfo(np.int64).max, shape=(1,), dtype=np.int64)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the step."""
        return np.array([self._task.trial.steps], dtype=np.int64)
