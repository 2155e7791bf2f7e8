"""The action that somebody who knows the house would take: for the oracle agent in evaluations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gym import spaces
from habitat.core.registry import registry
from habitat.core.simulator import Sensor, SensorTypes

from memo_habitat.tasks.extobjnav.detections import WIDTH
from memo_habitat.tasks.extobjnav.episode import ExtObjNavEpisode
from memo_habitat.tasks.extobjnav.goals import in_frame, wrap_angle
from memo_habitat.tasks.extobjnav.oracle import Oracle, OracleOptions
from memo_habitat.tasks.extobjnav.task import ExtObjNavTask


class TaskSensor(Sensor):
    """A sensor that reads the task; observations are freshly made arrays, never shared ones.

    Attributes:
        cls_uuid: its uuid.
        sensor_kind: Habitat's name for what it is.
        box: the space of its observation; else `observation_box` says it.
    """

    cls_uuid: str
    box: spaces.Box
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
        """Return the space of the observation, for the task given."""
        return self.box


def real_box(low: float, high: float, length: int) -> spaces.Box:
    """Box of `length` float32 numbers between `low` and `high`."""
    return spaces.Box(low=low, high=high, shape=(length,), dtype=np.float32)


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
    box = real_box(0.0, 1.0, 1)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return whether the target is in reach and in view."""
        return np.array([self._task.target_is_found()], dtype=np.float32)


# What Habitat's own sensors say where a number has no bounds.
_FAR = float(np.finfo(np.float32).max)


@registry.register_sensor(name="DetectionsSensor")
class DetectionsSensor(TaskSensor):
    """`[n_categories, 6]` float32: the nearest detected instance of each category.

    A row is 1, forward and left of the agent (m / 5), forward and left in the trial's frame
    (m / 10), share of the image; zeros where none is detected.
    """

    cls_uuid = "detections"

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        return spaces.Box(-_FAR, _FAR, (len(self._task.categories), WIDTH), np.float32)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the table."""
        return self._task.detections.table


@registry.register_sensor(name="TargetDetectionSensor")
class TargetDetectionSensor(TaskSensor):
    """`[7]` float32: the target's row of `detections`, and 1 where stopping now would succeed by
    the instance it reports."""

    cls_uuid = "target_detection"
    box = real_box(-_FAR, _FAR, WIDTH + 1)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the row."""
        found, row = self._task.detections, self._task.target_row
        return np.append(found.table[row], np.float32(found.within_reach[row]))


@registry.register_sensor(name="TrialGPSSensor")
class TrialGPSSensor(TaskSensor):
    """`[2]` float32 m: (forward, left) of the trial's first start pose.

    The frame stays the same for the whole trial, so that places seen in one episode keep their
    coordinates in the next.
    """

    cls_uuid = "gps"
    sensor_kind = SensorTypes.POSITION
    box = real_box(-_FAR, _FAR, 2)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the position."""
        place = in_frame(self._task.origin, self._task.pose.position)
        return np.array(place, dtype=np.float32)


@registry.register_sensor(name="TrialCompassSensor")
class TrialCompassSensor(TaskSensor):
    """`[1]` float32 rad in (-pi, pi]: heading from the trial's first one, positive to the left."""

    cls_uuid = "compass"
    sensor_kind = SensorTypes.HEADING
    box = real_box(-math.pi, math.pi, 1)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the heading."""
        turned = self._task.pose.heading - self._task.origin.heading
        return np.array([wrap_angle(turned)], dtype=np.float32)


@registry.register_sensor(name="TrialStepSensor")
class TrialStepSensor(TaskSensor):
    """`[1]` int64: steps taken in the trial before this observation; 0 at its first one."""

    cls_uuid = "trial_step"
    box = spaces.Box(low=0, high=np.iinfo(np.int64).max, shape=(1,), dtype=np.int64)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the step."""
        return np.array([self._task.trial.steps], dtype=np.int64)


@registry.register_sensor(name="LastRewardSensor")
class LastRewardSensor(TaskSensor):
    """`[1]` float32: reward of the trial's previous step; 0 at the trial's first step.

    The reward that ends an episode is seen in the next episode's first observation. Habitat works
    a reward out after the observation of the same step: the sensor declares the place, and the
    environments of training and evaluation (`trainer.env_worker.TrialEnv`) fill it in. In a plain
    `habitat.Env`, which knows no rewards, it stays 0.
    """

    cls_uuid = "last_reward"
    box = real_box(-_FAR, _FAR, 1)

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the place of the reward."""
        return np.zeros(1, dtype=np.float32)


@registry.register_sensor(name="OracleActionSensor")
class OracleActionSensor(TaskSensor):
    """`[1]` int64: index, among the task's actions, of the best action now."""

    cls_uuid = "oracle_action"

    def __init__(self, *args: Any, config: Any, task: ExtObjNavTask, **kwargs: Any) -> None:
        """Read step sizes and the names of the task's actions."""
        self._names = list(task.action_names)
        options = task.options
        self._options = OracleOptions.of(
            task.simulator.action_sizes, self._names, options.eye_height, options.radius
        )
        self._oracle: Oracle | None = None
        self._episode: ExtObjNavEpisode | None = None
        super().__init__(config=config, task=task)

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        return spaces.Box(low=0, high=len(self._names) - 1, shape=(1,), dtype=np.int64)

    def get_observation(
        self, *args: Any, episode: ExtObjNavEpisode, action: Any = None, **kwargs: Any
    ) -> np.ndarray:
        """Return the best action's index."""
        task = self._task
        # Habitat tells sensors nothing of an episode's begin: the first look at it is one.
        if self._oracle is None or self._episode is not episode:
            self._episode = episode
            self._oracle = Oracle(task.simulator, task.goals, self._options, task.target_is_found)
        if action is not None:
            taken = action["action"]
            self._oracle.saw_action(taken if isinstance(taken, str) else self._names[int(taken)])
        return np.array([self._names.index(self._oracle.next_action(task.pose))], dtype=np.int64)
