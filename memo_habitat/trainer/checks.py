"""What can be known to be wrong before anything is launched."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig

from memo_habitat.errors import UserError
from memo_habitat.trainer.checkpoints import RESUME_STATE


def check_training_config(config: DictConfig) -> None:
    """Refuse a config that could not train.

    Raises:
        UserError: naming the key, its value, and what would be valid.
    """
    check_model_config(config)
    trial_steps = config.habitat.task.trial_steps
    updates = config.habitat_baselines.rl.ppo.updates_per_trial
    if updates < 1 or trial_steps % updates:
        divisors = [d for d in range(1, trial_steps + 1) if trial_steps % d == 0]
        nearest = sorted(divisors, key=lambda d: abs(d - updates))[:3]
        raise UserError(
            f"habitat.task.trial_steps={trial_steps} is not divisible by habitat_baselines.rl.ppo."
            f"updates_per_trial={updates}: try {', '.join(map(str, sorted(nearest)))}"
        )
    folder = Path(config.habitat_baselines.checkpoint_folder)
    writable = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not writable.is_dir() or not os.access(writable, os.W_OK):
        raise UserError(
            f"habitat_baselines.checkpoint_folder={folder} cannot be written: choose another folder"
        )
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RESUME_STATE).is_file():
        raise UserError(
            f"habitat_baselines.checkpoint_folder={folder} holds files but nothing to resume from: "
            "choose an empty folder"
        )


def check_model_config(config: DictConfig) -> None:
    """Refuse a memory that could not be built."""
    memory = config.habitat_baselines.rl.memory
    if memory.summary_length >= memory.segment_length:
        raise UserError(
            f"habitat_baselines.rl.memory.summary_length={memory.summary_length} must be less than "
            f"segment_length={memory.segment_length}: a summary is shorter than what it sums up"
        )
