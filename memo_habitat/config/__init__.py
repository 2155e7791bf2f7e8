"""Structured configs, one file per station, stored in Hydra's ConfigStore under own names."""

from __future__ import annotations


def register_environment_configs() -> None:
    """Store the nodes of simulator, task and sensors, which need Habitat-Lab alone."""
    from memo_habitat.config import simulator, task

    for station in (simulator, task):
        station.register_configs()
    _find_groups_from_folders()


def register_training_configs() -> None:
    """Store the nodes of the report and of the trainer, which need Habitat-Baselines."""
    # Imported here: the workers of environments never load Habitat-Baselines.
    from memo_habitat.config import evaluation, trainer

    for station in (evaluation, trainer):
        station.register_configs()


def _find_groups_from_folders() -> None:
    """Let `+habitat/task/measurements@...=top_down_map` be said of configs in folders.

    Hydra looks for what is added by the command line beside the config: of extobjnav/apartments in
    extobjnav/habitat/task/measurements. There the same nodes are found.
    """
    from hydra.core.config_store import ConfigStore

    groups = ConfigStore.instance().repo
    for folder in ("extobjnav", "nav"):
        groups.setdefault(folder, {})["habitat"] = groups["habitat"]
