"""Dark-Key-To-Door as a vector environment, with what an evaluation records of its episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from gym import spaces
from habitat_baselines.common.env_spec import EnvironmentSpec
from omegaconf import DictConfig

from memo_habitat.errors import UserError
from memo_habitat.simulator.interface import TopDownMap
from memo_habitat.tasks import record_fields
from memo_habitat.tasks.dark_key.layouts import ACTIONS, STAY, DrawnLayouts, IntArray, Setting
from memo_habitat.tasks.dark_key.oracle import oracle_actions, steps_to_door, ways
from memo_habitat.tasks.dark_key.rules import BoolArray, Step, Trials
from memo_habitat.tasks.record_fields import EPISODE_MEASURE, Declaration, RecordField
from memo_habitat.tasks.vector_env import (
    BatchedStep,
    InProcessVectorEnv,
    InProcessVectorEnvFactory,
    Observation,
)

# The observation that the oracle agent of evaluations acts on (uuid).
ORACLE_ACTION = "oracle_action"

# What a trial is called in records: all of a setting are one arrangement of one "house", and the
# trial's number is the repetition.
ARRANGEMENT = "drawn"
TARGET = "door"
_FIELDS = (
    replace(
        record_fields.SUCCESS,
        text="Share of episodes in which the door was reached with the key before the time was up.",
    ),
    replace(
        record_fields.SPL,
        text="Success × d / max(d, p), mean over episodes: d is the fewest steps in which the door "
        "can be reached by way of the key, p the steps taken.",
    ),
    replace(
        record_fields.SOFT_SPL,
        text="As SPL, with the share of the way covered, max(0, 1 − steps left / d), in place of "
        "success.",
    ),
    replace(
        record_fields.DISTANCE_TO_GOAL,
        unit="cells",
        text="Steps left from the episode’s end to the door, by way of a key not yet found.",
    ),
    record_fields.NUM_STEPS,
    record_fields.COLLISIONS,
)
# What the measures of an episode are in its record, by the names that `EpisodeLog` gives them.
RECORD_FIELDS: dict[str, RecordField | None] = {field.name: field for field in _FIELDS}


def house_name(size: int) -> str:
    """The name under which evaluations list the grids of this size."""
    return f"dark_key_{size}x{size}"


class EpisodeLog:
    """Follows the episodes of N trials and describes those that end.

    A cell counts as one metre, so that a way is as long as the steps it takes. As with the
    rewards, the way to a cell takes a step even from that cell.
    """

    def __init__(self, trials: Trials) -> None:
        """Follow `trials`; `begin` is due after each of their resets."""
        self._trials = trials
        count = trials.count
        self._path = np.zeros((count, trials.setting.episode_steps + 1), dtype=np.int64)
        self._bumps = np.zeros(count, dtype=np.int64)

    def begin(self) -> None:
        """Follow them from the start: the trials were reset."""
        self._path[:, 0] = self._trials.starts
        self._bumps[:] = 0

    def before_step(self) -> None:
        """Keep what a step that ends a trial replaces by the next trial's."""
        trials = self._trials
        self._numbers, self._steps = trials.trial_numbers.copy(), trials.trial_steps.copy()
        self._layouts = np.stack([trials.starts, trials.keys, trials.doors], axis=1)

    def after_step(self, actions: IntArray, step: Step, which: IntArray) -> dict[int, dict]:
        """Follow a step of the environments `which` [M].

        Returns:
            environment -> measures of the episode that ended there, by the names that evaluations
            know them by.
        """
        lengths, cells = step.episode_lengths[which], step.cells[which]
        unmoved = self._path[which, lengths - 1] == cells
        self._bumps[which] += unmoved & (actions[which] != STAY)
        self._path[which, lengths] = cells
        ended = which[step.episode_ends[which]]
        measures = {int(env): self._measures(int(env), step) for env in ended}
        self._path[ended, 0] = self._trials.starts[ended]
        self._bumps[ended] = 0
        return measures

    def _measures(self, env: int, step: Step) -> dict[str, Any]:
        size, layout = self._trials.setting.size, self._layouts[env]
        length, success = int(step.episode_lengths[env]), bool(step.successes[env])
        cells = self._path[env, : length + 1]
        to_key, to_door = (int(part[0]) for part in steps_to_door(layout[None], size))
        shortest = to_key + to_door
        left = 0 if success else _steps_left(cells, layout, size, to_door)
        efficiency = shortest / max(shortest, length)
        y, x = np.divmod(cells, size)
        end = int(self._steps[env]) + 1
        house, number = house_name(size), int(self._numbers[env])
        return {
            "success": float(success),
            "spl": success * efficiency,
            "soft_spl": max(0.0, 1.0 - left / shortest) * efficiency,
            "distance_to_goal": float(left),
            "num_steps": length,
            "collisions": int(self._bumps[env]),
            EPISODE_MEASURE: {
                "trial_id": f"{house}/{ARRANGEMENT}/{number}",
                "scene_id": house,
                "arrangement_id": ARRANGEMENT,
                "repetition": number,
                "episode_index": int(step.episode_numbers[env]),
                "target_category": TARGET,
                "trial_step_start": end - length,
                "trial_step_end": end,
                "start_distance": float(shortest),
                "path_length": float(np.count_nonzero(np.diff(cells))),
                "path": np.stack([x, y], axis=1).astype(np.float64),
                "start_position": np.array([x[0], 0.0, y[0]]),
                "goal_positions": np.array([[layout[2] % size, 0.0, layout[2] // size]]),
                "waypoint_positions": np.array([[layout[1] % size, 0.0, layout[1] // size]]),
                "grid_shape": [size, size],
                "truncated": not success and length < self._trials.setting.episode_steps,
            },
        }


def _steps_left(cells: IntArray, layout: IntArray, size: int, to_door: int) -> int:
    """Steps from the last of the path's cells to the door, by way of a key not yet found."""
    held = bool((cells[1:] == layout[1]).any())
    goal = layout[2:] if held else layout[1:2]
    return int(ways(cells[-1:], goal, size)[0]) + (0 if held else to_door)


class DarkKeyVectorEnv(InProcessVectorEnv):
    """N environments; the arrays of `step_batch` are the same ones after every step, with new
    values: a view of them, such as `torch.from_numpy` gives, can be made once and for all."""

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
        super().__init__(num_envs, observation_space(oracle), spaces.Discrete(len(ACTIONS)))
        self.setting, self._seed = setting, seed
        self._queues: dict[int, list[int]] = {}
        self._played = np.zeros(num_envs, dtype=np.int64)
        self._skipped = 0
        self._trials = Trials(
            setting, num_envs, DrawnLayouts(seed, setting.cells), self._next_trials
        )
        self._oracle = np.zeros((num_envs, 1), dtype=np.int64) if oracle else None
        self._log = EpisodeLog(self._trials) if records else None

    def reset_batch(self) -> Observation:
        """Begin a trial in every environment; observations [N, ...], written again by steps."""
        self._played[:] = self._skipped
        self._trials.layouts = DrawnLayouts(self._seed, self.setting.cells)
        observations = self._trials.reset()
        if self._log is not None:
            self._log.begin()
        return self._with_oracle(observations)

    def skip_trials(self, count: int) -> bool:
        """Let the next reset begin the trials that come after `count` whole ones."""
        self._skipped = count
        return True

    def step_batch(self, actions: IntArray, only: BoolArray | None = None) -> BatchedStep:
        """One step of every environment, or of those where `only` [N] is True."""
        step = self._trials.step(actions, only)
        measures = {"success": step.successes, "num_steps": step.episode_lengths}
        observations = self._with_oracle(step.observations)
        return BatchedStep(observations, step.rewards, step.episode_ends, measures)

    def step_with_infos(
        self, actions: IntArray, only: BoolArray
    ) -> tuple[BatchedStep, Mapping[int, dict[str, Any]]]:
        """Step those of `only`, and what is told of each: in an evaluation, of an episode's end."""
        if self._log is None:
            return super().step_with_infos(actions, only)
        self._log.before_step()
        step = self.step_batch(actions, None if only.all() else only)
        return step, self._log.after_step(actions, self._trials.last, np.flatnonzero(only))

    def arrangements(self, index: int) -> list[tuple[str, str]]:
        """All trials of this setting are repetitions of one arrangement."""
        return [(house_name(self.setting.size), ARRANGEMENT)]

    def record_fields(self, index: int) -> Declaration:
        """How the measures are recorded."""
        return dict(RECORD_FIELDS)

    def schedule_trials(
        self, index: int, trials: Sequence[tuple[str, str, int]], seed: int
    ) -> None:
        """From the next reset on play these trials, drawn from `seed` in all environments."""
        self._queues[index] = [int(number) for _, _, number in trials]
        self._seed = seed

    def top_down_map(self, index: int, resolution: float) -> TopDownMap:
        """The empty grid, one cell per metre whatever resolution is asked for."""
        free = np.ones((self.setting.size, self.setting.size), dtype=np.bool_)
        return TopDownMap(free, origin=(-0.5, -0.5), resolution=1.0)

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


class DarkKeyVectorEnvFactory(InProcessVectorEnvFactory):
    """Dark-Key-To-Door in the trainer's own process.

    Read from the config: `habitat.task.size`, `habitat.task.trial_steps`,
    `habitat.environment.max_episode_steps`, `habitat.seed`, `habitat_baselines.num_environments`,
    and in evaluations `habitat_baselines.evaluator.agent`.
    """

    def make_envs(self, config: DictConfig, count: int, is_eval: bool) -> DarkKeyVectorEnv:
        """Without a seed that evaluations use: a training would know the layouts they play."""
        habitat, evaluator = config.habitat, config.habitat_baselines.evaluator
        if not is_eval and habitat.seed == evaluator.seed:
            raise UserError(
                f"habitat.seed={habitat.seed}: evaluations draw their layouts from that seed "
                "(habitat_baselines.evaluator.seed), and a training would know them; take another, "
                f"such as habitat.seed={habitat.seed + 1}"
            )
        task, limit = habitat.task, habitat.environment.max_episode_steps
        return DarkKeyVectorEnv(
            Setting(task.size, limit, task.trial_steps),
            count,
            habitat.seed,
            oracle=is_eval and evaluator.agent == "oracle",
            records=is_eval,
        )

    def environment_spec(self) -> EnvironmentSpec:
        """Spaces of one environment as training observes it; they depend on no setting."""
        actions = spaces.Discrete(len(ACTIONS))
        return EnvironmentSpec(
            observation_space=observation_space(),
            action_space=actions,
            orig_action_space=actions,
        )
