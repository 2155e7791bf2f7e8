"""The `lstm` and `gru` baselines: a recurrent state of fixed size in the place of a context.

As in RL2 (Duan et al., arXiv 1611.02779) the state is kept across the episodes of a trial. The
tokens have to tell what an agent needs to learn from it: the previous action, the previous reward
and where episodes begin.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.interface import (
    MemoryOutput,
    TrialMemory,
    check_environments,
    check_reset,
    check_tokens,
)
from memo_habitat.memory.variants import register

State = tuple[Tensor, ...]  # [L, N, ...] each, such as hidden and cell state of an LSTM
_CHUNK = 256  # steps whose activations are recomputed together under activation checkpointing


class StateCache:
    """A state of fixed size for each environment: any memory that is no growing context has one."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._steps = torch.zeros(state[0].shape[1], dtype=torch.long)

    @property
    def steps(self) -> Tensor:
        """Environment steps since each row's reset, [N] long."""
        return self._steps.clone()

    def tokens_in_use(self) -> Tensor:
        """Tokens that each row attends to: none, as a state is all it has, [N] long."""
        return torch.zeros_like(self._steps)

    def bytes_in_use(self) -> Tensor:
        """Bytes of each row's state once a step was taken, [N] long."""
        return self.allocated_bytes() // len(self._steps) * (self._steps > 0)

    def allocated_bytes(self) -> int:
        """Bytes of everything allocated, over all rows."""
        return sum(part.nbytes for part in self.state)

    def reset(self, which: Tensor) -> None:
        """Empty the rows where `which` ([N] bool) holds: their state is zero again."""
        check_reset(which, len(self._steps))
        # New tensors: those made in inference mode could not be changed outside of it.
        self.state = tuple(
            part.masked_fill(which.to(part.device).view(1, -1, *[1] * (part.dim() - 2)), 0.0)
            for part in self.state
        )
        self._steps = self._steps.masked_fill(which.cpu(), 0)

    def repeated(self, times: int) -> StateCache:
        """A cache in which each row stands `times` times: trials that go on in different ways."""
        other = StateCache(tuple(part.repeat_interleave(times, dim=1) for part in self.state))
        other._steps = self._steps.repeat_interleave(times)
        return other

    def advance(self, state: State, count: int) -> None:
        """Put the state after `count` more steps of every row in the place of the old one."""
        self.state, self._steps = state, self._steps + count


class RecurrentMemory(nn.Module, TrialMemory):
    """An LSTM of L layers. Segments, and where episodes begin, change nothing."""

    options = ("activation_checkpointing",)
    network: type[nn.LSTM] | type[nn.GRU] = nn.LSTM

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self._is_lstm = issubclass(self.network, nn.LSTM)
        self.rnn = self.network(config.width, config.width, config.layers, batch_first=True)
        # Orthogonal, gate by gate: what keeps a state's length over hundreds of steps. PyTorch's
        # own uniform weights shrink it.
        for name, parameter in self.rnn.named_parameters():
            if name.startswith("weight"):
                for gate in parameter.chunk(4 if self._is_lstm else 3):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, *given: Any, **named: Any) -> Tensor:
        """The outputs of `encode` alone, [B, T, D]."""
        return self.encode(tokens, *given, **named).outputs

    def encode(
        self,
        tokens: Tensor,
        segment_length: int | None = None,
        episode_starts: Tensor | None = None,
    ) -> MemoryOutput:
        """As `TrialMemory.encode`, differentiable through the whole trial."""
        check_tokens(tokens, self.config.width, "[B, T, D]")
        state = self._zero_state(len(tokens), tokens.device)
        if not (self.config.activation_checkpointing and torch.is_grad_enabled()):
            return MemoryOutput(self._run(tokens, state)[0])
        # In chunks: only the states between them are kept, and one chunk's gates at a time.
        outputs = []
        for chunk in torch.split(tokens, _CHUNK, dim=1):
            # Nothing here is drawn at random: no generator has to be wound back.
            output, state = checkpoint(
                self._run, chunk, state, use_reentrant=False, preserve_rng_state=False
            )
            outputs.append(output)
        return MemoryOutput(torch.cat(outputs, dim=1))

    def new_cache(
        self, batch: int, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> StateCache:
        """The state of `batch` environments before their first step, in the weights' dtype."""
        check_environments(batch)
        return StateCache(self._zero_state(batch, device))

    @torch.no_grad()
    def step(
        self, tokens: Tensor, cache: StateCache, episode_starts: Tensor | None = None
    ) -> Tensor:
        """As `TrialMemory.step`."""
        check_tokens(tokens, self.config.width, "[N, D]", len(cache.steps))
        after: list[State] = []
        with torch.autocast(tokens.device.type, enabled=False):
            output = tokens.to(cache.state[0].dtype)
            # Cell by cell: a call of the whole network prepares its weights for each call.
            for weights, *before in zip(self.rnn.all_weights, *cache.state, strict=True):
                if self._is_lstm:
                    after.append(torch.lstm_cell(output, before, *weights))
                else:
                    after.append((torch.gru_cell(output, before[0], *weights),))
                output = after[-1][0]
        cache.advance(tuple(torch.stack(part) for part in zip(*after, strict=True)), 1)
        return output

    @torch.no_grad()
    def extend(
        self, tokens: Tensor, cache: StateCache, episode_starts: Tensor | None = None
    ) -> Tensor:
        """As `TrialMemory.extend`."""
        check_tokens(tokens, self.config.width, "[N, C, D]", len(cache.steps))
        outputs, state = self._run(tokens, cache.state)
        cache.advance(state, tokens.shape[1])
        return outputs

    def _run(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Steps [N, C, D] from a state: outputs [N, C, D] and the state after them."""
        # Under autocast too: rounding errors of a state add up over thousands of steps.
        # cuDNN keeps what a backward pass needs in training mode only.
        fused = self.training or not torch.is_grad_enabled()
        with (
            torch.autocast(tokens.device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=fused),
        ):
            given = tuple(state) if self._is_lstm else state[0]
            outputs, after = self.rnn(tokens.to(state[0].dtype), given)
        return outputs, after if self._is_lstm else (after,)

    def _zero_state(self, batch: int, device: torch.device | str) -> State:
        shape, dtype = (self.config.layers, batch, self.config.width), next(self.parameters()).dtype
        zeros = torch.zeros(shape, device=device, dtype=dtype)
        return (zeros, zeros.clone()) if self._is_lstm else (zeros,)


class GatedRecurrentMemory(RecurrentMemory):
    """The same with a GRU."""

    network = nn.GRU


register("lstm", RecurrentMemory)
register("gru", GatedRecurrentMemory)
