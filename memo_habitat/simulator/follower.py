"""The next best action: which turn, followed by a step, comes nearest to a goal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

#: A turn must be worth this many metres, so that equal ways do not alternate.
_TURN_COST = 1e-3


def forward(position: np.ndarray, heading: float, length: float) -> np.ndarray:
    """The point [3] `length` m ahead of a pose."""
    return position + length * np.array([-math.sin(heading), 0.0, -math.cos(heading)])


def next_best_action(
    position: np.ndarray,
    heading: float,
    step: float,
    turn: float,
    move: Callable[[np.ndarray, np.ndarray], np.ndarray],
    distance: Callable[[np.ndarray], float],
    reach: float | None = None,
) -> str | None:
    """The first action of the best sequence "turn k times one way, then step".

    Args:
        position: [3] m.
        heading: rad.
        step: length of move_forward, m.
        turn: angle of turn_left and turn_right, rad.
        move: where a move from one point towards another ends.
        distance: geodesic distance of a point to the goals, m.
        reach: so near to a goal counts as arrived, m; half a step when not given.

    Returns:
        None when a goal is within reach, when no step comes nearer to one within a step, or
        when none can be reached.
    """
    left = distance(position)
    if left <= (step / 2 if reach is None else reach) or not math.isfinite(left):
        return None
    best, action, nearest = math.inf, None, math.inf
    for k in sorted(range(-int(math.pi / turn), int(math.pi / turn) + 1), key=abs):
        ahead = forward(position, heading + k * turn, step)
        there = distance(move(position, ahead))
        if there + _TURN_COST * abs(k) < best:
            best = there + _TURN_COST * abs(k)
            nearest = there
            action = "move_forward" if k == 0 else ("turn_left" if k > 0 else "turn_right")
    if nearest >= left - _TURN_COST and left <= step:
        return None
    return action


class GreedyFollower:
    """What Habitat's `ShortestPathFollower` asks of the simulator: actions towards one goal."""

    def __init__(self, choose: Callable[[np.ndarray, float], str | None], keys: Any, radius: float):
        """`choose(goals, reach)` gives an action's name or None; `keys` maps names (and "stop")
        to what `next_action_along` returns; `radius` m around the goal counts as arrived."""
        self._choose, self._keys, self._radius = choose, keys, radius

    def next_action_along(self, goal: Any) -> Any:
        """The key of the next action towards a point [3]."""
        goals = np.asarray(goal, dtype=np.float64).reshape(1, 3)
        return self._keys[self._choose(goals, self._radius) or "stop"]

    def reset(self) -> None:
        """Nothing is remembered between actions."""
