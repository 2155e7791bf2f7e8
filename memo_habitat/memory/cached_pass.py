"""The contexts of acting: passes that write new tokens into slots and attend to all of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from memo_habitat.memory.attention import Sink, causal_attention
from memo_habitat.memory.rotary import RotaryTable, Rotation
from memo_habitat.memory.slots import Slots


class TogetherPass:
    """Tokens behind rows of one length: slices of the buffers, no mask over the history."""

    def __init__(self, slots: Slots, rows: slice, start: int, count: int) -> None:
        self._slots, self._rows = slots, rows
        self._start, self._count = start, count
        slots.bias[rows, 1 + start : 1 + start + count] = 0

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of the positions start .. start + count - 1."""
        return table.span(self._start, self._count, self._slots.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says, computed in the cache's dtype."""
        slots, rows = self._slots, self._rows
        first, end = 1 + self._start, 1 + self._start + self._count
        slots.write_sink(layer, rows, sink)
        slots.keys[layer][rows, :, first:end] = k
        slots.values[layer][rows, :, first:end] = v
        keys, values = slots.keys[layer][rows, :, :end], slots.values[layer][rows, :, :end]
        # Autocast would copy the whole history to its own dtype in every step.
        with torch.autocast(q.device.type, enabled=False):
            return causal_attention(q.to(slots.dtype), keys, values).to(q.dtype)


class RaggedPass:
    """One token behind each of all rows, at each row's own length."""

    def __init__(self, slots: Slots, lengths: list[int]) -> None:
        self._slots = slots
        self._longest = max(lengths)
        self._positions = torch.tensor(lengths, device=slots.device)
        self._row = torch.arange(len(lengths), device=slots.device)
        slots.bias[self._row, self._positions + 1] = 0

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of each row's own position."""
        return table.at(self._positions, self._longest)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says, computed in the cache's dtype."""
        slots, end = self._slots, self._longest + 2
        slots.write_sink(layer, slice(None), sink)
        slots.keys[layer][self._row, :, self._positions + 1] = k[:, :, 0].to(slots.dtype)
        slots.values[layer][self._row, :, self._positions + 1] = v[:, :, 0].to(slots.dtype)
        keys, values = slots.keys[layer][:, :, :end], slots.values[layer][:, :, :end]
        bias = slots.bias[:, None, None, :end]
        with torch.autocast(q.device.type, enabled=False):
            attended = scaled_dot_product_attention(q.to(slots.dtype), keys, values, attn_mask=bias)
        return attended.to(q.dtype)
