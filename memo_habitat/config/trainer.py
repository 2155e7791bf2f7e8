"""Structured configs of the policy, the PPO update and the trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional

from habitat_baselines.config.default_structured_configs import (
    AgentAccessMgrConfig,
    HabitatBaselinesRLConfig,
    ObsTransformConfig,
    PolicyConfig,
    PPOConfig,
    RLConfig,
    VectorEnvFactoryConfig,
)
from hydra.core.config_store import ConfigStore
from omegaconf import II

from memo_habitat.config.evaluation import TrialEvaluatorConfig
from memo_habitat.config.memory import MemoryConfig
from memo_habitat.config.policy import EncoderConfig


@dataclass
class MemoPPOConfig(PPOConfig):
    """PPO over trials: Habitat's own keys with the recipe's values, and what trials add."""

    clip_param: float = 0.2
    ppo_epoch: int = 4
    num_mini_batch: int = 4
    value_loss_coef: float = 0.5
    entropy_coef: float = 0.01
    # Where the entropy coefficient arrives, linearly, at the end of training; null: it stays.
    entropy_coef_final: Optional[float] = None
    # "adam", or "muon": Muon for the matrices of the memory, Adam for the rest.
    optimizer: str = "adam"
    lr: float = 2e-4
    eps: float = 1e-5
    max_grad_norm: float = 0.2
    gamma: float = 0.99
    tau: float = 0.95
    # By the mean and deviation of the minibatch: trials that are rich by luck (a key beside the
    # start) set the scale of their own minibatch alone.
    use_normalized_advantage: bool = False
    use_clipped_value_loss: bool = False
    # Weight of predicting rl.encoder.auxiliary_sensor, where there is one.
    auxiliary_coef: float = 1.0
    # A teacher at the beginning: the observation (uuid) that names its actions, the share of steps
    # in which it acts, declining linearly, and the weight of imitating it in all steps. From
    # `teacher_until` of the training on it has gone, and rewards are learned from; 1: imitation
    # alone. A weight of 0: no teacher.
    teacher: str = "perfect_memory_action"
    teacher_share: float = 0.5
    imitation_coef: float = 0.0
    teacher_until: float = 0.5
    # Weight of the recall loss (rl.encoder.recall).
    recall_coef: float = 1.0
    # Optimiser steps, after each minibatch's own, in which the same trials are asked for other
    # targets than they had; with rl.encoder.recall, and without accumulate_gradients.
    hindsight_passes: int = 0
    # One optimiser step per epoch, from all minibatches; False: one per minibatch.
    accumulate_gradients: bool = True
    # Updates in the course of one trial; the last one is the full update.
    updates_per_trial: int = 16
    # After an update in the course of a trial, its finished episodes are put into a random order:
    # the policy is not to rely on the one in which they came.
    shuffle_episodes: bool = False
    # Learning rate: linear from lr * lr_warmup_start over lr_warmup_steps, then cosine to lr_final.
    lr_warmup_steps: int = 100_000
    lr_warmup_start: float = 1e-3
    lr_final: float = 1e-5
    # False: GAE stops at each episode's end. True: carried across the episodes of a trial.
    returns_across_episodes: bool = False
    # Recompute the value predictions with the new weights after every update.
    refresh_values: bool = True
    # Gradients of context steps (older than the last update) reach the image encoder too.
    context_encoder_gradients: bool = False
    # GB (10^9 bytes) of a rollout's observations that are kept on the GPU. The others, those of the
    # largest sensors, are in pinned host memory, and copied for each minibatch. null: all.
    rollout_gpu_gb: Optional[float] = None
    # Steps encoded at once when caches are recomputed: bounds memory, not results.
    refresh_chunk: int = 256


@dataclass
class MemoPolicyConfig(PolicyConfig):
    """The memo policy by its registered name."""

    name: str = "MemoPolicy"


@dataclass
class MemoAgentConfig(AgentAccessMgrConfig):
    """The memo agent access manager by its registered name."""

    type: str = "MemoAgentAccessMgr"


@dataclass
class MemoRLConfig(RLConfig):
    """Habitat's reinforcement-learning node with the memory and the encoder."""

    agent: AgentAccessMgrConfig = field(default_factory=MemoAgentConfig)

    policy: Dict[str, PolicyConfig] = field(
        default_factory=lambda: {"main_agent": MemoPolicyConfig()}
    )
    ppo: MemoPPOConfig = field(default_factory=MemoPPOConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    # Logit of the action `stop` before training, where others have 0: a stop ends the episode, and
    # who stops at every sixth step never gets anywhere. 0: none.
    initial_stop_bias: float = 0.0
    # "float32", or "bfloat16" by autocast: in acting, training and refresh, caches included.
    precision: str = "float32"


@dataclass
class MemoVectorEnvFactoryConfig(VectorEnvFactoryConfig):
    """Workers that register this package and say what kills them."""

    _target_: str = "memo_habitat.trainer.env_factory.MemoVectorEnvFactory"


#: habitat_baselines/vector_env_factory=... of ExtObjNav.
VECTOR_ENV_FACTORIES = {
    "workers": MemoVectorEnvFactoryConfig._target_,
    # In the trainer's process: vector sensors only, no images.
    "batched": "memo_habitat.trainer.env_factory.BatchedVectorEnvFactory",
}


@dataclass
class MemoBaselinesConfig(HabitatBaselinesRLConfig):
    """`habitat_baselines` for the `memo` trainer."""

    trainer_name: str = "memo"
    # Everything a run writes lies in its folder.
    tensorboard_dir: str = "${run_dir}/tb"
    checkpoint_folder: str = "${run_dir}/checkpoints"
    eval_ckpt_path_dir: str = "${run_dir}/checkpoints"
    video_dir: str = "${run_dir}/videos"
    log_file: str = "${run_dir}/train.log"
    # One JSON line of metrics per update.
    progress_file: str = "${run_dir}/progress.jsonl"
    log_interval: int = 1
    updater_name: str = "MemoPPO"
    distrib_updater_name: str = "MemoPPO"
    rollout_storage_name: str = "TrialStorage"
    num_updates: int = -1
    total_num_steps: float = 1e9
    # Hidden by default in Habitat: the composed config is kept in the run folder instead.
    verbose: bool = False
    # Modules that register simulators, sensors, measures or tasks of a user's own when imported.
    plugins: list[str] = field(default_factory=list)
    # Seconds after which an environment's worker that does not answer counts as hung and is ended:
    # more than the largest house takes to load.
    worker_timeout: float = 600.0
    # Workers of one process that may die in a training, each replaced by a new one; 0: none.
    max_worker_restarts: int = 10
    vector_env_factory: VectorEnvFactoryConfig = field(default_factory=MemoVectorEnvFactoryConfig)
    evaluator: TrialEvaluatorConfig = field(default_factory=TrialEvaluatorConfig)
    rl: MemoRLConfig = field(default_factory=MemoRLConfig)


@dataclass
class ImageDetectionsConfig(ObsTransformConfig):
    """`habitat_baselines.rl.policy.*.obs_transforms.image_detections`: `policy.image_detector`."""

    type: str = "ImageDetections"
    # Made by tools/train_detector.py for the categories of a data set, from the camera that
    # this one must be like.
    weights: str = "data/agents/detector/lofts.safetensors"
    camera: str = "head_rgb"
    # Probability from which a category counts as seen.
    threshold: float = 0.5
    # Stopping within this distance (m) of what is seen is said to succeed: the task's own.
    reach: float = II("habitat.task.success_distance")


def register_configs() -> None:
    """Store this station's nodes under own names."""
    store = ConfigStore.instance()
    store.store(group="habitat_baselines", name="memo_rl_config_base", node=MemoBaselinesConfig)
    for name, target in VECTOR_ENV_FACTORIES.items():
        store.store(
            group="habitat_baselines/vector_env_factory",
            name=name,
            node={"_target_": target},
            package="habitat_baselines.vector_env_factory",
        )
    store.store(group="habitat_baselines/rl/policy", name="memo_policy_base", node=MemoPolicyConfig)
    store.store(
        group="habitat_baselines/rl/policy/obs_transforms",
        name="image_detections_base",
        node=ImageDetectionsConfig,
    )
