"""The batch contract: every tensor that passes from the rollout to the update, stated once.

Dimension letters, used throughout the package:

    N  environments stepped in lockstep by one worker
    B  environments of one minibatch (B <= N)
    T  steps of a trial, t  steps of it collected so far
    D  width of a token, F  width of the visual features, A  number of actions
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memo_habitat.errors import UserError

# name -> (dtype, what it holds). All are [B, t]; observations are [B, t, *shape of the sensor].
STEP_FIELDS: dict[str, tuple[torch.dtype, str]] = {
    "prev_actions": (torch.long, "action of the step before, in [0, A); 0 at a trial's first step"),
    "episode_starts": (torch.bool, "this is the first step of an episode"),
    "actions": (torch.long, "action taken, in [0, A)"),
    "log_probs": (torch.float32, "log-probability of the action when it was taken, <= 0"),
    "values": (torch.float32, "value prediction, in units of return"),
    "returns": (torch.float32, "target of the value prediction"),
    "advantages": (torch.float32, "generalised advantage estimate"),
}


@dataclass(frozen=True)
class TrialBatch:
    """The first t steps of B trials.

    Steps before `loss_start` are context: they are attended to and enter no loss. `features`
    [B, t, F] float32 are the visual features under the weights at the last refresh; they are valid
    for context steps only.
    """

    observations: dict[str, Tensor]
    features: Tensor
    prev_actions: Tensor
    episode_starts: Tensor
    actions: Tensor
    log_probs: Tensor
    values: Tensor
    returns: Tensor
    advantages: Tensor
    loss_start: int

    def __post_init__(self) -> None:
        shape = self.actions.shape
        if len(shape) != 2 or not 0 <= self.loss_start < shape[1]:
            raise UserError(
                f"a batch has steps [B, t] and 0 <= loss_start < t, got {tuple(shape)} "
                f"and loss_start={self.loss_start}"
            )
        for name, (dtype, _) in STEP_FIELDS.items():
            value = getattr(self, name)
            if value.shape != shape or value.dtype != dtype:
                raise UserError(
                    f"batch field {name} must be {dtype} {tuple(shape)}, "
                    f"got {value.dtype} {tuple(value.shape)}"
                )
        for uuid, value in {**self.observations, "features": self.features}.items():
            if value.shape[:2] != shape:
                raise UserError(f"{uuid} must begin with {tuple(shape)}, got {tuple(value.shape)}")

    def in_loss(self, x: Tensor) -> Tensor:
        """The part of x [B, t, ...] that enters the losses: [B, t - loss_start, ...]."""
        return x[:, self.loss_start :]
