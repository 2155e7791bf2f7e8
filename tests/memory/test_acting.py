"""Acting through the cache gives what the training pass gives, whatever the environments do."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from memo_habitat.memory import Cache, Memory

from .factories import KINDS, TOLERANCE, memories, quick, small_memory, trial


def act(memory: Memory, tokens: Tensor, cache: Cache) -> Tensor:
    """Step through [N, T, D] one step at a time."""
    return torch.stack([memory.step(now, cache) for now in tokens.unbind(1)], dim=1)


@quick
@given(memories(), st.integers(1, 3), st.integers(1, 30))
def test_stepping_equals_the_training_pass(memory: Memory, batch: int, steps: int) -> None:
    tokens = trial(memory, batch, steps)
    acted = act(memory, tokens, memory.new_cache(batch, "cpu"))
    torch.testing.assert_close(acted, memory(tokens), atol=TOLERANCE, rtol=0)


@quick
@given(memories(), st.lists(st.sets(st.integers(0, 2)), min_size=2, max_size=30))
def test_each_environment_starts_anew_where_it_is_reset(
    memory: Memory, resets: list[set[int]]
) -> None:
    tokens = trial(memory, 3, len(resets))
    cache = memory.new_cache(3, "cpu")
    starts = [[0], [0], [0]]
    acted = []
    for step, rows in enumerate(resets):
        cache.reset(torch.tensor([row in rows for row in range(3)]))
        acted.append(memory.step(tokens[:, step], cache))
        for row in rows:
            starts[row].append(step)
    for row in range(3):
        borders = [*starts[row], len(resets)]
        for start, end in pairwise(borders):
            if start < end:
                expected = memory(tokens[row : row + 1, start:end])[0]
                actual = torch.stack([step[row] for step in acted[start:end]])
                torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


@quick
@given(
    memories(),
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_extending_in_chunks_equals_stepping(
    memory: Memory, chunks: list[int], before: int, reset_row: int
) -> None:
    tokens = trial(memory, 3, before + sum(chunks))
    stepped, extended = (memory.new_cache(3, "cpu") for _ in range(2))
    for cache in (stepped, extended):
        act(memory, tokens[:, :before], cache) if before else None
        cache.reset(torch.arange(3) == reset_row)  # from 3 on: all stay together
    tokens = tokens[:, before:]
    expected = act(memory, tokens, stepped)
    actual = torch.cat([memory.extend(part, extended) for part in tokens.split(chunks, 1)], dim=1)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)
    assert torch.equal(stepped.tokens_in_use(), extended.tokens_in_use())
    assert torch.equal(stepped.steps, extended.steps)
    following = trial(memory, 3, 1, seed=9)[:, 0]  # what was left behind is the same too
    torch.testing.assert_close(
        memory.step(following, extended), memory.step(following, stepped), atol=TOLERANCE, rtol=0
    )


def test_refreshing_after_an_update_equals_acting_anew_with_the_new_weights() -> None:
    memory = small_memory()
    tokens = trial(memory, 2, 20)
    cache = memory.new_cache(2, "cpu")
    act(memory, tokens[:, :15], cache)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(0.1)
    cache.reset(torch.ones(2, dtype=torch.bool))
    memory.extend(tokens[:, :15], cache)
    expected = memory(tokens)[:, 15:]
    torch.testing.assert_close(act(memory, tokens[:, 15:], cache), expected, atol=1e-5, rtol=1e-5)


def test_extending_past_the_largest_pass_equals_the_training_pass() -> None:
    memory = small_memory("fct", layers=1)
    tokens = trial(memory, 1, 1500)
    extended = memory.extend(tokens, memory.new_cache(1, "cpu"))
    torch.testing.assert_close(extended, memory(tokens), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_acting_ignores_depth_dropout_and_leaves_no_graph(kind: str) -> None:
    memory = small_memory(kind, depth_dropout=0.9).train()
    tokens = trial(memory, 2, 10)
    acted = act(memory, tokens, memory.new_cache(2, "cpu"))
    assert not acted.requires_grad
    torch.testing.assert_close(acted, memory.eval()(tokens), atol=TOLERANCE, rtol=0)


def test_a_cache_filled_in_inference_mode_goes_on_outside_of_it() -> None:
    memory = small_memory()
    tokens = trial(memory, 2, 600)
    with torch.inference_mode():
        cache = memory.new_cache(2, "cpu")
        memory.extend(tokens[:, :300], cache)
    cache.reset(torch.tensor([True, False]))
    memory.extend(tokens[:, 300:], cache)
    memory(tokens).sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_autocast_acts_as_it_trains(kind: str) -> None:
    memory = small_memory(kind)
    tokens = trial(memory, 2, 20)
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.bfloat16, torch.float32):
            cache = memory.new_cache(2, "cpu", dtype)
            cache.reset(torch.tensor([True, False]))
            assert (act(memory, tokens, cache) - memory(tokens)).abs().mean() < 2e-2
