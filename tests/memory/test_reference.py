"""The training pass and streaming compute what the specification says, and nothing twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memo_habitat.testing.memory_conformance import check_extending, sample_trial

from . import reference
from .factories import (
    TRANSFORMERS,
    M,
    S,
    act,
    close,
    memories,
    near_in_bfloat16,
    quick,
    small_memory,
    thorough,
    trial,
)


@thorough
@given(memories(), st.integers(1, 3), st.integers(1, 30), st.integers(1, 12))
def test_it_equals_the_word_for_word_reference_at_any_segment_length(
    memory: Any, batch: int, steps: int, segment_length: int
) -> None:
    tokens, starts = sample_trial(memory, batch, steps)
    expected = reference.outputs(memory, tokens, starts, segment_length)
    close(memory(tokens, segment_length, starts), expected)


@pytest.mark.parametrize("flavour", [name for name in TRANSFORMERS if name != "ac"])
@pytest.mark.parametrize("sink_value", ["learned", "zero"])
def test_gradients_equal_those_of_the_reference(flavour: str, sink_value: str) -> None:
    memory = small_memory(flavour, layers=3, sink_value=sink_value)
    starts = sample_trial(memory, 2, 20)[1]
    gradients = []
    for encode in (memory, lambda x, _, starts: reference.outputs(memory, x, starts)):
        memory.zero_grad()
        tokens = trial(memory, 2, 20).requires_grad_()
        (encode(tokens, None, starts) * trial(memory, 2, 20, seed=7)).sum().backward()
        gradients.append([tokens.grad, *(p.grad.clone() for p in memory.parameters())])
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [5, 6, 7, 24, 25])
def test_every_token_goes_through_the_stack_once(steps: int) -> None:
    memory = small_memory()
    pushed = []
    memory.blocks[0].attention_norm.register_forward_pre_hook(
        lambda _, inputs: pushed.append(inputs[0].shape[1])
    )
    memory(trial(memory, 1, steps))
    summaries = (steps - 1) // S  # of segments that something follows
    assert sum(pushed) == steps + 2 * M * summaries  # each once as query, once as summary


@pytest.mark.parametrize("flavour", TRANSFORMERS)
def test_bfloat16_autocast_stays_near_single_precision(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens, starts = sample_trial(memory, 2, 30)
    tokens.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = memory(tokens, None, starts)
        output.float().square().mean().backward()
    near_in_bfloat16(memory, output, memory(tokens, None, starts))
    assert tokens.grad.isfinite().all()


@st.composite
def budgeted(draw: st.DrawFn) -> Any:
    """Memories with a budget that a short trial exceeds."""
    segment = draw(st.integers(2, 7))
    summary = draw(st.integers(1, segment - 1))
    return small_memory(
        draw(st.sampled_from(("memo", "ac", "fct", "summary_layer", "top_k"))),
        seed=draw(st.integers(0, 99)),
        segment_length=segment,
        summary_length=summary,
        token_budget=segment + summary + draw(st.integers(0, 9)),
    )


@thorough
@given(budgeted(), st.integers(1, 40))
def test_streaming_equals_the_reference_that_rebuilds_the_truncated_sequence(
    memory: Any, steps: int
) -> None:
    tokens, starts = sample_trial(memory, 2, steps)
    acted = act(memory, tokens, memory.new_cache(2, "cpu"), starts)
    close(acted, reference.outputs(memory, tokens, starts))


@quick
@given(
    budgeted(),
    st.integers(0, 9),
    st.lists(st.integers(1, 15), min_size=1, max_size=3),
    st.integers(0, 3),
)
def test_streaming_in_chunks_is_what_its_steps_are(
    memory: Any, before: int, chunks: list[int], reset_row: int
) -> None:
    check_extending(memory, before, chunks, reset_row)


@quick
@given(budgeted())
def test_no_step_sees_more_tokens_than_the_budget(memory: Any) -> None:
    cache, config = memory.new_cache(1, "cpu"), memory.config
    most = 0
    for now in trial(memory, 1, 50).unbind(1):
        memory.step(now, cache)
        most = max(most, int(cache.tokens_in_use()))
    closed = 50 // config.segment_length
    unbounded = closed * config.summary_length + config.segment_length
    assert most <= config.token_budget
    # As much of the budget is used as whole summaries, or whole segments of raw steps, allow.
    unit = config.segment_length if config.kind == "fct" else config.summary_length
    assert most > min(unbounded, config.token_budget) - max(unit, config.segment_length)


@pytest.mark.parametrize("flavour", ["memo", "fct"])
def test_a_budget_that_is_never_reached_changes_nothing(flavour: str) -> None:
    tokens, starts = sample_trial(small_memory(), 2, 30)
    outputs = [
        act(memory, tokens, memory.new_cache(2, "cpu"), starts)
        for memory in (small_memory(flavour), small_memory(flavour, token_budget=64))
    ]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("flavour", ["fct", "memo"])
def test_dropped_steps_are_forgotten_for_good(flavour: str) -> None:
    memory = small_memory(flavour, layers=3, token_budget=8)  # one summary
    tokens, starts = sample_trial(memory, 1, 40)
    changed = tokens.clone()
    changed[0, 3] += 1
    acted = [act(memory, t, memory.new_cache(1, "cpu"), starts) for t in (tokens, changed)]
    same = (acted[0] == acted[1]).all(-1)[0].tolist()
    if flavour == "fct":  # steps 0 to 5 are dropped before step 8 is taken in
        assert same == [True] * 3 + [False] * 5 + [True] * 32
    else:  # a summary was made while the older one was seen: through it the change lives on
        assert same == [True] * 3 + [False] * 37


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("flavour", ["memo", "fct"])
def test_streaming_feeds_in_what_came_in_whatever_the_type_of_the_cache(
    flavour: str, dtype: torch.dtype
) -> None:
    memory = small_memory(flavour, token_budget=9)
    tokens, starts = sample_trial(memory, 1, 40)
    low = act(memory, tokens, memory.new_cache(1, "cpu", dtype), starts)
    exact = act(memory, tokens, memory.new_cache(1, "cpu"), starts)
    assert (low - exact).abs().mean() < 2e-2
