"""Memories of one's own, as a user would write them in a file outside of the package."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memo_habitat.memory import MemoryConfig, MemoryOutput, StateCache, TrialMemory
from memo_habitat.memory.variants import Memo


class HalfCredit(Memo):
    """Memo whose gradient is halved by every summary that it passes."""

    def carry(self, summary: Tensor) -> Tensor:
        return summary.detach().lerp(summary, 0.5)


class LinearState(nn.Module, TrialMemory):
    """A diagonal linear recurrence, the simplest of state-space models: h = a h + (1 - a) W x."""

    options = ("activation_checkpointing",)

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.Linear(config.width, config.width)
        self.leave = nn.Linear(config.width, config.width)
        self.decay = nn.Parameter(torch.linspace(-1.0, 6.0, config.width))

    def encode(self, tokens, segment_length=None, episode_starts=None) -> MemoryOutput:
        state, outputs = tokens.new_zeros(len(tokens), self.config.width), []
        for token in tokens.unbind(1):
            state = self._next(state, token)
            outputs.append(self._read(state, token))
        return MemoryOutput(torch.stack(outputs, dim=1))

    def new_cache(self, batch, device, dtype=torch.float32) -> StateCache:
        state = torch.zeros(1, batch, self.config.width, device=device, dtype=self.decay.dtype)
        return StateCache((state,))

    @torch.no_grad()
    def step(self, tokens, cache, episode_starts=None) -> Tensor:
        state = self._next(cache.state[0][0], tokens)
        cache.advance((state[None],), 1)
        return self._read(state, tokens)

    def _next(self, state: Tensor, token: Tensor) -> Tensor:
        return torch.lerp(self.enter(token), state, self.decay.sigmoid())

    def _read(self, state: Tensor, token: Tensor) -> Tensor:
        return token + self.leave(state).tanh()
