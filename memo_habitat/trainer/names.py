"""Whether the classes that a config names exist, and are what the trainer `memo` works with."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from memo_habitat.errors import UserError

# Kinds of classes in Habitat-Baselines' registry: the keys of `habitat_baselines` that name them,
# and a method that the trainer memo calls beside those of Habitat's own classes.
_REGISTERED = {
    "trainer": ("trainer_name", "train"),
    "updater": ("updater_name distrib_updater_name", "anneal"),
    "storage": ("rollout_storage_name", "minibatches"),
    "agent": ("rl.agent.type", "refresh_memory"),
    "policy": ("", "refresh"),  # of each agent, see `_keys`
}
_FACTORY = "vector_env_factory._target_"


def check_names(config: DictConfig) -> None:
    """Raise UserError for a name that no class is registered by, or one of another trainer.

    Modules in `habitat_baselines.plugins` have been imported: what they register is known.
    """
    from habitat_baselines.common.baseline_registry import baseline_registry

    baselines = config.habitat_baselines
    by_memo = baselines.trainer_name == "memo"
    for kind, (_, method) in _REGISTERED.items():
        if kind == "storage" and not by_memo:  # Habitat's VER registers its own as it begins
            continue
        known = baseline_registry.mapping[kind]
        fit = sorted(n for n, made in known.items() if not by_memo or hasattr(made, method))
        for key in _keys(kind, baselines):
            name = OmegaConf.select(baselines, key)
            if name is None or name in fit:  # runs of before lack new keys
                continue
            why = " is none of the trainer memo's" if name in known else ""
            raise UserError(
                f"habitat_baselines.{key}={name!r}{why}: choose one of {', '.join(fit)}, or name "
                "the module that registers it in habitat_baselines.plugins"
            )
    _check_factory(OmegaConf.select(baselines, _FACTORY))


def _keys(kind: str, baselines: DictConfig) -> Iterator[str]:
    yield from _REGISTERED[kind][0].split()
    if kind == "policy":
        yield from (f"rl.policy.{agent}.name" for agent in baselines.rl.policy)


def _check_factory(target: str | None) -> None:
    from hydra.utils import get_object

    if target is None:
        return
    try:
        get_object(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"habitat_baselines.{_FACTORY}={target}: there is no such class; choose "
            "habitat_baselines/vector_env_factory=workers or batched, or put the folder of a "
            "module of your own on PYTHONPATH"
        ) from error
