"""The classes that a config names: who registered them, and whether they fit together."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from habitat.core.registry import registry
from habitat_baselines.common.baseline_registry import baseline_registry
from habitat_baselines.rl.ppo.ppo_trainer import PPOTrainer
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from memo_habitat.errors import UserError
from memo_habitat.register import import_plugins

# Kinds of classes in Habitat-Baselines' registry: the keys of `habitat_baselines` that name them,
# and a method of those that the trainer memo works with, which Habitat's own do not have.
_REGISTERED = {
    "trainer": ("trainer_name", ""),
    "updater": ("updater_name distrib_updater_name", "anneal"),
    "storage": ("rollout_storage_name", "minibatches"),
    "agent": ("rl.agent.type", "refresh_memory"),
    "policy": ("", "refresh"),  # of each agent, see `_keys`
}
_FACTORY = "vector_env_factory._target_"
# Factories that make environments of Habitat's own class, from classes in Habitat-Lab's registry.
_LAB_FACTORIES = ("memo_habitat.trainer.env_factory.", "habitat_baselines.")
# Kinds in that registry, with the node of the config that has the name, or the names, of a class.
_WITH_LAB = {"task": "task", "sim": "simulator", "dataset": "dataset"}
_MANY_WITH_LAB = {"sensor": "lab_sensors", "measure": "measurements", "task_action": "actions"}


def check_names(config: DictConfig) -> None:
    """Raise UserError for a name that no class is registered by, or one of another trainer.

    Modules in `habitat_baselines.plugins` have been imported: what they register is known.
    """
    baselines = config.habitat_baselines
    by_memo = is_memo_trainer(config)
    trainer = baseline_registry.get_trainer(baselines.trainer_name)
    for kind, (_, method) in _REGISTERED.items():  # the trainer first: what follows is to fit it
        if kind == "storage" and not by_memo:  # Habitat's VER registers its own as it begins
            continue
        known = baseline_registry.mapping[kind]
        fit = sorted(
            name
            for name, made in known.items()
            if not method or (hasattr(made, method) if by_memo else _fits(made, trainer))
        )
        for key in _keys(kind, baselines):
            name = OmegaConf.select(baselines, key)
            if name is None or name in fit:  # Habitat's own configs lack some
                continue
            why = f" is none of the trainer {baselines.trainer_name}'s" if name in known else ""
            raise UserError(
                f"habitat_baselines.{key}={name!r}{why}: choose one of {', '.join(fit)}, or name "
                "the module that registers it in habitat_baselines.plugins"
            )
    factory = OmegaConf.select(baselines, _FACTORY)
    if factory is not None:
        _check_factory(factory)
    if factory is None or factory.startswith(_LAB_FACTORIES):
        _check_lab_names(config)


def is_memo_trainer(config: DictConfig) -> bool:
    """Whether it trains with `memo`, or with a plugin's trainer that is derived from it."""
    name = config.habitat_baselines.trainer_name
    if name == "memo":
        return True
    import_plugins(config)
    # Whatever is derived from it has imported it, and that registers it.
    made, memo = map(baseline_registry.get_trainer, (name, "memo"))
    return made is not None and memo is not None and issubclass(made, memo)


def _fits(made: type, trainer: type) -> bool:
    """Whether a trainer that is not `memo` works with a class, which may be a plugin's, as it may.

    Habitat's PPO would call what ours do not have. Another trainer knows what it calls.
    """
    is_ours = any(each.__module__.startswith("memo_habitat.") for each in made.__mro__)
    return not (is_ours and issubclass(trainer, PPOTrainer))


def _keys(kind: str, baselines: DictConfig) -> Iterator[str]:
    yield from _REGISTERED[kind][0].split()
    if kind == "policy":
        yield from (f"rl.policy.{agent}.name" for agent in baselines.rl.policy)


def _check_factory(target: str) -> None:
    try:
        get_object(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"habitat_baselines.{_FACTORY}={target}: there is no such class; choose "
            "habitat_baselines/vector_env_factory=workers or batched, or put the folder of a "
            "module of your own on PYTHONPATH"
        ) from error


def _check_lab_names(config: DictConfig) -> None:
    keys = [(kind, f"habitat.{node}.type") for kind, node in _WITH_LAB.items()]
    for kind, group in _MANY_WITH_LAB.items():
        names = OmegaConf.select(config, f"habitat.task.{group}") or ()
        keys += [(kind, f"habitat.task.{group}.{name}.type") for name in names]
    for kind, key in keys:
        name, known = OmegaConf.select(config, key), registry.mapping[kind]
        if name is None or name in known:
            continue
        nearest = " or ".join(difflib.get_close_matches(name, known, n=3))
        raise UserError(
            f"{key}={name!r}: no class is registered by this name; "
            + (f"did you mean {nearest}, or is" if nearest else "is")
            + " the module that registers it missing from habitat_baselines.plugins?"
        )
