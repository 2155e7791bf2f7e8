"""Texture pyramids in one flat texel table, so that a kernel reads them without indirection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TextureTable:
    """Every level of every texture in one array of texels."""

    texels: np.ndarray  # [P, 3] uint8
    first_level: np.ndarray  # [X + 1] int32: levels of texture x are first[x] .. first[x + 1] - 1
    level: np.ndarray  # [L, 3] int32: offset into texels, height, width


def build_table(images: list[np.ndarray]) -> TextureTable:
    """The pyramids of `images` ([h, w, 3] uint8 each): each level halves the one before."""
    first, levels, texels = [0], [], []
    offset = 0
    for image in images:
        for picture in pyramid(image):
            height, width = picture.shape[:2]
            levels.append((offset, height, width))
            texels.append(picture.reshape(-1, 3))
            offset += height * width
        first.append(len(levels))
    return TextureTable(
        np.concatenate(texels) if texels else np.zeros((1, 3), np.uint8),
        np.asarray(first, dtype=np.int32),
        np.asarray(levels or [(0, 1, 1)], dtype=np.int32),
    )


def pyramid(image: np.ndarray) -> list[np.ndarray]:
    """The image and its halvings down to one texel (means of 2x2; odd borders are dropped)."""
    pictures = [image]
    while max(pictures[-1].shape[:2]) > 1:
        last: np.ndarray = pictures[-1].astype(np.uint16)
        height, width = last.shape[:2]
        if height > 1:
            last = (last[0 : height // 2 * 2 : 2] + last[1 : height // 2 * 2 : 2] + 1) // 2
        if width > 1:
            last = (last[:, 0 : width // 2 * 2 : 2] + last[:, 1 : width // 2 * 2 : 2] + 1) // 2
        pictures.append(last.astype(np.uint8))
    return pictures
