"""The five actions of Dark-Key-To-Door."""

from __future__ import annotations

import numpy as np

ACTIONS = ("up", "down", "left", "right", "stay")
UP, DOWN, LEFT, RIGHT, STAY = range(len(ACTIONS))
# Steps along x and y that each action takes; y grows upwards.
MOVES_X = np.array([0, 0, -1, 1, 0])
MOVES_Y = np.array([1, -1, 0, 0, 0])
