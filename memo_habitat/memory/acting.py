"""Acting passes: environments step by step or many steps at once, on a cache, no gradients."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from memo_habitat.memory.attention import Context
from memo_habitat.memory.backbone import Backbone
from memo_habitat.memory.cache import Cache

_PIECE = 1024  # most steps in one pass of `extend`, which bounds its activations


def step(backbone: Backbone, tokens: Tensor, cache: Cache, episode_starts: Tensor | None) -> Tensor:
    """One step of every environment; tokens [N, D], episode_starts bool [N]. Returns [N, D]."""
    everyone = slice(0, len(tokens))
    if backbone.variant.within_episode and episode_starts is not None:
        _forget(cache, episode_starts.nonzero().flatten().tolist())
    if _streams_steps(backbone):
        for rows, _ in cache.runs():
            _make_room(backbone, rows, cache)
    context = _enter(tokens[:, None], everyone, cache)
    if cache.observer is not None:
        context = cache.observer.watch(context, cache, backbone.config)
    encoded = backbone.push(tokens[:, None], context, 1)
    cache.count_steps(everyone, 1)
    if backbone.variant.summarises:
        for rows, steps in cache.runs():
            _close_if_full(backbone, rows, steps, cache)
    return encoded[:, 0]


def extend(
    backbone: Backbone, tokens: Tensor, cache: Cache, episode_starts: Tensor | None
) -> Tensor:
    """C steps of every environment; tokens [N, C, D], episode_starts bool [N, C]."""
    if backbone.variant.within_episode and episode_starts is not None:
        pieces = zip(
            torch.split(tokens, _PIECE, dim=1),
            torch.split(episode_starts, _PIECE, dim=1),
            strict=True,
        )
        return torch.cat([_extend_episodes(backbone, t, cache, s) for t, s in pieces], dim=1)
    runs = [_extend(backbone, tokens[rows], rows, steps, cache) for rows, steps in cache.runs()]
    return torch.cat(runs)


def _extend(backbone: Backbone, tokens: Tensor, rows: slice, steps: int, cache: Cache) -> Tensor:
    """`extend` for rows in the same place of their trials."""
    config, outputs, done = backbone.config, [], 0
    while done < tokens.shape[1]:
        room = _PIECE
        if backbone.variant.summarises:
            room = min(room, config.segment_length - steps % config.segment_length)
        elif _streams_steps(backbone):
            _make_room(backbone, rows, cache)
            room = min(room, config.token_budget - cache.length(rows))
        piece = tokens[:, done : done + room]
        count = piece.shape[1]
        outputs.append(_append(backbone, piece, rows, cache, wanted=count))
        cache.count_steps(rows, count)
        done, steps = done + count, steps + count
        if backbone.variant.summarises:
            _close_if_full(backbone, rows, steps, cache)
    return torch.cat(outputs, dim=1)


def _extend_episodes(
    backbone: Backbone, tokens: Tensor, cache: Cache, episode_starts: Tensor
) -> Tensor:
    """`extend` where rows forget at steps of their own: their first pieces, their second, ..."""
    count = tokens.shape[1]
    pieces = []
    for begins in episode_starts.tolist():
        inner = [step for step in range(1, count) if begins[step]]
        pieces.append(list(pairwise([0, *inner, count])))
    outputs = torch.empty_like(tokens)
    for turn in range(max(len(row) for row in pieces)):
        bounds = [row[turn] if turn < len(row) else (count, count) for row in pieces]
        begun = [r for r, (first, end) in enumerate(bounds) if first < end]
        _forget(cache, [r for r in begun if episode_starts[r, bounds[r][0]]])
        sizes = [end - first for first, end in bounds]
        padded = tokens.new_zeros(len(tokens), max(sizes), tokens.shape[2])
        for row in begun:
            padded[row, : sizes[row]] = tokens[row, slice(*bounds[row])]
        encoded = backbone.push(padded, cache.append_unequal(sizes), max(sizes))
        for row in begun:
            outputs[row, slice(*bounds[row])] = encoded[row, : sizes[row]]
    cache.count_steps(slice(0, len(tokens)), count)
    return outputs


def _enter(tokens: Tensor, rows: slice, cache: Cache) -> Context:
    """Make room for tokens [n, C, D] behind what `rows` hold; the context of their pass."""
    context = cache.append(rows, tokens.shape[1])
    cache.record(rows, tokens)
    return context


def _append(backbone: Backbone, tokens: Tensor, rows: slice, cache: Cache, wanted: int) -> Tensor:
    """Push tokens [n, C, D] behind what `rows` hold; outputs [n, wanted, D] of the last ones.

    With 0 wanted they are there to be attended to only.
    """
    return backbone.push(tokens, _enter(tokens, rows, cache), wanted)


def _close_if_full(backbone: Backbone, rows: slice, steps: int, cache: Cache) -> None:
    """Put the summary in the place of the segment's steps when the last one was appended."""
    if steps % backbone.config.segment_length:
        return
    if backbone.config.memory_form == "kv":
        _close_in_place(backbone, rows, cache)
    else:
        _close(backbone, rows, cache)


def _close(backbone: Backbone, rows: slice, cache: Cache) -> None:
    """Read the summary and feed it in again, behind the older ones that stay."""
    length = backbone.config.summary_length
    queries = backbone.query_tokens(rows.stop - rows.start)
    summary = backbone.summary(backbone.push(queries, cache.append(rows, length), length))
    kept = cache.summary_tokens(rows) if backbone.variant.accumulates else 0
    dropped = _excess(backbone, kept)
    if dropped:
        # What stays is encoded anew: it must not know what was dropped.
        summary = torch.cat([cache.recorded(rows, slice(dropped, kept)), summary], dim=1)
        kept = 0
    cache.truncate(rows, kept)
    # Retrieval chooses among the summaries in front of the one that is fed in.
    for part in torch.split(summary, length if backbone.config.top_k else _PIECE, dim=1):
        _append(backbone, part, rows, cache, wanted=0)
        cache.mark_summaries(rows)


def _close_in_place(backbone: Backbone, rows: slice, cache: Cache) -> None:
    """Keep the keys and values at the queries, moved to the place of the steps."""
    length = backbone.config.summary_length
    kept = cache.summary_tokens(rows)
    queries = backbone.query_tokens(rows.stop - rows.start)
    backbone.push(queries, cache.append(rows, length, behind_summaries=True), 0)
    cache.cut(rows, kept, cache.length(rows) - length)
    dropped = _excess(backbone, kept)
    if dropped:
        cache.drop_oldest(rows, dropped, backbone.rotary)
    cache.mark_summaries(rows)


def _excess(backbone: Backbone, kept: int) -> int:
    """Oldest summary tokens that must go for one more summary and a segment to fit the budget."""
    config = backbone.config
    if not config.token_budget:
        return 0
    excess = kept + config.summary_length + config.segment_length - config.token_budget
    return max(0, -(-excess // config.summary_length)) * config.summary_length


def _streams_steps(backbone: Backbone) -> bool:
    """Whether raw steps are dropped to stay within a budget."""
    return bool(backbone.config.token_budget) and not backbone.variant.summarises


def _make_room(backbone: Backbone, rows: slice, cache: Cache) -> None:
    """Where the budget is used up, drop the oldest S steps and encode the others anew."""
    used = cache.length(rows)
    if used < backbone.config.token_budget:
        return
    kept = cache.recorded(rows, slice(backbone.config.segment_length, used))
    cache.truncate(rows, 0)
    for piece in torch.split(kept, _PIECE, dim=1):
        _append(backbone, piece, rows, cache, wanted=0)


def _forget(cache: Cache, rows: list[int]) -> None:
    for row in rows:
        cache.truncate(slice(row, row + 1), 0)
