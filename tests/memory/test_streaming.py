"""Streaming: acting under a token budget is acting on the truncated sequence, built anew."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memo_habitat.memory import MemoTransformer

from . import reference
from .factories import TOLERANCE, small_memory, starts, thorough, trial
from .test_acting import act


@st.composite
def budgeted(draw: st.DrawFn) -> MemoTransformer:
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
def test_acting_equals_the_reference_that_rebuilds_the_truncated_sequence(
    memory: MemoTransformer, steps: int
) -> None:
    tokens, begins = trial(memory, 2, steps), starts(2, steps)
    expected = reference.outputs(memory, tokens, begins)
    cache = memory.new_cache(2, "cpu")
    torch.testing.assert_close(act(memory, tokens, cache, begins), expected, atol=TOLERANCE, rtol=0)


@thorough
@given(budgeted(), st.integers(0, 9), st.lists(st.integers(1, 15), min_size=1, max_size=4))
def test_extending_under_a_budget_equals_stepping_wherever_rows_were_reset(
    memory: MemoTransformer, before: int, chunks: list[int]
) -> None:
    steps = before + sum(chunks)
    tokens, begins = trial(memory, 3, steps), starts(3, steps)
    stepped, extended = (memory.new_cache(3, "cpu") for _ in range(2))
    for cache in (stepped, extended):
        act(memory, tokens[:, :before], cache, begins[:, :before]) if before else None
        cache.reset(torch.tensor([False, True, False]))
    tokens, begins = tokens[:, before:], begins[:, before:]
    expected = act(memory, tokens, stepped, begins)
    actual = torch.cat([memory.extend(part, extended) for part in tokens.split(chunks, 1)], dim=1)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)
    assert torch.equal(stepped.tokens_in_use(), extended.tokens_in_use())


@thorough
@given(budgeted())
def test_no_step_sees_more_tokens_than_the_budget(memory: MemoTransformer) -> None:
    cache = memory.new_cache(1, "cpu")
    most = 0
    for now in trial(memory, 1, 60).unbind(1):
        memory.step(now, cache)
        most = max(most, int(cache.tokens_in_use()))
    config = memory.config
    closed = 60 // config.segment_length
    unbounded = closed * config.summary_length + config.segment_length
    assert most <= config.token_budget
    # As much of the budget is used as whole summaries, or whole segments of raw steps, allow.
    unit = config.segment_length if config.kind == "fct" else config.summary_length
    assert most > min(unbounded, config.token_budget) - max(unit, config.segment_length)


def test_a_budget_that_is_never_reached_changes_nothing() -> None:
    tokens = trial(small_memory(), 2, 30)
    for flavour in ("memo", "fct"):
        outputs = [
            act(memory, tokens, memory.new_cache(2, "cpu"), starts(2, 30))
            for memory in (small_memory(flavour), small_memory(flavour, token_budget=64))
        ]
        assert torch.equal(*outputs)


@pytest.mark.parametrize("flavour", ["fct", "memo"])
def test_dropped_steps_are_forgotten_for_good(flavour: str) -> None:
    memory = small_memory(flavour, layers=3, token_budget=8)  # S = 6, M = 2: one summary
    tokens = trial(memory, 1, 40)
    changed = tokens.clone()
    changed[0, 3] += 1
    acted = [act(memory, t, memory.new_cache(1, "cpu"), starts(1, 40)) for t in (tokens, changed)]
    same = (acted[0] == acted[1]).all(-1)[0].tolist()
    if flavour == "fct":
        # Steps 0 to 5 are dropped before step 8 is taken in.
        assert same == [True] * 3 + [False] * 5 + [True] * 32
    elif flavour == "memo":
        # A summary was made while the older one was seen: through it the change lives on.
        assert same == [True] * 3 + [False] * 37
