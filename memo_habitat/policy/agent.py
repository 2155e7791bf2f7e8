"""The policy as an evaluation sees it: observations in, actions out, memory kept in between."""

from __future__ import annotations

import torch
from torch import Tensor

from memo_habitat.policy.context import ContextUse
from memo_habitat.policy.memo_policy import MemoPolicy


class PolicyAgent:
    """Acts with a trained policy; remembers the previous action of every environment."""

    name = "checkpoint"

    def __init__(self, policy: MemoPolicy, deterministic: bool = False) -> None:
        self._policy = policy.eval()
        self._deterministic = deterministic
        self._previous: Tensor | None = None

    @torch.inference_mode()
    def act(
        self, observations: dict[str, Tensor], trial_start: Tensor, episode_start: Tensor
    ) -> Tensor:
        """Actions, long [N]; the policy empties its memory where the observed trial step is 0."""
        if self._previous is None:
            self._policy.forget()
            self._previous = torch.zeros_like(episode_start, dtype=torch.long)
        previous = self._previous.masked_fill(episode_start, 0)
        data = self._policy.act(
            observations,
            None,
            previous[:, None],
            ~episode_start[:, None],
            deterministic=self._deterministic,
        )
        if data.actions is None:
            raise TypeError("the policy returned no actions")
        self._previous = data.actions.squeeze(-1)
        return self._previous

    def context(self) -> ContextUse | None:
        """Memory in use after the latest step."""
        return self._policy.context_use()
