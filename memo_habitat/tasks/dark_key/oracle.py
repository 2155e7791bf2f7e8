"""References on every layout: one who knows it, and one who has to search but forgets nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from memo_habitat.tasks.dark_key.layouts import (
    DOWN,
    LEFT,
    RIGHT,
    STAY,
    UP,
    IntArray,
    LayoutSource,
    Setting,
)
from memo_habitat.tasks.dark_key.rules import BoolArray, FloatArray, Trials

# Trials that `play` runs at the same time; faster than more of them, whose arrays leave the cache.
_TOGETHER = 4096
# Chooses the next action [N] of all trials.
Actor = Callable[[Trials], IntArray]
_UNKNOWN = -1
_NEVER = 2**30


def oracle_actions(trials: Trials) -> IntArray:
    """The next action [N] on a shortest way to the key, or with the key to the door.

    On the wanted cell already, it stays: the reward needs a step of its own. No other way of
    acting collects more in a trial: every key and door is reached as early as can be.
    """
    return towards(np.where(trials.holds, trials.doors, trials.keys), trials)


def towards(goals: IntArray, trials: Trials) -> IntArray:
    """The next action [N] on a shortest way to the cells `goals` [N]; on them already, it stays."""
    goal_y, goal_x = np.divmod(goals, trials.setting.size)
    return np.select(
        [goal_x > trials.x, goal_x < trials.x, goal_y > trials.y, goal_y < trials.y],
        [RIGHT, LEFT, UP, DOWN],
        STAY,
    )


def steps_to_door(layouts: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """Fewest steps from the start to the key, and from there to the door, of layouts [M, 3].

    Returns:
        int64 [M] each, at least 1.
    """
    start, key, door = np.asarray(layouts).T
    return ways(start, key, size), ways(key, door, size)


def ways(here: IntArray, there: IntArray, size: int) -> IntArray:
    """Fewest steps [M] that end on the cells `there` [M]; where one stands there already, 1."""
    (here_y, here_x), (there_y, there_x) = np.divmod(here, size), np.divmod(there, size)
    steps: IntArray = np.maximum(np.abs(here_x - there_x) + np.abs(here_y - there_y), 1)
    return steps


def oracle_returns(setting: Setting, layouts: IntArray) -> IntArray:
    """Return of a trial [M] that `oracle_actions` reach in the layouts [M, 3], without playing."""
    to_key, to_door = steps_to_door(layouts, setting.size)
    episode = to_key + to_door
    reached = episode <= setting.episode_steps
    length = np.minimum(episode, setting.episode_steps)
    whole, rest = np.divmod(setting.trial_steps, length)
    keys = (to_key <= setting.episode_steps).astype(np.int64)
    returns: IntArray = whole * (keys + reached) + keys * (rest >= to_key)
    return returns


class Searcher:
    """Looks into the nearest cells first, and goes straight to what it has found in the trial.

    What it collects less than the oracle is what exploring costs. Of cells that are equally near it
    takes the one with the fewest neighbours still to be looked into, which leaves no holes behind:
    a good search, not the best possible one.
    """

    def __init__(self) -> None:
        self._trials: Trials | None = None

    def __call__(self, trials: Trials) -> IntArray:
        """The next action [N] of each trial; to be asked before every step."""
        if trials is not self._trials:
            self._begin(trials)
        self._learn(trials)
        goals = self._places[self._rows, self._held]
        searching = np.flatnonzero(goals == _UNKNOWN)
        here = trials.y[searching] * self._size + trials.x[searching]
        unlooked = ~self._looked[searching, self._held[searching]]
        goals[searching] = self._nearest(here, unlooked)
        return towards(goals, trials)

    def _begin(self, trials: Trials) -> None:
        count, cells = trials.count, np.arange(trials.setting.cells)
        self._trials, self._size, self._rows = trials, trials.setting.size, np.arange(count)
        self._ways = ways(cells[:, None], cells, self._size)
        # Whether the last step was made with the key: 0 or 1. By it: the cells that were entered,
        # and where the key was found, or the door.
        self._held = np.zeros(count, dtype=np.int64)
        self._looked = np.zeros((count, 2, len(cells)), dtype=np.bool_)
        self._places = np.full((count, 2), _UNKNOWN)

    def _learn(self, trials: Trials) -> None:
        """Take in what the last step showed, where it was not another trial's."""
        begun = trials.trial_steps == 0
        self._looked[begun], self._places[begun] = False, _UNKNOWN
        step, which = trials.last, np.flatnonzero(~begun)
        held, cells, paid = self._held[which], step.cells[which], step.rewards[which] > 0
        self._looked[which, held, cells] = True
        self._places[which[paid], held[paid]] = cells[paid]
        self._held[:] = trials.holds

    def _nearest(self, here: IntArray, unlooked: BoolArray) -> IntArray:
        """The cells [M] to look into next; here: [M], unlooked: [M, cells]."""
        grid = unlooked.reshape(-1, self._size, self._size)
        neighbours = np.zeros(grid.shape, dtype=np.int64)
        neighbours[:, 1:] += grid[:, :-1]
        neighbours[:, :-1] += grid[:, 1:]
        neighbours[:, :, 1:] += grid[:, :, :-1]
        neighbours[:, :, :-1] += grid[:, :, 1:]
        # No cell has more than four: the way counts first.
        order = 5 * self._ways[here] + neighbours.reshape(unlooked.shape)
        nearest: IntArray = np.where(unlooked, order, _NEVER).argmin(axis=1)
        return nearest


def play(setting: Setting, layouts: LayoutSource, count: int, actor: Actor) -> FloatArray:
    """Returns float32 [count] that `actor` collects in the trials 0 to count - 1 of `layouts`."""
    returns = np.empty(count, dtype=np.float32)
    for first in range(0, count, _TOGETHER):
        numbers = np.arange(first, min(first + _TOGETHER, count))
        trials = Trials(setting, len(numbers), layouts, numbers.__getitem__, renew=False)
        trials.reset()
        for _ in range(setting.trial_steps):
            returns[numbers] = trials.step(actor(trials)).trial_returns
    return returns
