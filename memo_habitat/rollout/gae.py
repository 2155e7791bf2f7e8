"""Generalised advantage estimation over trials: pure functions on [N, t] tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    last_value: Tensor,
    cut_after: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """GAE (Schulman et al., arXiv 1506.02438, eq. 16), backwards over time.

    Args:
        rewards: [N, t] reward received by the action of each step.
        values: [N, t] value prediction at each step.
        last_value: [N] value prediction at the step after the last one.
        cut_after: [N, t] bool; nothing behind this step counts for it or for any step before it.
        gamma: discount per step.
        lam: decay of the estimate per step.

    Returns:
        [N, t] advantages; the returns are `advantages + values`.
    """
    keep = (~cut_after).to(values.dtype)
    next_values = torch.cat([values[:, 1:], last_value[:, None]], dim=1)
    deltas = rewards + gamma * keep * next_values - values
    decay = gamma * lam * keep
    advantages = torch.empty_like(values)
    running = torch.zeros_like(last_value)
    for step in range(values.shape[1] - 1, -1, -1):
        running = deltas[:, step] + decay[:, step] * running
        advantages[:, step] = running
    return advantages


def cuts(episode_ends: Tensor, trial_ends: bool, across_episodes: bool) -> Tensor:
    """Where returns are cut.

    Args:
        episode_ends: [N, t] bool, the action of this step ended an episode.
        trial_ends: the last of the t steps is the trial's last; always a cut.
        across_episodes: carry returns from an episode to the next ones of the same trial.

    Returns:
        [N, t] bool.
    """
    cut = torch.zeros_like(episode_ends) if across_episodes else episode_ends.clone()
    if trial_ends:
        cut[:, -1] = True
    return cut
