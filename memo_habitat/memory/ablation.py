"""What an acting memory would be without a part of what it holds.

cache = memory.new_cache(1, "cpu", record=True)
memory.extend(tokens[:, :500], cache)
part = remembered(cache, memory.config.summary_length)[3]  # of the fourth segment
memory.step(tokens[:, 500], without(memory, cache, part.places))
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from memo_habitat.memory import acting
from memo_habitat.memory.kv_cache import KVCache
from memo_habitat.memory.memo import MemoTransformer

_ONE = slice(0, 1)  # caches of one trial have one row


class Part(NamedTuple):
    """What is held of a segment that is over: its summary, or its steps where those are kept."""

    segment: int  # of the trial, from 0
    places: range  # of its tokens in the cache


def remembered(cache: KVCache, summary_length: int) -> list[Part]:
    """What the cache of one trial holds of the segments before the current one, oldest first."""
    length, steps = cache.segment_length, int(cache.steps)
    now, summaries = steps // length, cache.summary_tokens(_ONE) // summary_length
    if summaries:
        starts = range(0, summaries * summary_length, summary_length)
        return [
            Part(now - summaries + i, range(start, start + summary_length))
            for i, start in enumerate(starts)
        ]
    first = steps - cache.length(_ONE)  # the step of the trial that is at place 0
    return [
        Part(segment, range(max(0, segment * length - first), (segment + 1) * length - first))
        for segment in range(first // length, now)
    ]


@torch.no_grad()
def without(memory: MemoTransformer, cache: KVCache, *dropped: range) -> KVCache:
    """A cache that would be this one, of one trial, had the tokens at these places not come in.

    What stays passes the stack again, at its new positions, as in streaming: the current segment's
    steps know nothing of what is gone but for what younger summaries say of it. Without all
    summaries it is what forgetting at the segment's start leaves.
    """
    used, marked = cache.length(_ONE), cache.summary_tokens(_ONE)
    gone = {place for places in dropped for place in places}
    kept = [place for place in range(used) if place not in gone]
    tokens = cache.recorded(_ONE, slice(0, used))
    summaries = tokens[:, [place for place in kept if place < marked]]
    steps = tokens[:, [place for place in kept if place >= marked]]
    other = memory.new_cache(1, cache.device, cache.dtype)
    other.segment_length = cache.segment_length
    if summaries.shape[1]:
        acting.feed_summaries(memory, summaries, _ONE, other)
    if steps.shape[1]:
        acting.feed_steps(memory, steps, _ONE, other)
    other.count_steps(_ONE, int(cache.steps))
    return other
