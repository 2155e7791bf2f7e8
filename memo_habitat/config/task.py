"""Structured configs of the tasks: ExtObjNav with its data set, sensors and measures, and
Dark-Key-To-Door.

A config composes ExtObjNav with these defaults:

    defaults:
      - /habitat: habitat_config_base
      - /habitat/task: extobjnav_task_base
      - /habitat/task/actions: [stop, move_forward, turn_left, turn_right,
          extobjnav_look_up, extobjnav_look_down]
      - /habitat/task/lab_sensors: [one_hot_target_sensor, trial_gps_sensor, ...]   # SENSORS
      - /habitat/task/measurements: [extobjnav_success, extobjnav_reward, ...]      # MEASUREMENTS
      - /habitat/dataset: extobjnav_dataset_base
      - _self_

and Dark-Key-To-Door by `/habitat/task: dark_key_task_base`, `/habitat/dataset:
dataset_config_schema` and the name of what makes its environments:

    habitat_baselines:
      vector_env_factory:
        _target_: memo_habitat.tasks.dark_key.vector_env.DarkKeyVectorEnvFactory
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from habitat.config.default_structured_configs import (
    ActionConfig,
    DatasetConfig,
    LabSensorConfig,
    MeasurementConfig,
    TaskConfig,
)
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf


@dataclass
class ExtObjNavTaskConfig(TaskConfig):
    """The ExtObjNav task.

    Attributes:
        trial_steps: steps of a trial.
        success_distance: farthest horizontal distance (m) that counts, for viewpoints and success.
        min_visible_pixels: fewest pixels of the instance in `camera` that count as seeing it.
        camera: uuid of the simulator's camera that must see the instance.
        detection_range: farthest horizontal distance (m) at which an instance is detected.
        detection_miss_probability: chance that an instance in view is missed at a step.
        viewpoint_spacing: grid (m) on which viewpoints are looked for.
        eye_height: height (m) above the floor from which a viewpoint looks.
        arrangements_kept: arrangements whose viewpoints are remembered.
        success_reward: stays 0; the reward measure counts it.
        slack_reward: stays 0; the reward measure counts it.
    """

    type: str = "ExtObjNavTask-v0"
    reward_measure: str | None = "extobjnav_reward"
    success_measure: str | None = "extobjnav_success"
    success_reward: float = 0.0
    slack_reward: float = 0.0
    end_on_success: bool = True
    goal_sensor_uuid: str = "one_hot_target_sensor"
    trial_steps: int = 4096
    success_distance: float = 2.0
    min_visible_pixels: int = 10
    camera: str = "head_rgb"
    detection_range: float = 5.0
    detection_miss_probability: float = 0.0
    viewpoint_spacing: float = 0.1
    eye_height: float = 1.2
    arrangements_kept: int = 16


@dataclass
class ExtObjNavDatasetConfig(DatasetConfig):
    """Arrangements of small objects in houses; `data_path` may contain `{split}`."""

    type: str = "ExtObjNav-v0"
    split: str = "train"
    data_path: str = "data/studios/episodes/{split}.json.gz"


@dataclass
class PerfectMemoryActionSensorConfig(LabSensorConfig):
    """`moves`: "planned" or "reactive", see `tasks.extobjnav.searcher.MOVES`."""

    type: str = "PerfectMemoryActionSensor"
    moves: str = "planned"


@dataclass
class RewardConfig(MeasurementConfig):
    """Reward of a step: per metre of progress, per step, and at the successful stop."""

    type: str = "ExtObjNavReward"
    distance_reward: float = 1.0
    slack_reward: float = -0.003
    success_reward: float = 2.0


@dataclass
class DarkKeyTaskConfig(TaskConfig):
    """The grid. The length of an episode is `habitat.environment.max_episode_steps`.

    Attributes:
        size: cells along each side.
        trial_steps: steps of a trial.
    """

    type: str = "DarkKeyToDoor-v0"
    size: int = 9
    trial_steps: int = 500


#: What each observes is said in `tasks.extobjnav.sensors`.
SENSORS: dict[str, LabSensorConfig] = {
    "one_hot_target_sensor": LabSensorConfig("OneHotTargetSensor"),
    "trial_gps_sensor": LabSensorConfig("TrialGPSSensor"),
    "trial_compass_sensor": LabSensorConfig("TrialCompassSensor"),
    "trial_step_sensor": LabSensorConfig("TrialStepSensor"),
    "detections_sensor": LabSensorConfig("DetectionsSensor"),
    "target_detection_sensor": LabSensorConfig("TargetDetectionSensor"),
    "last_reward_sensor": LabSensorConfig("LastRewardSensor"),
    "range_scan_sensor": LabSensorConfig("RangeScanSensor"),
    "camera_tilt_sensor": LabSensorConfig("CameraTiltSensor"),
    # For a teacher and for the agent `perfect_memory`, no input of a policy.
    "perfect_memory_action_sensor": PerfectMemoryActionSensorConfig(),
    # These two know the house: for auxiliary losses and for the oracle, no input of a policy.
    "target_found_sensor": LabSensorConfig("TargetFoundSensor"),
    "oracle_action_sensor": LabSensorConfig("OracleActionSensor"),
}

#: What each measures is said in `tasks.extobjnav.measures`.
MEASUREMENTS: dict[str, MeasurementConfig] = {
    "extobjnav_distance_to_goal": MeasurementConfig("ExtObjNavDistanceToGoal"),
    "extobjnav_success": MeasurementConfig("ExtObjNavSuccess"),
    "extobjnav_spl": MeasurementConfig("ExtObjNavSPL"),
    "extobjnav_soft_spl": MeasurementConfig("ExtObjNavSoftSPL"),
    "extobjnav_num_steps": MeasurementConfig("ExtObjNavNumSteps"),
    "extobjnav_collisions": MeasurementConfig("ExtObjNavCollisions"),
    "extobjnav_failure": MeasurementConfig("ExtObjNavFailure"),
    "target_seen_earlier": MeasurementConfig("ExtObjNavTargetSeenEarlier"),
    "extobjnav_reward": RewardConfig(),
    # For evaluations alone: every step of it copies the path.
    "extobjnav_episode": MeasurementConfig("ExtObjNavEpisodeRecord"),
}

#: Habitat's own move a camera of Habitat-Sim; these ask any simulator.
LOOK_ACTIONS = {
    "look_up": ActionConfig("ExtObjNavLookUpAction"),
    "look_down": ActionConfig("ExtObjNavLookDownAction"),
}


def register_configs() -> None:
    """Store the nodes in Hydra's ConfigStore; calling it again changes nothing."""
    store = ConfigStore.instance().store
    named: dict[str, Mapping[str, Any]] = {
        "habitat/task/lab_sensors": SENSORS,
        "habitat/task/measurements": MEASUREMENTS,
        "habitat/task/actions": LOOK_ACTIONS,
    }
    for group, nodes in named.items():
        for name, node in nodes.items():
            # The actions' names in the group say whose they are; in the task they are plain.
            choice = f"extobjnav_{name}" if nodes is LOOK_ACTIONS else name
            package = f"{group.replace('/', '.')}.{name}"
            store(group=group, name=choice, node=node, package=package)
    for group, name, config in (
        ("habitat/task", "extobjnav_task_base", ExtObjNavTaskConfig),
        ("habitat/task", "dark_key_task_base", DarkKeyTaskConfig),
        ("habitat/dataset", "extobjnav_dataset_base", ExtObjNavDatasetConfig),
    ):
        store(group=group, name=name, node=config, package=group.replace("/", "."))


def action_names(config: Any) -> list[str]:
    """Of the task, by index; none where it is not played in Habitat's environments."""
    task = config.habitat.task
    return [] if OmegaConf.is_missing(task, "actions") else list(task.actions)
