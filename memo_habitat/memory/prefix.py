"""The context of training segment by segment: what a pass keeps for the passes after it.

One pass alone is plain causal attention. Contexts of a whole trial in one pass, and of other masks,
are in `at_once`; those of acting in `cached_pass`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from memo_habitat.memory.attention import Sink
from memo_habitat.memory.ledger import Ledger, Pass, new_ledger
from memo_habitat.memory.rotary import RotaryTable, Rotation


class Prefix:
    """The segments of a trial, pass after pass: each sees the summaries before it and itself.

    capacity: most summary tokens that will ever be held. A token's position is its place behind
    the sink, in a prefix as in a cache.
    """

    def __init__(self, device: torch.device, capacity: int, top_k: int) -> None:
        self._device = device
        self._capacity, self._top_k = 1 + capacity, top_k
        self._ledgers: dict[int, Ledger] = {}
        self._held = 0  # summary tokens before the pass under way
        self._added = 0  # by the pass under way
        self._count = 0  # its new tokens
        self._pass = Pass(0, slice(0, 0))

    def open(self, count: int, summary: int = 0) -> Prefix:
        """Begin a pass of `count` new tokens, of which the first `summary` are to be held."""
        self._held += self._added
        self._added, self._count = summary, count
        self._pass = Pass(1 + self._held, slice(0, summary), summary)
        return self

    def forget(self) -> None:
        """Hold nothing any more."""
        self._ledgers, self._held, self._added = {}, 0, 0

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of the new tokens' positions."""
        return table.span(self._held, self._count, self._device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says; gradients reach all held tokens."""
        if layer not in self._ledgers:
            self._ledgers[layer] = new_ledger(q, self._capacity, self._top_k)
        return self._ledgers[layer].attend(q, k, v, sink, self._pass)
