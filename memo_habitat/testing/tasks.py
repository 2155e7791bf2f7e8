"""Factories of ExtObjNav configs, episode records and environments for tests."""

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
    HeadPanopticSensorConfig,
    HeadRGBSensorConfig,
    MoveForwardActionConfig,
    StopActionConfig,
    TurnLeftActionConfig,
    TurnRightActionConfig,
)
from omegaconf import DictConfig, OmegaConf

import memo_habitat.tasks.extobjnav
import memo_habitat.testing.simulators  # noqa: F401
from memo_habitat.config.simulator import EmbreeSimConfig
from memo_habitat.config.task import (
    MEASUREMENTS,
    SENSORS,
    ExtObjNavDatasetConfig,
    ExtObjNavTaskConfig,
    LookDownConfig,
    LookUpConfig,
)

#: Action names in the order of their indices.
ACTIONS: dict[str, Any] = {
    "stop": StopActionConfig,
    "move_forward": MoveForwardActionConfig,
    "turn_left": TurnLeftActionConfig,
    "turn_right": TurnRightActionConfig,
    "look_up": LookUpConfig,
    "look_down": LookDownConfig,
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


def task_config(
    data_path: Path | str,
    *,
    simulator: str = "FlatRoomSim-v0",
    oracle: bool = False,
    image_size: int = 64,
    overrides: Mapping[str, Any] | None = None,
) -> DictConfig:
    """Return a whole config (`habitat` at its root) of ExtObjNav with every measure and sensor.

    Args:
        data_path: the episode file.
        simulator: registered name.
        oracle: whether the oracle's sensor is there too.
        image_size: edge of the square images.
        overrides: dotted names below `habitat` and their values.
    """
    task = OmegaConf.structured(ExtObjNavTaskConfig)
    task.trial_steps = 200
    task.actions = {name: OmegaConf.structured(node) for name, node in ACTIONS.items()}
    task.measurements = {name: OmegaConf.structured(node) for name, node in MEASUREMENTS.items()}
    task.lab_sensors = {
        name: OmegaConf.structured(node)
        for name, node in SENSORS.items()
        if oracle or name != "oracle_action_sensor"
    }
    habitat = OmegaConf.structured(HabitatConfig)
    habitat.task = task
    habitat.dataset = OmegaConf.structured(ExtObjNavDatasetConfig)
    habitat.dataset.data_path = str(data_path)
    agent = AgentConfig(height=1.2, radius=0.2)
    for name, camera in (
        ("head_rgb_sensor", HeadRGBSensorConfig()),
        ("head_panoptic_sensor", HeadPanopticSensorConfig()),
    ):
        camera.width = camera.height = image_size
        camera.position = [0.0, 1.2, 0.0]
        agent.sim_sensors[name] = camera
    habitat.simulator = OmegaConf.structured(EmbreeSimConfig)
    habitat.simulator.type = simulator
    habitat.simulator.turn_angle = 30
    habitat.simulator.agents = {"main_agent": agent}
    habitat.simulator.agents_order = ["main_agent"]
    habitat.environment.max_episode_steps = 500
    habitat.environment.iterator_options.shuffle = False
    habitat.environment.iterator_options.group_by_scene = False
    config = OmegaConf.create({"habitat": habitat})
    for name, value in (overrides or {}).items():
        OmegaConf.update(config, f"habitat.{name}", value)
    return config
