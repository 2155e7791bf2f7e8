"""The training pass computes what the specification says, and nothing twice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memo_habitat.memory import MemoTransformer

from . import reference
from .factories import (
    ALL,
    TOLERANCE,
    memories,
    near_in_bfloat16,
    small_memory,
    starts,
    thorough,
    trial,
)


@thorough
@given(memories(), st.integers(1, 3), st.integers(1, 30), st.integers(1, 12))
def test_every_flavour_equals_the_word_for_word_reference_at_any_segment_length(
    memory: MemoTransformer, batch: int, steps: int, segment_length: int
) -> None:
    tokens, begins = trial(memory, batch, steps), starts(batch, steps)
    expected = reference.outputs(memory, tokens, begins, segment_length)
    actual = memory(tokens, segment_length, begins)
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("flavour", [name for name in ALL if name != "ac"])
def test_gradients_equal_those_of_the_reference(flavour: str) -> None:
    memory = small_memory(flavour, layers=3)
    weights, begins = trial(memory, 2, 20, seed=7), starts(2, 20)
    gradients = []
    for encode in (memory, lambda x, _, begins: reference.outputs(memory, x, begins)):
        memory.zero_grad()
        tokens = trial(memory, 2, 20).requires_grad_()
        (encode(tokens, None, begins) * weights).sum().backward()
        gradients.append([tokens.grad, *(p.grad.clone() for p in memory.parameters())])
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [5, 6, 7, 24, 25])
def test_every_token_goes_through_the_stack_once(steps: int) -> None:
    memory = small_memory()
    pushed = []
    memory.blocks[0].register_forward_pre_hook(lambda _, inputs: pushed.append(inputs[0].shape[1]))
    memory(trial(memory, 1, steps))
    summaries = (steps - 1) // 6  # of segments that something follows
    assert sum(pushed) == steps + 2 * 2 * summaries  # each once as query, once as summary


@pytest.mark.parametrize("kind", ["memo", "fct"])
def test_depth_dropout_skips_whole_layers_in_training_only(kind: str) -> None:
    memory = small_memory(kind, layers=3, depth_dropout=0.5)
    tokens = trial(memory, 2, 20)
    full = memory(tokens)
    assert torch.equal(memory(tokens), full)
    memory.train()
    outcomes = {}
    for seed in range(20):
        torch.manual_seed(seed)
        live = tuple(i for i, coin in enumerate(torch.rand(3).tolist()) if coin >= 0.5)
        torch.manual_seed(seed)
        outcomes.setdefault(live, []).append(memory(tokens))
    for live, outputs in outcomes.items():
        shorter = small_memory(kind, layers=3)
        shorter.blocks = torch.nn.ModuleList([shorter.blocks[i] for i in live])
        for output in outputs:
            torch.testing.assert_close(output, shorter(tokens), atol=TOLERANCE, rtol=0)
    assert len(outcomes) > 3


def test_depth_dropout_tosses_once_per_pass_not_once_per_segment() -> None:
    memory = small_memory(layers=3, depth_dropout=0.5).train()
    calls = []
    for index, block in enumerate(memory.blocks):
        block.register_forward_pre_hook(lambda _, __, index=index: calls.append(index))
    for seed in range(8):
        torch.manual_seed(seed)
        calls.clear()
        memory(trial(memory, 2, 24))
        assert {calls.count(layer) for layer in range(3)} <= {0, 4}


def test_the_sink_takes_part_and_its_value_can_be_fixed_at_zero() -> None:
    memory = small_memory(sink_value="zero")
    names = dict(memory.named_parameters())
    assert not any(name.endswith("sink_value") for name in names)
    tokens = trial(memory, 1, 4)
    before = memory(tokens)
    with torch.no_grad():
        names["blocks.0.attention.sink_key"].mul_(3)
    assert not torch.allclose(memory(tokens), before)


def test_drawn_segment_lengths_cover_the_jitter_and_nothing_else() -> None:
    memory = small_memory(segment_length=256, summary_length=32, segment_jitter=0.2)
    generator = torch.Generator().manual_seed(0)
    drawn = {memory.draw_segment_length(generator) for _ in range(3000)}
    assert drawn == set(range(205, 308))
    assert small_memory(segment_jitter=0.0).draw_segment_length(generator) == 6
    assert small_memory("fct", segment_length=100).draw_segment_length(generator) == 100


@pytest.mark.parametrize("flavour", ALL)
def test_bfloat16_autocast_stays_near_single_precision(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens, begins = trial(memory, 2, 30).requires_grad_(), starts(2, 30)
    with torch.autocast("cpu", torch.bfloat16):
        output = memory(tokens, None, begins)
        output.float().square().mean().backward()
    near_in_bfloat16(memory, output, memory(tokens, None, begins))
    assert tokens.grad.isfinite().all()
