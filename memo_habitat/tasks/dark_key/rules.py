"""The rules of Dark-Key-To-Door, for N trials at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memo_habitat.errors import UserError
from memo_habitat.tasks.dark_key.layouts import (
    ACTIONS,
    MOVES_X,
    MOVES_Y,
    IntArray,
    LayoutSource,
    Setting,
    Visits,
)

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]


class Step(NamedTuple):
    """What one step of N trials gives. All arrays are written again by the next step.

    Attributes:
        observations: uuid -> array [N, ...]. Where an episode ended, the next one's first
            observation; where a trial ended, the next trial's.

            - `grid` float32 [N, 4]: x and y from 0 to 1, holds the key, step of the episode as a
              share of its limit;
            - `grid_before` float32 [N, 4]: `grid` of the step before; 0 at a trial's first step.
              Nothing new to who remembers that step; with the last action and reward it makes
              one observation tell a whole transition, also one that ended an episode;
            - `last_reward` float32 [N, 1]: reward of the step before; 0 at a trial's first step;
            - `trial_step` int64 [N, 1]: steps taken in the trial; 0 at its first observation;
            - `trial_time` float32 [N, 1]: the same as a share of the trial;
            - `visited_ahead` float32 [N, 5]: per action, 1 if the agent has been observed in this
              trial in the cell it leads to, with the key or without it as now. The cell in which an
              episode ended does not count: what is observed then is the start. A perfect memory of
              the way so far: something for auxiliary losses to predict, never an input of a policy.
        rewards: float32 [N], 0 or 1.
        episode_ends: bool [N], at the door, by the time limit, or with the trial.
        trial_ends: bool [N].
        successes: bool [N], whether the door was reached with the key in this step.
        episode_lengths: int64 [N], steps of the episode so far, this one included.
        episode_numbers: int64 [N], number in its trial of the episode that this step belongs to.
        trial_returns: float32 [N], sum of the trial's rewards so far, this one included.
        cells: int64 [N], the cell that the step led to, before any return to the start.
    """

    observations: dict[str, NDArray]
    rewards: FloatArray
    episode_ends: BoolArray
    trial_ends: BoolArray
    successes: BoolArray
    episode_lengths: IntArray
    episode_numbers: IntArray
    trial_returns: FloatArray
    cells: IntArray


class Trials:
    """N trials in lockstep, each followed by a new one unless `renew` is False.

    Environment i plays the trials i, i + N, i + 2 N, ... of its source of layouts, or those that
    `next_trials` names. Nothing is allocated while stepping but where episodes end.

    Attributes:
        setting: grid and lengths.
        count: N.
        x, y: int64 [N], where the agents are.
        holds: bool [N], whether they hold the key.
        episode_steps: int64 [N], steps taken in the episode.
        trial_steps: int64 [N], steps taken in the trial.
        trial_numbers: int64 [N], number of the trial being played.
        starts, keys, doors: int64 [N], cells of that trial.
    """

    def __init__(
        self,
        setting: Setting,
        count: int,
        layouts: LayoutSource,
        next_trials: Callable[[IntArray], IntArray] | None = None,
        renew: bool = True,
    ) -> None:
        """Prepare `count` trials; `reset` begins them.

        Args:
            setting: grid and lengths.
            count: how many trials run at once.
            layouts: where start, key and door of a trial lie.
            next_trials: for environments [M], the numbers of the trials they play next.
            renew: begin a new trial where one ends. Otherwise the last observation of a trial
                shows how it ended, and `reset` is due.
        """
        if count < 1:
            raise UserError(f"{count} trials at once; give at least 1")
        self.setting, self.count, self.layouts = setting, count, layouts
        self._next_trials = next_trials or self._in_turns
        self._renew = renew
        self._begun = False
        self.x, self.y, self.cells = _integers(count), _integers(count), _integers(count)
        self.starts, self.keys, self.doors = _integers(count), _integers(count), _integers(count)
        self._start_x, self._start_y = _integers(count), _integers(count)
        self.holds = np.zeros(count, dtype=np.bool_)
        self.episode_steps, self._episode_numbers = _integers(count), _integers(count)
        self.trial_steps, self.trial_numbers = _integers(count), _integers(count)
        self._moves = _integers(count)
        self._flags = np.zeros(count, dtype=np.bool_)
        self._visits = Visits(setting.size, count)
        self._step = _empty_step(count, self.trial_steps, self.cells)
        # What a step changes outside of `begin`.
        self._changing = (
            *(self.x, self.y, self.holds, self.episode_steps, self.trial_steps),
            *(self._episode_numbers, self._visits.visited),
            *(*self._step.observations.values(), *self._step[1:]),
        )
        self._coordinates = _shares(setting.size - 1)
        self._episode_times = _shares(setting.episode_steps)
        self._trial_times = _shares(setting.trial_steps)

    def reset(self) -> dict[str, NDArray]:
        """Begin new trials everywhere, the first ones of the numbering; their observations."""
        self._begun = False
        self.begin(np.arange(self.count))
        self._begun = True
        for array in self._step[1:]:
            array[:] = 0
        self.cells[:] = self.starts
        self._observe()
        return self._step.observations

    @property
    def last(self) -> Step:
        """What the last step gave."""
        return self._step

    def step(self, actions: IntArray, only: BoolArray | None = None) -> Step:
        """Take one step in each of the N trials.

        Args:
            actions: integers [N] in [0, 5): up, down, left, right, stay.
            only: bool [N]; trials where it is False stand still, and what is returned of them is
                what it was. None: all step, which is faster.

        Raises:
            UserError: actions of another shape or range, or a trial that is over or never began.
        """
        self._check(actions)
        out, setting = self._step, self.setting
        rest = None if only is None else np.flatnonzero(~only)
        kept = [] if rest is None else [array[rest] for array in self._changing]
        # What the step before left behind is kept until here, for those who ask in between.
        np.multiply(out.trial_returns, ~out.trial_ends, out=out.trial_returns)
        out.observations["grid_before"][:] = out.observations["grid"]
        self._move(actions)
        np.multiply(self.y, setting.size, out=self.cells)
        self.cells += self.x

        # Each reward needs a step of its own: the door counts only if the key was held before.
        successes = np.equal(self.cells, self.doors, out=out.successes)
        successes &= self.holds
        found = np.equal(self.cells, self.keys, out=self._flags)
        found &= np.logical_not(self.holds)
        self.holds |= found
        np.logical_or(found, successes, out=out.rewards, casting="unsafe")
        np.add(out.trial_returns, out.rewards, out=out.trial_returns)

        self.episode_steps += 1
        self.trial_steps += 1
        out.episode_lengths[:] = self.episode_steps
        out.episode_numbers[:] = self._episode_numbers
        np.equal(self.episode_steps, setting.episode_steps, out=out.episode_ends)
        np.logical_or(out.episode_ends, successes, out=out.episode_ends)
        trial_ends = np.equal(self.trial_steps, setting.trial_steps, out=out.trial_ends)
        if only is not None:
            trial_ends &= only  # no new trial begins where time stands still
        out.observations["last_reward"][:, 0] = out.rewards
        self._end()
        self._observe()
        if rest is not None:
            for array, values in zip(self._changing, kept, strict=True):
                array[rest] = values
        return out

    def begin(self, which: IntArray) -> None:
        """Begin the next trial of the environments `which` [M]."""
        numbers = self._next_trials(which)
        layout = self.layouts.of(numbers)
        self.trial_numbers[which] = numbers
        self.starts[which], self.keys[which], self.doors[which] = layout.T
        self._start_y[which], self._start_x[which] = np.divmod(layout[:, 0], self.setting.size)
        self.trial_steps[which] = 0
        self._episode_numbers[which] = -1
        self._step.observations["last_reward"][which] = 0.0
        self._step.observations["grid_before"][which] = 0.0
        self._visits.forget(which)
        self._begin_episodes(which)

    def _begin_episodes(self, which: IntArray) -> None:
        self.x[which], self.y[which] = self._start_x[which], self._start_y[which]
        self.holds[which] = False
        self.episode_steps[which] = 0
        self._episode_numbers[which] += 1

    def _move(self, actions: IntArray) -> None:
        last = self.setting.size - 1
        for position, moves in ((self.x, MOVES_X), (self.y, MOVES_Y)):
            # The actions have been checked: "clip" only spares `take` a copy.
            position += np.take(moves, actions, out=self._moves, mode="clip")
            np.maximum(position, 0, out=position)
            np.minimum(position, last, out=position)

    def _end(self) -> None:
        """Return to the start, or to a new trial, where something ended; costs no step."""
        out = self._step
        over = np.flatnonzero(out.episode_ends)
        if len(over):
            self._begin_episodes(over)
        trials_over = np.flatnonzero(out.trial_ends)
        if len(trials_over):
            out.episode_ends[trials_over] = True
            if self._renew:
                self.begin(trials_over)

    def _observe(self) -> None:
        observations = self._step.observations
        grid = observations["grid"]
        grid[:, 0] = self._coordinates[self.x]
        grid[:, 1] = self._coordinates[self.y]
        grid[:, 2] = self.holds
        grid[:, 3] = self._episode_times[self.episode_steps]
        observations["trial_time"][:, 0] = self._trial_times[self.trial_steps]
        self._visits.enter(self.x, self.y, self.holds)
        self._visits.ahead(out=observations["visited_ahead"])

    def _in_turns(self, which: IntArray) -> IntArray:
        return self.trial_numbers[which] + self.count if self._begun else which

    def _check(self, actions: IntArray) -> None:
        if np.shape(actions) != (self.count,):
            raise UserError(
                f"actions of shape {np.shape(actions)}; give one for each of the "
                f"{self.count} trials"
            )
        if int(actions.min()) < 0 or int(actions.max()) >= len(ACTIONS):
            raise UserError(
                f"actions from {actions.min()} to {actions.max()}; "
                f"0 to {len(ACTIONS) - 1} are {', '.join(ACTIONS)}"
            )
        over = not self._renew and bool(self._step.trial_ends.any())
        if not self._begun or over:
            raise UserError("a trial is over or has not begun; call reset before step")


def _integers(count: int) -> IntArray:
    return np.zeros(count, dtype=np.int64)


def _empty_step(count: int, trial_steps: IntArray, cells: IntArray) -> Step:
    """Arrays of zeros to be written by every step; two of them are the trials' own."""
    flags = np.zeros((3, count), dtype=np.bool_)
    return Step(
        observations={
            "grid": _reals(count, 4),
            "grid_before": _reals(count, 4),
            "last_reward": _reals(count, 1),
            "trial_step": trial_steps[:, None],
            "trial_time": _reals(count, 1),
            "visited_ahead": _reals(count, len(ACTIONS)),
        },
        rewards=_reals(count),
        episode_ends=flags[0],
        trial_ends=flags[1],
        successes=flags[2],
        episode_lengths=_integers(count),
        episode_numbers=_integers(count),
        trial_returns=_reals(count),
        cells=cells,
    )


def _reals(*shape: int) -> NDArray:
    return np.zeros(shape, dtype=np.float32)


def _shares(last: int) -> FloatArray:
    """0 / last, 1 / last, ..., 1."""
    shares: FloatArray = (np.arange(last + 1) / last).astype(np.float32)
    return shares
