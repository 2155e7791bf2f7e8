"""The grid: its sizes and moves, layouts of trials, and the cells that a trial has seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memo_habitat.errors import UserError

ACTIONS = ("up", "down", "left", "right", "stay")
UP, DOWN, LEFT, RIGHT, STAY = range(len(ACTIONS))
# Steps along x and y that each action takes; y grows upwards.
MOVES_X = np.array([0, 0, -1, 1, 0])
MOVES_Y = np.array([1, -1, 0, 0, 0])


@dataclass(frozen=True)
class Setting:
    """One setting of Dark-Key-To-Door.

    Attributes:
        size: cells along each side of the grid.
        episode_steps: steps after which an episode ends without the door.
        trial_steps: steps of a trial, however many episodes they make.
    """

    size: int = 9
    episode_steps: int = 50
    trial_steps: int = 500

    def __post_init__(self) -> None:
        for name, least in (("size", 2), ("episode_steps", 1), ("trial_steps", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(
                    f"{name} of Dark-Key-To-Door is {value!r}; give a whole number from {least} on"
                )

    @property
    def cells(self) -> int:
        """Cells of the grid; cell `y * size + x` is the one at (x, y)."""
        return self.size * self.size


# The longest of all shortest episodes takes 4 * (size - 1) steps. The time limit is 50 / 32 of that
# at every size, so that the settings differ in the length of the way and not in how tight time is.
SETTINGS: dict[str, Setting] = {
    "quick": Setting(size=5, episode_steps=25, trial_steps=150),
    "default": Setting(size=9, episode_steps=50, trial_steps=500),
    "hard": Setting(size=13, episode_steps=75, trial_steps=1000),
}


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
        self._seed, self._cells = seed, cells
        self._block = lru_cache(maxsize=_KEPT)(self._draw)

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

    def _draw(self, number: int) -> IntArray:
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(number,)))
        return rng.integers(self._cells, size=(BLOCK, 3))


class Visits:
    """The cells in which N trials have observed their agents: a perfect memory of the way so far.

    Attributes:
        visited: float32 [N, 2, (size + 2)^2], 1 where the agent has been without the key (0)
            or with it (1). Around the grid lies a rim of ones: walls clip, so that ahead of a wall
            is the cell that one is on.
    """

    def __init__(self, size: int, count: int) -> None:
        """Nothing is known yet; `forget` before the first `enter` of each trial."""
        across = size + 2
        self.visited = np.ones((count, 2, across**2), dtype=np.float32)
        self._flat = self.visited.reshape(-1)
        self._across, self._rows = across, np.arange(count) * self.visited[0].size
        inner = np.arange(1, size + 1)
        self._cells = (inner[:, None] * across + inner).ravel()
        self._moves = MOVES_Y * across + MOVES_X
        self._here = np.zeros((count, 1), dtype=np.int64)
        self._ahead = np.zeros((count, len(self._moves)), dtype=np.int64)

    def forget(self, which: IntArray) -> None:
        """A new trial begins in the environments `which` [M]."""
        self.visited[which[:, None], :, self._cells] = 0.0

    def enter(self, x: IntArray, y: IntArray, holds: NDArray[np.bool_]) -> None:
        """The agents are at (x, y), with the key where `holds`; each [N]."""
        here = self._here[:, 0]
        np.multiply(holds, self._across, out=here)
        here += y
        here += 1
        here *= self._across
        here += x
        here += 1
        # `holds` put a whole grid of `across` lines below.
        here += self._rows
        self._flat[here] = 1.0

    def ahead(self, out: NDArray[np.float32]) -> None:
        """Whether each action leads to a visited cell, 0 or 1, into `out` [N, 5]."""
        np.add(self._here, self._moves, out=self._ahead)
        np.take(self._flat, self._ahead, out=out, mode="clip")
