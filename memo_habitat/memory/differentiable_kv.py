"""Keys and values of the tokens that later tokens attend to in training, inside autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

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
    """

    def __init__(self, device: torch.device, top_k: int = 0) -> None:
        self._device, self._top_k = device, top_k
        # By layer, keys and values of the sink and the summaries: whole, with their gradients, and
        # in the pieces that they came in.
        self._whole: dict[int, tuple[Tensor, Tensor]] = {}
        self._pieces: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._held = self._keep = self._count = 0
        self._corner = torch.empty(0, 0)

    def begin(self, count: int, keep: int = 0) -> DifferentiableKV:
        """Open a pass of `count` new tokens."""
        self._held += self._keep
        self._count, self._keep = count, keep
        return self

    def forget(self) -> None:
        """Hold nothing any more."""
        self._whole, self._pieces, self._held, self._keep = {}, {}, 0, 0

    def rotation(self, table: RotaryTable) -> Rotation:
        """A token's position is its place behind the sink."""
        return table.span(self._held, self._count, self._device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says; gradients reach all that is held."""
        if layer not in self._whole:
            first_k, first_v = (x.to(k.dtype).expand(len(k), -1, -1, -1) for x in sink)
            self._whole[layer] = first_k, first_v
            self._pieces[layer] = [(first_k.detach(), first_v.detach())]
        held_k, held_v = self._whole[layer]
        keys, values = torch.cat((held_k, k), dim=2), torch.cat((held_v, v), dim=2)
        pieces = [*self._pieces[layer], (k.detach(), v.detach())]
        # Kept for the passes after this one, which `begin` counts as held. As parts of what was put
        # together here: so each pass has one gradient to add to what is held, not one a summary.
        if self._keep:
            count = held_k.shape[2] + self._keep
            self._whole[layer] = keys[:, :, :count], values[:, :, :count]
            kept_k, kept_v = (x[:, :, : self._keep].detach() for x in (k, v))
            self._pieces[layer].append((kept_k, kept_v))
        mask = self._mask(q, keys)
        if not self._held:  # no summaries yet, whose copies could add up
            return causal_attention(q, keys, values, mask)
        all_k, all_v = zip(*pieces, strict=True)
        with _saved_in_pieces((keys, all_k), (values, all_v)):
            return causal_attention(q, keys, values, mask)

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


def _saved_in_pieces(*wholes: tuple[Tensor, tuple[Tensor, ...]]) -> saved_tensors_hooks:
    """Let autograd save the pieces of these concatenations, and join them when it needs them.

    Otherwise every segment would keep a copy of all summaries before it, at every layer: memory
    that grows with the square of the trial's length.
    """
    pieces_of = {whole.untyped_storage()._cdata: pieces for whole, pieces in wholes}

    def pack(saved: Tensor) -> Tensor | Callable[[], Tensor]:
        pieces = pieces_of.get(saved.untyped_storage()._cdata)
        if pieces is None:
            return saved
        # A kernel may have saved another view of it.
        layout = saved.size(), saved.stride(), saved.storage_offset()
        return lambda: torch.cat(pieces, dim=2).as_strided(*layout)

    def unpack(packed: Tensor | Callable[[], Tensor]) -> Tensor:
        return packed if isinstance(packed, Tensor) else packed()

    return saved_tensors_hooks(pack, unpack)
