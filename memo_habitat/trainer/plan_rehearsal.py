"""One refresh and one update of a config on made-up data, with the trainer's own objects.

The same rehearsal is traced with fake tensors, to plan, and run with real ones, to measure.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from habitat.config import read_write
from habitat_baselines.common.env_spec import EnvironmentSpec
from omegaconf import DictConfig
from torch import Tensor

from memo_habitat.ppo.updater import MemoPPO
from memo_habitat.rollout.batch import TrialBatch
from memo_habitat.rollout.storage import TrialStorage
from memo_habitat.trainer.agent_access_mgr import MemoAgentAccessMgr
from memo_habitat.trainer.plan_trace import untraced


class RehearsedPPO(MemoPPO):
    """The updater, which learns from the last of its epochs' first minibatch only.

    All minibatches are of one size or smaller, so that the others would hold no more.
    """

    passes = 0

    def _backward(self, batch: TrialBatch, share: float) -> dict[str, float]:
        is_first = self.passes % min(self.config.num_mini_batch, self._environments) == 0
        epoch = self.passes // min(self.config.num_mini_batch, self._environments)
        self.passes += 1
        if not is_first or epoch + 1 < self.config.ppo_epoch:
            return {}
        if self.config.accumulate_gradients and self.config.num_mini_batch > 1:
            self.fill_gradients()
        return super()._backward(batch, share)

    def update(self, rollouts: TrialStorage) -> dict[str, float]:
        """One full update."""
        self.passes, self._environments = 0, len(rollouts.actions)
        return super().update(rollouts)

    def fill_gradients(self) -> None:
        """As earlier minibatches leave them."""
        for parameter in self.policy.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _average_gradients(self) -> None:
        """Hold what the average over workers holds, without any."""
        self.fill_gradients()
        torch.cat([p.grad.reshape(-1) for p in self.policy.parameters() if p.grad is not None])

    def act_as_one_of(self, workers: int) -> None:
        """Hold what one of so many workers would."""
        self._distributed = workers > 1


class _Manager(MemoAgentAccessMgr):
    """The trainer's manager, of a policy that may be fake."""

    is_fake: bool

    def _create_policy(self) -> Any:
        return untraced(super()._create_policy) if self.is_fake else super()._create_policy()

    def _create_updater(self, actor_critic: Any) -> RehearsedPPO:
        return RehearsedPPO(actor_critic, self._ppo_cfg)


class _FakeManager(_Manager):
    is_fake = True


class _RealManager(_Manager):
    is_fake = False


class Rehearsal:
    """Everything one worker of a training holds, at the end of a trial.

    Segments have their nominal length and no layer is dropped, so that two rehearsals agree.
    """

    def __init__(
        self, config: DictConfig, spec: EnvironmentSpec, device: torch.device, is_fake: bool
    ) -> None:
        config = config.copy()
        with read_write(config):
            memory, ppo = config.habitat_baselines.rl.memory, config.habitat_baselines.rl.ppo
            memory.segment_jitter = memory.depth_dropout = 0.0
            # What is compiled cannot be traced, and holds no more.
            memory.compile = memory.compile and not is_fake
            # From the second epoch on, all that lives from one to the next is there.
            ppo.ppo_epoch = min(ppo.ppo_epoch, 2)
        self.config = config
        self.environments = int(config.habitat_baselines.num_environments)
        manager = _FakeManager if is_fake else _RealManager
        self._agent = manager(
            config=config,
            env_spec=spec,
            is_distrib=False,
            device=device,
            num_envs=self.environments,
            percent_done_fn=lambda: 0.0,
        )
        self.policy, self.updater = self._agent.actor_critic, self._agent.updater

    @property
    def rollout(self) -> TrialStorage:
        """The storage, once there is one."""
        storage: TrialStorage = self._agent.rollouts
        return storage

    def make_rollout(self) -> None:
        """Allocate the storage and fill it with a whole trial of made-up steps."""
        self._agent.post_init()
        storage = self.rollout
        for value in (*storage.observations.values(), *vars(storage).values()):
            if isinstance(value, Tensor):
                _fill(value)
        actions = self.policy.network.actor.out_features
        for value in (storage.actions, storage.prev_actions):
            value.remainder_(actions)
        longest = self.config.habitat.environment.max_episode_steps or storage.trial_steps
        storage.episode_starts[:, ::longest] = True
        storage.steps = storage.trial_steps

    def refresh(self) -> int:
        """Make the acting memory anew, as after an update; its allocated bytes."""
        self._agent.after_update()
        cache = self.policy._cache
        return 0 if cache is None else int(cache.allocated_bytes())

    def make_optimiser_state(self) -> None:
        """Let the optimiser keep what it keeps after a first step; the gradients are gone again."""
        self.updater.fill_gradients()
        self.updater.optimizer.step()
        self.updater.optimizer.zero_grad()

    def update(self, minibatch: int) -> None:
        """One full update with at most `minibatch` environments at once."""
        self._agent.train()
        with read_write(self.config):
            ppo = self.config.habitat_baselines.rl.ppo
            ppo.num_mini_batch = minibatches_for(self.environments, minibatch)
        self.updater.update(self.rollout)


def minibatches_for(environments: int, minibatch: int) -> int:
    """The fewest minibatches of which none has more than `minibatch` environments."""
    return math.ceil(environments / minibatch)


def minibatch_of(environments: int, minibatches: int) -> int:
    """Environments of the largest of so many minibatches."""
    return math.ceil(environments / min(minibatches, environments))


def _fill(tensor: Tensor) -> None:
    """Random elements; no page of memory stays untouched."""
    if tensor.dtype == torch.bool:
        tensor.fill_(False)
    elif tensor.dtype.is_floating_point:
        tensor.uniform_(-1.0, 0.0)
    else:
        tensor.random_(0, 127)
