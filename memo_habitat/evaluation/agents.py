"""What an evaluation asks of an agent, and reference agents: random, forward, oracle, ..."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from memo_habitat.errors import UserError
from memo_habitat.memory.attention_probe import AttentionStats
from memo_habitat.policy.network import ContextUse


class Agent(Protocol):
    """Acts; one that neither draws nor remembers inherits what is not `act`.

    An evaluation has one for each environment, N = 1: numbers of a batch depend in their last bits
    on what else is in it, and a sampled action may hang on those.
    """

    name: str

    def begin_trial(self, seed: int) -> None:
        """From the next step on it is another trial: forget, and draw from `seed` alone."""
        return

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

    def __init__(self, num_actions: int, seed: int = 0) -> None:
        if num_actions < 1:
            raise UserError(f"num_actions is {num_actions}; the task needs at least one action")
        self._num_actions = num_actions
        self._generator = torch.Generator().manual_seed(seed)

    def begin_trial(self, seed: int) -> None:
        """Draw from `seed` from now on."""
        self._generator.manual_seed(seed)

    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        """Uniform actions, long [N]."""
        return torch.randint(self._num_actions, trial_start.shape, generator=self._generator)


class ForwardAgent(Agent):
    """Walks straight on, whatever is in its way, and never stops by itself."""

    name = "forward"

    def __init__(self, actions: Sequence[str], forward: str = "move_forward") -> None:
        """Of a task with these `actions`, in the order of their numbers."""
        if forward not in actions:
            raise UserError(
                f"the agent forward needs the action {forward}; this task has "
                f"{', '.join(actions) or 'others'}: evaluate another agent"
            )
        self._forward = list(actions).index(forward)

    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        """The same action, long [N]."""
        return torch.full(trial_start.shape, self._forward)


class SensorAgent(Agent):
    """Takes the action that a sensor names: a player that the task itself works out.

    `oracle` knows the house and walks straight to the target. `perfect_memory` explores by itself
    and goes straight back to what its trial has shown.
    """

    def __init__(self, name: str = "oracle") -> None:
        """Follow one of `SENSOR_AGENTS`."""
        self.name = name
        self._uuid = f"{name}_action"

    def check_observed(self, observed: Collection[str]) -> None:
        """UserError unless the sensor is among the uuids `observed`."""
        if self._uuid not in observed:
            raise UserError(
                f"the agent {self.name} needs the sensor '{self._uuid}', but the task observes "
                f"{sorted(observed)}; add it to habitat.task.lab_sensors and habitat.gym.obs_keys "
                "if the task has one, or evaluate another agent"
            )

    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        """The sensor's actions, long [N]."""
        self.check_observed(observations)
        return observations[self._uuid].reshape(len(trial_start)).long()
