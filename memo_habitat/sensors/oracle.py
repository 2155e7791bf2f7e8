"""The action that somebody who knows the house would take: for the oracle agent in evaluations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gym import spaces
from habitat.core.registry import registry

from memo_habitat.config.simulator import options_of
from memo_habitat.errors import UserError
from memo_habitat.sensors.base import TaskSensor
from memo_habitat.task.episode import ExtObjNavEpisode
from memo_habitat.task.oracle import DOWN, LEFT, RIGHT, STOP, UP, Oracle, OracleOptions
from memo_habitat.task.task import ExtObjNavTask

_NEEDED = (STOP, "move_forward", LEFT, RIGHT)


@registry.register_sensor(name="OracleActionSensor")
class OracleActionSensor(TaskSensor):
    """`[1]` int64: index, among the task's actions, of the best action now."""

    cls_uuid = "oracle_action"

    def __init__(
        self, sim: Any, *args: Any, config: Any, task: ExtObjNavTask, **kwargs: Any
    ) -> None:
        """Read step sizes and the names of the task's actions."""
        names = list(task.action_names)
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise UserError(
                f"the sensor oracle_action needs the action(s) {', '.join(missing)}; add them to"
                " habitat.task.actions"
            )
        self._index = {name: index for index, name in enumerate(names)}
        self._names = names
        tilts = UP in self._index and DOWN in self._index
        camera = options_of(sim.habitat_config)
        self._options = OracleOptions(
            turn_angle=math.radians(sim.habitat_config.turn_angle),
            tilt_angle=math.radians(camera.tilt_angle) if tilts else 0.0,
            tilt_limit=math.radians(camera.tilt_limit),
            eye_height=task.options.eye_height,
            reach=task.options.radius,
        )
        self._oracle: Oracle | None = None
        self._episode: ExtObjNavEpisode | None = None
        super().__init__(config=config, task=task)

    def observation_box(self) -> spaces.Box:
        """Return the space of the observation."""
        return spaces.Box(low=0, high=len(self._index) - 1, shape=(1,), dtype=np.int64)

    def get_observation(
        self, *args: Any, episode: ExtObjNavEpisode, action: Any = None, **kwargs: Any
    ) -> np.ndarray:
        """Return the best action's index."""
        task = self._task
        if self._oracle is None or self._episode is not episode:
            self._episode = episode
            self._oracle = Oracle(task.simulator, task.goals, self._options, task.target_is_found)
        if action is not None:
            taken = action["action"]
            self._oracle.saw_action(taken if isinstance(taken, str) else self._names[int(taken)])
        return np.array([self._index[self._oracle.next_action(task.pose)]], dtype=np.int64)
