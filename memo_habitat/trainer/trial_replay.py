"""The trial under way when a training stops: saved as its actions, rebuilt by taking them again.

Observations of half a trial can be gigabytes, and a simulator's state cannot be saved at all. But
environments are deterministic: from the trial's first step the same actions lead to the same place.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from habitat_baselines.common.obs_transformers import apply_obs_transforms_batch
from habitat_baselines.utils.common import batch_obs, inference_mode
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from memo_habitat.errors import UserError
from memo_habitat.rollout.storage import TrialStorage
from memo_habitat.tasks.vector_env import InProcessVectorEnv

# Rewards that are computed once more on another machine may differ in their last bits.
_TOLERANCE = 1e-4


class ReplayError(UserError):
    """The environments do not do again what they did."""


def environments_digest(config: DictConfig) -> str:
    """Of all that trials depend on: with another they are other trials.

    Measures are left out: training drops some of them, and those that matter show in the rewards.
    """
    # As it is read back from a file, where classes of the config are plain values.
    habitat = OmegaConf.create(OmegaConf.to_yaml(config.habitat, resolve=True))
    parts: Any = OmegaConf.to_container(habitat)
    parts["task"].pop("measurements", None)
    baselines = config.habitat_baselines
    parts["environments"] = baselines.num_environments
    parts["updates_per_trial"] = baselines.rl.ppo.updates_per_trial
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def skip_trials(envs: Any, count: int) -> bool:
    """Let the next reset begin trial `count` (from 0) in all environments; whether they can."""
    if isinstance(envs, InProcessVectorEnv):
        return envs.skip_trials(count)
    arguments = {"count": count}
    return all([envs.call_at(i, "skip_trials", arguments) for i in range(envs.num_envs)])


def replay(
    saved: dict[str, Any],
    storage: TrialStorage,
    envs: Any,
    transforms: list[Any],
    device: torch.device,
) -> None:
    """Take the steps of a trial once more, and fill `storage` as it was.

    Args:
        saved: `TrialStorage.unfinished`.
        storage: holds the first observations of the same trial.
        envs: at that trial's first step.
        transforms: Habitat's observation transforms, the frozen encoder among them.
        device: of the observations.

    Raises:
        ReplayError: a reward or an episode's end is another, the first one is named; or there are
            more or fewer environments.
    """
    steps, count = saved["steps"], len(saved["actions"])
    if count != envs.num_envs:
        raise ReplayError(f"there were {count} environments, and now there are {envs.num_envs}")
    # Where in the storage each step lies: an update may have put the episodes in another order.
    places = saved["order"].long().argsort(1)
    places = torch.cat([places, places.new_full((len(places), 1), steps)], dim=1)
    rows = torch.arange(len(places))[:, None]
    actions, rewards = (saved[name][rows, places[:, :steps]] for name in ("actions", "rewards"))
    starts = saved["episode_starts"][rows, places]
    storage.restore(saved)
    first = {uuid: values[:, 0].clone() for uuid, values in storage.observations.items()}
    storage.write_observations(places[:, 0], first)
    for step in range(steps):
        observations, found, ends = _step(envs, actions[:, step], transforms, device)
        wrong = (found - rewards[:, step]).abs() > _TOLERANCE
        wrong |= ends != starts[:, step + 1]
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ReplayError(
                f"step {step + 1} of the trial in environment {row} was rewarded "
                f"{float(rewards[row, step]):g}, and now {float(found[row]):g}, or its episode "
                "ends elsewhere: data or simulator have changed"
            )
        storage.write_observations(places[:, step + 1], observations)


def _step(
    envs: Any, actions: Tensor, transforms: list[Any], device: torch.device
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Observations, rewards [N] and episode ends [N] of a step, as collection has them."""
    with inference_mode():
        if isinstance(envs, InProcessVectorEnv):
            step = envs.step_batch(actions.numpy())
            observations = {k: torch.from_numpy(v) for k, v in step.observations.items()}
            rewards, ends = torch.from_numpy(step.rewards), torch.from_numpy(step.episode_ends)
        else:
            for index, action in enumerate(actions.tolist()):
                envs.async_step_at(index, action)
            outputs = [envs.wait_step_at(index) for index in range(envs.num_envs)]
            each, found, over, _ = zip(*outputs, strict=True)
            observations = batch_obs(envs.post_step(list(each)), device=device)
            rewards, ends = torch.tensor(found), torch.tensor(over)
        if transforms:
            observations = apply_obs_transforms_batch(observations, transforms)
    return observations, rewards.float(), ends
