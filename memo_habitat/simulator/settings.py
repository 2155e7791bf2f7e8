"""Simulator configs made in Python, for benchmarks, pictures and tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from habitat.config.default_structured_configs import (
    AgentConfig,
    HabitatSimDepthSensorConfig,
    HabitatSimRGBSensorConfig,
    HabitatSimSemanticSensorConfig,
)
from omegaconf import OmegaConf

from memo_habitat.config.simulator import EmbreeSimConfig
from memo_habitat.errors import UserError

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
