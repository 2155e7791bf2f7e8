"""Structured configs of the ExtObjNav task: task, data set, measures and look actions.

A config composes them with these defaults (and `config/sensors.py`'s):

    defaults:
      - /habitat: habitat_config_base
      - /habitat/task: extobjnav_task_base
      - /habitat/task/actions: [stop, move_forward, turn_left, turn_right,
          extobjnav_look_up, extobjnav_look_down]
      - /habitat/task/measurements: [extobjnav_distance_to_goal, extobjnav_success, extobjnav_spl,
          extobjnav_soft_spl, extobjnav_num_steps, extobjnav_collisions, extobjnav_reward]
      - /habitat/dataset: extobjnav_dataset_base
      - _self_
"""

from __future__ import annotations

from dataclasses import dataclass

from habitat.config.default_structured_configs import (
    ActionConfig,
    DatasetConfig,
    LabSensorConfig,
    MeasurementConfig,
    TaskConfig,
)
from hydra.core.config_store import ConfigStore


@dataclass
class OneHotTargetSensorConfig(LabSensorConfig):
    """The target category, one-hot over the data set's vocabulary."""

    type: str = "OneHotTargetSensor"


@dataclass
class TrialGPSSensorConfig(LabSensorConfig):
    """Position (forward, left) in m in the trial's frame."""

    type: str = "TrialGPSSensor"


@dataclass
class TrialCompassSensorConfig(LabSensorConfig):
    """Heading in rad in the trial's frame."""

    type: str = "TrialCompassSensor"


@dataclass
class TrialStepSensorConfig(LabSensorConfig):
    """Steps taken in the trial."""

    type: str = "TrialStepSensor"


@dataclass
class TargetFoundSensorConfig(LabSensorConfig):
    """Whether stopping now would succeed: for auxiliary losses, never an input."""

    type: str = "TargetFoundSensor"


@dataclass
class DetectionsSensorConfig(LabSensorConfig):
    """The nearest detected instance of each category; options are the task's `detection_*`."""

    type: str = "DetectionsSensor"


@dataclass
class TargetDetectionSensorConfig(LabSensorConfig):
    """The target's row of the detections, and whether stopping now would succeed by it."""

    type: str = "TargetDetectionSensor"


@dataclass
class LastRewardSensorConfig(LabSensorConfig):
    """Reward of the trial's previous step."""

    type: str = "LastRewardSensor"


@dataclass
class OracleActionSensorConfig(LabSensorConfig):
    """The best action, from knowledge of the house."""

    type: str = "OracleActionSensor"


SENSORS: dict[str, type[LabSensorConfig]] = {
    "one_hot_target_sensor": OneHotTargetSensorConfig,
    "trial_gps_sensor": TrialGPSSensorConfig,
    "trial_compass_sensor": TrialCompassSensorConfig,
    "trial_step_sensor": TrialStepSensorConfig,
    "target_found_sensor": TargetFoundSensorConfig,
    "detections_sensor": DetectionsSensorConfig,
    "target_detection_sensor": TargetDetectionSensorConfig,
    "last_reward_sensor": LastRewardSensorConfig,
    "oracle_action_sensor": OracleActionSensorConfig,
}


def _register_sensors() -> None:
    """Store the nodes in Hydra's ConfigStore; calling it again changes nothing."""
    for name, node in SENSORS.items():
        ConfigStore.instance().store(
            group="habitat/task/lab_sensors",
            name=name,
            node=node,
            package=f"habitat.task.lab_sensors.{name}",
        )


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
class SuccessConfig(MeasurementConfig):
    """1 after a stop within reach and in view of the target."""

    type: str = "ExtObjNavSuccess"


@dataclass
class SPLConfig(MeasurementConfig):
    """Success weighted by path length."""

    type: str = "ExtObjNavSPL"


@dataclass
class SoftSPLConfig(MeasurementConfig):
    """Progress weighted by path length."""

    type: str = "ExtObjNavSoftSPL"


@dataclass
class DistanceToGoalConfig(MeasurementConfig):
    """Geodesic distance (m) to the nearest viewpoint."""

    type: str = "ExtObjNavDistanceToGoal"


@dataclass
class NumStepsConfig(MeasurementConfig):
    """Steps of the episode."""

    type: str = "ExtObjNavNumSteps"


@dataclass
class CollisionsConfig(MeasurementConfig):
    """Steps that ran into something."""

    type: str = "ExtObjNavCollisions"


@dataclass
class TargetSeenEarlierConfig(MeasurementConfig):
    """1 where the target was detected in the trial before the episode began."""

    type: str = "ExtObjNavTargetSeenEarlier"


@dataclass
class RewardConfig(MeasurementConfig):
    """Reward of a step: per metre of progress, per step, and at the successful stop."""

    type: str = "ExtObjNavReward"
    distance_reward: float = 1.0
    slack_reward: float = -0.003
    success_reward: float = 2.0


@dataclass
class EpisodeRecordConfig(MeasurementConfig):
    """What an evaluation writes down; costs a copy of the path per step, so not for training."""

    type: str = "ExtObjNavEpisodeRecord"


@dataclass
class LookUpConfig(ActionConfig):
    """Tilt the camera up by the simulator's tilt angle."""

    type: str = "ExtObjNavLookUpAction"


@dataclass
class LookDownConfig(ActionConfig):
    """Tilt the camera down by the simulator's tilt angle."""

    type: str = "ExtObjNavLookDownAction"


MEASUREMENTS: dict[str, type[MeasurementConfig]] = {
    "extobjnav_distance_to_goal": DistanceToGoalConfig,
    "extobjnav_success": SuccessConfig,
    "extobjnav_spl": SPLConfig,
    "extobjnav_soft_spl": SoftSPLConfig,
    "extobjnav_num_steps": NumStepsConfig,
    "extobjnav_collisions": CollisionsConfig,
    "target_seen_earlier": TargetSeenEarlierConfig,
    "extobjnav_reward": RewardConfig,
    "extobjnav_episode": EpisodeRecordConfig,
}


def register_configs() -> None:
    """Store the nodes in Hydra's ConfigStore; calling it again changes nothing."""
    _register_sensors()
    store = ConfigStore.instance().store
    store(
        group="habitat/task",
        name="extobjnav_task_base",
        node=ExtObjNavTaskConfig,
        package="habitat.task",
    )
    store(
        group="habitat/dataset",
        name="extobjnav_dataset_base",
        node=ExtObjNavDatasetConfig,
        package="habitat.dataset",
    )
    for name, node in MEASUREMENTS.items():
        store(
            group="habitat/task/measurements",
            name=name,
            node=node,
            package=f"habitat.task.measurements.{name}",
        )
    for name, look in (("look_up", LookUpConfig), ("look_down", LookDownConfig)):
        store(
            group="habitat/task/actions",
            name=f"extobjnav_{name}",
            node=look,
            package=f"habitat.task.actions.{name}",
        )
