"""The config of an evaluation, made from the one that was trained with."""

from __future__ import annotations

from habitat.config import read_write
from omegaconf import DictConfig, OmegaConf, open_dict

from memo_habitat.config.task import EpisodeRecordConfig, OracleActionSensorConfig
from memo_habitat.trainer.validation import RUNTIME_KEYS


def evaluation_config(config: DictConfig, trained: DictConfig | None) -> DictConfig:
    """Copy `config` for evaluation: its split, its trial length, what records are made from.

    Args:
        config: the config given; everything but the model comes from it.
        trained: the config in the checkpoint, from which the model comes; None without one. How
            the model is run (`RUNTIME_KEYS`), such as its token budget, comes from `config`.
    """
    config = config.copy()
    baselines = config.habitat_baselines
    with read_write(config), open_dict(config):
        config.habitat.dataset.split = baselines.eval.split
        config.habitat.task.trial_steps = baselines.evaluator.steps_per_trial
        # A shuffled order has no meaning here: the evaluator says which trials are played.
        config.habitat.environment.iterator_options.shuffle = False
        config.habitat.task.measurements.extobjnav_episode = OmegaConf.structured(
            EpisodeRecordConfig
        )
        if baselines.evaluator.agent == "oracle":
            config.habitat.task.lab_sensors.oracle_action_sensor = OmegaConf.structured(
                OracleActionSensorConfig
            )
        if trained is not None:
            for part in ("memory", "encoder", "policy"):
                own, had = baselines.rl[part], trained.habitat_baselines.rl[part]
                kept = {key: own[key] for key in RUNTIME_KEYS.get(part, ()) if key in own}
                baselines.rl[part] = OmegaConf.merge(own, had, kept)
        # What only the loss predicts need not be observed here.
        baselines.rl.encoder.auxiliary_sensor = ""
    return config
