"""Where acting queries attend: on the sink, on each summary and on raw steps, and how widely.

with observe(cache) as probe:
    memory.step(tokens, cache)                # any number of steps
probe.stats[-1].summaries                     # [N, A], by age

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
from memo_habitat.memory.attention import Context, RotaryTable, Rotation, Sink, top_k_mask
from memo_habitat.memory.interface import ActingCache
from memo_habitat.memory.kv_cache import KVCache
from memo_habitat.memory.variants import is_transformer, kinds

_FIRST_SUMMARY = 2  # group of the newest summary; 0 is the sink's, 1 the raw steps'


@dataclass(frozen=True)
class AttentionStats:
    """Attention of one step's queries, mean over layers and heads, of N environments; float32.

    The shares sink, summaries and steps add up to 1 in each environment.
    """

    sink: Tensor  # [N] on the attention sink
    summaries: Tensor  # [N, A] on each summary by age, 0 being the newest; 0 beyond those held
    held: Tensor  # [N] long, summaries held
    steps: Tensor  # [N] on raw steps: the segment's, the episode's (`no_iea`) or all (`fct`)
    # [N] tokens: exp(entropy) of each head's attention over the tokens, the sink left out and the
    # rest scaled to 1, from 1 (all on one token) to as many as it sees.
    effective_context: Tensor
    by_token: Tensor  # [N, L, 1 + P] by layer, on the sink and on each token in its place


class AttentionProbe:
    """Keeps the stats of every step that is taken while it observes a cache, in order."""

    def __init__(self) -> None:
        self.stats: list[AttentionStats] = []

    def watch(self, cache: KVCache, config: MemoryConfig) -> Context:
        """The cache as the context of a step that begins, its attention looked at on the way."""
        return _Watched(cache, config, self.stats)


@contextmanager
def observe(cache: ActingCache) -> Iterator[AttentionProbe]:
    """Look at all steps taken on `cache` in the block; UserError where nothing attends."""
    if not isinstance(cache, KVCache):
        raise UserError(_nothing_to_see("the memory of this cache"))
    probe, before = AttentionProbe(), cache.probe
    cache.probe = probe
    try:
        yield probe
    finally:
        cache.probe = before


def check_attends(config: MemoryConfig) -> None:
    """Raise UserError where this kind of memory has no attention to look at."""
    if not is_transformer(config.kind):
        raise UserError(_nothing_to_see(f"memory kind {config.kind!r}"))


def _nothing_to_see(what: str) -> str:
    known = ", ".join(kind for kind in kinds() if is_transformer(kind))
    return f"{what} attends to nothing that could be inspected; inspect one of {known}"


class _Watched:
    """The cache in one step of N environments, looked at layer by layer."""

    def __init__(self, cache: KVCache, config: MemoryConfig, stats: list[AttentionStats]) -> None:
        self._cache, self._config, self._stats = cache, config, stats
        lengths, marked = cache.tokens_in_use()[:, None], cache.summary_tokens_in_use()[:, None]
        slots = torch.arange(1 + int(lengths.max()))
        self._visible = slots <= lengths  # [N, slots]
        self._of_summary = (slots >= 1) & (slots <= marked)
        self._held = (marked // config.summary_length).squeeze(1)
        age = (marked - slots) // config.summary_length
        group = torch.where(self._of_summary, _FIRST_SUMMARY + age, 1)
        self._group = group.where(slots >= 1, 0)
        self._groups = _FIRST_SUMMARY + int(self._held.max())
        self._mass: list[Tensor] = []  # of each layer, [N, slots]
        self._width: list[Tensor] = []  # of each layer, [N]

    def rotation(self, table: RotaryTable) -> Rotation:
        return self._cache.rotation(table)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, sink: Sink) -> Tensor:
        attended = self._cache.attend(layer, q, k, v, sink)
        # The weights are computed a second time, from the keys that the cache now holds: the fused
        # kernel that acts never writes them out.
        with torch.autocast(q.device.type, enabled=False):
            self._look(layer, q)
        if layer + 1 == self._config.layers:
            by_token = torch.stack(self._mass, dim=1).float()
            mass = by_token.new_zeros(len(q), self._groups)
            mass.scatter_add_(1, self._group, by_token.mean(1))
            self._stats.append(
                AttentionStats(
                    sink=mass[:, 0],
                    summaries=mass[:, _FIRST_SUMMARY:],
                    held=self._held,
                    steps=mass[:, 1],
                    effective_context=torch.stack(self._width).mean(0).float(),
                    by_token=by_token,
                )
            )
        return attended

    def _look(self, layer: int, q: Tensor) -> None:
        keys = self._cache.keys(layer)[:, :, : self._visible.shape[1]]
        q, visible = q.to(keys.dtype), self._visible[:, None, None].to(q.device)
        if self._config.top_k:
            candidates = self._of_summary[:, None, None].to(q.device)
            visible = top_k_mask(q, keys, candidates, self._config.top_k, visible)
        # Softmax over thousands of bfloat16 scores would not add up to 1.
        exact = torch.promote_types(keys.dtype, torch.float32)
        scores = q.to(exact) @ keys.to(exact).transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(~visible, -torch.inf)[:, :, 0].cpu()  # [N, H, slots]
        self._mass.append(scores.softmax(-1).mean(1))
        entropy = torch.special.entr(scores[..., 1:].softmax(-1)).sum(-1)
        self._width.append(entropy.exp().mean(1))
