"""The context of a training pass: keys and values of older tokens, inside the autograd graph."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from memo_habitat.memory.attention import Sink, causal_attention
from memo_habitat.memory.rotary import RotaryTable, Rotation


class _Held(NamedTuple):
    """Keys and values of one layer, [B, H, 1 + tokens, dh]; the sink is slot 0."""

    keys: Tensor
    values: Tensor


class Prefix:
    """Differentiable counterpart of `Cache`: every pass appends, `truncate` drops from the end.

    A token's position is its place behind the sink, in a prefix as in a cache.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[int, _Held] = {}
        self._length = 0  # tokens held before the pass under way, sink not counted
        self._added = 0

    def open(self, count: int) -> Prefix:
        """Begin a pass of `count` new tokens behind those held."""
        self._length += self._added
        self._added = count
        return self

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self._length, self._added = length, 0
        for layer, (keys, values) in self._held.items():
            self._held[layer] = _Held(keys[:, :, : 1 + length], values[:, :, : 1 + length])

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of the new tokens' positions."""
        return table.span(self._length, self._added, self._device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says; gradients reach all held tokens."""
        held = self._held.get(layer) or _Held(*(_as_slot(part, k) for part in sink))
        keys = torch.cat([held.keys, k], dim=2)
        values = torch.cat([held.values, v], dim=2)
        self._held[layer] = _Held(keys, values)
        return causal_attention(q, keys, values)


def _as_slot(part: Tensor, like: Tensor) -> Tensor:
    """The sink's part [H, 1, dh] as slot 0 of every row of `like` [B, H, T, dh]."""
    return part.to(like.dtype).expand(len(like), -1, -1, -1)
