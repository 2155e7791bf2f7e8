"""Collects from environments that step all together in the trainer's process."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from habitat_baselines.common.obs_transformers import apply_obs_transforms_batch
from habitat_baselines.utils.common import inference_mode
from habitat_baselines.utils.timing import g_timer
from numpy.typing import NDArray
from torch import Tensor

from memo_habitat.tasks.vector_env import BatchedStep


@runtime_checkable
class BatchedVectorEnv(Protocol):
    """A vector environment that can be stepped by arrays, beside Habitat's way."""

    num_envs: int

    def step_batch(self, actions: NDArray[np.int64]) -> BatchedStep:
        """One step of every environment; actions [N]."""
        ...


class BatchedCollector:
    """Acts and steps without a loop over environments, to the effect of Habitat's collection.

    Habitat takes results apart into one observation, reward and info per environment, to stack
    them again: with 64 environments that costs more than a small policy and a grid world.

    Attributes:
        sums: name -> [N], measures summed over the episodes that ended since they were taken.
    """

    def __init__(self, envs: BatchedVectorEnv, agent: Any, obs_transforms: list[Any]) -> None:
        """Collect into the storage of `agent`, an agent access manager."""
        self._envs, self._agent, self._transforms = envs, agent, obs_transforms
        self.sums: dict[str, NDArray[np.float64]] = {}

    def step(self) -> int:
        """Take one step in every environment; how many steps that is."""
        storage, policy = self._agent.rollouts, self._agent.actor_critic
        with inference_mode():
            with g_timer.avg_time("trainer.sample_action"):
                now = storage.get_last_step()
                action = policy.act(now["observations"], None, now["prev_actions"], now["masks"])
            with g_timer.avg_time("trainer.step_env"):
                step = self._envs.step_batch(action.env_actions.squeeze(-1).cpu().numpy())
            with g_timer.avg_time("trainer.obs_insert"):
                # Views of arrays that the next step writes again: the storage copies them.
                observations = {k: torch.from_numpy(v) for k, v in step.observations.items()}
                if self._transforms:
                    observations = apply_obs_transforms_batch(observations, self._transforms)
                storage.insert(
                    next_observations=observations,
                    actions=action.actions,
                    action_log_probs=action.action_log_probs,
                    value_preds=action.values,
                    rewards=torch.from_numpy(step.rewards)[:, None],
                    next_masks=torch.from_numpy(~step.episode_ends)[:, None],
                )
                storage.advance_rollout()
                for name, values in step.measures.items():
                    sums = self.sums.setdefault(name, np.zeros(self._envs.num_envs))
                    np.add(sums, values, out=sums, where=step.episode_ends)
        return self._envs.num_envs

    def take_statistics(self, since: int, reward_before: Tensor) -> dict[str, Tensor]:
        """Sums [N, 1] over the episodes that ended from step `since` of the trial on.

        Args:
            since: the first step to look at.
            reward_before: [N, 1] reward of the running episode before it; afterwards that of the
                episode running now.
        """
        storage = self._agent.rollouts
        rewards = storage.rewards[:, since : storage.steps].cpu()
        ends = storage.episode_starts[:, since + 1 : storage.steps + 1].cpu()
        # Steps behind an environment's last end belong to the episode that goes on.
        finished = ends.flip(1).cummax(1).values.flip(1)
        done = (rewards * finished).sum(1, keepdim=True)
        any_end = ends.any(1, keepdim=True)
        statistics = {
            "count": ends.sum(1, keepdim=True).float(),
            "reward": done + reward_before * any_end,
        }
        statistics |= {k: torch.from_numpy(v).float()[:, None] for k, v in self.sums.items()}
        reward_before *= ~any_end
        reward_before += (rewards * ~finished).sum(1, keepdim=True)
        self.sums = {}
        return statistics
