"""The one place that imports every class registered with Habitat and every structured config.

Importing this module registers what an environment needs, so that `import memo_habitat.register` is
enough in a worker; `register_all` adds what training and evaluation need.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from memo_habitat.compat import habitat_sim_stub, startup
from memo_habitat.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Importing a module registers its classes.
ENVIRONMENT = (
    "memo_habitat.simulator.embree.sim",
    "memo_habitat.simulator.habitat_sim.sim",
    "memo_habitat.tasks.extobjnav",
)
TRAINING = (
    "memo_habitat.rollout.storage",
    "memo_habitat.policy.policy",
    "memo_habitat.policy.image_detector",
    "memo_habitat.ppo.updater",
    "memo_habitat.trainer.agent_access_mgr",
    "memo_habitat.trainer.trainer",
)


def register_environment() -> None:
    """Register simulator, task, data set, sensors, measures, actions, and their configs."""
    with startup.importing("habitat"):
        from memo_habitat.config import register_environment_configs

        register_environment_configs()
        for module in ENVIRONMENT:
            import_module(module)


@cache
def register_all() -> None:
    """Register everything, once; imports Habitat-Baselines, which takes seconds."""
    from memo_habitat.compat.habitat_checkpoints import allow_configs
    from memo_habitat.config import register_training_configs

    register_training_configs()
    for module in TRAINING:
        import_module(module)
    allow_configs()


def import_plugins(config: DictConfig) -> None:
    """Import the modules of `habitat_baselines.plugins`, which register classes of a user's own.

    In the trainer's process and in every worker: none knows of another's imports.

    Raises:
        UserError: there is no such module.
    """
    from omegaconf import OmegaConf

    for name in OmegaConf.select(config, "habitat_baselines.plugins", default=None) or ():
        try:
            import_module(name)
        except ImportError as error:
            raise UserError(
                f"habitat_baselines.plugins={name}: {error}; put the folder of a module of your "
                "own on PYTHONPATH"
            ) from error


habitat_sim_stub.install()
startup.silence_gym_notice()
register_environment()
