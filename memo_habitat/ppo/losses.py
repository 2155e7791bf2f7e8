"""PPO's losses (Schulman et al., arXiv 1707.06347) as pure functions of same-shaped tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """Mean clipped surrogate loss and what is watched beside it (scalars)."""

    loss: Tensor
    clip_fraction: Tensor
    approx_kl: Tensor


def policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float
) -> PolicyLoss:
    """Clipped surrogate objective (eq. 7), negated; all arguments have one shape."""
    log_ratio = log_probs - old_log_probs
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    # The smaller of the two: beyond the clip there is nothing to gain, but losses are felt in full.
    loss = -torch.min(ratio * advantages, clipped * advantages).mean()
    with torch.no_grad():
        outside = (ratio - 1.0).abs() > clip
        # The k3 estimator of KL(old || new): unbiased and never negative.
        kl = (ratio - 1.0 - log_ratio).mean()
    return PolicyLoss(loss, outside.float().mean(), kl)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Half the mean squared error; with `clip`, moving further than it does not pay."""
    squared = (values - returns).square()
    if clip is not None:
        held = old_values + (values - old_values).clamp(-clip, clip)
        squared = torch.max(squared, (held - returns).square())
    return 0.5 * squared.mean()
