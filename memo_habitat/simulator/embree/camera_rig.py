"""The agent's cameras: which of Habitat's sensors look through which spec."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from habitat.config.default_structured_configs import (
    AgentConfig,
    HabitatSimDepthSensorConfig,
    HabitatSimRGBSensorConfig,
    HabitatSimSemanticSensorConfig,
)
from habitat.core.registry import registry
from habitat.core.simulator import Sensor, SensorSuite, SensorTypes
from omegaconf import OmegaConf

from memo_habitat.config.simulator import EmbreeSimConfig
from memo_habitat.errors import UserError
from memo_habitat.simulator.embree.camera import Camera, CameraSpec
from memo_habitat.simulator.embree.geometry import Geometry

_SENSORS = {
    "rgb": HabitatSimRGBSensorConfig,
    "depth": HabitatSimDepthSensorConfig,
    "panoptic": HabitatSimSemanticSensorConfig,
}


def simulator_config(
    scene: str,
    scene_dataset: str = "default",
    size: int = 64,
    sensors: Sequence[str] = ("rgb", "panoptic"),
    **changes: Any,
) -> Any:
    """A `habitat.simulator` node with square cameras 1.2 m above the floor, called head_rgb,
    head_depth and head_panoptic.

    Args:
        scene: scene instance or mesh.
        scene_dataset: scene data set configuration, or "default".
        size: width and height of the images, pixels.
        sensors: of "rgb", "depth" and "panoptic".
        changes: further keys of the node; those of the agent begin with "agent_".
    """
    unknown = [name for name in sensors if name not in _SENSORS]
    if unknown:
        raise UserError(f"sensor {unknown[0]!r} is unknown: choose from {sorted(_SENSORS)}")
    agent: Any = OmegaConf.create(OmegaConf.to_container(OmegaConf.structured(AgentConfig())))
    for name in sensors:
        kind = _SENSORS[name]
        sensor: Any = OmegaConf.to_container(
            OmegaConf.structured(kind(height=size, width=size, position=[0.0, 1.2, 0.0]))
        )
        if name == "depth":
            sensor["normalize_depth"] = False
        agent.sim_sensors[f"head_{name}"] = {**sensor, "uuid": f"head_{name}"}
    node: Any = OmegaConf.create(
        OmegaConf.to_container(
            OmegaConf.structured(
                EmbreeSimConfig(
                    seed=0,
                    turn_angle=30,
                    scene=scene,
                    scene_dataset=scene_dataset,
                    agents={},
                    agents_order=["main_agent"],
                )
            )
        )
    )
    node.agents = {"main_agent": agent}
    for name, value in changes.items():
        if name.startswith("agent_"):
            node.agents.main_agent[name.removeprefix("agent_")] = value
        else:
            node[name] = value
    return node


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

    def look(
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
            camera.look(geometry, position, heading, tilt)
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
