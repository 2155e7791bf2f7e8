"""Every kind of memory acts as it trains, whatever its environments do; so does one's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memo_habitat.testing.memory_conformance import (
    check_acting,
    check_extending,
    check_memory,
    sample_trial,
)

from .factories import EVERY, act, close, memories, near_in_bfloat16, small_memory, thorough, trial


@pytest.mark.parametrize("flavour", EVERY)
def test_it_conforms(flavour: str) -> None:
    check_memory(small_memory(flavour))


@pytest.mark.parametrize("sizes", [{"layers": 3, "heads": 1}, {"sink_value": "zero"}])
@pytest.mark.parametrize("flavour", ["memo", "fct"])
def test_it_conforms_at_other_sizes(flavour: str, sizes: dict[str, Any]) -> None:
    check_memory(small_memory(flavour, summary_length=5, **sizes))


@thorough
@given(
    memories(EVERY), st.integers(1, 40), st.sets(st.tuples(st.integers(0, 30), st.integers(0, 2)))
)
def test_every_environment_acts_as_in_training_wherever_it_is_reset(
    memory: Any, steps: int, resets: set[tuple[int, int]]
) -> None:
    check_acting(memory, 3, steps, resets)


@thorough
@given(
    memories(EVERY),
    st.integers(0, 9),
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(0, 9),
)
def test_chunks_are_what_their_steps_are(
    memory: Any, before: int, chunks: list[int], reset_row: int
) -> None:
    check_extending(memory, before, chunks, reset_row)  # from row 3 on: all stay together


def test_extending_past_the_largest_pass_equals_the_training_pass() -> None:
    memory = small_memory("fct", layers=1)
    tokens = trial(memory, 1, 1500)
    close(memory.extend(tokens, memory.new_cache(1, "cpu")), memory(tokens))


@pytest.mark.parametrize("flavour", ["memo", "fct"])
def test_caches_that_grow_keep_what_was_there(flavour: str) -> None:
    check_acting(small_memory(flavour, segment_length=8, summary_length=7), 3, 400, {(7, 1)})


@pytest.mark.parametrize("flavour", EVERY)
def test_acting_ignores_depth_dropout(flavour: str) -> None:
    memory = small_memory(flavour, depth_dropout=0.9).train()
    tokens, starts = sample_trial(memory, 2, 10)
    acted = act(memory, tokens, memory.new_cache(2, "cpu"), starts)
    close(acted, memory.eval()(tokens, None, starts))


@pytest.mark.parametrize("flavour", ["memo", "lstm"])
def test_a_cache_filled_in_inference_mode_goes_on_outside_of_it(flavour: str) -> None:
    memory = small_memory(flavour, segment_length=4, summary_length=3)
    tokens = trial(memory, 2, 600)
    with torch.inference_mode():
        cache = memory.new_cache(1, "cpu")
        memory.extend(tokens[:1, :300], cache)
        cache = cache.repeated(2)
    cache.reset(torch.tensor([True, False]))
    acted = memory.extend(tokens[:, 300:], cache)
    close(acted[0], memory(tokens[:1, 300:])[0])
    close(acted[1], memory(torch.cat([tokens[:1, :300], tokens[1:, 300:]], dim=1))[0, 300:])
    memory(tokens[:, :30]).sum().backward()


@pytest.mark.parametrize("flavour", EVERY)
def test_bfloat16_autocast_acts_as_it_trains(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens, starts = sample_trial(memory, 2, 20)
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.bfloat16, torch.float32):
            cache = memory.new_cache(2, "cpu", dtype)
            cache.reset(torch.tensor([True, False]))
            acted = act(memory, tokens, cache, starts)
            near_in_bfloat16(memory, acted, memory(tokens, None, starts))


@pytest.mark.parametrize("flavour", ["memo", "no_iea", "top_k", "gru"])
def test_repeated_rows_go_on_as_the_row_would_have(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens, starts = sample_trial(memory, 6, 30)
    cache = memory.new_cache(2, "cpu")
    memory.extend(tokens[:2, :10], cache, starts[:2, :10])
    cache.reset(torch.tensor([False, True]))
    memory.extend(tokens[:2, 10:17], cache, starts[:2, 10:17])
    six = cache.repeated(3)
    after = act(memory, tokens[:, 17:], six, starts[:, 17:])
    for start in range(3):  # rows 0, 3 and 1, 4 and 2, 5 of the six are copies of rows 0 and 1
        rows = [start, 3 + start]
        alone = act(memory, tokens[rows, 17:], cache.repeated(1), starts[rows, 17:])
        close(after[rows], alone)
    assert six.steps.tolist() == [30] * 3 + [20] * 3
