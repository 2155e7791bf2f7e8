"""The `lstm` baseline: a recurrent state of fixed size in the place of a context of tokens.

As in RL2 (Duan et al., arXiv 1611.02779) the state is kept across the episodes of a trial. The
tokens have to tell what an agent needs to learn from it: the previous action, the previous reward
and where episodes begin.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.checks import check_config, check_environments, check_tokens
from memo_habitat.memory.encoded import Encoded

State = tuple[Tensor, Tensor]  # hidden and cell state, [L, N, D] each
_PIECE = 256  # steps whose activations are recomputed together under activation checkpointing


class RecurrentCache:
    """Per environment the state of the network: its size does not depend on the history."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._steps = [0] * state[0].shape[1]

    @property
    def steps(self) -> Tensor:
        """Environment steps since each row's reset, [N] long."""
        return torch.tensor(self._steps)

    def tokens_in_use(self) -> Tensor:
        """Tokens that each row attends to: none, as a state is all it has, [N] long."""
        return torch.zeros(len(self._steps), dtype=torch.long)

    def bytes_in_use(self) -> Tensor:
        """Bytes of each row's state: 2 * L * D * bytes per element once a step was taken, [N]."""
        return self.allocated_bytes() // len(self._steps) * (self.steps > 0)

    def allocated_bytes(self) -> int:
        """Bytes of everything allocated, over all rows."""
        return sum(part.nbytes for part in self.state)

    def reset(self, which: Tensor) -> None:
        """Empty the rows where `which` ([N] bool) holds."""
        if which.shape != (len(self._steps),) or which.dtype != torch.bool:
            raise ValueError(
                f"reset takes a bool tensor of shape [{len(self._steps)}], "
                f"got {which.dtype} of shape {list(which.shape)}"
            )
        hidden, cell = self.state
        emptied = which.to(hidden.device)[:, None]
        # New tensors: those made in inference mode could not be changed outside of it.
        self.state = hidden.masked_fill(emptied, 0.0), cell.masked_fill(emptied, 0.0)
        for row in which.nonzero().flatten().tolist():
            self._steps[row] = 0

    def repeated(self, times: int) -> RecurrentCache:
        """A cache in which each row stands `times` times: trials that go on in different ways."""
        hidden, cell = (part.repeat_interleave(times, dim=1) for part in self.state)
        other = RecurrentCache((hidden, cell))
        other._steps = [steps for steps in self._steps for _ in range(times)]
        return other

    def keep(self, state: State, count: int) -> None:
        """Put the state after `count` more steps of every row in the place of the old one."""
        self.state = state
        self._steps = [steps + count for steps in self._steps]


class RecurrentMemory(nn.Module):
    """An LSTM of L layers with the interface of the memory transformer.

    Legend: B trials or N environments, T or C steps, D width, L layers. Segments, and where
    episodes begin, change nothing: the arguments are there for the interface's sake.
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        self.lstm = nn.LSTM(config.width, config.width, config.layers, batch_first=True)
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("weight"):
                for gate in parameter.chunk(4):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(parameter)

    def forward(
        self,
        tokens: Tensor,
        segment_length: int | None = None,
        episode_starts: Tensor | None = None,
    ) -> Tensor:
        """Outputs for a whole trial, or a prefix of it that begins at its first step.

        tokens: [B, T, D]. Returns [B, T, D], differentiable through the whole trial.
        """
        check_tokens(tokens, self.config.width, "[B, T, D]")
        state = self._no_state(len(tokens), tokens.device)
        if not (self.config.activation_checkpointing and torch.is_grad_enabled()):
            return self._run(tokens, state)[0]
        outputs = []
        for piece in torch.split(tokens, _PIECE, dim=1):
            # Nothing here is drawn at random: no generator has to be wound back.
            output, state = checkpoint(
                self._run, piece, state, use_reentrant=False, preserve_rng_state=False
            )
            outputs.append(output)
        return torch.cat(outputs, dim=1)

    def encode(
        self,
        tokens: Tensor,
        segment_length: int | None = None,
        episode_starts: Tensor | None = None,
    ) -> Encoded:
        """The same; an LSTM makes no summaries, so that there is no memory loss."""
        return Encoded(self(tokens, segment_length, episode_starts), None)

    def draw_segment_length(self, generator: torch.Generator | None = None) -> int:
        """S: no segment is ever closed, so that there is nothing to draw."""
        return self.config.segment_length

    def new_cache(
        self, batch: int, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> RecurrentCache:
        """A cache of `batch` environments before their first step.

        dtype: that of kept tokens elsewhere; here none are kept, and the state has the weights'.
        """
        check_environments(batch)
        return RecurrentCache(self._no_state(batch, device))

    @torch.no_grad()
    def step(
        self, tokens: Tensor, cache: RecurrentCache, episode_starts: Tensor | None = None
    ) -> Tensor:
        """One step of every environment. tokens: [N, D]. Returns [N, D]."""
        check_tokens(tokens, self.config.width, "[N, D]", len(cache.steps))
        hidden, cell = [], []
        with torch.autocast(tokens.device.type, enabled=False):
            output = tokens.to(cache.state[0].dtype)
            # Cell by cell: a call of the whole LSTM prepares its weights anew for each call.
            for weights, *before in zip(self.lstm.all_weights, *cache.state, strict=True):
                output, after = torch.lstm_cell(output, before, *weights)
                hidden.append(output)
                cell.append(after)
        cache.keep((torch.stack(hidden), torch.stack(cell)), 1)
        return output

    @torch.no_grad()
    def extend(
        self, tokens: Tensor, cache: RecurrentCache, episode_starts: Tensor | None = None
    ) -> Tensor:
        """C steps of every environment, to the same effect as C calls of `step`.

        tokens: [N, C, D]. Returns [N, C, D].
        """
        check_tokens(tokens, self.config.width, "[N, C, D]", len(cache.steps))
        outputs, state = self._run(tokens, cache.state)
        cache.keep(state, tokens.shape[1])
        return outputs

    def _run(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Steps [N, C, D] from a state: outputs [N, C, D] and the state after them."""
        # Under autocast too: rounding errors of a state add up over thousands of steps.
        with torch.autocast(tokens.device.type, enabled=False):
            outputs, state = self.lstm(tokens.to(state[0].dtype), state)
        return outputs, state

    def _no_state(self, batch: int, device: torch.device | str) -> State:
        dtype = next(self.parameters()).dtype
        shape = (self.config.layers, batch, self.config.width)
        return (
            torch.zeros(shape, device=device, dtype=dtype),
            torch.zeros(shape, device=device, dtype=dtype),
        )
