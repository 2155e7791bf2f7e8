"""The two references on every layout: somebody who knows it, and uniformly random actions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from memo_habitat.tasks.dark_key.layouts import (
    ACTIONS,
    DOWN,
    LEFT,
    RIGHT,
    STAY,
    UP,
    IntArray,
    LayoutSource,
    Setting,
)
from memo_habitat.tasks.dark_key.rules import FloatArray, Trials

# Trials that `play` runs at the same time; faster than more of them, whose arrays leave the cache.
_TOGETHER = 4096
# Chooses the next action [N] of all trials.
Actor = Callable[[Trials], IntArray]


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


class RandomActions:
    """Uniformly random actions."""

    def __init__(self, seed: int) -> None:
        """Draw with a generator seeded with `seed`."""
        self._rng = np.random.default_rng(seed)

    def __call__(self, trials: Trials) -> IntArray:
        """Actions [N]."""
        return self._rng.integers(len(ACTIONS), size=trials.count)


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
