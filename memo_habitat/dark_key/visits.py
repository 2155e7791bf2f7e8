"""In which cells a trial has observed its agent, with the key and without it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memo_habitat.dark_key.actions import MOVES_X, MOVES_Y
from memo_habitat.dark_key.layouts import IntArray


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
