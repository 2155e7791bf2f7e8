"""Acting with the memory transformer: step by step or many steps at once, without gradients.

A segment closes by cutting off its raw steps and appending its summary in their place.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from memo_habitat.memory.kv_cache import KVCache
from memo_habitat.memory.static_step import compiled, step_layers

if TYPE_CHECKING:
    from memo_habitat.memory.memo import MemoTransformer

_CHUNK = 1024  # most steps in one pass of `extend`, which bounds its activations


def step(
    memory: MemoTransformer, tokens: Tensor, cache: KVCache, episode_starts: Tensor | None
) -> Tensor:
    """One step of every environment; tokens [N, D], episode_starts bool [N]. Returns [N, D]."""
    everyone = slice(0, len(tokens))
    drop_old(memory, cache, episode_starts)
    # All rows in one pass, wherever in their trials they are; only what closes goes run by run.
    encoded = _push(memory, tokens[:, None], cache)
    cache.count_steps(everyone, 1)
    if memory.variant.summarises:
        for rows, steps in cache.runs():
            _close_if_full(memory, rows, steps, cache)
    return encoded[:, 0]


def _push(memory: MemoTransformer, tokens: Tensor, cache: KVCache) -> Tensor:
    """A step's tokens [N, 1, D] through the stack."""
    # On a GPU in shapes that stay, compiled or not: attention kernels may be made for each shape,
    # which takes some tens of milliseconds.
    if cache.probe is None and (cache.is_compiled or cache.device.type == "cuda"):
        push = compiled(step_layers, cache.device.type) if cache.is_compiled else step_layers
        return push(memory, tokens, cache.begin_step(tokens, memory.rotary, memory.sinks()))
    context = cache.begin(slice(0, len(tokens)), tokens)
    if cache.probe is not None:
        context = cache.probe.watch(cache, memory.config)
    return memory.forward_layers(tokens, context, 1)


def drop_old(memory: MemoTransformer, cache: KVCache, episode_starts: Tensor | None) -> None:
    """Forget what the step to come cannot see any more; a second time there is nothing left to."""
    if memory.variant.within_episode and episode_starts is not None:
        cache.forget(episode_starts.nonzero().flatten().tolist())
    if _streams_steps(memory):
        for rows, _ in cache.runs():
            _make_room(memory, rows, cache)


def extend(
    memory: MemoTransformer, tokens: Tensor, cache: KVCache, episode_starts: Tensor | None
) -> Tensor:
    """C steps of every environment; tokens [N, C, D], episode_starts bool [N, C]."""
    if memory.variant.within_episode and episode_starts is not None:
        parts = (torch.split(x, _CHUNK, dim=1) for x in (tokens, episode_starts))
        chunks = zip(*parts, strict=True)
        return torch.cat([_extend_episodes(memory, x, cache, s) for x, s in chunks], dim=1)
    runs = [_extend(memory, tokens[rows], rows, steps, cache) for rows, steps in cache.runs()]
    return torch.cat(runs)


def _extend(
    memory: MemoTransformer, tokens: Tensor, rows: slice, steps: int, cache: KVCache
) -> Tensor:
    """`extend` for rows in the same place of their trials."""
    config, outputs, done = memory.config, [], 0
    while done < tokens.shape[1]:
        room = _CHUNK
        if memory.variant.summarises:
            # Up to the segment's end: behind it, tokens see the summary in its place.
            room = min(room, cache.segment_length - steps % cache.segment_length)
        elif _streams_steps(memory):
            _make_room(memory, rows, cache)
            room = min(room, config.token_budget - cache.length(rows))
        new = tokens[:, done : done + room]
        count = new.shape[1]
        outputs.append(memory.forward_layers(new, cache.begin(rows, new), count))
        cache.count_steps(rows, count)
        done, steps = done + count, steps + count
        if memory.variant.summarises:
            _close_if_full(memory, rows, steps, cache)
    return torch.cat(outputs, dim=1)


def _extend_episodes(
    memory: MemoTransformer, tokens: Tensor, cache: KVCache, episode_starts: Tensor
) -> Tensor:
    """`extend` where rows forget at steps of their own: their first episodes, their second, ..."""
    count, starts = tokens.shape[1], episode_starts.tolist()
    episodes = []  # of each row, (first step, last + 1)
    for begins in starts:
        inner = [step for step in range(1, count) if begins[step]]
        episodes.append(list(pairwise([0, *inner, count])))
    outputs = torch.empty_like(tokens)
    # In turn i every row's episode i: short ones are padded, and none sees another's steps.
    for turn in range(max(len(row) for row in episodes)):
        bounds = [row[turn] if turn < len(row) else (count, count) for row in episodes]
        begun = [row for row, (first, end) in enumerate(bounds) if first < end]
        cache.forget([row for row in begun if starts[row][bounds[row][0]]])
        sizes = [end - first for first, end in bounds]
        padded = tokens.new_zeros(len(tokens), max(sizes), tokens.shape[2])
        for row in begun:
            padded[row, : sizes[row]] = tokens[row, slice(*bounds[row])]
        context = cache.begin_ragged(padded, sizes)
        encoded = memory.forward_layers(padded, context, max(sizes))
        for row in begun:
            outputs[row, slice(*bounds[row])] = encoded[row, : sizes[row]]
    cache.count_steps(slice(0, len(tokens)), count)
    return outputs


def _close_if_full(memory: MemoTransformer, rows: slice, steps: int, cache: KVCache) -> None:
    """Put the summary in the place of the segment's steps when the last one was appended."""
    config, length = memory.config, memory.config.summary_length
    if steps % cache.segment_length:
        return
    # The queries are appended like steps, read the whole segment, and are cut off with it.
    queries = memory.queries.expand(rows.stop - rows.start, -1, -1)
    summary = memory.summary(memory.forward_layers(queries, cache.begin(rows, queries), length))
    kept = cache.summary_tokens(rows) if memory.variant.accumulates else 0
    excess = kept + length + cache.segment_length - config.token_budget
    if config.token_budget and excess > 0:
        dropped = -(-excess // length) * length  # whole summaries, the oldest ones
        # What stays passes the stack again, at its new positions: it must not know what is gone.
        summary = torch.cat([cache.recorded(rows, slice(dropped, kept)), summary], dim=1)
        kept = 0
    cache.truncate(rows, kept)
    feed_summaries(memory, summary, rows, cache)


def feed_summaries(memory: MemoTransformer, tokens: Tensor, rows: slice, cache: KVCache) -> None:
    """Append summaries [n, K * M, D] to `rows`, which hold nothing but older ones."""
    # Retrieval chooses among the summaries in front of the one that is fed in.
    size = memory.config.summary_length if memory.config.top_k else _CHUNK
    for part in torch.split(tokens, size, dim=1):
        memory.forward_layers(part, cache.begin(rows, part), 0)
        cache.mark_summaries(rows)


def feed_steps(memory: MemoTransformer, tokens: Tensor, rows: slice, cache: KVCache) -> None:
    """Append steps [n, C, D] that were taken before to `rows`; they are not counted again."""
    for new in torch.split(tokens, _CHUNK, dim=1):
        memory.forward_layers(new, cache.begin(rows, new), 0)


def _streams_steps(memory: MemoTransformer) -> bool:
    """Whether raw steps are dropped to stay within a budget."""
    return bool(memory.config.token_budget) and not memory.variant.summarises


def _make_room(memory: MemoTransformer, rows: slice, cache: KVCache) -> None:
    """Where the budget is used up, drop the oldest S steps and push the others through again."""
    used = cache.length(rows)
    if used < memory.config.token_budget:
        return
    kept = cache.recorded(rows, slice(memory.config.segment_length, used))
    cache.truncate(rows, 0)
    feed_steps(memory, kept, rows, cache)
