"""Configs and episode files for trying a simulator, sensor or measure of one's own in ExtObjNav."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from habitat.config.default_structured_configs import (
    AgentConfig,
    HabitatConfig,
    HeadDepthSensorConfig,
    HeadPanopticSensorConfig,
    HeadRGBSensorConfig,
    MoveForwardActionConfig,
    StopActionConfig,
    TurnLeftActionConfig,
    TurnRightActionConfig,
)
from omegaconf import DictConfig, OmegaConf

import memo_habitat.tasks.extobjnav  # noqa: F401
from memo_habitat.config.simulator import EmbreeSimConfig, ExtObjNavSimConfig
from memo_habitat.config.task import (
    LOOK_ACTIONS,
    MEASUREMENTS,
    SENSORS,
    ExtObjNavDatasetConfig,
    ExtObjNavTaskConfig,
)

#: Action names in the order of their indices.
ACTIONS: dict[str, Any] = {
    "stop": StopActionConfig(),
    "move_forward": MoveForwardActionConfig(),
    "turn_left": TurnLeftActionConfig(),
    "turn_right": TurnRightActionConfig(),
    **LOOK_ACTIONS,
}
_CAMERAS: dict[str, Any] = {
    "rgb": HeadRGBSensorConfig,
    "depth": HeadDepthSensorConfig,
    "panoptic": HeadPanopticSensorConfig,
}


def episode_record(
    objects: Sequence[tuple[str, tuple[float, float, float]]],
    *,
    episode_id: str = "0",
    house: str = "room",
    **changes: Any,
) -> dict[str, Any]:
    """Return an entry of an episode file in the published form.

    Args:
        objects: (category, position in m) of each.
        episode_id: name of the arrangement.
        house: name of the scene.
        changes: fields to set or, with the value None, to leave out.
    """
    rigid_objs = []
    for category, position in objects:
        transform = np.eye(4)
        transform[:3, 3] = position
        rigid_objs.append([f"{category}.object_config.json", transform.tolist()])
    record = {
        "episode_id": episode_id,
        "scene_id": f"scenes/{house}.scene_instance.json",
        "scene_dataset_config": "rooms.scene_dataset_config.json",
        "additional_obj_config_paths": ["objects/"],
        "start_position": [0.0, 0.0, 0.0],
        "start_rotation": [0.0, 0.0, 0.0, 1.0],
        "info": {},
        "ao_states": {},
        "rigid_objs": rigid_objs,
        "targets": {},
        "markers": [],
        "target_receptacles": [],
        "goal_receptacles": [],
        "name_to_receptacle": {},
        **changes,
    }
    return {name: value for name, value in record.items() if value is not None}


def write_episodes(
    path: Path, records: Sequence[Mapping[str, Any]], categories: Sequence[str] | None = None
) -> Path:
    """Write an episode file and return its path."""
    content: dict[str, Any] = {"episodes": list(records)}
    if categories is not None:
        content["categories"] = list(categories)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
    return path


def simulator_config(
    scene: str = "",
    scene_dataset: str = "default",
    size: int = 64,
    sensors: Sequence[str] = ("rgb", "panoptic"),
    **changes: Any,
) -> DictConfig:
    """A `habitat.simulator` node with square cameras 1.2 m above the floor, called head_rgb,
    head_depth and head_panoptic.

    Args:
        scene: scene instance or mesh; empty where episodes name it.
        scene_dataset: scene data set configuration, or "default".
        size: width and height of the images, pixels.
        sensors: of "rgb", "depth" and "panoptic".
        changes: further keys of the node; those of the agent begin with "agent_".
    """
    agent = AgentConfig()
    for name in sensors:
        camera = _CAMERAS[name](height=size, width=size, position=[0.0, 1.2, 0.0])
        if name == "depth":
            camera.normalize_depth = False
        agent.sim_sensors[f"head_{name}"] = camera
    kind = ExtObjNavSimConfig if changes.get("type") == "ExtObjNavSim-v0" else EmbreeSimConfig
    node = OmegaConf.structured(
        kind(
            seed=0,
            turn_angle=30,
            scene=scene,
            scene_dataset=scene_dataset,
            agents={"main_agent": agent},
            agents_order=["main_agent"],
        )
    )
    for name, value in changes.items():
        OmegaConf.update(node, name.replace("agent_", "agents.main_agent."), value)
    return node


def task_config(
    data_path: Path | str,
    simulator: str = "EmbreeSim-v0",
    *,
    oracle: bool = False,
    image_size: int = 64,
    overrides: Mapping[str, Any] | None = None,
) -> DictConfig:
    """A whole config (`habitat` at its root) of ExtObjNav with every measure and sensor.

    Args:
        data_path: the episode file.
        simulator: registered name.
        oracle: whether the sensors of players, the oracle and perfect memory, are there too.
        image_size: edge of the square images.
        overrides: dotted names below `habitat` and their values.
    """
    task = OmegaConf.structured(ExtObjNavTaskConfig(trial_steps=200))
    task.actions, task.measurements, task.lab_sensors = ACTIONS, MEASUREMENTS, SENSORS
    if not oracle:
        del task.lab_sensors.oracle_action_sensor, task.lab_sensors.perfect_memory_action_sensor
    habitat = OmegaConf.structured(HabitatConfig)
    habitat.task = task
    habitat.dataset = ExtObjNavDatasetConfig(data_path=str(data_path))
    habitat.simulator = simulator_config(
        size=image_size, type=simulator, agent_height=1.2, agent_radius=0.2
    )
    habitat.environment.max_episode_steps = 500
    habitat.environment.iterator_options.shuffle = False
    habitat.environment.iterator_options.group_by_scene = False
    config = OmegaConf.create({"habitat": habitat})
    for name, value in (overrides or {}).items():
        OmegaConf.update(config, f"habitat.{name}", value)
    return config
