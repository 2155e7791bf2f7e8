"""Structured configs of the evaluator."""

from __future__ import annotations

from dataclasses import dataclass

from habitat_baselines.config.default_structured_configs import EvaluatorConfig
from hydra.core.config_store import ConfigStore
from omegaconf import II


@dataclass
class TrialEvaluatorConfig(EvaluatorConfig):
    """Evaluation over whole trials (`habitat_baselines.evaluator`)."""

    _target_: str = "memo_habitat.evaluation.evaluator.TrialEvaluator"
    # Trials in every held-out house, and environment steps of each.
    trials_per_house: int = 3
    steps_per_trial: int = II("habitat.task.trial_steps")
    # From which, with the trial's name, targets and starts are drawn; and the agent's own draws.
    seed: int = 0
    # True: the likeliest action; False: actions are sampled.
    deterministic: bool = False
    # "checkpoint", "random" or "oracle".
    agent: str = "checkpoint"
    # Records go to <output_dir>/<name>/. Empty: the folder eval beside the checkpoint folder.
    output_dir: str = "${run_dir}/eval"
    # Empty: the agent, or the checkpoint's file name.
    name: str = ""
    # The first trials are filmed: how many, how many episodes of each, frames of each episode.
    filmed_trials: int = 3
    filmed_episodes: int = 4
    frames_per_episode: int = 8
    camera: str = "head_rgb"
    # Metres per cell of the saved top-down maps; 0 saves none.
    map_resolution: float = 0.05
    # True: write down where the agent's memory attends, at one step in every `inspect_every`.
    inspect_memory: bool = False
    inspect_every: int = 16


def register_configs() -> None:
    """Store this station's node under an own name."""
    ConfigStore.instance().store(
        group="habitat_baselines/evaluator", name="trial_evaluator", node=TrialEvaluatorConfig
    )
