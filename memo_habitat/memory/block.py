"""One transformer block, attention and a gated MLP, each a pre-normed residual branch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import pairwise
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
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.mlp = GatedMLP(config.width, config.hidden)

    def project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, T, dh] of tokens [B, T, D]."""
        return self.attention.project(self.attention_norm(x), rotation)

    def finish(self, x: Tensor, attended: Tensor, layer_mask: Tensor | None = None) -> Tensor:
        """The block's output [B, T, D] from its input and what was attended to [B, H, T, dh].

        layer_mask: 0 leaves the input as it is, 1 is the block; a number of its own for each block.
        """
        x = x + _times(self.attention.join(attended), layer_mask)
        result: Tensor = x + _times(self.mlp(self.mlp_norm(x)), layer_mask)
        return result


class BlockRunner:
    """Blocks one after the other, with a norm at the end.

    What lies between two attentions depends on each token alone. In training these pieces can be
    compiled, or recomputed in the backward pass, whatever the context does.
    """

    def __init__(self, config: MemoryConfig) -> None:
        self._compile, self._recompute = config.compile, config.activation_checkpointing

    def run(
        self,
        blocks: dict[int, Block],
        norm: nn.RMSNorm,
        x: Tensor,
        context: Context,
        rotation: Rotation,
        outputs: int,
        layer_mask: Tensor | None = None,
    ) -> Tensor:
        """Give all new tokens' keys and values to the context; compute the last `outputs` tokens.

        blocks: by layer, in order. x: [B, T, D]. layer_mask: [L], see `Block.finish`.
        Returns [B, outputs, D], normed.
        """
        shares = (None,) * len(blocks) if layer_mask is None else layer_mask.unbind()
        layers = list(blocks)
        if not layers:
            alone: Tensor = norm(last(x, outputs, dim=1))
            return alone
        q, k, v = self._piece(_project, blocks[layers[0]], x, rotation)
        for (layer, following), share in zip(pairwise(layers), shares, strict=False):
            block = blocks[layer]
            attended = context.attend(layer, q, k, v, block.attention.sink())
            given = block, blocks[following], x, attended, rotation, share
            x, q, k, v = self._piece(_between, *given)
        # Of tokens that are only attended to, the last block computes keys and values alone.
        block, q = blocks[layers[-1]], last(q, outputs, dim=2)
        attended = context.attend(layers[-1], q, k, v, block.attention.sink())
        x = last(x, outputs, dim=1)
        result: Tensor = self._piece(_end, block, norm, x, attended, shares[-1])
        return result

    def _piece(self, piece: Callable[..., Any], *inputs: Any) -> Any:
        """Run a piece as the config wants it in training, and as it is in acting."""
        if not torch.is_grad_enabled():
            return piece(*inputs)
        if self._compile:
            piece = _compiled(piece)
        if self._recompute:
            # Nothing in it is drawn.
            return checkpoint(piece, *inputs, use_reentrant=False, preserve_rng_state=False)
        return piece(*inputs)


def _project(block: Block, x: Tensor, rotation: Rotation) -> tuple[Tensor, ...]:
    return block.project(x, rotation)


def _between(
    block: Block,
    following: Block,
    x: Tensor,
    attended: Tensor,
    rotation: Rotation,
    layer_mask: Tensor | None,
) -> tuple[Tensor, ...]:
    x = block.finish(x, attended, layer_mask)
    return x, *following.project(x, rotation)


def _end(
    block: Block, norm: nn.RMSNorm, x: Tensor, attended: Tensor, layer_mask: Tensor | None
) -> Tensor:
    result: Tensor = norm(block.finish(x, attended, layer_mask))
    return result


def _times(x: Tensor, share: Tensor | None) -> Tensor:
    return x if share is None else share.to(x.dtype) * x


@functools.cache
def _compiled(piece: Callable[..., Any]) -> Callable[..., Any]:
    """One for all layers of all memories: weights are among its inputs."""
    # The limit is one for all memories of a process, and the reason to leave one uncompiled.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    # Dynamic: segments are jittered and the last one is short, each of another length.
    return torch.compile(piece, dynamic=True)


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
