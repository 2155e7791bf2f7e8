"""Cameras on the agent: their rays and pictures, and the sensors of Habitat that share them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from habitat.core.registry import registry
from habitat.core.simulator import Sensor, SensorSuite, SensorTypes
from omegaconf import OmegaConf

from memo_habitat.errors import UserError
from memo_habitat.simulator.agent import check_camera
from memo_habitat.simulator.embree.geometry import Geometry, Hits
from memo_habitat.simulator.embree.ray_kernels import (
    PixelRays,
    box_rays,
    count_hits,
    rotate,
    shade,
    view,
)

#: Light lost per metre of distance, so that depth reads in plain colours.
FALLOFF = 0.03
#: Where the agent's floor point is ([3] m), its heading about +Y and its cameras' tilt (up is
#: positive), rad.
Pose = tuple[np.ndarray, float, float]


@dataclass(frozen=True)
class CameraSpec:
    """Where a camera sits on the agent and what it takes in; equal specs share their rays."""

    height: int
    width: int
    hfov: float  # rad, horizontal
    position: tuple[float, ...]  # x, y, z in m, from the agent's floor point
    orientation: tuple[float, ...]  # rad, about x, then y, then z

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
    """Rays and buffers for one spec; casts once per pose, whatever is asked of it.

    Attributes:
        rays: what counting pixels asks of the camera.
    """

    def __init__(self, spec: CameraSpec) -> None:
        self.spec = spec
        self._directions = ray_directions(spec)
        self._lengths = np.linalg.norm(self._directions, axis=1).astype(np.float32)
        x, y, z = (rotation_about(axis, spec.orientation[axis]) for axis in range(3))
        self.rays = PixelRays(
            np.ascontiguousarray(z @ y @ x),
            np.array(spec.position, dtype=np.float64),
            math.tan(spec.hfov / 2.0),
            self._directions.reshape(spec.height, spec.width, 3),
        )
        self._world = np.empty_like(self._directions)
        self._origins = np.empty_like(self._directions)
        self._seen: tuple[Geometry, tuple[float, ...]] | None = None
        self._hits: Hits | None = None

    def cast(self, geometry: Geometry, pose: Pose) -> None:
        """Casts a ray per pixel, unless nothing has changed since the latest cast."""
        seen = _key(geometry, pose)
        if self._seen != seen:
            rotation, eye = view(self.rays.mount, self.rays.offset, *pose)
            rotate(self._directions, rotation.astype(np.float32), self._world)
            self._origins[:] = eye
            self._seen, self._hits = seen, geometry.cast(self._origins, self._world)

    def count(self, geometry: Geometry, pose: Pose, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """[I] int64: pixels that show each of the instances `ids` from a pose.

        Where the image of that pose has not been cast, only the pixels inside the instances'
        projected bounding boxes are, with the very rays of the image: the counts are equal.
        """
        ranges = geometry.ranges_of(ids)
        if self._hits is not None and self._seen == _key(geometry, pose):
            begins = np.zeros(len(ranges), dtype=np.int64)
            ends = begins + len(self._hits.triangle)
            return np.asarray(count_hits(self._hits.triangle, begins, ends, ranges))
        origins, rays, ends = box_rays(geometry.bounds_of(ids), self.rays, pose)
        if not len(rays):
            return np.zeros(len(ids), dtype=np.int64)
        triangle = geometry.cast(origins, rays).triangle
        return np.asarray(count_hits(triangle, ends[:-1], ends[1:], ranges))

    def rgb(self, flat: bool = False) -> np.ndarray:
        """[H, W, 3] uint8 of the latest cast, lit so that faces and distances differ; `flat`:
        colours as they are."""
        geometry, hits = self._latest()
        out = np.empty((self.spec.height, self.spec.width, 3), dtype=np.uint8)
        pixel = np.float32(2.0 * self.rays.half / self.spec.width)
        surface = geometry.flat_surface if flat else geometry.surface
        falloff = 0.0 if flat else FALLOFF
        shade(tuple(hits), self._lengths, pixel, tuple(surface), falloff, out.reshape(-1, 3))
        return out

    def depth(self) -> np.ndarray:
        """[H, W] float32 m along the camera's axis of the latest cast; 0 where nothing is."""
        _, hits = self._latest()
        depth = np.where(hits.triangle >= 0, hits.distance, np.float32(0.0))
        return depth.reshape(self.spec.height, self.spec.width)

    def panoptic(self) -> np.ndarray:
        """[H, W] int32 panoptic ids of the latest cast; 0 where nothing is, and for the stage."""
        geometry, hits = self._latest()
        return geometry.instance[hits.triangle].reshape(self.spec.height, self.spec.width)

    def _latest(self) -> tuple[Geometry, Hits]:
        if self._seen is None or self._hits is None:
            raise RuntimeError("the camera has no image yet: call cast() first")
        return self._seen[0], self._hits


def _key(geometry: Geometry, pose: Pose) -> tuple[Geometry, tuple[float, ...]]:
    # The numbers of the position: the array itself changes as the agent moves.
    return geometry, (*pose[0].tolist(), *pose[1:])


_PICTURES = {
    SensorTypes.COLOR: Camera.rgb,
    SensorTypes.DEPTH: Camera.depth,
    SensorTypes.SEMANTIC: Camera.panoptic,
}


class CameraRig:
    """Sensors and the cameras they share: one ray cast per spec, however many sensors use it.

    Attributes:
        sensors: every sensor by uuid.
        suite: those that are observed at every step; none where images are not rendered.
    """

    def __init__(
        self, agent_config: Any, render_images: bool = True, flat_shading: bool = False
    ) -> None:
        sensors = []
        self._camera_of: dict[str, Camera] = {}
        cameras: dict[CameraSpec, Camera] = {}
        for name, config in agent_config.sim_sensors.items():
            sensor = _sensor(name, config)
            sensors.append(sensor)
            position = tuple(float(value) for value in config.position)
            orientation = tuple(float(value) for value in config.orientation)
            hfov = math.radians(float(config.hfov))
            spec = CameraSpec(int(config.height), int(config.width), hfov, position, orientation)
            self._camera_of[sensor.uuid] = cameras.setdefault(spec, Camera(spec))
        self.sensors = {sensor.uuid: sensor for sensor in sensors}
        self.suite = SensorSuite(sensors if render_images else [])
        self._pictures = {**_PICTURES}
        if flat_shading:
            self._pictures[SensorTypes.COLOR] = partial(Camera.rgb, flat=True)

    def camera(self, uuid: str) -> Camera:
        """The camera behind a sensor.

        Raises:
            UserError: when there is no such sensor.
        """
        check_camera(uuid, self._camera_of)
        return self._camera_of[uuid]

    def render(
        self, geometry: Geometry, pose: Pose, uuids: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Pictures by sensor uuid, in the shapes that Habitat's sensors expect from Habitat-Sim.

        uuids: whose pictures to take; None: of the sensors observed.
        """
        pictures = {}
        for uuid in self.suite.sensors if uuids is None else uuids:
            camera = self.camera(uuid)
            camera.cast(geometry, pose)
            pictures[uuid] = self._pictures[self.sensors[uuid].sensor_type](camera)
        return pictures


def _sensor(name: str, config: Any) -> Sensor:
    kind = registry.get_sensor(config.type)
    if kind is None:
        raise UserError(
            f"sim_sensors.{name}.type={config.type!r} is not a registered sensor: use "
            "HabitatSimRGBSensor, HabitatSimDepthSensor or HabitatSimSemanticSensor"
        )
    sensor = kind(OmegaConf.create(config)) if isinstance(config, dict) else kind(config)
    subtype = str(config.get("sensor_subtype", ""))
    if sensor.sensor_type not in _PICTURES or subtype != "PINHOLE":
        raise UserError(
            f"sim_sensors.{name} ({config.type}, {subtype or 'not a pinhole camera'}) cannot be "
            "rendered by EmbreeSim-v0: use a pinhole RGB, depth or semantic sensor"
        )
    if str(config.get("noise_model", "None")) != "None":
        raise UserError(
            f"sim_sensors.{name}.noise_model={config.noise_model!r} is not offered by "
            "EmbreeSim-v0: set it to None"
        )
    return sensor
