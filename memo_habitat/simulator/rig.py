"""The agent's cameras: which of Habitat's sensors look through which lens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from habitat.core.registry import registry
from habitat.core.simulator import Sensor, SensorSuite, SensorTypes
from omegaconf import OmegaConf

from memo_habitat.errors import UserError
from memo_habitat.simulator.camera import Camera, Lens
from memo_habitat.simulator.geometry import Geometry

_PICTURES = {
    SensorTypes.COLOR: Camera.rgb,
    SensorTypes.DEPTH: Camera.depth,
    SensorTypes.SEMANTIC: Camera.panoptic,
}


class Rig:
    """Sensors and the cameras they share: one ray cast per lens, however many sensors use it."""

    def __init__(self, agent_config: Any) -> None:
        sensors = []
        self._camera_of: dict[str, Camera] = {}
        self.cameras: dict[Lens, Camera] = {}
        for name, config in agent_config.sim_sensors.items():
            sensor = _sensor(name, config)
            sensors.append(sensor)
            lens = _lens(config)
            if lens not in self.cameras:
                self.cameras[lens] = Camera(lens)
            self._camera_of[sensor.uuid] = self.cameras[lens]
        self.suite = SensorSuite(sensors)

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

    def look(
        self, geometry: Geometry, position: np.ndarray, heading: float, tilt: float
    ) -> dict[str, Any]:
        """Pictures by sensor uuid, in the shapes that Habitat's sensors expect from Habitat-Sim."""
        for camera in self.cameras.values():
            camera.look(geometry, position, heading, tilt)
        return {
            uuid: _PICTURES[sensor.sensor_type](self._camera_of[uuid])
            for uuid, sensor in self.suite.sensors.items()
        }


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


def _lens(config: Any) -> Lens:
    x, y, z = (float(value) for value in config.position)
    a, b, c = (float(value) for value in config.orientation)
    return Lens(
        int(config.height),
        int(config.width),
        math.radians(float(config.hfov)),
        (x, y, z),
        (a, b, c),
    )
