"""Kernels over rays and pixels: rotation, colours, counts, and the pixels that can show a box."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from memo_habitat.utils.compiled import compiled

#: Pixels by which a box is widened: rays and projection are rounded differently.
_MARGIN = 0.01
#: A corner nearer to the camera's plane than this (m) cannot be projected.
_NEAR = 1e-3


@compiled
def rotate(directions, rotation, out):  # type: ignore[no-untyped-def]
    """out[r] = rotation @ directions[r]; [R, 3] float32 and [3, 3] float32."""
    for r in range(directions.shape[0]):
        x, y, z = directions[r, 0], directions[r, 1], directions[r, 2]
        for i in range(3):
            out[r, i] = rotation[i, 0] * x + rotation[i, 1] * y + rotation[i, 2] * z


@compiled
def shade(hits, lengths, pixel, surface, falloff, out):  # type: ignore[no-untyped-def]
    """Colours of R rays into out [R, 3] uint8; black where nothing was hit.

    hits, surface: `geometry.Hits` and `geometry.Surface`; lengths [R]: of the directions;
    pixel: size of a pixel at distance 1; falloff: light lost per metre of distance.
    """
    triangle, u, v, distance = hits
    colour, uv, texture, density, texels, first_level, level = surface
    for r in range(triangle.shape[0]):
        t = triangle[r]
        if t < 0:
            out[r] = 0
            continue
        b = u[r]
        c = v[r]
        a = np.float32(1.0) - b - c
        metres = distance[r] * lengths[r]
        dim = np.float32(1.0) / (np.float32(1.0) + np.float32(falloff) * metres)
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
            s -= np.floor(s)  # textures repeat
            w -= np.floor(w)
            column = min(int(s * width), width - 1)
            row = min(int((np.float32(1.0) - w) * height), height - 1)
            texel = level[chosen, 0] + row * width + column
        for k in range(3):
            value = a * colour[t, 0, k] + b * colour[t, 1, k] + c * colour[t, 2, k]
            if texel >= 0:
                value *= texels[texel, k] * np.float32(1.0 / 255.0)
            out[r, k] = np.uint8(max(min(value * dim, np.float32(255.0)), np.float32(0.0)))


@compiled
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
    if behind == 8 or beside.max() == 8:  # all corners on the far side of one plane: out of view
        box[:] = 0
    elif in_front < 8:
        # Partly beside or behind the camera's plane: its image may reach any border.
        box[0] = 0
        box[1] = height
        box[2] = 0
        box[3] = width
    else:
        # The inverse of `camera_rig.ray_directions`.
        box[0] = max(int(np.ceil((1.0 - high_y / up) * height / 2.0 - 0.5 - _MARGIN)), 0)
        box[1] = min(int(np.floor((1.0 - low_y / up) * height / 2.0 - 0.5 + _MARGIN)) + 1, height)
        box[2] = max(int(np.ceil((1.0 + low_x / half) * width / 2.0 - 0.5 - _MARGIN)), 0)
        box[3] = min(int(np.floor((1.0 + high_x / half) * width / 2.0 - 0.5 + _MARGIN)) + 1, width)


class PixelRays(NamedTuple):
    """What a camera takes in."""

    mount: np.ndarray  # [3, 3], from the camera's frame, level, to the agent's
    offset: np.ndarray  # [3] m, from the agent's floor point
    half: float  # tangent of half the horizontal field of view
    directions: np.ndarray  # [H, W, 3] float32, as `camera_rig.ray_directions`


@compiled
def view(mount, offset, position, heading, tilt):  # type: ignore[no-untyped-def]
    """Rotation [3, 3] from a camera's frame to the world's, and its eye [3] m."""
    c = np.cos(heading)
    s = np.sin(heading)
    level = np.empty((3, 3))
    eye = np.empty(3)
    for k in range(3):
        level[0, k] = c * mount[0, k] + s * mount[2, k]
        level[1, k] = mount[1, k]
        level[2, k] = c * mount[2, k] - s * mount[0, k]
    eye[0] = position[0] + (c * offset[0] + s * offset[2])
    eye[1] = position[1] + offset[1]
    eye[2] = position[2] + (c * offset[2] - s * offset[0])
    c = np.cos(tilt)
    s = np.sin(tilt)
    rotation = np.empty((3, 3))
    for k in range(3):
        rotation[k, 0] = level[k, 0]
        rotation[k, 1] = c * level[k, 1] + s * level[k, 2]
        rotation[k, 2] = c * level[k, 2] - s * level[k, 1]
    return rotation, eye


@compiled
def box_rays(bounds, camera, pose):  # type: ignore[no-untyped-def]
    """Rays through the pixels that can show each of I instances.

    Args:
        bounds: [I, 2, 3] m, their bounding boxes in the world.
        camera: `PixelRays`.
        pose: position [3] m, heading and tilt in rad.

    Returns:
        origins and directions [R, 3] float32 in the world, and ends [I + 1]: the rays of instance
        i are ends[i] to ends[i + 1].
    """
    mount, offset, half, directions = camera
    position, heading, tilt = pose
    rotation, eye = view(mount, offset, position, heading, tilt)
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
                    # In the order of `rotate`: the same rays to the last bit.
                    rays[r, k] = turn[k, 0] * x + turn[k, 1] * y + turn[k, 2] * z
                r += 1
    return origins, rays, ends


@compiled
def rays_near(centres, bounds, limit, camera, pose):  # type: ignore[no-untyped-def]
    """`box_rays` of the instances whose centres [I, 3] lie within `limit` m horizontally.

    Returns:
        their indices [J], then what `box_rays` returns of them.
    """
    position = pose[0]
    near = np.empty(len(centres), dtype=np.int64)
    count = 0
    for i in range(len(centres)):
        if np.hypot(centres[i, 0] - position[0], centres[i, 2] - position[2]) <= limit:
            near[count] = i
            count += 1
    near = near[:count]
    origins, rays, ends = box_rays(bounds[near], camera, pose)
    return near, origins, rays, ends


@compiled
def count_hits(triangle, begins, ends, ranges):  # type: ignore[no-untyped-def]
    """[I] int64: of the rays begins[i] to ends[i], how many hit a triangle of ranges[i] (first and
    one past the last)."""
    counts = np.zeros(len(ranges), dtype=np.int64)
    for i in range(len(ranges)):
        for r in range(begins[i], ends[i]):
            counts[i] += ranges[i, 0] <= triangle[r] < ranges[i, 1]
    return counts
