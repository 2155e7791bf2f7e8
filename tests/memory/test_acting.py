"""Acting through the cache gives what the training pass gives, whatever the environments do."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from memo_habitat.memory import MemoTransformer

from .factories import (
    EVERY,
    act,
    close,
    memories,
    near_in_bfloat16,
    small_memory,
    starts,
    thorough,
    trial,
)

LSTM = small_memory("lstm")


@thorough
@given(memories(EVERY), st.integers(1, 3), st.integers(1, 40))
@example(LSTM, 3, 40)
def test_stepping_equals_the_training_pass(memory: MemoTransformer, batch: int, steps: int) -> None:
    tokens, begins = trial(memory, batch, steps), starts(batch, steps)
    acted = act(memory, tokens, memory.new_cache(batch, "cpu"), begins)
    close(acted, memory(tokens, None, begins))


@thorough
@given(memories(EVERY), st.lists(st.sets(st.integers(0, 2)), min_size=2, max_size=30))
@example(LSTM, [set(), {1}, set(), {0, 1}, set(), set()])
def test_each_environment_starts_anew_where_it_is_reset(
    memory: MemoTransformer, resets: list[set[int]]
) -> None:
    tokens, begins = trial(memory, 3, len(resets)), starts(3, len(resets))
    cache = memory.new_cache(3, "cpu")
    begun = [[0], [0], [0]]
    acted = []
    for step, rows in enumerate(resets):
        cache.reset(torch.tensor([row in rows for row in range(3)]))
        acted.append(memory.step(tokens[:, step], cache, begins[:, step]))
        for row in rows:
            begun[row].append(step)
    for row in range(3):
        borders = [*begun[row], len(resets)]
        for start, end in pairwise(borders):
            if start < end:
                own = slice(row, row + 1), slice(start, end)
                expected = memory(tokens[own], None, begins[own])[0]
                actual = torch.stack([step[row] for step in acted[start:end]])
                close(actual, expected)


@thorough
@given(
    memories(EVERY),
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(0, 9),
    st.integers(0, 9),
)
@example(LSTM, [3, 1, 8], 5, 1)
def test_extending_in_chunks_equals_stepping(
    memory: MemoTransformer, chunks: list[int], before: int, reset_row: int
) -> None:
    total = before + sum(chunks)
    tokens, begins = trial(memory, 3, total), starts(3, total)
    stepped, extended = (memory.new_cache(3, "cpu") for _ in range(2))
    for cache in (stepped, extended):
        act(memory, tokens[:, :before], cache, begins[:, :before]) if before else None
        cache.reset(torch.arange(3) == reset_row)  # from 3 on: all stay together
    tokens, begins = tokens[:, before:], begins[:, before:]
    expected = act(memory, tokens, stepped, begins)
    parts = zip(tokens.split(chunks, 1), begins.split(chunks, 1), strict=True)
    actual = torch.cat([memory.extend(part, extended, begin) for part, begin in parts], dim=1)
    close(actual, expected)
    assert torch.equal(stepped.tokens_in_use(), extended.tokens_in_use())
    assert torch.equal(stepped.steps, extended.steps)
    following, none = trial(memory, 3, 1, seed=9)[:, 0], torch.zeros(3, dtype=torch.bool)
    left_behind = [memory.step(following, cache, none) for cache in (extended, stepped)]
    close(*left_behind)


@pytest.mark.parametrize("flavour", EVERY)
def test_refreshing_after_an_update_equals_acting_anew_with_the_new_weights(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens, begins = trial(memory, 2, 20), starts(2, 20)
    cache = memory.new_cache(2, "cpu")
    act(memory, tokens[:, :15], cache, begins[:, :15])
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.add_(0.1)
    cache.reset(torch.ones(2, dtype=torch.bool))
    memory.extend(tokens[:, :15], cache, begins[:, :15])
    expected = memory(tokens, None, begins)[:, 15:]
    acted = act(memory, tokens[:, 15:], cache, begins[:, 15:])
    torch.testing.assert_close(acted, expected, atol=1e-5, rtol=1e-5)


def test_extending_past_the_largest_pass_equals_the_training_pass() -> None:
    memory = small_memory("fct", layers=1)
    tokens = trial(memory, 1, 1500)
    extended = memory.extend(tokens, memory.new_cache(1, "cpu"))
    close(extended, memory(tokens))


@pytest.mark.parametrize("flavour", EVERY)
def test_acting_ignores_depth_dropout_and_leaves_no_graph(flavour: str) -> None:
    memory = small_memory(flavour, depth_dropout=0.9).train()
    tokens, begins = trial(memory, 2, 10), starts(2, 10)
    acted = act(memory, tokens, memory.new_cache(2, "cpu"), begins)
    assert not acted.requires_grad
    expected = memory.eval()(tokens, None, begins)
    close(acted, expected)


@pytest.mark.parametrize("flavour", ["memo", "lstm"])
def test_a_cache_filled_in_inference_mode_goes_on_outside_of_it(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens = trial(memory, 2, 600)
    with torch.inference_mode():
        cache = memory.new_cache(2, "cpu")
        memory.extend(tokens[:, :300], cache)
    cache.reset(torch.tensor([True, False]))
    acted = memory.extend(tokens[:, 300:], cache)
    close(acted[0], memory(tokens[:1, 300:])[0])
    close(acted[1], memory(tokens)[1, 300:])
    memory(tokens).sum().backward()


@pytest.mark.parametrize("flavour", EVERY)
def test_bfloat16_autocast_acts_as_it_trains(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens, begins = trial(memory, 2, 20), starts(2, 20)
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.bfloat16, torch.float32):
            cache = memory.new_cache(2, "cpu", dtype)
            cache.reset(torch.tensor([True, False]))
            acted = act(memory, tokens, cache, begins)
            near_in_bfloat16(memory, acted, memory(tokens, None, begins))


def test_no_inter_episode_attention_says_what_it_needs() -> None:
    memory = small_memory("no_iea")
    tokens, cache = trial(memory, 2, 4), memory.new_cache(2, "cpu")
    with pytest.raises(ValueError, match=r"needs episode_starts, bool \[B, T\]"):
        memory(tokens)
    with pytest.raises(ValueError, match=r"needs episode_starts, bool \[N\]"):
        memory.step(tokens[:, 0], cache)
