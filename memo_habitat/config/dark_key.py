"""Structured config of Dark-Key-To-Door: its task node.

A config composes it with these defaults, and names the factory of its environments:

    defaults:
      - /habitat: habitat_config_base
      - /habitat/task: dark_key_task_base
      - /habitat/dataset: dataset_config_schema
      - /habitat_baselines: memo_rl_config_base
      - _self_
    habitat_baselines:
      vector_env_factory:
        _target_: memo_habitat.tasks.dark_key.vector_env.DarkKeyVectorEnvFactory
"""

from __future__ import annotations

from dataclasses import dataclass

from habitat.config.default_structured_configs import TaskConfig
from hydra.core.config_store import ConfigStore


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


def register_configs() -> None:
    """Store the node in Hydra's ConfigStore; calling it again changes nothing."""
    ConfigStore.instance().store(
        group="habitat/task",
        name="dark_key_task_base",
        node=DarkKeyTaskConfig,
        package="habitat.task",
    )
