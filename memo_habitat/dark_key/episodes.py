"""What an evaluation writes down of each episode: path, shortest way, what was reached."""

from __future__ import annotations

from typing import Any

import numpy as np

from memo_habitat.dark_key.actions import STAY
from memo_habitat.dark_key.layouts import IntArray
from memo_habitat.dark_key.oracle import steps_to_door, ways
from memo_habitat.dark_key.rules import Step, Trials

# What a trial is called in records: all of a setting are one arrangement of one "house", and the
# trial's number is the repetition.
ARRANGEMENT = "drawn"
TARGET = "door"


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
        """Begin anew: the trials were reset."""
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
            "extobjnav_success": float(success),
            "spl": success * efficiency,
            "soft_spl": max(0.0, 1.0 - left / shortest) * efficiency,
            "distance_to_goal": float(left),
            "num_steps": float(length),
            "collisions": float(self._bumps[env]),
            "extobjnav_episode": {
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
