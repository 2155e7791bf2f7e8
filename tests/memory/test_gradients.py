"""Who sees whom, by intervention; how far gradients reach in each variant, and that they are right.

Change one thing, and see exactly which outputs change.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from memo_habitat.testing.memory_conformance import sample_trial

from .factories import TRANSFORMERS, M, S, quick, small_memory, trial

STEPS = 24  # four segments


def unchanged(memory: Any, step: int) -> Tensor:
    """Which outputs are bit-equal when this step of the first trial changes, bool [2, T]."""
    tokens, starts = sample_trial(memory, 2, STEPS)
    changed = tokens.clone()
    changed[0, step] += 1
    return (memory(tokens, None, starts) == memory(changed, None, starts)).all(-1)


@pytest.mark.parametrize("flavour", TRANSFORMERS)
@quick
@given(step=st.integers(0, STEPS - 1))
def test_a_step_never_changes_what_came_before_it_nor_another_trial(
    flavour: str, step: int
) -> None:
    same = unchanged(small_memory(flavour), step)
    assert same[1].all()
    assert same[0, :step].all()
    if flavour in ("memo", "fct", "rmt", "ac", "summary_layer"):
        assert not same[0, step:].any()
    assert not same[0, step]


@quick
@given(st.integers(0, STEPS - 1))
def test_without_inter_episode_attention_a_step_changes_its_own_episode_only(step: int) -> None:
    memory = small_memory("no_iea")
    begins = sample_trial(memory, 2, STEPS)[1][0].tolist()
    end = next((i for i in range(step + 1, STEPS) if begins[i]), STEPS)
    expected = [not step <= i < end for i in range(STEPS)]
    assert unchanged(memory, step)[0].tolist() == expected


@pytest.mark.parametrize("flavour", ["memo", "ac", "rmt", "top_k", "summary_layer"])
@quick
@given(step=st.integers(0, STEPS - 1))
def test_a_closed_segment_is_seen_through_its_summary_only(flavour: str, step: int) -> None:
    memory = small_memory(flavour)
    memory.variant.carry = torch.ones_like  # no summary says anything
    end = (step // S + 1) * S
    expected = [not step <= i < end for i in range(STEPS)]
    assert unchanged(memory, step)[0].tolist() == expected


def only_summary(which: int, value: float) -> Callable[[Tensor], Tensor]:
    """Carry ones, but `value` as the summary of segment `which`."""
    made: list[Tensor] = []

    def carry(summary: Tensor) -> Tensor:
        made.append(summary)
        return torch.full_like(summary, value if len(made) - 1 == which else 1.0)

    return carry


@pytest.mark.parametrize(
    ("flavour", "reached"), [("memo", (1, 2, 3)), ("ac", (1, 2, 3)), ("rmt", (1,))]
)
def test_a_summary_is_seen_by_all_later_segments_or_by_the_next_one_only(
    flavour: str, reached: tuple[int, ...]
) -> None:
    memory = small_memory(flavour)
    outputs = []
    for value in (0.5, 2.0):
        memory.variant.carry = only_summary(0, value)
        outputs.append(memory(trial(memory, 1, STEPS)))
    same = (outputs[0] == outputs[1]).all(-1)[0].view(-1, S)
    assert [segment for segment in range(4) if not same[segment].any()] == list(reached)
    assert all(same[segment].all() for segment in range(4) if segment not in reached)


@quick
@given(st.integers(0, STEPS - 1), st.integers(1, 3))
def test_retrieval_hides_all_but_the_best_summary_tokens(step: int, top_k: int) -> None:
    memory = small_memory("memo", layers=1, heads=1, top_k=top_k)
    carried: list[Tensor] = []

    def carry(summary: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        carried.append(torch.randn(summary.shape, generator=generator).requires_grad_())
        return carried[-1]

    memory.variant.carry = carry
    memory(trial(memory, 1, STEPS))[0, step].sum().backward()
    seen = [part.grad.abs().amax(-1) > 0 for part in carried if part.grad is not None]
    assert sum(int(part.sum()) for part in seen) == min(top_k, step // S * M)


def reached(memory: Any, steps: int = 20) -> list[bool]:
    """Which steps of a trial of four segments get a gradient from a loss in the last one."""
    tokens, starts = sample_trial(memory, 2, steps)
    tokens.requires_grad_()
    weighted(memory(tokens, None, starts)[:, 3 * S :]).backward()
    return (tokens.grad.abs().amax((0, 2)) > 0).tolist()


@pytest.mark.parametrize("flavour", ["memo", "fct", "rmt", "top_k", "summary_layer"])
def test_the_last_segment_reaches_the_observations_of_the_first(flavour: str) -> None:
    assert all(reached(small_memory(flavour)))


def test_truncated_gradients_stop_at_the_segment_exactly() -> None:
    assert reached(small_memory("ac", detach_probability=1.0)) == [False] * 18 + [True] * 2
    assert all(reached(small_memory("ac", detach_probability=0.0)))


def test_truncating_at_times_cuts_some_passes_and_not_others() -> None:
    memory = small_memory("ac", detach_probability=0.3)
    first_reached = set()
    for seed in range(30):
        torch.manual_seed(seed)
        first_reached.add(reached(memory).index(True))
    assert first_reached == {0, 6, 12, 18}


def test_the_newest_summary_passes_gradients_through_the_chain() -> None:
    memory = small_memory("rmt")
    made: list[Tensor] = []

    def cut_the_second(summary: Tensor) -> Tensor:
        made.append(summary)
        return summary.detach() if len(made) == 2 else summary

    memory.variant.carry = cut_the_second
    assert reached(memory) == [False] * 12 + [True] * 8


@pytest.mark.parametrize(
    "flavour", [name for name in TRANSFORMERS if name != "ac" and "top_k" not in name]
)
def test_gradients_agree_with_finite_differences(flavour: str) -> None:
    """Not that of `ac`, which is not its output's, on purpose."""
    memory = small_memory(flavour, width=8, hidden=6, segment_length=3, summary_length=2).double()
    tokens, starts = sample_trial(memory, 1, 7)
    tokens.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: memory(x, None, starts), tokens)
    # All parameters at once: the slope along a random direction.
    parameters = list(memory.parameters())
    directions = [torch.randn_like(p) for p in parameters]

    def loss() -> Tensor:
        return weighted(memory(tokens, None, starts))

    grads = torch.autograd.grad(loss(), parameters)
    expected = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(sign * 1e-6 * direction)
            values.append(loss())
    torch.testing.assert_close((values[0] - values[1]) / 2e-6, expected, rtol=1e-6, atol=1e-6)


def weighted(outputs: Tensor) -> Tensor:
    """A sum in which each number has a weight of its own: those of squares hardly change."""
    return (outputs * torch.arange(outputs.numel()).view_as(outputs).cos()).sum()


def same(first: Any, second: Any) -> None:
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("flavour", ["memo", "fct"])
def test_a_second_backward_pass_gives_the_same_gradients(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens = trial(memory, 2, 20).requires_grad_()
    loss = weighted(memory(tokens))
    wanted = [tokens, *memory.parameters()]
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    same(first, torch.autograd.grad(loss, wanted))


def test_a_backward_pass_to_late_steps_leaves_nothing_behind_for_the_next_one() -> None:
    memory = small_memory()
    early = trial(memory, 1, 18).requires_grad_()
    late = trial(memory, 1, 6, seed=4).requires_grad_()
    loss = weighted(memory(torch.cat([early, late], dim=1)))
    expected = torch.autograd.grad(loss, [early, late], retain_graph=True)
    torch.autograd.grad(loss, late, retain_graph=True)
    same(expected, torch.autograd.grad(loss, [early, late]))


def test_a_loss_on_a_part_of_the_trial_is_the_gradient_of_that_part() -> None:
    memory = small_memory()
    tokens = trial(memory, 2, 20).requires_grad_()
    early = torch.autograd.grad(memory(tokens)[:, :9].sum(), tokens)[0]
    short = tokens.detach()[:, :9].requires_grad_()
    expected = torch.autograd.grad(memory(short).sum(), short)[0]
    torch.testing.assert_close(early[:, :9], expected, atol=1e-5, rtol=1e-5)
    assert (early[:, 9:] == 0).all()


def test_nothing_of_a_pass_outlives_its_outputs() -> None:
    memory = small_memory()
    tokens = trial(memory, 2, 20)
    gc.collect()
    gc.disable()  # what only the collector of cycles would free is held too long
    try:
        counts = []
        for _ in range(3):
            memory(tokens).sum().backward()
            counts.append(sum(type(x) is Tensor for x in gc.get_objects()))
        assert counts[1] == counts[2]
    finally:
        gc.enable()
