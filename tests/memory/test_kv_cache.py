"""Attention is that of an explicit mask; what is held is what the method says, in as many bytes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from memo_habitat.memory.attention import causal_attention
from memo_habitat.testing.memory_conformance import sample_trial

from .factories import close, memories, quick, small_memory, trial


@pytest.mark.parametrize(
    ("queries", "places"), [(1, 1), (1, 9), (5, 5), (5, 6), (5, 7), (5, 40), (64, 300)]
)
def test_causal_attention_equals_an_explicit_mask(queries: int, places: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (queries, places, places))
    mask = torch.tensor(
        [[place <= query for place in range(places)] for query in range(places - queries, places)]
    )
    scores = (q @ k.transpose(-1, -2) / math.sqrt(8)).masked_fill(~mask, -torch.inf)
    expected, found = scores.softmax(-1) @ v, causal_attention(q, k, v)
    close(found, expected)
    close(causal_attention(q, k, v, mask), expected)
    weights = torch.randn_like(expected)
    for actual, wanted in zip(
        torch.autograd.grad(found, (q, k, v), weights),
        torch.autograd.grad(expected, (q, k, v), weights),
        strict=True,
    ):
        close(actual, wanted)


def peak_bytes(memory: Any, steps: int) -> int:
    """Most bytes that the allocator holds in a training pass of one trial."""
    tokens = trial(memory, 1, steps).requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        memory(tokens).sum().backward()
    held = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize("flavour", ["memo", "fct", "rmt"])
def test_the_bytes_of_a_training_pass_grow_with_the_trial_and_not_with_its_square(
    flavour: str,
) -> None:
    memory = small_memory(flavour, layers=1, segment_length=8, summary_length=7, hidden=8)
    short, long = (peak_bytes(memory, steps) for steps in (160, 640))
    assert long < 4.2 * short


@quick
@given(memories(), st.integers(0, 40))
def test_tokens_in_use_follow_the_formula(memory: Any, steps: int) -> None:
    cache, config = memory.new_cache(2, "cpu"), memory.config
    tokens, starts = sample_trial(memory, 2, 40)
    for step in range(steps):
        memory.step(tokens[:, step], cache, starts[:, step])
        closed, rest = divmod(step + 1, config.segment_length)
        kept = {"fct": 0, "no_iea": 0, "rmt": min(closed, 1)}.get(config.kind, closed)
        expected = [kept * config.summary_length + rest] * 2
        if config.kind == "fct":
            expected = [step + 1] * 2
        if config.kind == "no_iea":
            expected = [step + 1 - int(row[: step + 1].nonzero().max()) for row in starts]
        assert cache.tokens_in_use().tolist() == expected


def test_the_segment_length_changes_between_trials_only() -> None:
    memory = small_memory()
    cache = memory.new_cache(2, "cpu")
    cache.segment_length = 4
    memory.extend(trial(memory, 2, 5), cache)
    cache.segment_length = 4
    assert cache.tokens_in_use().tolist() == [2 + 1] * 2
    for length in (5, 0):
        with pytest.raises(ValueError, match=f"segments of {length} steps, for 4: .* reset all"):
            cache.segment_length = length
    cache.reset(torch.tensor([True, True]))
    cache.segment_length = 5
    with pytest.raises(ValueError, match="segments of 0 steps"):
        cache.segment_length = 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_in_use_follow_the_formula(dtype: torch.dtype) -> None:
    memory = small_memory(layers=3)
    cache = memory.new_cache(2, "cpu", dtype)
    memory.extend(trial(memory, 2, 9), cache)
    cache.reset(torch.tensor([False, True]))
    assert cache.bytes_in_use().tolist() == [2 * 3 * 16 * (2 + 3) * dtype.itemsize, 0]


def test_memo_keeps_less_than_a_seventh_of_full_context() -> None:
    sizes = {"width": 8, "layers": 1, "segment_length": 256, "summary_length": 32}
    memo, fct = (small_memory(kind, **sizes) for kind in ("memo", "fct"))
    caches = memo.new_cache(1, "cpu"), fct.new_cache(1, "cpu")
    for part in trial(memo, 1, 32_000).split(1000, dim=1):
        memo.extend(part, caches[0])
        caches[1].begin(slice(0, 1), part)  # its size is what counts here
    for size in ("bytes_in_use", "allocated_bytes"):
        kept, full_context = (int(getattr(cache, size)()) for cache in caches)
        assert 7 * kept <= full_context


@pytest.mark.parametrize("kind", ["memo", "fct"])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_step_allocates_no_more_after_a_long_history(kind: str, ragged: bool) -> None:
    memory = small_memory(kind, segment_length=64, summary_length=56)
    tokens = trial(memory, 3, 3003)
    allocated = []
    for steps in (1003, 3003):
        cache = memory.new_cache(3, "cpu")
        memory.extend(tokens[:, :7], cache)
        cache.reset(torch.tensor([False, ragged, False]))
        memory.extend(tokens[:, 7:steps], cache)
        before = cache.allocated_bytes()
        memory.step(tokens[:, 0], cache)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            memory.step(tokens[:, 0], cache)
        assert cache.allocated_bytes() == before
        events = profiled.key_averages()
        allocated.append(sum(max(0, event.self_cpu_memory_usage) for event in events))
    assert allocated[0] == allocated[1] > 0


def test_rows_of_different_lengths_cannot_take_several_tokens_at_once() -> None:
    memory = small_memory()
    cache = memory.new_cache(3, "cpu")
    memory.extend(trial(memory, 3, 2), cache)
    cache.reset(torch.tensor([False, True, False]))
    with pytest.raises(ValueError, match="different lengths"):
        cache.begin(slice(0, 3), trial(memory, 3, 2))
