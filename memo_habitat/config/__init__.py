"""Structured configs, one file per station, stored in Hydra's ConfigStore under own names."""

from __future__ import annotations


def register_environment_configs() -> None:
    """Store the nodes of simulator, task and sensors, which need Habitat-Lab alone."""
    from memo_habitat.config import simulator, task

    for station in (simulator, task):
        station.register_configs()


def register_training_configs() -> None:
    """Store the nodes of the report and of the trainer, which need Habitat-Baselines."""
    # Imported here: the workers of environments never load Habitat-Baselines.
    from memo_habitat.config import evaluation, trainer

    for station in (evaluation, trainer):
        station.register_configs()
