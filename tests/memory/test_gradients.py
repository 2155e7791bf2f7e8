"""Gradients: how far they reach in each variant, and that they are right."""

from __future__ import annotations

import gc
import pickle
import shutil
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from memo_habitat.memory import MemoTransformer

from .factories import ALL, small_memory, starts, trial

S = 6  # of small_memory


def reached(memory: MemoTransformer, steps: int = 20) -> list[bool]:
    """Which steps of a trial of four segments get a gradient from a loss in the last one."""
    tokens = trial(memory, 2, steps).requires_grad_()
    memory(tokens, None, starts(2, steps))[:, 3 * S :].square().sum().backward()
    return (tokens.grad.abs().amax((0, 2)) > 0).tolist()


@pytest.mark.parametrize("flavour", ["memo", "fct", "rmt", "top_k", "summary_layer"])
def test_the_last_segment_reaches_the_observations_of_the_first(flavour: str) -> None:
    assert all(reached(small_memory(flavour)))


def test_truncated_gradients_stop_at_the_segment_exactly() -> None:
    assert reached(small_memory("ac", detach_probability=1.0)) == [False] * 18 + [True] * 2


def test_truncating_with_probability_zero_is_memo() -> None:
    assert all(reached(small_memory("ac", detach_probability=0.0)))


def test_truncating_at_times_cuts_some_passes_and_not_others() -> None:
    memory = small_memory("ac", detach_probability=0.3)
    first_reached = set()
    for seed in range(30):
        torch.manual_seed(seed)
        first_reached.add(reached(memory).index(True))
    assert first_reached == {0, 6, 12, 18}


def test_the_newest_summary_passes_gradients_through_the_chain() -> None:
    assert all(reached(small_memory("rmt")))
    cut = small_memory("rmt")
    made: list[Tensor] = []

    def cut_the_second(summary: Tensor) -> Tensor:
        made.append(summary)
        return summary.detach() if len(made) == 2 else summary

    cut.variant.carry = cut_the_second
    assert reached(cut) == [False] * 12 + [True] * 8


@pytest.mark.parametrize("flavour", [name for name in ALL if "top_k" not in name])
def test_gradients_agree_with_finite_differences(flavour: str) -> None:
    memory = small_memory(flavour, width=8, hidden=6, segment_length=3, summary_length=2).double()
    begins = starts(1, 8)
    tokens = trial(memory, 1, 8).requires_grad_()
    if flavour != "ac":  # whose gradient is not that of its output, on purpose
        assert torch.autograd.gradcheck(lambda x: memory(x, None, begins), tokens)
        _check_along_a_direction(memory, tokens.detach(), begins)


def _check_along_a_direction(memory: MemoTransformer, tokens: Tensor, begins: Tensor) -> None:
    """All parameters at once: the slope along a random direction."""
    parameters = list(memory.parameters())
    directions = [torch.randn_like(p) for p in parameters]

    def loss() -> Tensor:
        return memory(tokens, None, begins).square().sum()

    grads = torch.autograd.grad(loss(), parameters)
    expected = sum((g * d).sum() for g, d in zip(grads, directions, strict=True))
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(sign * 1e-6 * direction)
            values.append(loss())
    torch.testing.assert_close((values[0] - values[1]) / 2e-6, expected, rtol=1e-6, atol=1e-6)


def gradients(memory: MemoTransformer, steps: int = 33) -> list[Tensor]:
    """Output, and the gradients of inputs and parameters."""
    memory.zero_grad()
    tokens, begins = trial(memory, 2, steps).requires_grad_(), starts(2, steps)
    output = memory(tokens, None, begins)
    (output * trial(memory, 2, steps, seed=5)).sum().backward()
    return [output, tokens.grad, *(p.grad for p in memory.parameters())]


def assert_same(first: list[Tensor], second: list[Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("flavour", ALL)
def test_recomputing_activations_changes_no_gradient(flavour: str) -> None:
    kept = gradients(small_memory(flavour))
    assert_same(kept, gradients(small_memory(flavour, activation_checkpointing=True)))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("flavour", ["memo"])
def test_compiling_changes_no_gradient(flavour: str) -> None:
    assert_same(gradients(small_memory(flavour)), gradients(small_memory(flavour, compile=True)))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_copy_of_a_compiled_memory_computes_with_its_own_weights() -> None:
    memory = small_memory(compile=True)
    tokens = trial(memory, 1, 8)
    before = memory(tokens)
    copy = deepcopy(memory)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.mul_(2)
    assert not torch.allclose(copy(tokens), before)
    assert_same([memory(tokens)], [pickle.loads(pickle.dumps(memory))(tokens)])


@pytest.mark.parametrize("flavour", ["memo", "fct"])
def test_a_second_backward_pass_gives_the_same_gradients(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens = trial(memory, 2, 20).requires_grad_()
    loss = memory(tokens).square().sum()
    wanted = [tokens, *memory.parameters()]
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    assert_same(list(first), list(torch.autograd.grad(loss, wanted)))


def test_a_backward_pass_to_late_steps_leaves_nothing_behind_for_the_next_one() -> None:
    memory = small_memory()
    early = trial(memory, 1, 18).requires_grad_()
    late = trial(memory, 1, 6, seed=4).requires_grad_()
    loss = memory(torch.cat([early, late], dim=1)).square().sum()
    expected = torch.autograd.grad(loss, [early, late], retain_graph=True)
    torch.autograd.grad(loss, late, retain_graph=True)
    assert_same(list(expected), list(torch.autograd.grad(loss, [early, late])))


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
    gc.disable()  # what only the collector of cycles would free is held too long
    try:
        tokens = trial(memory, 2, 20)
        counts = []
        for _ in range(3):
            memory(tokens).sum().backward()
            counts.append(sum(type(x) is Tensor for x in gc.get_objects()))
        assert counts[1] == counts[2]
    finally:
        gc.enable()
