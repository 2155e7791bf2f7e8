"""What a training pass remembers of earlier segments: one layer's keys and values, in the graph.

New tokens come in stripes. A token attends to the first slots of the ledger, as many as its stripe
holds, and causally to its own stripe. Slot 0 is the attention sink's.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from memo_habitat.memory import kernels
from memo_habitat.memory.attention import Sink, causal_attention
from memo_habitat.memory.retrieval import causal_mask, retrieve


class Stripe(NamedTuple):
    """The new tokens start .. stop - 1, which see the ledger's first `held` slots."""

    start: int
    stop: int
    held: int


class Pass(NamedTuple):
    """What one pass does with its T new tokens.

    kept: the new tokens that become the ledger's next slots.
    """

    stripes: tuple[Stripe, ...]
    kept: slice


class Ledger(Protocol):
    """Keys and values of one layer that later tokens attend to."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, sink: Sink, what: Pass) -> Tensor:
        """Attention of the new tokens, with gradients to everything they see.

        k, v: [B, H, T, dh]; q: [B, H, Tq, dh] of the last tokens, whole stripes of them.
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
        keys, values = torch.cat(self._keys, dim=2), torch.cat(self._values, dim=2)
        first = k.shape[2] - q.shape[2]
        outputs = []
        for start, stop, held in what.stripes:
            if start < first:
                continue
            seen_keys = torch.cat([keys[:, :, :held], k[:, :, start:stop]], dim=2)
            seen_values = torch.cat([values[:, :, :held], v[:, :, start:stop]], dim=2)
            queries = q[:, :, start - first : stop - first]
            mask = None
            if self._top_k:
                mask = self._retrieved(queries, seen_keys, held)
            outputs.append(causal_attention(queries, seen_keys, seen_values, mask))
        return torch.cat(outputs, dim=2)

    def _retrieved(self, q: Tensor, k: Tensor, held: int) -> Tensor:
        slots = torch.arange(k.shape[2], device=k.device)
        candidates = (slots >= 1) & (slots < held)  # neither the sink nor the own stripe
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
        output, self._chain = _LedgerAttention.apply(
            q, k, v, *sink, self._chain, self._buffers, what
        )
        return output


class _Buffers:
    """Slots [B, H, capacity, dh] of one layer; shared by all passes of a trial."""

    def __init__(self, like: Tensor, capacity: int) -> None:
        batch, heads, _, head_dim = like.shape
        self.keys = like.new_empty(batch, heads, capacity, head_dim)
        self.values = torch.empty_like(self.keys)
        self.length = 0
        self._grads: tuple[Tensor, Tensor] | None = None

    def write(self, keys: Tensor, values: Tensor) -> None:
        """Fill the next slots."""
        slots = slice(self.length, self.length + keys.shape[-2])
        self.keys[:, :, slots] = keys
        self.values[:, :, slots] = values
        self.length = slots.stop

    def grads(self) -> tuple[Tensor, Tensor]:
        """Gradients of keys and values that no pass has taken yet."""
        if self._grads is None:
            self._grads = torch.zeros_like(self.keys), torch.zeros_like(self.values)
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
        buffers: _Buffers,
        what: Pass,
    ) -> tuple[Tensor, Tensor]:
        ctx.kept_slots = slice(buffers.length, buffers.length + k[:, :, what.kept].shape[2])
        buffers.write(k[:, :, what.kept], v[:, :, what.kept])
        parts = []
        first = k.shape[2] - q.shape[2]
        for start, stop, held in what.stripes:
            if start < first:
                continue
            queries, own = q[:, :, start - first : stop - first], slice(start, stop)
            parts.append(
                kernels.merge(
                    kernels.attend(queries, k[:, :, own], v[:, :, own], causal=True),
                    kernels.attend(
                        queries,
                        buffers.keys[:, :, :held],
                        buffers.values[:, :, :held],
                        causal=False,
                    ),
                )
            )
        whole = _joined(parts)
        ctx.save_for_backward(q, k, v, *whole)
        ctx.buffers, ctx.what = buffers, what
        return whole.output, chain.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
        q, k, v, *whole = ctx.saved_tensors
        buffers, kept = ctx.buffers, ctx.what.kept
        held_grads = buffers.grads()
        grad_q = torch.empty_like(q)
        grad_k, grad_v = torch.zeros_like(k), torch.zeros_like(v)
        first = k.shape[2] - q.shape[2]
        for start, stop, held in ctx.what.stripes:
            if start < first:
                continue
            rows, own = slice(start - first, stop - first), slice(start, stop)
            part = kernels.Part(*(tensor[:, :, rows] for tensor in whole))
            given = (grad[:, :, rows], q[:, :, rows])
            mine = kernels.gradients(*given, k[:, :, own], v[:, :, own], part, causal=True)
            older = kernels.gradients(
                *given, buffers.keys[:, :, :held], buffers.values[:, :, :held], part, causal=False
            )
            torch.add(mine.q, older.q, out=grad_q[:, :, rows])
            grad_k[:, :, own] += mine.k
            grad_v[:, :, own] += mine.v
            held_grads[0][:, :, :held] += older.k
            held_grads[1][:, :, :held] += older.v
        grad_k[:, :, kept] += _taken(held_grads[0], ctx.kept_slots)
        grad_v[:, :, kept] += _taken(held_grads[1], ctx.kept_slots)
        sink = (_taken(part, slice(0, 1)).sum(0) for part in held_grads)
        return grad_q, grad_k, grad_v, *sink, None, None, None


def _joined(parts: list[kernels.Part]) -> kernels.Part:
    if len(parts) == 1:
        return parts[0]
    # The kernel's memory runs over tokens before heads.
    output = torch.cat([part.output.transpose(1, 2) for part in parts], dim=1).transpose(1, 2)
    return kernels.Part(output, torch.cat([part.log_sum for part in parts], dim=2))


def _taken(grads: Tensor, slots: slice) -> Tensor:
    """The slots' gradients, which leave the buffer: a second backward pass begins from zero."""
    taken = grads[:, :, slots].clone()
    grads[:, :, slots] = 0
    return taken
