"""A trial as a picture, for films and for `render`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memo_habitat.dark_key.rules import Trials

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
