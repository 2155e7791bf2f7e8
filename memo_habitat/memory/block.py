"""One transformer block, attention and a gated MLP, each a pre-normed residual branch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.checkpoint import checkpoint

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.attention import Attention, Context, Rotation, last

NORM_EPS = 1e-6
SMALL = 0.02  # standard deviation of learned tokens and sink keys at the start


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x)) with tanh-GELU; gate and up in one projection."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., D]. Returns [..., D]."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        result: Tensor = self.down(gelu(gate, approximate="tanh") * up)
        return result


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    What lies before and behind the attention depends on each token alone. In training these two
    pieces can be compiled, or recomputed in the backward pass, whatever the context does.
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.mlp = GatedMLP(config.width, config.hidden)
        self._recompute = config.activation_checkpointing
        self._compile = config.compile
        self._compiled: dict[str, Callable[..., Any]] = {}

    def forward(
        self, x: Tensor, rotation: Rotation, context: Context, layer: int, outputs: int
    ) -> Tensor:
        """Give all new tokens' keys and values to the context, compute the last `outputs` tokens.

        x: [B, T, D]. Returns [B, outputs, D].
        """
        # Of tokens that are only attended to, the last block computes keys and values alone.
        q, k, v = self._run(self._project, x, rotation)
        attended = context.attend(layer, last(q, outputs, dim=2), k, v, self.attention.sink())
        result: Tensor = self._run(self._finish, last(x, outputs, dim=1), attended)
        return result

    def _project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        return self.attention.project(self.attention_norm(x), rotation)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.attention.join(attended)
        result: Tensor = x + self.mlp(self.mlp_norm(x))
        return result

    def _run(self, piece: Callable[..., Any], *inputs: Any) -> Any:
        """Run a piece as the config wants it in training, and as it is in acting."""
        if not torch.is_grad_enabled():
            return piece(*inputs)
        if self._compile:
            # Dynamic: segments are jittered and the last one is short, each of another length.
            name = piece.__name__
            if name not in self._compiled:
                self._compiled[name] = torch.compile(piece, dynamic=True)
            piece = self._compiled[name]
        if self._recompute:
            return checkpoint(piece, *inputs, use_reentrant=False)
        return piece(*inputs)

    def __getstate__(self) -> dict[str, Any]:
        """Copies compile for themselves: what is compiled holds the weights of the original."""
        return {**self.__dict__, "_compiled": {}}


def initialise(model: nn.Module, layers: int) -> None:
    """Draw the projections and sinks of `model`.

    Every projection keeps the variance of its input. The outputs of the 2 * layers residual
    branches are scaled down so that their sum is of order 1.
    """
    branch = 1 / math.sqrt(2 * layers)

    def sample(linear: nn.Linear, scale: float = 1.0) -> None:
        nn.init.normal_(linear.weight, std=scale / math.sqrt(linear.in_features))

    for module in model.modules():
        if isinstance(module, Attention):
            sample(module.qkv)
            sample(module.out, branch)
            nn.init.normal_(module.sink_key, std=SMALL)
        elif isinstance(module, GatedMLP):
            sample(module.gate_up)
            sample(module.down, branch)
