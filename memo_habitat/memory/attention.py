"""Causal self-attention with rotary positions and a sink, over a pass and what its context holds.

Positions are rotations (RoPE, arXiv 2104.09864): only their differences enter a score.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from memo_habitat.config.memory import MemoryConfig

_BLOCK = 1024  # positions by which a table of rotations grows


class Rotation(NamedTuple):
    """Cosines and signed sines, broadcast against projections [B, T, 2, H, dh].

    cos, sin: [T, 1, 1, dh] where all rows share their positions, else [B, T, 1, 1, dh].
    """

    cos: Tensor
    sin: Tensor


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (x[i], x[i + dh/2]) by its position's angle; shape and dtype stay."""
    # The halves' signs are in the sines already: one multiplication and one fused multiply-add.
    half = x.shape[-1] // 2
    turned = torch.addcmul(x * rotation.cos, x.roll(half, dims=-1), rotation.sin)
    return turned.to(x.dtype)


class RotaryTable:
    """Angles of all positions met so far, computed in double precision, kept in single.

    It is no module on purpose: converting the model to bfloat16 must not round them.
    """

    def __init__(self, head_dim: int, base: float) -> None:
        self._head_dim, self._base = head_dim, base
        self._tables: dict[torch.device, Rotation] = {}
        self._outgrown: list[Rotation] = []  # recorded passes go on reading them

    def span(self, start: int, count: int, device: torch.device) -> Rotation:
        """Rotation of the positions start .. start + count - 1, the same in all rows."""
        cos, sin = self._table(start + count, device)
        return Rotation(cos[start : start + count], sin[start : start + count])

    def at(self, positions: Tensor, highest: int) -> Rotation:
        """Rotation of the given positions, long [T] or [B, T], none above `highest`."""
        cos, sin = self._table(highest + 1, positions.device)
        return Rotation(cos[positions], sin[positions])

    def _table(self, count: int, device: torch.device) -> Rotation:
        table = self._tables.get(device)
        if table is None or len(table.cos) < count:
            # Twice as many each time: computing them stays a constant share of a step.
            known = 0 if table is None else len(table.cos)
            if table is not None:
                self._outgrown.append(table)
            table = self._compute(max(2 * known, -(-count // _BLOCK) * _BLOCK), device)
            self._tables[device] = table
        return table

    @torch.inference_mode(False)  # a table made while acting serves training passes too
    def _compute(self, count: int, device: torch.device) -> Rotation:
        # On the device itself: a copy to it would make an acting step wait for the GPU.
        exponents = torch.arange(0, self._head_dim, 2, dtype=torch.float64, device=device)
        positions = torch.arange(count, dtype=torch.float64, device=device)
        angles = torch.outer(positions, self._base ** (-exponents / self._head_dim))[:, None, None]
        cos, sin = angles.cos(), angles.sin()
        return Rotation(
            torch.cat([cos, cos], dim=-1).float(),
            torch.cat([-sin, sin], dim=-1).float(),
        )


class Sink(NamedTuple):
    """The extra slot in front of every attention (arXiv 2309.17453); key, value: [H, 1, dh].

    Softmax has to spend its whole weight somewhere: here it can, when nothing is worth attending
    to. The sink takes no position: its key is never rotated, and the first token is at position 0.
    """

    key: Tensor
    value: Tensor


class Context(Protocol):
    """What the new tokens of one pass attend to besides themselves.

    `DifferentiableKV` in training, `KVCache` in acting. The blocks know no more of it than this.
    """

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of the new tokens' positions."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention of the new tokens to the sink, the held tokens and themselves, causally.

        k, v: [B, H, T, dh] of all new tokens, kept as far as the context keeps them.
        q: [B, H, Tq, dh] of the last Tq <= T of them. Returns [B, H, Tq, dh].
        """


def causal_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of the last Tq of Tk places, each to all places up to its own.

    q: [B, H, Tq, dh]; k, v: [B, H, Tk, dh] with Tk >= Tq. mask: what is visible instead, bool or
    additive, broadcast to [B, H, Tq, Tk]. Returns [B, H, Tq, dh].

    Without a mask none is made on a GPU, where each of these calls is one fused kernel.
    """
    queries, places = q.shape[2], k.shape[2]
    if mask is not None or queries == 1:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if places - queries <= 1:
        # Only the sink is in front. An idle query at its place makes the square form, for which
        # there is a fused kernel on every device.
        square = pad(q, (0, 0, places - queries, 0))
        attended = scaled_dot_product_attention(square, k, v, is_causal=True)
        return attended[:, :, places - queries :]
    # `is_causal` would align the triangle with the first place instead of the last one.
    if q.is_cuda:
        # Imported here: it brings torch.compile, seconds of every start, for a GPU's pass alone.
        from torch.nn.attention.bias import causal_lower_right

        mask = causal_lower_right(queries, places)
    else:  # no kernel for this triangle
        mask = torch.ones(queries, places, dtype=torch.bool, device=q.device).tril_(
            places - queries
        )
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def top_k_mask(q: Tensor, k: Tensor, candidates: Tensor, top_k: int, visible: Tensor) -> Tensor:
    """What remains visible when each head sees only its `top_k` best-scored candidates.

    q: [B, H, Tq, dh]; k: [B, H, Tk, dh]; visible, candidates: bool, broadcast to [B, H, Tq, Tk];
    what is visible and no candidate stays so. Returns bool [B, H, Tq, Tk].
    """
    with torch.no_grad():  # the choice itself has no gradient
        scores = (q @ k.transpose(-1, -2)).masked_fill(~(visible & candidates), -torch.inf)
        best = scores.topk(min(top_k, scores.shape[-1]), dim=-1).indices
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)
        return visible & (chosen | ~candidates)


def last(x: Tensor, count: int, dim: int) -> Tensor:
    """The last `count` entries along `dim`; spares autograd a slice where that is all of them."""
    size = x.shape[dim]
    return x if count == size else x.narrow(dim, size - count, count)


class Attention(nn.Module):
    """Multi-head attention without biases; queries, keys and values in one projection.

    It has no forward: between `project` and `join` a context attends, which alone knows what is
    held from before.
    """

    sink_value: Tensor

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.head_dim = config.width // config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.sink_key = nn.Parameter(torch.empty(config.heads, 1, self.head_dim))
        value = torch.zeros(config.heads, 1, self.head_dim)
        if config.sink_value == "learned":
            self.sink_value = nn.Parameter(value)
        else:
            self.register_buffer("sink_value", value, persistent=False)

    def sink(self) -> Sink:
        """What stands in front of all tokens."""
        return Sink(self.sink_key, self.sink_value)

    def project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, T, dh] of normalised tokens [B, T, D]."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, self.head_dim)
        qk, v = qkv.split([2, 1], dim=2)
        # Queries and keys are turned in one operation: in acting, calls cost more than numbers.
        q, k = rotate(qk, rotation).transpose(1, 3).unbind(2)
        # A copy of v: a view would keep all three alive until the backward pass.
        return q, k, v.squeeze(2).transpose(1, 2).contiguous()

    def join(self, attended: Tensor) -> Tensor:
        """The heads' outputs [B, H, T, dh] as tokens [B, T, D]."""
        joined: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return joined
