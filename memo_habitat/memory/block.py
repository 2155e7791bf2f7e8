"""One transformer block: attention and a gated MLP, each a pre-normed residual branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.checkpoint import checkpoint

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.attention import Attention, Context, last
from memo_habitat.memory.norm import RMSNorm
from memo_habitat.memory.projection import Projection
from memo_habitat.memory.rotary import Rotation


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x)) with tanh-GELU; gate and up in one projection."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = Projection(width, 2 * hidden)
        self.down = Projection(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., D]. Returns [..., D]."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        result: Tensor = self.down(gelu(gate, approximate="tanh") * up)
        return result


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    What lies before and behind the attention depends on each token alone: in training these two
    pieces can be compiled, or recomputed in the backward pass, whatever the context does.
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.width)
        self.mlp = GatedMLP(config.width, config.hidden)
        self._recompute = config.activation_checkpointing
        self._compile = config.compile
        self._compiled: dict[str, Callable[..., Any]] = {}

    def forward(
        self, x: Tensor, rotation: Rotation, context: Context, layer: int, outputs: int
    ) -> Tensor:
        """Hand all new tokens' keys and values to the context, compute the last `outputs` tokens.

        x: [B, T, D]. Returns [B, outputs, D].
        """
        q, k, v = self._run(self._project, x, rotation)
        q = last(q, outputs, dim=2)
        attended = context.attend(layer, q, k, v, self.attention.sink)
        result: Tensor = self._run(self._finish, last(x, outputs, dim=1), attended)
        return result

    def _project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        return self.attention.project(self.attention_norm(x), rotation)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.attention.join(attended)
        result: Tensor = x + self.mlp(self.mlp_norm(x))
        return result

    def _run(self, piece: Callable[..., Any], *inputs: Any) -> Any:
        if not torch.is_grad_enabled():
            return piece(*inputs)
        if self._compile:
            name = piece.__name__
            if name not in self._compiled:
                self._compiled[name] = torch.compile(piece, dynamic=True)
            piece = self._compiled[name]
        if self._recompute:
            return checkpoint(piece, *inputs, use_reentrant=False)
        return piece(*inputs)

    def __getstate__(self) -> dict[str, Any]:
        """Copies compile anew: what is compiled holds the weights of the original."""
        return {**self.__dict__, "_compiled": {}}
