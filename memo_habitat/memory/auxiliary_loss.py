"""The memory loss: what a summary holds, measured by predicting steps from it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, mse_loss, scaled_dot_product_attention

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.block import NORM_EPS

#: The losses that are computed here, from tokens alone; "observations" is `policy.recall`'s.
OF_TOKENS = ("reconstruction", "prediction")


class MemoryLoss(nn.Module):
    """Predicts from a segment's summary and a step's offset the token of that step.

    The step lies in the same segment ("reconstruction") or in the one after it ("prediction").
    The query of an offset, made from its sines and cosines, attends to the summary; the error is
    the mean square against the normalised token, which itself gets no gradient.
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self._heads, self._later = config.heads, config.memory_loss == "prediction"
        waves = torch.arange(0, config.width, 2) / config.width
        self.register_buffer("frequencies", config.rope_base**-waves, persistent=False)
        self.norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.predict = nn.Sequential(
            nn.Linear(config.width, config.hidden),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.hidden, config.width),
        )

    frequencies: Tensor

    def forward(self, segments: tuple[Tensor, ...], summaries: list[Tensor]) -> Tensor:
        """Mean error over all steps that a summary speaks of; 0 where there is no such step.

        segments: tokens [B, steps, D] of each segment; summaries: [B, M, D] of all but the last.
        """
        targets = segments[1:] if self._later else segments[:-1]
        # Weighted by steps: the last segment of a trial, or of a jittered pass, is shorter.
        errors = [
            self._error(summary, target) * target.shape[1]
            for summary, target in zip(summaries, targets, strict=True)
        ]
        if not errors:
            return segments[0].new_zeros(())
        return torch.stack(errors).sum() / sum(target.shape[1] for target in targets)

    def _error(self, summary: Tensor, target: Tensor) -> Tensor:
        offsets = torch.arange(target.shape[1], device=target.device)
        angles = torch.outer(offsets, self.frequencies)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).expand(len(target), -1, -1)
        q = self._split(self.query(waves))
        k, v = (self._split(x) for x in self.key_value(self.norm(summary)).chunk(2, dim=-1))
        read = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        # Detached and normalised: otherwise the loss is smallest where all tokens are the same.
        wanted = layer_norm(target.detach(), target.shape[-1:])
        return mse_loss(self.predict(read).float(), wanted.float())

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self._heads, -1).transpose(1, 2)
