"""Where start, key and door lie in each trial, drawn from a seed and the trial's number alone."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memo_habitat.errors import UserError

IntArray = NDArray[np.int64]

# Trials whose layouts are drawn together: seeding a generator costs as much as some hundred draws.
BLOCK = 1024
# Blocks that are remembered: 24 KiB each.
_KEPT = 64


class LayoutSource(Protocol):
    """Tells the layout of any trial."""

    def of(self, trials: IntArray) -> IntArray:
        """Cells (start, key, door) of the trials with these numbers [M]: [M, 3]."""
        ...


class DrawnLayouts:
    """Start, key and door of every trial drawn independently and uniformly.

    The layout of a trial depends on the seed, the grid and the trial's number, and on nothing else:
    not on the number of environments, not on what was asked for before.
    """

    def __init__(self, seed: int, cells: int) -> None:
        """Draw from `seed` (from 0 on) on a grid of `cells` cells."""
        if seed < 0:
            raise UserError(f"the seed of the layouts is {seed}; give a whole number from 0 on")
        self._seed = seed
        self._cells = cells
        self._blocks: OrderedDict[int, IntArray] = OrderedDict()

    def of(self, trials: IntArray) -> IntArray:
        """Cells (start, key, door) of the trials with these numbers [M]: [M, 3]."""
        found = np.empty((len(trials), 3), dtype=np.int64)
        if len(trials) and int(trials.min()) < 0:
            raise UserError(f"trial {trials.min()} has no layout; trials are numbered from 0")
        blocks, rows = np.divmod(trials, BLOCK)
        for block in np.unique(blocks).tolist():
            inside = blocks == block
            found[inside] = self._block(block)[rows[inside]]
        return found

    def _block(self, number: int) -> IntArray:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(number,)))
        drawn = self._blocks[number] = rng.integers(self._cells, size=(BLOCK, 3))
        if len(self._blocks) > _KEPT:
            self._blocks.popitem(last=False)
        return drawn


class GivenLayouts:
    """The layouts of a list, from its beginning again when it is used up."""

    def __init__(self, layouts: IntArray, cells: int) -> None:
        """Take `layouts` [K, 3], cells (start, key, door) on a grid of `cells` cells."""
        layouts = np.asarray(layouts, dtype=np.int64)
        if layouts.ndim != 2 or layouts.shape[1] != 3 or len(layouts) == 0:
            raise UserError(
                f"layouts of shape {layouts.shape}; give [K, 3]: start, key and door of K trials"
            )
        if int(layouts.min()) < 0 or int(layouts.max()) >= cells:
            raise UserError(
                f"layouts name the cells {layouts.min()} to {layouts.max()}; the grid has 0 to "
                f"{cells - 1}"
            )
        self._layouts = layouts

    def of(self, trials: IntArray) -> IntArray:
        """Cells (start, key, door) of the trials with these numbers [M]: [M, 3]."""
        return self._layouts[trials % len(self._layouts)]
