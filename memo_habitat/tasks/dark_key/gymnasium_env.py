"""One trial of Dark-Key-To-Door as a Gymnasium environment.

import gymnasium
import memo_habitat.tasks.dark_key.gymnasium_env
env = gymnasium.make("memo_habitat/DarkKeyToDoor-v0", size=5, episode_steps=25, trial_steps=150)
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from memo_habitat.tasks.dark_key import register
from memo_habitat.tasks.dark_key.layouts import ACTIONS, DrawnLayouts, Setting
from memo_habitat.tasks.dark_key.rules import Trials

_DEFAULT = Setting()
_LARGEST_SEED = 2**62
_FLOOR, _LINE = (245, 245, 240), (205, 205, 200)
_START, _DOOR, _KEY = (160, 160, 165), (140, 80, 45), (225, 165, 20)
_AGENT, _AGENT_WITH_KEY = (50, 95, 170), (40, 140, 80)


class DarkKeyToDoorEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """A Gymnasium episode is one trial, which it ends as terminated: its length is in the rules.

    The actions are up, down, left, right, stay. The observation is float32 [4]: x and y from 0 to
    1, holds the key, step of the episode as a share of its limit. With `meta` these follow, [12] in
    all: first step of an episode, reward of the step before, step of the trial as a share of it,
    and the action of the step before, one-hot, all 0 at the trial's first step.

    `info` says: `is_success` (the door was reached in this step), `episode_end` (this was the
    step of an episode's end; the observation is the next one's first, unless the trial is over
    too), `episode_number`, `episode_steps` and `trial_number`; at the trial's end also
    `trial_return`. `reset(seed=s)` begins with trial 0 of the seed's layouts and every further
    `reset()` goes on to the next.
    """

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 10}

    def __init__(
        self,
        size: int = _DEFAULT.size,
        episode_steps: int = _DEFAULT.episode_steps,
        trial_steps: int = _DEFAULT.trial_steps,
        meta: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """Make the environment; `layouts.SETTINGS` has three of the sizes."""
        self._setting = Setting(size, episode_steps, trial_steps)
        self._meta, self._width = meta, 12 if meta else 4
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(len(ACTIONS))
        self.observation_space = spaces.Box(0.0, 1.0, (self._width,), np.float32)
        self._seed: int | None = None
        self._number = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a trial."""
        super().reset(seed=seed)
        if seed is not None or self._seed is None:
            self._seed = int(self.np_random.integers(_LARGEST_SEED)) if seed is None else seed
            self._number = 0
            layouts = DrawnLayouts(self._seed, self._setting.cells)
            self._trials = Trials(
                self._setting, 1, layouts, lambda which: which + self._number, renew=False
            )
        else:
            self._number += 1
        observations = self._trials.reset()
        return self._observe(observations, action=None), {"trial_number": self._number}

    def step(
        self, action: np.int64
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take one step."""
        step = self._trials.step(np.array([action]))
        over = bool(step.trial_ends[0])
        info: dict[str, Any] = {
            "is_success": bool(step.successes[0]),
            "episode_end": bool(step.episode_ends[0]),
            "episode_number": int(step.episode_numbers[0]),
            "episode_steps": int(step.episode_lengths[0]),
            "trial_number": self._number,
        }
        if over:
            info["trial_return"] = float(step.trial_returns[0])
        seen = self._observe(step.observations, int(action))
        return seen, float(step.rewards[0]), over, False, info

    def render(self) -> Any:
        """The grid as a picture uint8 [H, W, 3], or as text."""
        if self.render_mode == "rgb_array":
            return draw(self._trials)
        if self.render_mode == "ansi":
            return self._text()
        return None

    def _observe(self, observations: dict[str, NDArray], action: int | None) -> NDArray[np.float32]:
        seen = np.zeros(self._width, dtype=np.float32)
        seen[:4] = observations["grid"][0]
        if self._meta:
            seen[4] = self._trials.episode_steps[0] == 0
            seen[5] = observations["last_reward"][0, 0]
            seen[6] = observations["trial_time"][0, 0]
            if action is not None:
                seen[7 + action] = 1.0
        return seen

    def _text(self) -> str:
        trials, size = self._trials, self._setting.size
        cells = ["."] * self._setting.cells
        cells[int(trials.starts[0])] = "s"
        cells[int(trials.doors[0])] = "D"
        if not trials.holds[0]:
            cells[int(trials.keys[0])] = "k"
        cells[int(trials.y[0]) * size + int(trials.x[0])] = "A"
        rows = ["".join(cells[y * size : (y + 1) * size]) for y in reversed(range(size))]
        return "\n".join(rows) + "\n"


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


register()
