"""The sensors of ExtObjNav: each reads the task; `TaskSensor` is the base of one's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gym import spaces
from habitat.core.registry import registry
from habitat.core.simulator import Sensor, SensorTypes

from memo_habitat.tasks.extobjnav.detections import WIDTH
from memo_habitat.tasks.extobjnav.episode import ExtObjNavEpisode
from memo_habitat.tasks.extobjnav.floor_map import DIRECTIONS, RANGE, floor_of, scan
from memo_habitat.tasks.extobjnav.goals import in_frame, wrap_angle
from memo_habitat.tasks.extobjnav.oracle import DOWN, UP, Oracle, OracleOptions
from memo_habitat.tasks.extobjnav.searcher import Searcher
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

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        return real_box(0.0, 1.0, len(self._task.categories))

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the one-hot vector of the episode's target."""
        observation = np.zeros(len(self._task.categories), dtype=np.float32)
        observation[self._task.target_row] = 1.0
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


@registry.register_sensor(name="RangeScanSensor")
class RangeScanSensor(TaskSensor):
    """`[12]` float32: how far the floor is free in directions counter-clockwise from straight
    ahead, as a share of 3 m."""

    cls_uuid = "range_scan"
    box = real_box(0.0, 1.0, DIRECTIONS)
    _trial: Any = None

    def get_observation(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """Return the scan."""
        task = self._task
        if self._trial is not task.trial:
            self._trial, self._floor = task.trial, floor_of(task.simulator)
        return scan(self._floor, task.pose) / np.float32(RANGE)


class _FollowsActions(TaskSensor):
    """What a sensor needs that keeps account of the actions of an episode."""

    _episode: ExtObjNavEpisode | None = None

    def get_observation(
        self, *args: Any, episode: ExtObjNavEpisode, action: Any = None, **kwargs: Any
    ) -> np.ndarray:
        """Return the observation after `action`."""
        # Habitat tells sensors nothing of an episode's begin: the first look at it is one.
        if self._episode is not episode:
            self._begin_episode()
            self._episode = episode
        if action is not None:
            taken = action["action"]
            names = self._task.action_names
            self._saw_action(taken if isinstance(taken, str) else names[int(taken)])
        return self._observe()

    def _begin_episode(self) -> None:
        raise NotImplementedError

    def _saw_action(self, action: str) -> None:
        raise NotImplementedError

    def _observe(self) -> np.ndarray:
        raise NotImplementedError


@registry.register_sensor(name="CameraTiltSensor")
class CameraTiltSensor(_FollowsActions):
    """`[1]` float32 rad: how far the camera looks up from level."""

    cls_uuid = "camera_tilt"
    box = real_box(-math.pi / 2, math.pi / 2, 1)
    _tilt = 0.0

    def _begin_episode(self) -> None:
        self._tilt = 0.0

    def _saw_action(self, action: str) -> None:
        sizes = self._task.simulator.action_sizes
        tilt = self._tilt + sizes.tilt * {UP: 1, DOWN: -1}.get(action, 0)
        self._tilt = max(-sizes.tilt_limit, min(sizes.tilt_limit, tilt))

    def _observe(self) -> np.ndarray:
        return np.array([self._tilt], dtype=np.float32)


class PlayerSensor(_FollowsActions):
    """`[1]` int64: index, among the task's actions, of what a player of the task would do now."""

    def __init__(self, *args: Any, config: Any, task: ExtObjNavTask, **kwargs: Any) -> None:
        """Read step sizes and the names of the task's actions."""
        options = task.options
        self._options = OracleOptions.of(
            task.simulator.action_sizes, task.action_names, options.eye_height, options.radius
        )
        self._player: Any = None
        super().__init__(config=config, task=task)

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        most = len(self._task.action_names) - 1
        return spaces.Box(low=0, high=most, shape=(1,), dtype=np.int64)

    def _saw_action(self, action: str) -> None:
        self._player.saw_action(action)

    def _next_action(self) -> str:
        raise NotImplementedError

    def _observe(self) -> np.ndarray:
        return np.array([self._task.action_names.index(self._next_action())], dtype=np.int64)


@registry.register_sensor(name="OracleActionSensor")
class OracleActionSensor(PlayerSensor):
    """What the oracle would do, which knows the house."""

    cls_uuid = "oracle_action"

    def _begin_episode(self) -> None:
        task = self._task
        self._player = Oracle(task.simulator, task.goals, self._options, task.target_is_found)

    def _next_action(self) -> str:
        action: str = self._player.next_action(self._task.pose)
        return action


@registry.register_sensor(name="PerfectMemoryActionSensor")
class PerfectMemoryActionSensor(PlayerSensor):
    """What somebody would do who remembers all that the trial has shown, and knows no more."""

    cls_uuid = "perfect_memory_action"
    _trial: Any = None

    def __init__(self, *args: Any, config: Any, task: ExtObjNavTask, **kwargs: Any) -> None:
        """Read how it moves."""
        self._moves = config.moves
        super().__init__(config=config, task=task)

    def _begin_episode(self) -> None:
        task = self._task
        if self._trial is task.trial:
            self._player.begin_episode()
            return
        self._trial = task.trial
        floor = floor_of(task.simulator)
        self._player = Searcher(floor, task.origin, self._options, self._moves)

    def _next_action(self) -> str:
        task = self._task
        self._player.look(task.pose, task.detections.table)
        action: str = self._player.next_action(
            task.pose, task.target_row, task.goals, task.target_is_found()
        )
        return action
