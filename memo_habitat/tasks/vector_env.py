"""Environments stepped all together in this process, behind what Habitat's trainers call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gym import spaces
from habitat_baselines.common.env_factory import VectorEnvFactory
from numpy.typing import NDArray
from omegaconf import DictConfig

from memo_habitat.errors import UserError, check_at_least_one
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks.record_fields import Declaration
from memo_habitat.utils.processes import ALONE, ranks

Observation = dict[str, NDArray]
StepResult = tuple[Observation, float, bool, dict[str, Any]]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
# What an evaluation asks of one environment (`evaluation.schedule.TrialVectorEnv`).
_ASKED = (
    "arrangements",
    "record_fields",
    "schedule_trials",
    "top_down_map",
    "top_down_scene",
)


@dataclass(frozen=True)
class BatchedStep:
    """One step of N environments; the arrays may be written again by the next step.

    Attributes:
        observations: uuid -> [N, ...]; the next episode's first ones where one ended.
        rewards: [N].
        episode_ends: bool [N].
        measures: name -> [N], what is told of the episode that the step belongs to; read where one
            ended.
    """

    observations: Observation
    rewards: NDArray[Any]
    episode_ends: BoolArray
    measures: Mapping[str, NDArray[Any]]


class InProcessVectorEnv(ABC):
    """N environments in this process: no workers, and no loop over them in `step_batch`.

    There are two ways to step. `step_batch` takes the actions of all environments and returns
    arrays over them. `async_step_at` and `wait_step_at` are Habitat's: the first wait takes the
    step of all environments that have an action, together; the others stand still. Observations
    of the second way are copies and may be kept.

    Attributes:
        num_envs: N.
        observation_spaces, action_spaces, orig_action_spaces: one (the same) per environment.
        deaths: None: there are no workers that could die.
    """

    deaths: Path | None = None

    def __init__(
        self, num_envs: int, observation_space: spaces.Dict, action_space: spaces.Discrete
    ) -> None:
        if num_envs < 1:
            raise UserError(f"{num_envs} environments; at least 1 is needed")
        self.num_envs = num_envs
        self.observation_spaces = [observation_space] * num_envs
        self.action_spaces = [action_space] * num_envs
        self.orig_action_spaces = self.action_spaces
        self._actions = np.zeros(num_envs, dtype=np.int64)
        self._pending = np.zeros(num_envs, dtype=np.bool_)
        self._results: dict[int, StepResult] = {}

    @abstractmethod
    def reset_batch(self) -> Observation:
        """Begin the next episode in every environment; observations [N, ...]."""

    @abstractmethod
    def step_batch(self, actions: IntArray, only: BoolArray | None = None) -> BatchedStep:
        """One step of every environment, or of those where `only` [N] is True.

        Args:
            actions: integers [N].
            only: which to step; None: all.
        """

    @abstractmethod
    def arrangements(self, index: int) -> list[tuple[str, str]]:
        """The (house, arrangement) pairs that environment `index` can play."""

    @abstractmethod
    def schedule_trials(self, index: int, trials: list[tuple[str, str, int]], seed: int) -> None:
        """From its next reset on environment `index` plays these trials, drawn from `seed`."""

    @abstractmethod
    def top_down_map(self, index: int, resolution: float) -> TopDownMap:
        """Where the agent can stand in the present house of environment `index`."""

    @abstractmethod
    def record_fields(self, index: int) -> Declaration:
        """Measures by uuid and how they are recorded, see `tasks.record_fields`."""

    def top_down_scene(self, index: int) -> dict[str, Any] | None:
        """Where the agent stands and what it looks for, for videos (`TrialVectorEnv`)."""
        return None

    def skip_trials(self, count: int) -> bool:
        """Let the next reset begin the trials that come after `count` whole ones.

        Returns:
            whether that can be done; where it cannot, a training that is resumed plays others.
        """
        return False

    def step_with_infos(
        self, actions: IntArray, only: BoolArray
    ) -> tuple[BatchedStep, Mapping[int, dict[str, Any]]]:
        """Step those of `only`, and what Habitat is told of each.

        An environment that is evaluated adds here, where an episode ended, what describes it, under
        `record_fields.EPISODE_MEASURE`.
        """
        step = self.step_batch(actions, None if only.all() else only)
        return step, measures_of(step, only)

    def reset(self) -> list[Observation]:
        """Begin the next episode in every environment; their observations."""
        self._pending[:] = False
        self._results.clear()
        return _rows(self.reset_batch())

    def post_step(self, observations: list[Observation]) -> list[Observation]:
        """The same observations: there is no batch renderer."""
        return observations

    def async_step_at(self, index_env: int, action: int) -> None:
        """Take note of the action of one environment."""
        if self._pending[index_env] or index_env in self._results:
            raise RuntimeError(f"the last step of environment {index_env} was not waited for")
        self._actions[index_env] = int(action)
        self._pending[index_env] = True

    def wait_step_at(self, index_env: int) -> StepResult:
        """Observation, reward, whether the episode ended, and measures, of one environment."""
        if index_env not in self._results:
            if not self._pending[index_env]:
                raise RuntimeError(f"environment {index_env} was given no action to wait for")
            step, infos = self.step_with_infos(self._actions, self._pending)
            observations = _rows(step.observations)
            rewards, ends = step.rewards.tolist(), step.episode_ends.tolist()
            for i in np.flatnonzero(self._pending).tolist():
                self._results[i] = (observations[i], rewards[i], ends[i], infos.get(i, {}))
            self._pending[:] = False
        return self._results.pop(index_env)

    def call_at(
        self, index: int, function_name: str, function_args: dict[str, Any] | None = None
    ) -> Any:
        """Ask one environment one of `_ASKED`."""
        if function_name not in _ASKED:
            raise UserError(
                f"environments in one process have no {function_name!r}; there are"
                f" {', '.join(_ASKED)}"
            )
        return getattr(self, function_name)(index, **(function_args or {}))

    def close(self) -> None:  # noqa: B027
        """Nothing is open."""


class InProcessVectorEnvFactory(VectorEnvFactory, ABC):
    """Makes one by what Habitat's trainers call."""

    @abstractmethod
    def make_envs(self, config: DictConfig, count: int, is_eval: bool) -> InProcessVectorEnv:
        """`count` environments of a training or an evaluation."""

    def construct_envs(
        self,
        config: DictConfig,
        workers_ignore_signals: bool = False,
        enforce_scenes_greater_eq_environments: bool = False,
        is_first_rank: bool = True,
    ) -> InProcessVectorEnv:
        """The environments of a training, or, where the third argument is True, an evaluation."""
        count = config.habitat_baselines.num_environments
        check_at_least_one("habitat_baselines.num_environments", count)
        return self.make_envs(config, count, enforce_scenes_greater_eq_environments)


def deal_houses(houses: Sequence[str], count: int, is_eval: bool) -> list[list[str]]:
    """The houses of each of `count` environments; with fewer houses than that, all play all.

    Of several processes that train together, each with `count` environments, every one deals out to
    those of all, and takes its own. Evaluations share their trials in another way.
    """
    _, rank, processes = ALONE if is_eval else ranks()
    everywhere = count * processes
    own = range(rank * count, (rank + 1) * count)
    if len(houses) < everywhere:
        return [list(houses) for _ in own]
    return [list(houses[index::everywhere]) for index in own]


def measures_of(step: BatchedStep, only: BoolArray) -> dict[int, dict[str, Any]]:
    """Environment -> measures by name, of the environments `only` [N]."""
    # The same keys at every step: Habitat's statistics stack them over environments.
    measures = {name: values.tolist() for name, values in step.measures.items()}
    which = np.flatnonzero(only).tolist()
    return {i: {name: values[i] for name, values in measures.items()} for i in which}


def _rows(observations: Observation) -> list[Observation]:
    """One dict per environment, of rows of copies."""
    copies = [array.copy() for array in observations.values()]
    return [dict(zip(observations, rows, strict=True)) for rows in zip(*copies, strict=True)]
