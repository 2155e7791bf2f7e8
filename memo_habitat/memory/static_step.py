"""One acting step of every environment as a function of tensors that keep their shapes.

A step is some tens of small kernels a layer, and launching them takes a GPU longer than running
them. Here nothing that changes from one step to the next is a number of Python's: what is compiled
of it serves all steps, and on a GPU its kernels are one graph, launched at once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from memo_habitat.memory.attention import RotaryTable, Rotation, Sink, causal_attention, top_k_mask

if TYPE_CHECKING:
    from memo_habitat.memory.memo import MemoTransformer


class StepContext:
    """The context of one new token in each of N rows, over all slots that are allocated.

    layers: of each layer keys and values, [2, N, H, slots, dh]; written to.
    bias: 0 where a slot is in use, else -inf, [N, slots]; written to.
    rows, slots: of the new tokens, long [N, 1].
    turned: rotation of the new tokens' positions.
    summaries: summary tokens that a row holds, long [N, 1]; None where all are attended to.
    """

    def __init__(
        self,
        layers: list[Tensor],
        bias: Tensor,
        places: tuple[Tensor, Tensor],
        turned: Rotation,
        summaries: Tensor | None,
        top_k: int,
    ) -> None:
        self.layers, self.bias, (self.rows, self.slots) = layers, bias, places
        self.turned, self.summaries, self.top_k = turned, summaries, top_k

    def use_slots(self) -> None:
        """Let the new tokens' slots be seen."""
        # No number, which would be a tensor on the CPU: a graph of a GPU's kernels cannot hold one.
        self.bias[self.rows, self.slots] = self.bias.new_zeros(())

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of the new tokens' positions."""
        return self.turned

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says, computed in the cache's dtype."""
        held = self.layers[layer]
        # Keys and values in one operation on the buffer itself, which is then never copied.
        new = torch.stack([k, v]).permute(1, 3, 0, 2, 4)  # [N, 1, 2, H, dh]
        held[:, self.rows, :, self.slots] = new.to(held.dtype)
        # Autocast would copy the whole history to its own dtype in every step.
        with torch.autocast(q.device.type, enabled=False):
            low, (keys, values) = q.to(held.dtype), held.unbind()
            return causal_attention(low, keys, values, self._mask(low, keys)).to(q.dtype)

    def _mask(self, q: Tensor, k: Tensor) -> Tensor:
        if self.summaries is None:
            return self.bias[:, None, None]
        every = torch.arange(self.bias.shape[1], device=q.device)
        candidates = (every >= 1) & (every <= self.summaries)
        visible = self.bias == 0
        return top_k_mask(q, k, candidates[:, None, None], self.top_k, visible[:, None, None])


def step_layers(memory: MemoTransformer, tokens: Tensor, context: StepContext) -> Tensor:
    """Push one token of every row, [N, 1, D], through the stack; returns [N, 1, D]."""
    context.use_slots()
    return memory.forward_layers(tokens, context, 1)


@functools.cache
def compiled(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    """A step's part, compiled once for all memories of this process that are on a `device`."""
    part = torch.compile(function, mode="reduce-overhead" if device == "cuda" else None)

    def run(*inputs: Any) -> Any:
        # Copies: a graph of kernels writes its results to the same place each time.
        return tree_map(torch.clone, part(*inputs))

    return run


def keep_in_place(buffer: Tensor, slots: int) -> None:
    """Tell a compiler that the buffer stays where it is, and that others are longer in `slots`."""
    torch._dynamo.mark_static_address(buffer, guard=False)
    torch._dynamo.maybe_mark_dynamic(buffer, slots)
