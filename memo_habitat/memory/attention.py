"""Causal self-attention with a sink, over whatever a context holds besides the new tokens."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.projection import Projection
from memo_habitat.memory.retrieval import causal_mask
from memo_habitat.memory.rotary import RotaryTable, Rotation, rotate


class Sink(NamedTuple):
    """The extra slot in front of every attention (arXiv 2309.17453); key, value: [H, 1, dh].

    It takes no position: its key is never turned, and the first token is at position 0.
    """

    key: Tensor
    value: Tensor


class Context(Protocol):
    """What the new tokens of one pass attend to besides themselves."""

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of the new tokens' positions."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention of the new tokens to the sink, the held tokens and themselves, causally.

        k, v: [B, H, T, dh] of all new tokens, kept as far as the context keeps them.
        q: [B, H, Tq, dh] of the last Tq <= T of them. Returns [B, H, Tq, dh].
        """


def causal_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of the last Tq places to all places up to their own, or to those of `mask`.

    q: [B, H, Tq, dh]; k, v: [B, H, Tk, dh] with Tk >= Tq; mask: bool, broadcast to
    [B, H, Tq, Tk], True where visible. Returns [B, H, Tq, dh].
    """
    queries, places = q.shape[2], k.shape[2]
    if mask is not None:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if queries == 1:
        return scaled_dot_product_attention(q, k, v)
    if places - queries <= 1:
        # One idle query for the sink's place makes the square form, which needs no mask.
        square = pad(q, (0, 0, places - queries, 0))
        attended = scaled_dot_product_attention(square, k, v, is_causal=True)
        return attended[:, :, places - queries :]
    visible = causal_mask(queries, places, q.device)
    return scaled_dot_product_attention(q, k, v, attn_mask=visible)


def last(x: Tensor, count: int, dim: int) -> Tensor:
    """The last `count` entries along `dim`; spares autograd a slice where that is all of them."""
    size = x.shape[dim]
    return x if count == size else x.narrow(dim, size - count, count)


class Attention(nn.Module):
    """Multi-head attention without biases; queries, keys and values in one projection."""

    sink_value: Tensor

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.head_dim = config.width // config.heads
        self.qkv = Projection(config.width, 3 * config.width)
        self.out = Projection(config.width, config.width)
        self.sink_key = nn.Parameter(torch.empty(config.heads, 1, self.head_dim))
        value = torch.zeros(config.heads, 1, self.head_dim)
        if config.sink_value == "learned":
            self.sink_value = nn.Parameter(value)
        else:
            self.register_buffer("sink_value", value, persistent=False)

    @property
    def sink(self) -> Sink:
        """The sink's key and value."""
        return Sink(self.sink_key, self.sink_value)

    def project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, T, dh] of normalised tokens [B, T, D]."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, self.head_dim)
        qk, v = qkv.split([2, 1], dim=2)
        q, k = rotate(qk, rotation).transpose(1, 3).unbind(2)
        return q, k, v.squeeze(2).transpose(1, 2)

    def join(self, attended: Tensor) -> Tensor:
        """The heads' outputs [B, H, T, dh] as tokens [B, T, D]."""
        joined: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return joined
