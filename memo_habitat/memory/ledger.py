"""What a training pass remembers of earlier segments: one layer's keys and values, in the graph.

The new tokens of a pass attend to the ledger's slots, as many as the pass says, and causally to
each other. Slot 0 is the attention sink's.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memo_habitat.memory import kernels
from memo_habitat.memory.attention import Sink, causal_attention
from memo_habitat.memory.retrieval import causal_mask, retrieve


class Pass(NamedTuple):
    """What one pass does with its T new tokens.

    held: the ledger's first slots, which all new tokens see. kept: the new tokens that become its
    next slots. summary: the first new tokens, where they are the newest summary.
    """

    held: int
    kept: slice
    summary: int = 0


class Ledger(Protocol):
    """Keys and values of one layer that later tokens attend to."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, sink: Sink, what: Pass) -> Tensor:
        """Attention of the new tokens, with gradients to everything they see.

        k, v: [B, H, T, dh]; q: [B, H, Tq, dh] of all tokens, or of all behind the summary.
        Returns [B, H, Tq, dh].
        """


def new_ledger(q: Tensor, capacity: int, top_k: int) -> Ledger:
    """The fastest ledger for such queries, with room for `capacity` slots."""
    if top_k == 0 and kernels.available(q):
        return BufferLedger(q, capacity)
    return PlainLedger(top_k)


class PlainLedger:
    """The ledger in autograd's own terms: each pass concatenates and masks what it sees."""

    def __init__(self, top_k: int = 0) -> None:
        self._top_k = top_k
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def attend(self, q: Tensor, k: Tensor, v: Tensor, sink: Sink, what: Pass) -> Tensor:
        """Attention as `Ledger.attend` says."""
        for kept, slot, new in ((self._keys, sink.key, k), (self._values, sink.value, v)):
            if not kept:
                kept.append(slot.to(k.dtype).expand(len(k), -1, -1, -1))
            kept.append(new[:, :, what.kept])
        held_keys, held_values = (
            torch.cat(kept, dim=2)[:, :, : what.held] for kept in (self._keys, self._values)
        )
        keys, values = torch.cat([held_keys, k], dim=2), torch.cat([held_values, v], dim=2)
        mask = self._retrieved(q, keys, what) if self._top_k else None
        return causal_attention(q, keys, values, mask)

    def _retrieved(self, q: Tensor, k: Tensor, what: Pass) -> Tensor:
        slots = torch.arange(k.shape[2], device=k.device)
        places = slots[-q.shape[2] :, None]
        # Neither the sink nor the own segment; of a summary's tokens, nor their own summary.
        behind = places >= what.held + what.summary
        candidates = (slots >= 1) & (slots < what.held + what.summary * behind)
        visible = causal_mask(q.shape[2], k.shape[2], k.device)
        return retrieve(q, k, visible, candidates, self._top_k)


class BufferLedger:
    """The ledger in buffers that are written once, and gradients that are added up in place.

    Autograd alone would keep a copy of the whole ledger for every segment. Here the graph holds
    one: each pass adds the gradients of the slots it saw to a buffer, and the pass that wrote
    a slot takes them from there. A chain of empty tensors through all passes makes autograd run
    them in reverse order.
    """

    def __init__(self, like: Tensor, capacity: int) -> None:
        self._buffers = _Buffers(like, capacity)
        self._chain = like.new_empty(0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, sink: Sink, what: Pass) -> Tensor:
        """Attention as `Ledger.attend` says."""
        if self._buffers.length == 0:
            self._buffers.write(sink.key.detach(), sink.value.detach())
        entry = (self._buffers, what)
        output, self._chain = _LedgerAttention.apply(q, k, v, *sink, self._chain, entry)
        return output


class _Buffers:
    """Slots [B, H, capacity, dh] of one layer; shared by all passes of a trial."""

    def __init__(self, like: Tensor, capacity: int) -> None:
        batch, heads, _, head_dim = like.shape
        self.keys = like.new_empty(batch, heads, capacity, head_dim)
        self.values = torch.empty_like(self.keys)
        self.length = 0
        self._grads: tuple[Tensor, Tensor] | None = None
        self._backward = -1  # the backward pass that they are of

    def write(self, keys: Tensor, values: Tensor) -> None:
        """Fill the next slots."""
        slots = slice(self.length, self.length + keys.shape[-2])
        self.keys[:, :, slots] = keys
        self.values[:, :, slots] = values
        self.length = slots.stop

    def grads(self) -> tuple[Tensor, Tensor]:
        """Gradients of keys and values that no pass has taken yet; sums, hence no bfloat16."""
        backward = torch._C._current_graph_task_id()
        if self._grads is None or backward != self._backward:
            # One that was to reach a part of the graph only left gradients behind.
            dtype = torch.promote_types(self.keys.dtype, torch.float32)
            zeros = torch.zeros_like(self.keys, dtype=dtype)
            self._grads, self._backward = (zeros, zeros.clone()), backward
        return self._grads


class _LedgerAttention(torch.autograd.Function):
    """`BufferLedger.attend`, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sink_key: Tensor,
        sink_value: Tensor,
        chain: Tensor,
        entry: tuple[_Buffers, Pass],
    ) -> tuple[Tensor, Tensor]:
        buffers, what = entry
        start = k.shape[2] - q.shape[2]
        ctx.held = what.held + start
        ctx.kept, ctx.buffers = what.kept, buffers
        ctx.kept_slots = slice(buffers.length, buffers.length + k[:, :, what.kept].shape[2])
        buffers.write(k[:, :, what.kept], v[:, :, what.kept])
        whole = kernels.merge(
            kernels.attend(q, k[:, :, start:], v[:, :, start:], causal=True),
            kernels.attend(
                q, buffers.keys[:, :, : ctx.held], buffers.values[:, :, : ctx.held], causal=False
            ),
        )
        ctx.save_for_backward(q, k, v, *whole)
        return whole.output, chain.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        q, k, v, *whole = ctx.saved_tensors
        buffers, held, start = ctx.buffers, ctx.held, k.shape[2] - q.shape[2]
        part = kernels.Part(*whole)
        own = kernels.gradients(grad, q, k[:, :, start:], v[:, :, start:], part, causal=True)
        older = kernels.gradients(
            grad, q, buffers.keys[:, :, :held], buffers.values[:, :, :held], part, causal=False
        )
        grads = []
        for waiting, mine, theirs in zip(buffers.grads(), own[1:], older[1:], strict=True):
            waiting[:, :, :held] += theirs
            taken = _taken(waiting, ctx.kept_slots)
            if start:
                grads.append(torch.cat([taken.to(mine.dtype), mine], dim=2))
            else:
                mine[:, :, ctx.kept] += taken
                grads.append(mine)
        sink = (_taken(waiting, slice(0, 1)).sum(0) for waiting in buffers.grads())
        return own.q.add_(older.q), *grads, *sink, None, None


def _taken(grads: Tensor, slots: slice) -> Tensor:
    """The slots' gradients, which leave the buffer."""
    taken = grads[:, :, slots].clone()
    grads[:, :, slots] = 0
    return taken
