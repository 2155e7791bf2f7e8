"""Keys and values of the tokens that later tokens attend to in training, inside autograd.

Every layer has one buffer for a trial: the sink, then the summaries in their order, then the tokens
of the pass under way, over which the next pass writes. A pass attends to a part of the buffer as it
stands, and gradients of what is held are summed up in a buffer like it. So nothing that a pass
computes or keeps grows with what came before it, but for the attention itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memo_habitat.memory.attention import (
    RotaryTable,
    Rotation,
    Sink,
    causal_attention,
    top_k_mask,
)


class DifferentiableKV:
    """Of a trial in training: the keys and values of the summaries, with their gradients.

    The new tokens of a pass see what was kept of earlier passes, and each other causally; the
    first `keep` of them are kept for the passes after it.

    places: most that a pass will see, the sink among them; 0 where nothing outlives a pass.
    """

    def __init__(self, device: torch.device, top_k: int = 0, places: int = 0) -> None:
        self._device, self._top_k, self._places = device, top_k, places
        self._buffers: dict[int, _Buffer] = {}
        self._links: dict[int, Tensor] = {}  # not in the buffers: they would never be freed
        self._held = self._keep = self._count = 0
        self._corner = torch.empty(0, 0)

    def begin(self, count: int, keep: int = 0) -> DifferentiableKV:
        """Open a pass of `count` new tokens."""
        self._held += self._keep
        self._count, self._keep = count, keep
        return self

    def forget(self) -> None:
        """Hold nothing any more."""
        self._buffers, self._links, self._held, self._keep = {}, {}, 0, 0

    def rotation(self, table: RotaryTable) -> Rotation:
        """A token's position is its place behind the sink."""
        return table.span(self._held, self._count, self._device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says; gradients reach all that is held."""
        if layer not in self._buffers:
            places = self._places or 1 + self._count
            self._buffers[layer] = _Buffer(k, places, is_shared=self._places > 0)
            self._links[layer] = _Begin.apply(self._buffers[layer], *sink)
        buffer, first = self._buffers[layer], 1 + self._held
        buffer.write(first, k, v, self._keep)
        keys, values = (x[:, :, : first + self._count] for x in (buffer.keys, buffer.values))
        mask = self._mask(q, keys)
        if not torch.is_grad_enabled():
            return causal_attention(q, keys, values, mask)
        attended: Tensor
        attended, self._links[layer] = _Attend.apply(
            q, k, v, self._links[layer], buffer, self._keep, mask
        )
        return attended

    def _mask(self, q: Tensor, k: Tensor) -> Tensor | None:
        queries, places = q.shape[2], k.shape[2]
        if self._top_k:
            index = torch.arange(places, device=q.device)
            own = index[places - queries :, None]
            # Neither the sink nor the own segment; of a summary's tokens, nor their own summary.
            behind = own > self._held + self._keep
            candidates = (index >= 1) & (index <= self._held + self._keep * behind)
            return top_k_mask(q, k, candidates, self._top_k, index <= own)
        if self._device.type != "cpu" or places - queries <= 1:
            return None
        # A CPU has no kernel for this triangle, and autograd would keep a mask per layer and pass.
        # That of fewer places is the lower right corner of that of more: one serves them all.
        corner = self._corner
        if queries > corner.shape[0] or places > corner.shape[1]:
            size = queries, 2 * places
            hidden = torch.full(size, -torch.inf, dtype=q.dtype, device=q.device)
            corner = self._corner = hidden.triu_(size[1] - size[0] + 1)
        return corner[-queries:, -places:]


class _Buffer:
    """Keys and values of one layer, [B, H, places, dh].

    is_shared: several passes write to it, each over what the one before did not keep.
    """

    def __init__(self, like: Tensor, places: int, is_shared: bool) -> None:
        self.is_shared = is_shared
        size = (*like.shape[:2], places, like.shape[3])
        self.keys, self.values = like.new_empty(size), like.new_empty(size)
        self._kept: list[tuple[int, Tensor, Tensor]] = []
        self._intact = 0  # places in front that hold what is to stay there

    def write(self, first: int, k: Tensor, v: Tensor, keep: int) -> None:
        """Put tokens behind the first places, over what there was; `keep` of them stay."""
        # For gradients that are asked for twice; a view keeps all of the pass's k and v.
        if keep and self.is_shared and torch.is_grad_enabled():
            self._kept.append((first, k[:, :, :keep].detach(), v[:, :, :keep].detach()))
        self._put(first, k, v)
        self._intact = first + keep

    def write_again(self, first: int, k: Tensor, v: Tensor, keep: int) -> None:
        """Make all places up to these tokens what they were when they were written."""
        # Passes go backwards from the last one. Only where that is done twice, the first ones
        # have written over what the last ones need.
        for place, kept_k, kept_v in self._kept if self._intact < first else ():
            self._put(place, kept_k, kept_v)
        self._put(first, k, v)
        self._intact = first + keep

    def _put(self, first: int, k: Tensor, v: Tensor) -> None:
        # `data`: autograd must not count this as a change of what other passes looked at.
        place = slice(first, first + k.shape[2])
        self.keys.data[:, :, place] = k.detach()
        self.values.data[:, :, place] = v.detach()

    def link(self, held: int) -> Tensor:
        """A tensor without memory, [2, B, H, held, dh], for autograd: see `_Attend`."""
        # Single precision, as every later pass adds to its gradient.
        dtype = torch.promote_types(self.keys.dtype, torch.float32)
        batch, heads, _, size = self.keys.shape
        return self.keys.new_empty((), dtype=dtype).expand(2, batch, heads, held, size)


def _outer_graph_is_kept() -> bool:
    """Whether whoever asks for gradients now may ask again (`retain_graph`)."""
    asked = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return asked is None or asked()


class _Begin(torch.autograd.Function):
    """Write the sink, in front of everything."""

    @staticmethod
    def forward(ctx: Any, buffer: _Buffer, key: Tensor, value: Tensor) -> Tensor:
        """key, value: [H, 1, dh]."""
        buffer.write(0, key[None], value[None], keep=1)
        ctx.dtypes = key.dtype, value.dtype
        return buffer.link(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Gradients of the sink, which all rows share."""
        key, value = gradient.sum(1)
        return None, key.to(ctx.dtypes[0]), value.to(ctx.dtypes[1])


class _Attend(torch.autograd.Function):
    """Attention of one pass, over a buffer that other passes write to as well.

    A link goes from each pass to the next one, and stands for the keys and values that the buffer
    holds between them. Its gradient is theirs, from all later passes, each of which adds to it in
    place: for autograd, a pass's gradients wait for those of the passes that look at its tokens.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        link: Tensor,
        buffer: _Buffer,
        keep: int,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """k, v [B, H, T, dh] are in the buffer by now, behind what is held."""
        ctx.set_materialize_grads(False)
        held = link.shape[3]
        with torch.enable_grad():  # a graph of this attention alone, from parts of the buffer
            seen = slice(held + k.shape[2])
            parts = q, buffer.keys[:, :, seen], buffer.values[:, :, seen]
            ctx.inner = own_q, keys, values = [part.detach().requires_grad_() for part in parts]
            ctx.attended = causal_attention(own_q, keys, values, mask)
        ctx.save_for_backward(*((k, v) if buffer.is_shared else ()))
        ctx.buffer, ctx.held, ctx.keep = buffer, held, keep
        return ctx.attended.detach(), buffer.link(held + keep)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, total: Tensor | None) -> Any:
        """Gradients of the own tokens, and what is held between this pass and the one before."""
        held, keep = ctx.held, ctx.keep
        if ctx.attended is None:
            raise RuntimeError("these gradients were asked for before: give retain_graph=True")
        if ctx.saved_tensors:  # later passes wrote over them
            ctx.buffer.write_again(held, *ctx.saved_tensors, keep)
        if gradient is None:
            gradient = torch.zeros_like(ctx.attended)
        if total is None:
            link = ctx.buffer.link(held + keep)
            total = torch.zeros(link.shape, dtype=link.dtype, device=link.device)
        is_kept = _outer_graph_is_kept()
        q, k, v = torch.autograd.grad(ctx.attended, ctx.inner, gradient, retain_graph=is_kept)
        if not is_kept:  # freed while the backward pass goes on
            ctx.inner = ctx.attended = None
        for new, summed in zip((k, v), total, strict=True):
            if keep:
                new[:, :, held : held + keep] += summed[:, :, held:]
            summed[:, :, :held] += new[:, :, :held]
        return q, k[:, :, held:], v[:, :, held:], total[:, :, :, :held], None, None, None
