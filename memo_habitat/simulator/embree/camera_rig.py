"""Cameras on the agent: their rays and pictures, and the sensors of Habitat that share them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from habitat.core.registry import registry
from habitat.core.simulator import Sensor, SensorSuite, SensorTypes
from omegaconf import OmegaConf

from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.geometry import Geometry, Hits
from memo_habitat.simulator.embree.ray_kernels import (
    PixelRays,
    box_rays,
    count_between,
    count_in_boxes,
    rotate,
    shade,
    view,
)


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
    """Rays and buffers for one spec; casts once per pose, whatever is asked of it."""

    def __init__(self, spec: CameraSpec) -> None:
        self.spec = spec
        self._directions = ray_directions(spec)
        self._lengths = np.linalg.norm(self._directions, axis=1).astype(np.float32)
        self._half = math.tan(spec.hfov / 2.0)
        x, y, z = (rotation_about(axis, spec.orientation[axis]) for axis in range(3))
        self._mount = np.ascontiguousarray(z @ y @ x)
        self._offset = np.array(spec.position, dtype=np.float64)
        self._world = np.empty_like(self._directions)
        self._origins = np.empty_like(self._directions)
        self._cast: tuple[Geometry, tuple[float, ...], Hits] | None = None

    def cast(self, geometry: Geometry, position: np.ndarray, heading: float, tilt: float) -> None:
        """Casts a ray per pixel for the agent at `position` [3] m, unless nothing has changed.

        heading: rad about +Y; tilt: rad, positive looks up.
        """
        pose = (float(position[0]), float(position[1]), float(position[2]), heading, tilt)
        if self._has_cast(geometry, pose):
            return
        rotation, eye = self._view(position, heading, tilt)
        rotate(self._directions, rotation.astype(np.float32), self._world)
        self._origins[:] = eye
        self._cast = geometry, pose, geometry.cast(self._origins, self._world)

    def count(
        self,
        geometry: Geometry,
        position: np.ndarray,
        heading: float,
        tilt: float,
        ids: Sequence[int] | np.ndarray,
    ) -> np.ndarray:
        """[I] int64: pixels that show each of the instances `ids` from a pose.

        Where the image of that pose has not been cast, only the pixels inside the instances'
        projected bounding boxes are, with the very rays of the image: the counts are equal.
        """
        pose = (float(position[0]), float(position[1]), float(position[2]), heading, tilt)
        if self._has_cast(geometry, pose):
            triangle = self._latest()[1].triangle
            found = [count_between(triangle, *geometry.ranges[int(i)]) for i in ids]
            return np.array(found, dtype=np.int64)
        pose_now = np.asarray(position, dtype=np.float64), heading, tilt
        origins, rays, ends = box_rays(geometry.bounds_of(ids), self.pixel_rays(), pose_now)
        if not len(rays):
            return np.zeros(len(ids), dtype=np.int64)
        ranges = np.array([geometry.ranges[int(i)] for i in ids], dtype=np.int64).reshape(-1, 2)
        counts: np.ndarray = count_in_boxes(geometry.cast(origins, rays).triangle, ends, ranges)
        return counts

    def pixel_rays(self) -> PixelRays:
        """What counting pixels asks of the camera."""
        rays = self._directions.reshape(self.spec.height, self.spec.width, 3)
        return PixelRays(self._mount, self._offset, self._half, rays)

    def rgb(self) -> np.ndarray:
        """[H, W, 3] uint8 of the latest cast."""
        geometry, hits = self._latest()
        surface, table = geometry.surface, geometry.surface.table
        out = np.empty((self.spec.height, self.spec.width, 3), dtype=np.uint8)
        shade(
            (hits.triangle, hits.u, hits.v, hits.distance),
            self._lengths,
            np.float32(2.0 * self._half / self.spec.width),
            (surface.colour, surface.uv, surface.texture, surface.density),
            (table.texels, table.first_level, table.level),
            out.reshape(-1, 3),
        )
        return out

    def depth(self) -> np.ndarray:
        """[H, W] float32 m along the camera's axis of the latest cast; 0 where nothing is."""
        _, hits = self._latest()
        depth = np.where(hits.triangle >= 0, hits.distance, np.float32(0.0))
        return depth.reshape(self.spec.height, self.spec.width)

    def panoptic(self) -> np.ndarray:
        """[H, W] int32 ids of the latest cast; 0 for the stage and where nothing is."""
        geometry, hits = self._latest()
        return geometry.surface.instance[hits.triangle].reshape(self.spec.height, self.spec.width)

    def _has_cast(self, geometry: Geometry, pose: tuple[float, ...]) -> bool:
        return self._cast is not None and self._cast[0] is geometry and self._cast[1] == pose

    def _latest(self) -> tuple[Geometry, Hits]:
        if self._cast is None:
            raise RuntimeError("the camera has no image yet: call cast() first")
        return self._cast[0], self._cast[2]

    def _view(
        self, position: np.ndarray, heading: float, tilt: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rotation [3, 3] from the camera's frame to the world's, and the eye [3] m."""
        return view(self._mount, self._offset, np.asarray(position, float), heading, tilt)


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

    def __init__(self, agent_config: Any, render_images: bool = True) -> None:
        sensors = []
        self._camera_of: dict[str, Camera] = {}
        self.cameras: dict[CameraSpec, Camera] = {}
        for name, config in agent_config.sim_sensors.items():
            sensor = _sensor(name, config)
            sensors.append(sensor)
            spec = _camera_spec(config)
            if spec not in self.cameras:
                self.cameras[spec] = Camera(spec)
            self._camera_of[sensor.uuid] = self.cameras[spec]
        self.sensors = {sensor.uuid: sensor for sensor in sensors}
        self.suite = SensorSuite(sensors if render_images else [])

    def camera(self, uuid: str) -> Camera:
        """The camera behind a sensor.

        Raises:
            UserError: when there is no such sensor.
        """
        if uuid not in self._camera_of:
            raise UserError(
                f"the simulator has no camera {uuid!r}: it has {sorted(self._camera_of)}; add it "
                "to habitat.simulator.agents.*.sim_sensors"
            )
        return self._camera_of[uuid]

    def render(
        self,
        geometry: Geometry,
        position: np.ndarray,
        heading: float,
        tilt: float,
        uuids: Iterable[str] | None = None,
    ) -> dict[str, Any]:
        """Pictures by sensor uuid, in the shapes that Habitat's sensors expect from Habitat-Sim.

        uuids: whose pictures to take; None: of the sensors observed.
        """
        pictures = {}
        for uuid in self.suite.sensors if uuids is None else uuids:
            camera = self.camera(uuid)
            camera.cast(geometry, position, heading, tilt)
            pictures[uuid] = _PICTURES[self.sensors[uuid].sensor_type](camera)
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


def _camera_spec(config: Any) -> CameraSpec:
    x, y, z = (float(value) for value in config.position)
    a, b, c = (float(value) for value in config.orientation)
    return CameraSpec(
        int(config.height),
        int(config.width),
        math.radians(float(config.hfov)),
        (x, y, z),
        (a, b, c),
    )
