"""Dark-Key-To-Door behind the part of `habitat.VectorEnv` that training and evaluation use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gym import spaces
from numpy.typing import NDArray

from memo_habitat.errors import UserError
from memo_habitat.tasks.dark_key.episodes import (
    ARRANGEMENT,
    RECORD_FIELDS,
    EpisodeLog,
    house_name,
)
from memo_habitat.tasks.dark_key.layouts import ACTIONS, DrawnLayouts, IntArray, Setting
from memo_habitat.tasks.dark_key.oracle import oracle_actions
from memo_habitat.tasks.dark_key.rules import BoolArray, Step, Trials
from memo_habitat.tasks.record_fields import Declaration

# The observation that the oracle agent of evaluations acts on (uuid).
ORACLE_ACTION = "oracle_action"

Observation = dict[str, NDArray]
StepResult = tuple[Observation, float, bool, dict[str, Any]]


class DarkKeyVectorEnv:
    """N trials in this process: no workers, and no loop over environments in `step_batch`.

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
        self,
        setting: Setting,
        num_envs: int,
        seed: int,
        oracle: bool = False,
        records: bool = False,
    ) -> None:
        """Environment i plays the trials i, i + N, i + 2 N, ... that are drawn from `seed`.

        Args:
            setting: grid and lengths.
            num_envs: N.
            seed: of the layouts.
            oracle: also observe `oracle_action` int64 [N, 1], the best action now.
            records: with each episode's end give the measures that an evaluation records.
        """
        if num_envs < 1:
            raise UserError(f"{num_envs} environments; at least 1 is needed")
        self.setting, self.num_envs, self._seed = setting, num_envs, seed
        self._queues: dict[int, list[int]] = {}
        self._played = np.zeros(num_envs, dtype=np.int64)
        self._trials = Trials(
            setting, num_envs, DrawnLayouts(seed, setting.cells), self._next_trials
        )
        self._oracle = np.zeros((num_envs, 1), dtype=np.int64) if oracle else None
        self._log = EpisodeLog(self._trials) if records else None
        self.observation_spaces = [observation_space(oracle)] * num_envs
        self.action_spaces = [spaces.Discrete(len(ACTIONS))] * num_envs
        self.orig_action_spaces = self.action_spaces
        self._actions = np.zeros(num_envs, dtype=np.int64)
        self._pending = np.zeros(num_envs, dtype=np.bool_)
        self._results: dict[int, StepResult] = {}

    # All at once --------------------------------------------------------------------------------

    def reset_batch(self) -> Observation:
        """Begin a trial in every environment; observations [N, ...], written again by steps."""
        self._played[:] = 0
        self._pending[:] = False
        self._results.clear()
        self._trials.layouts = DrawnLayouts(self._seed, self.setting.cells)
        observations = self._trials.reset()
        if self._log is not None:
            self._log.begin()
        return self._with_oracle(observations)

    def step_batch(self, actions: IntArray, only: BoolArray | None = None) -> Step:
        """One step of every environment, or of those where `only` [N] is True.

        Args:
            actions: integers [N].
            only: which to step; None: all.

        Returns:
            what `Step` describes. The arrays are the same ones after every step, with new values:
            a view of them, such as `torch.from_numpy` gives, can be made once and for all.
        """
        step = self._trials.step(actions, only)
        self._with_oracle(step.observations)
        return step

    # As Habitat's -------------------------------------------------------------------------------

    def reset(self) -> list[Observation]:
        """Begin a trial in every environment; their observations."""
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
            self._step_pending()
        return self._results.pop(index_env)

    def call_at(
        self, index: int, function_name: str, function_args: dict[str, Any] | None = None
    ) -> Any:
        """Ask one environment what an evaluation asks (`evaluation.schedule.TrialVectorEnv`)."""
        asked: dict[str, Callable[..., Any]] = {
            "arrangements": self._arrangements,
            "record_fields": self._record_fields,
            "schedule_trials": self._schedule_trials,
            "top_down_map": self._top_down_map,
        }
        if function_name not in asked:
            raise UserError(
                f"Dark-Key-To-Door has no {function_name!r}; there are {', '.join(asked)}"
            )
        return asked[function_name](index, **(function_args or {}))

    def close(self) -> None:
        """Nothing is open."""

    def _step_pending(self) -> None:
        which = np.flatnonzero(self._pending)
        everywhere = len(which) == self.num_envs
        if self._log is not None:
            self._log.before_step()
        step = self.step_batch(self._actions, None if everywhere else self._pending)
        infos: dict[int, dict[str, Any]] = {}
        if self._log is not None:
            infos = self._log.after_step(self._actions, step, which)
        else:
            # The same keys at every step: Habitat's statistics stack them over environments.
            measures = {name: values.tolist() for name, values in step.measures.items()}
            infos = {i: {k: v[i] for k, v in measures.items()} for i in which.tolist()}
        observations = _rows(step.observations)
        rewards, ends = step.rewards.tolist(), step.episode_ends.tolist()
        for i in which.tolist():
            self._results[i] = (observations[i], rewards[i], ends[i], infos.get(i, {}))
        self._pending[:] = False

    # What evaluations ask -----------------------------------------------------------------------

    def _arrangements(self, index: int) -> list[tuple[str, str]]:
        """All trials of this setting are repetitions of one arrangement."""
        return [(house_name(self.setting.size), ARRANGEMENT)]

    def _record_fields(self, index: int) -> Declaration:
        return dict(RECORD_FIELDS)

    def _schedule_trials(
        self, index: int, trials: Sequence[tuple[str, str, int]], seed: int
    ) -> None:
        """From the next reset on play these trials, drawn from `seed` in all environments."""
        self._queues[index] = [int(number) for _, _, number in trials]
        self._seed = seed

    def _top_down_map(self, index: int, resolution: float) -> dict[str, Any]:
        """The empty grid, one cell per metre whatever resolution is asked for."""
        free = np.ones((self.setting.size, self.setting.size), dtype=np.bool_)
        return {"free": free, "origin": (-0.5, -0.5), "resolution": 1.0}

    def _next_trials(self, which: IntArray) -> IntArray:
        numbers: IntArray = which + self._played[which] * self.num_envs
        if self._queues:
            for row, env in enumerate(which.tolist()):
                if queue := self._queues.get(env):
                    numbers[row] = queue[self._played[env] % len(queue)]
        self._played[which] += 1
        return numbers

    def _with_oracle(self, observations: Observation) -> Observation:
        if self._oracle is not None:
            self._oracle[:, 0] = oracle_actions(self._trials)
            observations[ORACLE_ACTION] = self._oracle
        return observations


def observation_space(oracle: bool = False) -> spaces.Dict:
    """Spaces of one environment's observations, by uuid."""
    found = {
        "grid": spaces.Box(0.0, 1.0, (4,), np.float32),
        "grid_before": spaces.Box(0.0, 1.0, (4,), np.float32),
        "last_reward": spaces.Box(0.0, 1.0, (1,), np.float32),
        "trial_step": spaces.Box(0, np.iinfo(np.int64).max, (1,), np.int64),
        "trial_time": spaces.Box(0.0, 1.0, (1,), np.float32),
        "visited_ahead": spaces.Box(0.0, 1.0, (len(ACTIONS),), np.float32),
    }
    if oracle:
        found[ORACLE_ACTION] = spaces.Box(0, len(ACTIONS) - 1, (1,), np.int64)
    return spaces.Dict(found)


def _rows(observations: Observation) -> list[Observation]:
    """One dict per environment, of rows of copies."""
    copies = [array.copy() for array in observations.values()]
    return [dict(zip(observations, rows, strict=True)) for rows in zip(*copies, strict=True)]
