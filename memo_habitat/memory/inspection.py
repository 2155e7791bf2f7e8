"""Where acting queries attend: on the sink, on each summary and on raw steps, and how widely.

with observe(cache) as inspector:
    memory.step(tokens, cache)                # any number of steps
inspector.readings[-1].summaries              # [N, A], by age

Looked at are the queries of environment steps, not those that make or re-encode summaries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.errors import UserError
from memo_habitat.memory.attention import Context, Sink
from memo_habitat.memory.cache import Cache
from memo_habitat.memory.interface import ActingCache
from memo_habitat.memory.retrieval import retrieve
from memo_habitat.memory.rotary import RotaryTable, Rotation
from memo_habitat.memory.variants import VARIANTS

_FIRST_SUMMARY = 2  # group of the newest summary; 0 is the sink's, 1 the raw steps'


@dataclass(frozen=True)
class Reading:
    """Attention of one step's queries, mean over layers and heads, of N environments; float32.

    The shares sink, summaries and steps add up to 1 in each environment.

    Attributes:
        sink: [N] on the attention sink.
        summaries: [N, A] on each summary by age, 0 being the newest; 0 beyond those held.
        held: [N] long, summaries held.
        steps: [N] on raw steps: the current segment's, episode's (`no_iea`) or all kept (`fct`).
        effective_context: [N] tokens: exp(entropy) of each head's attention over the tokens, the
            sink left out and the rest scaled to 1, from 1 (all on one token) to as many as it sees.
    """

    sink: Tensor
    summaries: Tensor
    held: Tensor
    steps: Tensor
    effective_context: Tensor


class Inspector:
    """Keeps a reading of every step that is taken while it observes a cache."""

    def __init__(self) -> None:
        #: One for each step, in order.
        self.readings: list[Reading] = []

    def watch(self, context: Context, cache: Cache, config: MemoryConfig) -> Context:
        """The same context, whose attention is looked at on the way."""
        return _Watched(context, cache, config, self.readings)


@contextmanager
def observe(cache: ActingCache) -> Iterator[Inspector]:
    """Read the attention of all steps taken on `cache` in the block; UserError for an LSTM's."""
    if not isinstance(cache, Cache):
        raise _attends_to_nothing()
    inspector, before = Inspector(), cache.observer
    cache.observer = inspector
    try:
        yield inspector
    finally:
        cache.observer = before


def check_attends(config: MemoryConfig) -> None:
    """Raise UserError where this kind of memory has no attention to look at."""
    if config.kind not in VARIANTS:
        raise _attends_to_nothing()


def _attends_to_nothing() -> UserError:
    return UserError(
        "memory kind 'lstm' cannot be inspected: it attends to nothing, all it remembers is one "
        f"state; inspect one of {', '.join(VARIANTS)}"
    )


class _Watched:
    """The context of one step of N environments, looked at layer by layer."""

    def __init__(
        self, context: Context, cache: Cache, config: MemoryConfig, readings: list[Reading]
    ) -> None:
        self._context, self._cache, self._top_k = context, cache, config.top_k
        self._layers, self._readings = config.layers, readings
        lengths, marked = cache.tokens_in_use()[:, None], cache.summary_tokens_in_use()[:, None]
        slots = torch.arange(1 + int(lengths.max()))
        self._visible = slots <= lengths  # [N, slots]
        self._of_summary = (slots >= 1) & (slots <= marked)
        self._held = (marked // config.summary_length).squeeze(1)
        age = (marked - slots) // config.summary_length
        group = torch.where(self._of_summary, _FIRST_SUMMARY + age, 1)
        self._group = group.where(slots >= 1, 0)
        self._groups = _FIRST_SUMMARY + int(self._held.max())
        self._mass: list[Tensor] = []  # of each layer, [N, groups]
        self._width: list[Tensor] = []  # of each layer, [N]

    def rotation(self, table: RotaryTable) -> Rotation:
        """Rotation of the new tokens' positions."""
        return self._context.rotation(table)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        """Attention as `Context.attend` says."""
        attended = self._context.attend(layer, q, k, v, sink)
        with torch.autocast(q.device.type, enabled=False):
            self._look(layer, q)
        if layer + 1 == self._layers:
            self._readings.append(self._reading())
        return attended

    def _look(self, layer: int, q: Tensor) -> None:
        keys = self._cache.keys(layer)[:, :, : self._visible.shape[1]]
        q, visible = q.to(keys.dtype), self._visible[:, None, None].to(q.device)
        if self._top_k:
            candidates = self._of_summary[:, None, None].to(q.device)
            visible = retrieve(q, keys, visible, candidates, self._top_k)
        exact = torch.promote_types(keys.dtype, torch.float32)
        scores = q.to(exact) @ keys.to(exact).transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(~visible, -torch.inf)[:, :, 0].cpu()  # [N, H, slots]
        mass = scores.softmax(-1).mean(1)
        self._mass.append(mass.new_zeros(len(mass), self._groups).scatter_add(1, self._group, mass))
        entropy = torch.special.entr(scores[..., 1:].softmax(-1)).sum(-1)
        self._width.append(entropy.exp().mean(1))

    def _reading(self) -> Reading:
        mass = torch.stack(self._mass).mean(0).float()
        return Reading(
            sink=mass[:, 0],
            summaries=mass[:, _FIRST_SUMMARY:],
            held=self._held,
            steps=mass[:, 1],
            effective_context=torch.stack(self._width).mean(0).float(),
        )
