"""Structured configs of the task's sensors.

A config composes them with this default; `oracle_action_sensor` is for evaluations of the oracle:

    defaults:
      - /habitat/task/lab_sensors: [one_hot_target_sensor, trial_gps_sensor, trial_compass_sensor,
          trial_step_sensor]
"""

from __future__ import annotations

from dataclasses import dataclass

from habitat.config.default_structured_configs import LabSensorConfig
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
    "last_reward_sensor": LastRewardSensorConfig,
    "oracle_action_sensor": OracleActionSensorConfig,
}


def register_configs() -> None:
    """Store the nodes in Hydra's ConfigStore; calling it again changes nothing."""
    for name, node in SENSORS.items():
        ConfigStore.instance().store(
            group="habitat/task/lab_sensors",
            name=name,
            node=node,
            package=f"habitat.task.lab_sensors.{name}",
        )
