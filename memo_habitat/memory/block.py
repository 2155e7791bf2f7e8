"""One transformer block: attention and a gated MLP, each a pre-normed residual branch."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.attention import Attention, Context, last
from memo_habitat.memory.rotary import Rotation

NORM_EPS = 1e-6


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
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.mlp = GatedMLP(config.width, config.hidden)

    def forward(
        self, x: Tensor, rotation: Rotation, context: Context, layer: int, outputs: int
    ) -> Tensor:
        """Hand all new tokens' keys and values to the context, compute the last `outputs` tokens.

        x: [B, T, D]. Returns [B, outputs, D].
        """
        attended = self.attention(self.attention_norm(x), rotation, context, layer, outputs)
        x = last(x, outputs, dim=1) + attended
        result: Tensor = x + self.mlp(self.mlp_norm(x))
        return result
