"""Small policies and random trials for the tests, built from the batch contract."""

from __future__ import annotations

import numpy as np
import torch
from gym import spaces
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.config.policy import EncoderConfig
from memo_habitat.policy.network import TRIAL_STEP
from memo_habitat.policy.policy import MemoPolicy
from memo_habitat.rollout.storage import TrialStorage

NUM_ACTIONS = 4
TEACHER = "perfect_memory_action"


def observation_space(side: int = 16) -> spaces.Dict:
    """A camera, a goal of three categories and their detections, a pose, the step in the trial."""
    return spaces.Dict(
        {
            "head_rgb": spaces.Box(0, 255, (side, side, 3), np.uint8),
            "one_hot_target_sensor": spaces.Box(0.0, 1.0, (3,), np.float32),
            "detections": spaces.Box(-np.inf, np.inf, (3, 6), np.float32),
            "target_detection": spaces.Box(-np.inf, np.inf, (7,), np.float32),
            "gps": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "compass": spaces.Box(-np.pi, np.pi, (1,), np.float32),
            TEACHER: spaces.Box(0, NUM_ACTIONS - 1, (1,), np.int64),
            TRIAL_STEP: spaces.Box(0, 2**31 - 1, (1,), np.int64),
        }
    )


def small_policy(
    kind: str = "memo",
    encoder: str = "cnn",
    auxiliary_sensor: str = "",
    precision: str = "float32",
    chunk_size: int = 1024,
    recall: str = "none",
    **memory: object,
) -> MemoPolicy:
    """A policy of a few thousand weights; `memory` overrides its sizes.

    An auxiliary sensor has three values, one per category.
    """
    sizes: dict[str, object] = {
        "width": 16,
        "layers": 2,
        "heads": 2,
        "hidden": 32,
        "segment_length": 4,
        "summary_length": 2,
        **memory,
    }
    observed = observation_space()
    if auxiliary_sensor:
        observed = spaces.Dict(
            {**observed.spaces, auxiliary_sensor: observed["one_hot_target_sensor"]}
        )
    return MemoPolicy(
        observed,
        spaces.Discrete(NUM_ACTIONS),
        EncoderConfig(
            kind=encoder,
            features=8,
            base_channels=4,
            chunk_size=chunk_size,
            auxiliary_sensor=auxiliary_sensor,
            category_width=8,
            recall=recall,
        ),
        MemoryConfig(kind=kind, **sizes),  # type: ignore[arg-type]
        precision,
    )


def random_observation(
    num_envs: int, trial_step: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Observations of one step, all environments at the same step of their trials."""
    detections = torch.randn(num_envs, 3, 6, generator=generator)
    detections[..., 0] = 1.0
    detections *= torch.rand(num_envs, 3, 1, generator=generator) < 0.3
    target = torch.randint(3, (num_envs,), generator=generator)
    found = detections[torch.arange(num_envs), target]
    return {
        "head_rgb": torch.randint(
            0, 256, (num_envs, 16, 16, 3), generator=generator, dtype=torch.uint8
        ),
        "one_hot_target_sensor": torch.eye(3)[target],
        "detections": detections,
        "target_detection": torch.cat([found, found[:, :1]], dim=1),
        "gps": torch.randn(num_envs, 2, generator=generator),
        "compass": torch.randn(num_envs, 1, generator=generator),
        TEACHER: torch.randint(NUM_ACTIONS, (num_envs, 1), generator=generator),
        TRIAL_STEP: torch.full((num_envs, 1), trial_step),
    }


@torch.inference_mode()
def act_trial(policy: MemoPolicy, storage: TrialStorage, steps: int, seed: int = 0) -> None:
    """Let the policy act on random observations and store the steps, as collection does."""
    generator = torch.Generator().manual_seed(seed + storage.steps)
    num_envs = len(storage.actions)
    if storage.steps == 0:
        storage.insert_first_observations(random_observation(num_envs, 0, generator))
    for _ in range(steps):
        now = storage.get_last_step()
        data = policy.act(now["observations"], None, now["prev_actions"], now["masks"])
        storage.insert(
            actions=data.actions, action_log_probs=data.action_log_probs, value_preds=data.values
        )
        storage.insert(
            next_observations=random_observation(num_envs, storage.steps + 1, generator),
            rewards=torch.randn(num_envs, 1, generator=generator),
            next_masks=torch.rand(num_envs, 1, generator=generator) > 0.2,
        )
        storage.advance_rollout()


def new_storage(policy: MemoPolicy, num_envs: int, trial_steps: int) -> TrialStorage:
    """Storage for `policy` on `observation_space()`."""
    return TrialStorage(num_envs, trial_steps, observation_space(), policy.network.kept_features)
