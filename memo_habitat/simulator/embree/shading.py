"""The per-pixel kernels: from ray hits to colours, depths and ids, without temporaries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit


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


#: Light lost per metre of distance, so that depth reads in flat colours.
FALLOFF = 0.03


@njit(cache=True, nogil=True)
def rotate(directions, rotation, out):  # type: ignore[no-untyped-def]
    """out[r] = rotation @ directions[r]; [R, 3] float32 and [3, 3] float32."""
    for r in range(directions.shape[0]):
        x, y, z = directions[r, 0], directions[r, 1], directions[r, 2]
        for i in range(3):
            out[r, i] = rotation[i, 0] * x + rotation[i, 1] * y + rotation[i, 2] * z


@njit(cache=True, nogil=True)
def shade(hits, lengths, pixel, surface, table, out):  # type: ignore[no-untyped-def]
    """Colours of R rays into out [R, 3] uint8; black where nothing was hit.

    hits: (triangle [R], u [R], v [R], distance [R]); lengths [R]: of the directions;
    pixel: size of a pixel at distance 1; surface: (colour, uv, texture, density);
    table: (texels, first_level, level).
    """
    triangle, u, v, distance = hits
    colour, uv, texture, density = surface
    texels, first_level, level = table
    for r in range(triangle.shape[0]):
        t = triangle[r]
        if t < 0:
            out[r, 0] = 0
            out[r, 1] = 0
            out[r, 2] = 0
            continue
        b = u[r]
        c = v[r]
        a = np.float32(1.0) - b - c
        metres = distance[r] * lengths[r]
        dim = np.float32(1.0) / (np.float32(1.0) + np.float32(FALLOFF) * metres)
        x = texture[t]
        texel = -1
        if x >= 0:
            first = first_level[x]
            height = level[first, 1]
            width = level[first, 2]
            # Texels per pixel, halved once per level.
            footprint = metres * pixel * density[t] * np.float32(max(height, width))
            chosen = first
            while footprint > np.float32(1.5) and chosen + 1 < first_level[x + 1]:
                footprint *= np.float32(0.5)
                chosen += 1
            height = level[chosen, 1]
            width = level[chosen, 2]
            s = a * uv[t, 0, 0] + b * uv[t, 1, 0] + c * uv[t, 2, 0]
            w = a * uv[t, 0, 1] + b * uv[t, 1, 1] + c * uv[t, 2, 1]
            s -= np.floor(s)
            w -= np.floor(w)
            column = min(int(s * width), width - 1)
            row = min(int((np.float32(1.0) - w) * height), height - 1)
            texel = level[chosen, 0] + row * width + column
        for k in range(3):
            value = a * colour[t, 0, k] + b * colour[t, 1, k] + c * colour[t, 2, k]
            if texel >= 0:
                value *= texels[texel, k] * np.float32(1.0 / 255.0)
            out[r, k] = np.uint8(max(min(value * dim, np.float32(255.0)), np.float32(0.0)))


@njit(cache=True, nogil=True)
def planar_depth(triangle, distance, out):  # type: ignore[no-untyped-def]
    """Depth along the camera's axis in m into out [R] float32; 0 where nothing was hit."""
    for r in range(triangle.shape[0]):
        out[r] = distance[r] if triangle[r] >= 0 else np.float32(0.0)


@njit(cache=True, nogil=True)
def instance_ids(triangle, instance, out):  # type: ignore[no-untyped-def]
    """Panoptic ids into out [R] int32; 0 where nothing was hit."""
    for r in range(triangle.shape[0]):
        t = triangle[r]
        out[r] = instance[t] if t >= 0 else 0


@njit(cache=True, nogil=True)
def count_between(triangle, begin, end):  # type: ignore[no-untyped-def]
    """How many rays hit a triangle of the range [begin, end)."""
    count = 0
    for r in range(triangle.shape[0]):
        if begin <= triangle[r] < end:
            count += 1
    return count
