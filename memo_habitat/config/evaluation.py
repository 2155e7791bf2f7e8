"""Structured configs of the evaluator, and how an evaluation's config is made from a training's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from habitat.config import read_write
from habitat_baselines.config.default_structured_configs import EvaluatorConfig
from hydra.core.config_store import ConfigStore
from omegaconf import II, DictConfig, OmegaConf, open_dict

from memo_habitat.config.task import MEASUREMENTS, SENSORS
from memo_habitat.errors import UserError

T = TypeVar("T")

# Keys of `habitat_baselines.rl` that say how the model is run, not which model it is: they may be
# changed when a training goes on, and in the evaluation of a checkpoint.
RUNTIME_KEYS = {
    "memory": (
        "token_budget",
        "activation_checkpointing",
        "compile",
        "compile_acting",
        "cuda_graphs",
    ),
    "encoder": ("chunk_size", "weights"),
}

# Keys that an evaluation of a run sets itself, and what to give instead.
OPTIONS_OF_KEYS = {
    "habitat_baselines.evaluator.agent": "use --agent",
    "habitat_baselines.evaluator.name": "use --name",
    "habitat_baselines.evaluator.shard": "use --shard",
    "habitat_baselines.evaluator.output_dir": "use --name: it is a folder in the run's eval/",
    "habitat_baselines.eval_ckpt_path_dir": "use --checkpoint",
    "habitat.dataset.split": "use --split",
}

# Keys that no record depends on, or that say which trials are played.
_NO_DIFFERENCE = {
    *("content_scenes", "split", "trial_steps", "shuffle", "gpu_device_id", "gpu_gpu"),
    *("cached_houses", "cached_fields", "arrangements_kept", "chunk_size"),
    *("activation_checkpointing", "compile", "compile_acting", "cuda_graphs"),
}


class Shard(NamedTuple):
    """The `number`-th of `total` parts of an evaluation, from 1; written "3/16"."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "3/16"; an empty text is the whole, 1/1.

        Raises:
            UserError: it is something else.
        """
        number, _, total = (text or "1/1").partition("/")
        if number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total):
            return cls(int(number), int(total))
        raise UserError(f"shard {text!r}: write which of how many, such as 3/16, counted from 1")

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @property
    def folder(self) -> str:
        """Name of its folder in the evaluation's; "" for the whole, which is in that itself."""
        return "" if self.total == 1 else f"shards/{self.number}-of-{self.total}"

    def of(self, trials: Sequence[T]) -> Sequence[T]:
        """Its trials: in turns, so that neighbours, which share a house, go to different shards."""
        return trials[self.number - 1 :: self.total]


@dataclass
class EvaluationPlan:
    """What to evaluate, and what to write down beside the records."""

    # Trials in every held-out house, and environment steps of each.
    trials_per_house: int = 3
    steps_per_trial: int = II("habitat.task.trial_steps")
    # From which, with the trial's name, targets, starts and sampled actions are drawn.
    seed: int = 0
    # Which part of the trials this process plays, such as 3/16, counted from 1; empty: all.
    shard: str = ""
    # True: the likeliest action; False: actions are sampled.
    deterministic: bool = False
    # True: the agent's memory is emptied at the start of every episode, not of every trial alone.
    forget: bool = False
    # The first trials are filmed: how many, how many episodes of each, frames of each episode.
    filmed_trials: int = 3
    filmed_episodes: int = 4
    frames_per_episode: int = 8
    camera: str = "head_rgb"
    # With habitat_baselines.eval.video_option: trials on video, and of these the failed episodes
    # alone, a video each.
    video_trials: int = 1
    video_failures: bool = False
    # Metres per cell of the saved top-down maps; 0 saves none.
    map_resolution: float = 0.05
    # True: write down where the agent's memory attends, at one step in every `inspect_every`.
    inspect_memory: bool = False
    inspect_every: int = 16
    # Of the first trial: at these moments, such as "asked,found,240", write down which segments'
    # memory was attended to and needed (`evaluation.inspection`). Empty: at none.
    inspect_moments: str = ""

    def __post_init__(self) -> None:
        Shard.parse(self.shard)
        for name in ("trials_per_house", "steps_per_trial", "inspect_every"):
            value = getattr(self, name)
            # An interpolation is a string here, until it is resolved in the composed config.
            if isinstance(value, int) and value < 1:
                raise UserError(f"{name} is {value}; give a whole number from 1 on")


@dataclass
class TrialEvaluatorConfig(EvaluationPlan, EvaluatorConfig):
    """Evaluation over whole trials (`habitat_baselines.evaluator`)."""

    _target_: str = "memo_habitat.evaluation.evaluator.TrialEvaluator"
    # "checkpoint", "random", "forward", "oracle" or "perfect_memory".
    agent: str = "checkpoint"
    # Records go to <output_dir>/<name>/. Empty: the folder eval beside the checkpoint folder.
    output_dir: str = ""
    # Empty: the agent, or the checkpoint's file name.
    name: str = ""


def evaluation_name(checkpoint: str, forget: bool) -> str:
    """Name of the folder of a checkpoint's evaluation, unless another one is given."""
    return f"{checkpoint}-forget" if forget else checkpoint


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
        task = config.habitat.task
        for name in ("extobjnav_episode", "extobjnav_failure"):
            task.measurements[name] = MEASUREMENTS[name]
        transforms = [t for p in baselines.rl.policy.values() for t in p.get("obs_transforms", ())]
        if any("detection" in name for name in (*task.lab_sensors, *transforms)):
            # What an agent with detections could remember: results are split by it.
            task.measurements.target_seen_earlier = MEASUREMENTS["target_seen_earlier"]
        # A teacher's actions cost time, and here nobody follows them but the player itself. It has
        # its sensor's own defaults: the mark does not depend on how a teacher moves.
        for name in SENSORS:
            if name.endswith("_action_sensor"):
                task.lab_sensors.pop(name, None)
                if name == f"{baselines.evaluator.agent}_action_sensor":
                    task.lab_sensors[name] = OmegaConf.structured(SENSORS[name])
        if trained is not None:
            for part in ("memory", "encoder", "policy"):
                own, had = baselines.rl[part], trained.habitat_baselines.rl[part]
                kept = {key: own[key] for key in RUNTIME_KEYS.get(part, ()) if key in own}
                baselines.rl[part] = OmegaConf.merge(own, had, kept)
        # What only the loss predicts need not be observed here, nor what a training began with.
        baselines.rl.encoder.auxiliary_sensor = ""
        baselines.rl.ddppo.pretrained = False
    return config


def evaluation_settings(config: DictConfig, with_model: bool) -> dict[str, Any]:
    """What the records of an evaluation follow from, in `evaluation_config`'s: value by key.

    That is the environment and, `with_model`, the model and how it is run. Not among them are what
    has a place of its own in `EvaluationMeta`, which trials are played, and what changes only
    speed.
    """
    parts = [f"habitat.{part}" for part in ("environment", "simulator", "task", "dataset")]
    if with_model:
        parts += [f"habitat_baselines.rl.{part}" for part in ("memory", "encoder", "precision")]
    found: dict[str, Any] = {}
    for part in parts:
        node = OmegaConf.select(config, part)
        is_leaf = not OmegaConf.is_config(node)
        found.update(_leaves(part, node if is_leaf else OmegaConf.to_container(node, resolve=True)))
    if found.get("habitat_baselines.rl.encoder.weights_digest"):
        del found["habitat_baselines.rl.encoder.weights"]  # wherever the file lies now
    return {key: v for key, v in found.items() if key.rpartition(".")[2] not in _NO_DIFFERENCE}


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield key, value
        return
    for name, inner in value.items():
        yield from _leaves(f"{key}.{name}", inner)


def register_configs() -> None:
    """Store this station's node under an own name."""
    ConfigStore.instance().store(
        group="habitat_baselines/evaluator", name="trial_evaluator", node=TrialEvaluatorConfig
    )
