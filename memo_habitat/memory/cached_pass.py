"""The contexts of acting: passes that write new tokens into slots and attend to all of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from memo_habitat.memory import kernels
from memo_habitat.memory.attention import Sink, causal_attention
from memo_habitat.memory.retrieval import causal_mask, retrieve
from memo_habitat.memory.rotary import RotaryTable, Rotation
from memo_habitat.memory.slots import Slots


def _no_autocast(device: str) -> AbstractContextManager[Any]:
    """Autocast would copy the whole history to its own dtype in every step."""
    if not torch.is_autocast_enabled(device):
        return nullcontext()  # which is entered in no time
    return torch.autocast(device, enabled=False)


class TogetherPass:
    """Tokens behind rows of one length: slices of the buffers, no mask over the history.

    start: tokens held. position: of the first new token. candidates: leading tokens of which each
    head sees the `top_k` best only, if that is not 0.
    """

    def __init__(
        self,
        slots: Slots,
        rows: slice,
        start: int,
        count: int,
        position: int,
        candidates: int,
        top_k: int,
    ) -> None:
        self._slots, self._rows = slots, rows
        self._new = slice(1 + start, 1 + start + count)
        self._position, self._candidates, self._top_k = position, candidates, top_k
        slots.bias[rows, self._new] = 0

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of the new tokens' positions."""
        count = self._new.stop - self._new.start
        return table.span(self._position, count, self._slots.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says, computed in the cache's dtype."""
        slots, rows, new = self._slots, self._rows, self._new
        if new.start == 1:
            slots.write_sink(layer, rows, sink)
        slots.keys[layer][rows, :, new] = k
        slots.values[layer][rows, :, new] = v
        if q.shape[2] == 0:
            return q
        keys, values = slots.keys[layer][rows], slots.values[layer][rows]
        with _no_autocast(q.device.type):
            return self._attend(q.to(slots.dtype), keys, values).to(q.dtype)

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        start, end = self._new.start, self._new.stop
        held = keys[:, :, :start], values[:, :, :start]
        own = keys[:, :, start:end], values[:, :, start:end]
        both = keys[:, :, :end], values[:, :, :end]
        if self._candidates:
            slots = torch.arange(end, device=q.device)
            candidates = (slots >= 1) & (slots <= self._candidates)
            visible = causal_mask(q.shape[2], end, q.device)
            return causal_attention(
                q, *both, retrieve(q, both[0], visible, candidates, self._top_k)
            )
        if 1 < q.shape[2] == end - start and kernels.available(q):
            parts = kernels.attend(q, *own, causal=True), kernels.attend(q, *held, causal=False)
            return kernels.merge(*parts).output
        return causal_attention(q, *both)


class RaggedPass:
    """Tokens behind all rows, at each row's own length: row i appends the first counts[i].

    The others are written and forgotten. summaries: candidates of retrieval in each row.
    """

    def __init__(
        self,
        slots: Slots,
        lengths: list[int],
        counts: list[int],
        first_position: int,
        summaries: list[int] | None,
        top_k: int,
    ) -> None:
        self._slots, self._top_k = slots, top_k
        self._longest, count, device = max(lengths), max(counts), slots.device
        self._some_are_empty = min(lengths) == 0
        starts = torch.tensor(lengths, device=device)[:, None]
        places = starts + torch.arange(count, device=device)
        self._rows = torch.arange(len(lengths), device=device)[:, None]
        self._new = places + 1
        self._end = self._longest + 1 + count
        self._highest = self._longest + first_position + count
        self._positions = places + first_position
        if count == 1:
            slots.bias[self._rows, self._new] = 0
        else:
            for row, (length, added) in enumerate(zip(lengths, counts, strict=True)):
                slots.bias[row, 1 + length : 1 + length + added] = 0
        self._mask = slots.bias[:, None, None, : self._end] if count == 1 else self._visible()
        self._candidates: Tensor | None = None
        if summaries is not None:
            last = torch.tensor(summaries, device=device)[:, None, None, None]
            every = torch.arange(self._end, device=device)
            self._candidates = (every >= 1) & (every <= last)

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of each row's own positions."""
        return table.at(self._positions, self._highest)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says, computed in the cache's dtype."""
        slots, mask = self._slots, self._mask
        if self._some_are_empty:
            slots.write_sink(layer, slice(None), sink)
        slots.keys[layer][self._rows, :, self._new] = k.transpose(1, 2).to(slots.dtype)
        slots.values[layer][self._rows, :, self._new] = v.transpose(1, 2).to(slots.dtype)
        keys, values = (part[layer][:, :, : self._end] for part in (slots.keys, slots.values))
        with _no_autocast(q.device.type):
            queries = q.to(slots.dtype)
            if self._candidates is not None:
                mask = retrieve(queries, keys, self._visible(), self._candidates, self._top_k)
            attended = scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return attended.to(q.dtype)

    def _visible(self) -> Tensor:
        """Slots up to each new token's own, bool [N, 1, count, slots]."""
        slots = torch.arange(self._end, device=self._slots.device)
        return (slots <= self._new[:, :, None])[:, None]
