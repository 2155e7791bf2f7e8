"""How many pixels of an image show an instance, found without drawing the image.

Only the pixels inside each instance's projected bounding box are cast, with the very rays that the
image would use, so the counts are those of the panoptic image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from memo_habitat.simulator.embree.geometry import Geometry
from memo_habitat.simulator.embree.shading import count_between

#: Pixels by which a box is widened: rays and projection are rounded differently.
_MARGIN = 0.01
#: A corner nearer to the camera's plane than this (m) cannot be projected.
_NEAR = 1e-3


@njit(cache=True, nogil=True)
def _pixel_box(bounds, eye, rotation, half, height, width, box):  # type: ignore[no-untyped-def]
    """First and one past the last row and column that can show the bounds [2, 3] into box [4]."""
    in_front = 0
    behind = 0
    beside = np.zeros(4, dtype=np.int64)
    up = half * height / width
    low_x = np.inf
    high_x = -np.inf
    low_y = np.inf
    high_y = -np.inf
    for corner in range(8):
        d0 = bounds[corner & 1, 0] - eye[0]
        d1 = bounds[(corner >> 1) & 1, 1] - eye[1]
        d2 = bounds[(corner >> 2) & 1, 2] - eye[2]
        depth = -(rotation[0, 2] * d0 + rotation[1, 2] * d1 + rotation[2, 2] * d2)
        x = rotation[0, 0] * d0 + rotation[1, 0] * d1 + rotation[2, 0] * d2
        y = rotation[0, 1] * d0 + rotation[1, 1] * d1 + rotation[2, 1] * d2
        # The four sides of what the camera takes in are planes through the eye.
        beside[0] += x > half * depth
        beside[1] += x < -half * depth
        beside[2] += y > up * depth
        beside[3] += y < -up * depth
        behind += depth <= 0.0
        if depth < _NEAR:
            continue
        in_front += 1
        x /= depth
        y /= depth
        low_x = min(low_x, x)
        high_x = max(high_x, x)
        low_y = min(low_y, y)
        high_y = max(high_y, y)
    if behind == 8 or beside.max() == 8:
        box[:] = 0
    elif in_front < 8:
        # Partly beside or behind the camera's plane: its image may reach any border.
        box[0] = 0
        box[1] = height
        box[2] = 0
        box[3] = width
    else:
        # The inverse of `camera.ray_directions`.
        box[0] = max(int(np.ceil((1.0 - high_y / up) * height / 2.0 - 0.5 - _MARGIN)), 0)
        box[1] = min(int(np.floor((1.0 - low_y / up) * height / 2.0 - 0.5 + _MARGIN)) + 1, height)
        box[2] = max(int(np.ceil((1.0 + low_x / half) * width / 2.0 - 0.5 - _MARGIN)), 0)
        box[3] = min(int(np.floor((1.0 + high_x / half) * width / 2.0 - 0.5 + _MARGIN)) + 1, width)


@njit(cache=True, nogil=True)
def box_rays(bounds, eye, rotation, half, directions):  # type: ignore[no-untyped-def]
    """Rays through the pixels that can show each of I instances.

    Args:
        bounds: [I, 2, 3] m, their bounding boxes in the world.
        eye: [3] m.
        rotation: [3, 3], camera to world.
        half: tangent of half the horizontal field of view.
        directions: [H, W, 3] float32 in the camera's frame, as `camera.ray_directions`.

    Returns:
        origins and directions [R, 3] float32 in the world, and ends [I + 1]: the rays of instance
        i are ends[i] to ends[i + 1].
    """
    height, width = directions.shape[:2]
    boxes = np.empty((len(bounds), 4), dtype=np.int64)
    ends = np.zeros(len(bounds) + 1, dtype=np.int64)
    for i in range(len(bounds)):
        box = boxes[i]
        _pixel_box(bounds[i], eye, rotation, half, height, width, box)
        ends[i + 1] = ends[i] + max(box[1] - box[0], 0) * max(box[3] - box[2], 0)
    origins = np.empty((ends[-1], 3), dtype=np.float32)
    rays = np.empty((ends[-1], 3), dtype=np.float32)
    origin = eye.astype(np.float32)
    turn = rotation.astype(np.float32)
    r = 0
    for i in range(len(bounds)):
        for row in range(boxes[i, 0], boxes[i, 1]):
            for column in range(boxes[i, 2], boxes[i, 3]):
                x, y, z = directions[row, column]
                for k in range(3):
                    origins[r, k] = origin[k]
                    # In the order of `shading.rotate`: the same rays to the last bit.
                    rays[r, k] = turn[k, 0] * x + turn[k, 1] * y + turn[k, 2] * z
                r += 1
    return origins, rays, ends


def count_pixels(
    geometry: Geometry,
    ids: Sequence[int] | np.ndarray,
    eye: np.ndarray,
    rotation: np.ndarray,
    half: float,
    directions: np.ndarray,
) -> np.ndarray:
    """[I] int64: pixels that show each of the instances `ids` [I].

    The other arguments are those of `box_rays`.
    """
    ranges = [geometry.ranges[int(identity)] for identity in ids]
    bounds = geometry.bounds_of(ids)
    origins, rays, ends = box_rays(bounds, eye, rotation, half, directions)
    counts = np.zeros(len(ids), dtype=np.int64)
    if not len(rays):
        return counts
    triangle = geometry.cast(origins, rays).triangle
    for i, (begin, end) in enumerate(ranges):
        if ends[i + 1] > ends[i]:
            counts[i] = count_between(triangle[ends[i] : ends[i + 1]], begin, end)
    return counts
