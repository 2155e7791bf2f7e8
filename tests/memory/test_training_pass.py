"""The training pass computes what the specification says, and nothing twice."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memo_habitat.memory import Memory

from . import reference
from .factories import TOLERANCE, memories, quick, small_memory, trial


@quick
@given(memories(("memo",)), st.integers(1, 3), st.integers(1, 30), st.integers(1, 12))
def test_memo_equals_the_word_for_word_reference_at_any_segment_length(
    memory: Memory, batch: int, steps: int, segment_length: int
) -> None:
    tokens = trial(memory, batch, steps)
    expected = reference.memo(memory, tokens, segment_length)
    torch.testing.assert_close(memory(tokens, segment_length), expected, atol=TOLERANCE, rtol=0)


@quick
@given(memories(("fct",)), st.integers(1, 3), st.integers(1, 30))
def test_full_context_equals_the_word_for_word_reference(
    memory: Memory, batch: int, steps: int
) -> None:
    tokens = trial(memory, batch, steps)
    expected = reference.full_context(memory, tokens)
    torch.testing.assert_close(memory(tokens), expected, atol=TOLERANCE, rtol=0)


def test_gradients_equal_those_of_the_reference() -> None:
    memory = small_memory(layers=3)
    weights = trial(memory, 2, 20, seed=7)
    gradients = []
    for encode in (memory, lambda tokens: reference.memo(memory, tokens, 6)):
        memory.zero_grad()
        tokens = trial(memory, 2, 20).requires_grad_()
        (encode(tokens) * weights).sum().backward()
        gradients.append([tokens.grad, *(p.grad.clone() for p in memory.parameters())])
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_gradient_from_the_last_segment_reaches_every_step_before_it() -> None:
    memory = small_memory()
    tokens = trial(memory, 2, 20).requires_grad_()
    memory(tokens)[:, 18:].square().sum().backward()
    reached = tokens.grad.abs().amax(-1)
    assert (reached[:, :19] > 0).all()


@quick
@given(st.integers(0, 19))
def test_changing_a_step_changes_its_own_and_later_outputs_of_that_trial_only(step: int) -> None:
    memory = small_memory()
    tokens = trial(memory, 2, 20)
    changed = tokens.clone()
    changed[0, step] += 1
    same = (memory(tokens) == memory(changed)).all(-1)
    assert same[1].all()
    assert same[0, :step].all()
    assert not same[0, step:].any()


def test_older_segments_are_seen_through_their_summaries_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = small_memory()
    monkeypatch.setattr(memory.variant, "hand_on", torch.ones_like, raising=False)
    tokens = trial(memory, 1, 20)
    changed = tokens.clone()
    changed[0, 8] += 1  # in the second segment, steps 6 to 11
    same = (memory(tokens) == memory(changed)).all(-1)[0]
    assert same.tolist() == [True] * 8 + [False] * 4 + [True] * 8


def test_full_context_sees_the_first_step_at_the_last() -> None:
    memory = small_memory("fct")
    tokens = trial(memory, 1, 50).requires_grad_()
    memory(tokens)[:, -1].sum().backward()
    assert (tokens.grad.abs().amax(-1) > 0).all()


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


@pytest.mark.parametrize("kind", ["memo", "fct"])
def test_bfloat16_autocast_stays_near_single_precision(kind: str) -> None:
    memory = small_memory(kind)
    tokens = trial(memory, 2, 30).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = memory(tokens)
        output.float().square().mean().backward()
    assert (output - memory(tokens)).abs().mean() < 2e-2
    assert tokens.grad.isfinite().all()
