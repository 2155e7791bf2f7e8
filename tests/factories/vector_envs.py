"""A vector environment made of the evaluation's contract alone: no simulator, no workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from memo_habitat.evaluation.schedule import Observation, StepResult
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks import record_fields
from memo_habitat.tasks.record_fields import EPISODE_MEASURE, Declaration

STOP = 0
NUM_ACTIONS = 4


@dataclass
class FakeEnv:
    """One environment: an agent on a line that has to walk `distance` steps and then stop.

    Episode `e` of a trial asks for 1 to `max_distance` steps forward (action 1); the stop counts
    there alone. Draws depend on the seed, the trial and the episode, never on the worker.
    """

    pairs: list[tuple[str, str]]
    trial_steps: int
    max_distance: int = 5
    max_episode_steps: int = 12
    image_size: int = 8

    def __post_init__(self) -> None:
        """Begin with the data set's own order."""
        self.resets = 0
        self.steps_taken = 0
        self._seed = 0
        self._queue = [(house, arrangement, 0) for house, arrangement in self.pairs]
        self._place = -1
        self._trial_step = self.trial_steps
        self._episode = -1

    def arrangements(self) -> list[tuple[str, str]]:
        """What it can play."""
        return list(self.pairs)

    def record_fields(self) -> Declaration:
        """The success has another name in records; the reward of a step is not recorded."""
        return {"arrived": record_fields.SUCCESS, "step_reward": None}

    def schedule_trials(self, trials: list[tuple[str, str, int]], seed: int) -> None:
        """Play these from the next reset on."""
        self._queue, self._seed, self._place = (
            [(house, arrangement, number) for house, arrangement, number in trials],
            seed,
            -1,
        )
        self._trial_step = self.trial_steps

    def top_down_map(self, resolution: float) -> TopDownMap:
        """A walled strip of floor."""
        free = np.zeros((round(2 / resolution), round(8 / resolution)), dtype=bool)
        free[4:-4, 4:-4] = True
        return TopDownMap(free, (-1.0, -1.0), resolution)

    def top_down_scene(self) -> dict[str, Any]:
        """The agent walks along x."""
        place, goal = (0.25 * self._walked, 0.0), (0.25 * self._distance, 0.0)
        scene = {"position": place, "heading": 0.0, "goals": [goal], "target": "cup"}
        return {**scene, "detection_scale": 5.0}

    def reset(self) -> Observation:
        """The next episode's first observation."""
        self.resets += 1
        if self._trial_step >= self.trial_steps:
            self._place = (self._place + 1) % len(self._queue)
            self._trial_step = 0
            self._episode = -1
        self._episode += 1
        house, arrangement, repetition = self._queue[self._place]
        key = f"{self._seed}{house}{arrangement}{repetition}{self._episode}"
        self._rng = np.random.default_rng(list(key.encode()))
        self._distance = int(self._rng.integers(1, self.max_distance + 1))
        self._walked = self._steps = self._collisions = 0
        self._start_step = self._trial_step
        return self._observe()

    def step(self, action: int) -> StepResult:
        """Take one action; observations of a finished episode are the next one's first."""
        self.steps_taken += 1
        self._steps += 1
        self._trial_step += 1
        self._walked += action == 1
        self._collisions += action == 2
        success = action == STOP and self._walked == self._distance
        over = self._trial_step >= self.trial_steps or self._steps >= self.max_episode_steps
        done = bool(action == STOP or over)
        info = self._info(success, action == STOP) if done else {}
        observation = self.reset() if done else self._observe()
        return observation, 2.0 * success - 0.003, done, info

    def _observe(self) -> Observation:
        image = np.full((self.image_size, self.image_size, 3), self._trial_step % 256, np.uint8)
        oracle = STOP if self._walked == self._distance else 1
        return {
            "trial_step": np.array([self._trial_step], dtype=np.int64),
            "oracle_action": np.array([oracle], dtype=np.int64),
            "head_rgb": image,
        }

    def _info(self, success: bool, stopped: bool) -> dict[str, Any]:
        house, arrangement, repetition = self._queue[self._place]
        left = abs(self._distance - self._walked) * 0.25
        start = self._distance * 0.25
        path = [[0.25 * step, 0.0] for step in range(self._walked + 1)]
        return {
            "arrived": success,
            "spl": float(success),
            "soft_spl": max(0.0, 1 - left / start),
            "distance_to_goal": left,
            "num_steps": self._steps,
            "collisions": self._collisions,
            "step_reward": 0.0,
            EPISODE_MEASURE: {
                "trial_id": f"{house}/{arrangement}/{repetition}",
                "scene_id": f"scenes/{house}.scene_instance.json",
                "arrangement_id": arrangement,
                "repetition": repetition,
                "episode_index": self._episode,
                "target_category": "mug",
                "trial_step_start": self._start_step,
                "trial_step_end": self._trial_step,
                "start_distance": start,
                "path_length": self._walked * 0.25,
                "start_position": np.zeros(3),
                "goal_positions": np.array([[start, 0.3, 0.5]]),
                "path": path,
                "truncated": self._trial_step >= self.trial_steps and not stopped,
            },
        }


class FakeVectorEnv:
    """`FakeEnv`s behind the part of `habitat.VectorEnv` that an evaluation uses."""

    def __init__(self, envs: list[FakeEnv]) -> None:
        self.envs = envs
        self._pending: dict[int, int] = {}

    @property
    def num_envs(self) -> int:
        """How many there are."""
        return len(self.envs)

    def reset(self) -> list[Observation]:
        """Reset all."""
        return [env.reset() for env in self.envs]

    def async_step_at(self, index_env: int, action: int) -> None:
        """Take note of an action."""
        self._pending[index_env] = action

    def wait_step_at(self, index_env: int) -> StepResult:
        """The result of the action noted."""
        return self.envs[index_env].step(self._pending.pop(index_env))

    def call_at(
        self, index: int, function_name: str, function_args: dict[str, Any] | None = None
    ) -> Any:
        """Call a method of one environment."""
        return getattr(self.envs[index], function_name)(**(function_args or {}))
