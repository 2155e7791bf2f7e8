"""What an evaluation asks of an agent, and the two reference agents: random and oracle."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from memo_habitat.errors import UserError
from memo_habitat.memory.attention_probe import AttentionStats
from memo_habitat.policy.network import ContextUse

ORACLE_SENSOR = "oracle_action"


class Agent(Protocol):
    """Acts N environments in lockstep; one that remembers nothing inherits the two answers None."""

    name: str

    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        """Choose an action for every environment.

        Args:
            observations: batched observations, [N, ...] each.
            trial_start: bool [N], whether this is a trial's first step; memory is emptied there.
            episode_start: bool [N], whether this is an episode's first step.

        Returns:
            long [N], index into the task's actions.
        """
        ...

    def context(self) -> ContextUse | None:
        """Context in use after the latest step; None for an agent without memory."""
        return None

    def attention(self) -> AttentionStats | None:
        """Where the latest step attended; None where that was not looked at."""
        return None


class RandomAgent(Agent):
    """Draws every action uniformly, from a generator of its own."""

    name = "random"

    def __init__(self, num_actions: int, seed: int) -> None:
        if num_actions < 1:
            raise UserError(f"num_actions is {num_actions}; the task needs at least one action")
        self._num_actions = num_actions
        self._generator = torch.Generator().manual_seed(seed)

    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        """Uniform actions, long [N]."""
        return torch.randint(self._num_actions, trial_start.shape, generator=self._generator)


class OracleAgent(Agent):
    """Takes the action that the sensor `oracle_action` names: the next on a shortest path."""

    name = "oracle"

    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        """The sensor's actions, long [N]."""
        if ORACLE_SENSOR not in observations:
            raise UserError(
                f"the oracle needs the sensor '{ORACLE_SENSOR}', but the task observes "
                f"{sorted(observations)}; add it to habitat.task.lab_sensors and "
                "habitat.gym.obs_keys"
            )
        return observations[ORACLE_SENSOR].reshape(len(trial_start)).long()
