"""Cameras on the agent: ray directions, mounts, and one ray cast shared by equal cameras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree import shading
from memo_habitat.simulator.embree.geometry import Geometry, Hits
from memo_habitat.simulator.embree.visibility import count_pixels


@dataclass(frozen=True)
class CameraSpec:
    """Where a camera sits on the agent and what it takes in; equal specs share their rays."""

    height: int
    width: int
    hfov: float  # rad, horizontal
    position: tuple[float, float, float]  # m, from the agent's floor point
    orientation: tuple[float, float, float]  # rad, about x, then y, then z

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise UserError(
                f"a camera of {self.width}x{self.height} pixels: width and height must be >= 1"
            )
        if not 0.0 < self.hfov < math.pi:
            raise UserError(
                f"horizontal field of view {math.degrees(self.hfov):g} degrees: it must lie "
                "between 0 and 180"
            )


def ray_directions(spec: CameraSpec) -> np.ndarray:
    """[H * W, 3] float32, row by row from the top left, in the camera's frame (looks along -Z,
    Y up), scaled to depth 1, so that a ray's length parameter is the depth of what it hits."""
    half = math.tan(spec.hfov / 2.0)
    x = ((np.arange(spec.width) + 0.5) / spec.width * 2.0 - 1.0) * half
    y = (1.0 - (np.arange(spec.height) + 0.5) / spec.height * 2.0) * half
    y *= spec.height / spec.width
    directions = np.empty((spec.height, spec.width, 3), dtype=np.float32)
    directions[..., 0] = x[None, :]
    directions[..., 1] = y[:, None]
    directions[..., 2] = -1.0
    return directions.reshape(-1, 3)


def rotation_about(axis: int, angle: float) -> np.ndarray:
    """[3, 3]: right-handed rotation by `angle` rad about axis 0, 1 or 2."""
    c, s = math.cos(angle), math.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


class Camera:
    """One spec with its rays and buffers; takes one picture per pose."""

    def __init__(self, spec: CameraSpec) -> None:
        self.spec = spec
        self._directions = ray_directions(spec)
        self._lengths = np.linalg.norm(self._directions, axis=1).astype(np.float32)
        self._pixel = np.float32(2.0 * math.tan(spec.hfov / 2.0) / spec.width)
        x, y, z = (rotation_about(axis, spec.orientation[axis]) for axis in range(3))
        self._mount = z @ y @ x
        self._world = np.empty_like(self._directions)
        self._origins = np.empty_like(self._directions)
        self._pose: tuple[float, ...] | None = None
        self._geometry: Geometry | None = None
        self.hits: Hits | None = None

    def look(self, geometry: Geometry, position: np.ndarray, heading: float, tilt: float) -> None:
        """Casts the rays from the agent at `position` [3] m, unless nothing has changed.

        heading: rad about +Y; tilt: rad, positive looks up.
        """
        pose = (float(position[0]), float(position[1]), float(position[2]), heading, tilt)
        if pose == self._pose and geometry is self._geometry:
            return
        rotation, eye = self._view(position, heading, tilt)
        shading.rotate(self._directions, rotation.astype(np.float32), self._world)
        self._origins[:] = eye
        self.hits = geometry.cast(self._origins, self._world)
        self._pose, self._geometry = pose, geometry

    def count(
        self,
        geometry: Geometry,
        position: np.ndarray,
        heading: float,
        tilt: float,
        ids: Sequence[int] | np.ndarray,
    ) -> np.ndarray:
        """[I] int64: pixels of each instance in the picture from a pose, taken or not."""
        pose = (float(position[0]), float(position[1]), float(position[2]), heading, tilt)
        if self.hits is not None and pose == self._pose and geometry is self._geometry:
            found = [
                shading.count_between(self.hits.triangle, *geometry.ranges[int(i)]) for i in ids
            ]
            return np.array(found, dtype=np.int64)
        rotation, eye = self._view(position, heading, tilt)
        rays = self._directions.reshape(self.spec.height, self.spec.width, 3)
        return count_pixels(geometry, ids, eye, rotation, math.tan(self.spec.hfov / 2.0), rays)

    def _view(
        self, position: np.ndarray, heading: float, tilt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rotation [3, 3] from the camera's frame to the world's, and the eye [3] m."""
        body = rotation_about(1, heading)
        rotation = body @ self._mount @ rotation_about(0, tilt)
        return rotation, position + body @ np.asarray(self.spec.position)

    def rgb(self) -> np.ndarray:
        """[H, W, 3] uint8 of the latest look."""
        geometry, hits = self._latest()
        surface, table = geometry.surface, geometry.surface.table
        out = np.empty((self.spec.height, self.spec.width, 3), dtype=np.uint8)
        shading.shade(
            (hits.triangle, hits.u, hits.v, hits.distance),
            self._lengths,
            self._pixel,
            (surface.colour, surface.uv, surface.texture, surface.density),
            (table.texels, table.first_level, table.level),
            out.reshape(-1, 3),
        )
        return out

    def depth(self) -> np.ndarray:
        """[H, W] float32 m along the camera's axis of the latest look; 0 where nothing is."""
        _, hits = self._latest()
        out = np.empty((self.spec.height, self.spec.width), dtype=np.float32)
        shading.planar_depth(hits.triangle, hits.distance, out.reshape(-1))
        return out

    def panoptic(self) -> np.ndarray:
        """[H, W] int32 ids of the latest look; 0 for the stage and where nothing is."""
        geometry, hits = self._latest()
        out = np.empty((self.spec.height, self.spec.width), dtype=np.int32)
        shading.instance_ids(hits.triangle, geometry.surface.instance, out.reshape(-1))
        return out

    def _latest(self) -> tuple[Geometry, Hits]:
        if self._geometry is None or self.hits is None:
            raise RuntimeError("the camera has not looked yet: call look() first")
        return self._geometry, self.hits
