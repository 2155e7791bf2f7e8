"""Small repeating textures for floors and walls, and panels for windows, doors and pictures."""

from __future__ import annotations

import colorsys

import numpy as np

from memo_habitat.scenes.floor_plan import Draw

SIDE = 32
"""Pixels along each side of a texture."""
TILE = 1.28
"""Metres that one repetition covers (4 cm a pixel)."""

Shade = tuple[float, float, float]


def _colour(hue: float, saturation: float, value: float) -> Shade:
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return 255 * r, 255 * g, 255 * b


def _finish(base: Shade, light: np.ndarray) -> np.ndarray:
    """The base colour times a brightness per pixel [H, W], as [H, W, 3] uint8."""
    image = np.asarray(base)[None, None, :] * light[:, :, None]
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)


def _noise(draw: Draw, amount: float) -> np.ndarray:
    values = [1.0 + amount * (draw.unit() - 0.5) for _ in range(SIDE * SIDE)]
    return np.asarray(values).reshape(SIDE, SIDE)


def floor_texture(draw: Draw, wet: bool) -> np.ndarray:
    """Planks, tiles or carpet, [H, W, 3] uint8; ``wet`` rooms have tiles."""
    kind = "tiles" if wet else draw.choice(("planks", "planks", "carpet", "tiles"))
    light = _noise(draw, 0.06)
    if kind == "planks":
        for row in range(0, SIDE, 4):
            seam = draw.integer(0, SIDE - 1)
            light[row : row + 4] *= 0.9 + 0.2 * draw.unit()
            light[row : row + 4, seam] *= 0.75
            light[row] *= 0.85
        base = _colour(0.08 + 0.03 * draw.unit(), 0.2 + 0.2 * draw.unit(), 0.5 + 0.35 * draw.unit())
    elif kind == "tiles":
        contrast = 0.8 + 0.2 * draw.unit()
        for row in range(0, SIDE, 8):
            for column in range(0, SIDE, 8):
                if (row + column) % 16:
                    light[row : row + 8, column : column + 8] *= contrast
        light[::8] *= 0.8
        light[:, ::8] *= 0.8
        base = _colour(draw.unit(), 0.02 + 0.12 * draw.unit(), 0.55 + 0.3 * draw.unit())
    else:
        light = _noise(draw, 0.22)
        base = _colour(draw.unit(), 0.04 + 0.12 * draw.unit(), 0.45 + 0.35 * draw.unit())
    return _finish(base, light)


def wall_texture(draw: Draw, wet: bool) -> np.ndarray:
    """Paint, striped paper or tiles in a pale colour, [H, W, 3] uint8."""
    kind = "tiles" if wet else draw.choice(("paint", "paint", "stripes", "panels"))
    light = _noise(draw, 0.03)
    if kind == "stripes":
        width = draw.choice((2, 4, 8))
        for column in range(0, SIDE, 2 * width):
            light[:, column : column + width] *= 0.9
    elif kind == "tiles":
        light[::8] *= 0.86
        light[:, ::8] *= 0.86
    elif kind == "panels":
        light[:, ::16] *= 0.82
        light[:, 1::16] *= 0.92
    base = _colour(draw.unit(), 0.03 + 0.11 * draw.unit(), 0.78 + 0.22 * draw.unit())
    return _finish(base, light)


def ceiling_texture() -> np.ndarray:
    """Plain off-white, [8, 8, 3] uint8."""
    return np.full((8, 8, 3), (236, 235, 231), dtype=np.uint8)


def trim_texture() -> np.ndarray:
    """The paint of door frames, [8, 8, 3] uint8."""
    return np.full((8, 8, 3), (214, 208, 198), dtype=np.uint8)


def rug_texture(draw: Draw) -> np.ndarray:
    """A rug with a border, stretched once over its floor, [H, W, 3] uint8."""
    hue = draw.unit()
    image = _finish(_colour(hue, 0.22, 0.55), _noise(draw, 0.15))
    image[2:-2, 2:-2] = _finish(_colour(hue, 0.14, 0.78), _noise(draw, 0.15))[2:-2, 2:-2]
    for step in range(4, 12, 4):
        image[step : step + 1, step:-step] = image[-step - 1 : -step, step:-step] = image[0, 0]
        image[step:-step, step : step + 1] = image[step:-step, -step - 1 : -step] = image[0, 0]
    return image


def window_texture(draw: Draw) -> np.ndarray:
    """A window with a white frame and a pale sky, [H, W, 3] uint8."""
    light = np.linspace(1.0, 0.86, SIDE)[:, None].repeat(SIDE, axis=1)
    image = _finish(_colour(0.56, 0.06 + 0.14 * draw.unit(), 0.97), light)
    for bar in (slice(0, 2), slice(15, 17), slice(30, 32)):
        image[bar], image[:, bar] = 244, 244
    return image


def door_texture(draw: Draw) -> np.ndarray:
    """A closed door with two fillings and a handle, [H, W, 3] uint8."""
    image = _finish(
        _colour(0.08, 0.12 + 0.2 * draw.unit(), 0.5 + 0.3 * draw.unit()), _noise(draw, 0.04)
    )
    for top, bottom in ((3, 14), (18, 29)):
        image[top:bottom, 6:26] = image[top:bottom, 6:26] // 8 * 7
    image[15:17, 27:30] = 60
    return image


def picture_texture(draw: Draw) -> np.ndarray:
    """A framed picture of a few muted blocks, [H, W, 3] uint8."""
    image = np.full((16, 16, 3), 48, dtype=np.uint8)
    image[1:-1, 1:-1] = 232
    for _ in range(4):
        x, y = draw.integer(2, 9), draw.integer(2, 9)
        shade = _colour(draw.unit(), 0.3, 0.3 + 0.5 * draw.unit())
        image[y : y + 5, x : x + 5] = np.floor(shade).astype(np.uint8)
    return image
