"""What an evaluation writes down of each episode: path, shortest way, what was reached."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memo_habitat.tasks import record_fields
from memo_habitat.tasks.dark_key.layouts import STAY, IntArray
from memo_habitat.tasks.dark_key.oracle import steps_to_door, ways
from memo_habitat.tasks.dark_key.rules import Step, Trials
from memo_habitat.tasks.record_fields import EPISODE_MEASURE, RecordField

_FLOOR, _LINE = (245, 245, 240), (205, 205, 200)
_START, _DOOR, _KEY = (160, 160, 165), (140, 80, 45), (225, 165, 20)
_AGENT, _AGENT_WITH_KEY = (50, 95, 170), (40, 140, 80)


def draw(trials: Trials, index: int = 0, cell_pixels: int = 24) -> NDArray[np.uint8]:
    """One of the trials from above, uint8 [H, W, 3], y upwards.

    The start cell is framed in grey, the door in brown, a key not yet found is a yellow square;
    the agent is a blue disc, green while it holds the key.
    """
    size = trials.setting.size
    side = size * cell_pixels
    image = np.empty((side, side, 3), dtype=np.uint8)
    image[:] = _FLOOR
    image[::cell_pixels] = image[:, ::cell_pixels] = _LINE
    across = (np.arange(cell_pixels) + 0.5) / cell_pixels - 0.5
    distance = np.maximum(np.abs(across)[:, None], np.abs(across)[None])
    frame = distance > 0.36

    def paint(cell: int, where: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
        y, x = divmod(cell, size)
        top, left = (size - 1 - y) * cell_pixels, x * cell_pixels
        image[top : top + cell_pixels, left : left + cell_pixels][where] = colour

    paint(int(trials.starts[index]), frame & (distance > 0.44), _START)
    paint(int(trials.doors[index]), frame & (distance <= 0.44), _DOOR)
    disc = across[:, None] ** 2 + across[None] ** 2 < 0.3**2
    here = int(trials.y[index]) * size + int(trials.x[index])
    paint(here, disc, _AGENT_WITH_KEY if trials.holds[index] else _AGENT)
    if not trials.holds[index]:
        # Over the agent: the two may share a cell before the key is found.
        paint(int(trials.keys[index]), distance < 0.14, _KEY)
    return image


# What a trial is called in records: all of a setting are one arrangement of one "house", and the
# trial's number is the repetition.
ARRANGEMENT = "drawn"
TARGET = "door"
_FIELDS = (
    replace(
        record_fields.SUCCESS,
        text="Share of episodes in which the door was reached with the key before the time was up.",
    ),
    replace(
        record_fields.SPL,
        text="Success × d / max(d, p), mean over episodes: d is the fewest steps in which the door "
        "can be reached by way of the key, p the steps taken.",
    ),
    replace(
        record_fields.SOFT_SPL,
        text="As SPL, with the share of the way covered, max(0, 1 − steps left / d), in place of "
        "success.",
    ),
    replace(
        record_fields.DISTANCE_TO_GOAL,
        unit="cells",
        text="Steps left from the episode’s end to the door, by way of a key not yet found.",
    ),
    record_fields.NUM_STEPS,
    record_fields.COLLISIONS,
)
# What the measures of an episode are in its record, by the names that `EpisodeLog` gives them.
RECORD_FIELDS: dict[str, RecordField | None] = {field.name: field for field in _FIELDS}


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
            "success": float(success),
            "spl": success * efficiency,
            "soft_spl": max(0.0, 1.0 - left / shortest) * efficiency,
            "distance_to_goal": float(left),
            "num_steps": length,
            "collisions": int(self._bumps[env]),
            EPISODE_MEASURE: {
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
