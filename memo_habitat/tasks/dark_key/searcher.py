"""A third reference: somebody who has to search, but forgets nothing."""

from __future__ import annotations

import numpy as np

from memo_habitat.tasks.dark_key.layouts import IntArray
from memo_habitat.tasks.dark_key.oracle import towards, ways
from memo_habitat.tasks.dark_key.rules import BoolArray, Trials

_UNKNOWN = -1
_NEVER = 2**30


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
