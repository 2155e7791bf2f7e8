"""Structured configs of the evaluator."""

from __future__ import annotations

from dataclasses import dataclass

from habitat_baselines.config.default_structured_configs import EvaluatorConfig
from hydra.core.config_store import ConfigStore
from omegaconf import II

from memo_habitat.errors import UserError


@dataclass
class EvaluationPlan:
    """What to evaluate, and what to write down beside the records."""

    # Trials in every held-out house, and environment steps of each.
    trials_per_house: int = 3
    steps_per_trial: int = II("habitat.task.trial_steps")
    # From which, with the trial's name, targets and starts are drawn; and the agent's own draws.
    seed: int = 0
    # True: the likeliest action; False: actions are sampled.
    deterministic: bool = False
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

    def __post_init__(self) -> None:
        for name in ("trials_per_house", "steps_per_trial", "inspect_every"):
            value = getattr(self, name)
            # An interpolation is a string here, until it is resolved in the composed config.
            if isinstance(value, int) and value < 1:
                raise UserError(f"{name} is {value}; give a whole number from 1 on")


@dataclass
class TrialEvaluatorConfig(EvaluationPlan, EvaluatorConfig):
    """Evaluation over whole trials (`habitat_baselines.evaluator`)."""

    _target_: str = "memo_habitat.evaluation.evaluator.TrialEvaluator"
    # "checkpoint", "random" or "oracle".
    agent: str = "checkpoint"
    # Records go to <output_dir>/<name>/. Empty: the folder eval beside the checkpoint folder.
    output_dir: str = ""
    # Empty: the agent, or the checkpoint's file name.
    name: str = ""


def register_configs() -> None:
    """Store this station's node under an own name."""
    ConfigStore.instance().store(
        group="habitat_baselines/evaluator", name="trial_evaluator", node=TrialEvaluatorConfig
    )
