"""The LSTM baseline is an LSTM whose state does not grow; `test_acting` holds its acting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memo_habitat.memory.recurrent import RecurrentMemory

from .factories import act, close, small_memory, starts, trial


def lstm(**sizes: object) -> RecurrentMemory:
    return small_memory("lstm", **sizes)


def test_an_output_depends_on_every_earlier_step_and_on_no_later_one() -> None:
    memory = lstm()
    tokens = trial(memory, 1, 12).requires_grad_()
    memory(tokens)[0, 7].sum().backward()
    seen = tokens.grad[0].abs().sum(-1) > 0
    assert seen.tolist() == [True] * 8 + [False] * 4


def test_the_training_pass_is_the_definition_of_an_lstm() -> None:
    memory = lstm(layers=1)
    tokens = trial(memory, 2, 6)
    cells, hidden, cell = memory.rnn, torch.zeros(2, 16), torch.zeros(2, 16)
    for step in range(6):
        gates = tokens[:, step] @ cells.weight_ih_l0.T + hidden @ cells.weight_hh_l0.T
        enter, forget, candidate, leave = (gates + cells.bias_ih_l0 + cells.bias_hh_l0).chunk(4, 1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        close(memory(tokens)[:, step], hidden)


def test_the_gradient_is_that_of_finite_differences() -> None:
    memory = lstm(width=4).double()
    tokens = trial(memory, 2, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(memory, (tokens,))


def test_recomputed_activations_give_the_same_outputs_and_gradients() -> None:
    results = []
    for recomputed in (False, True):
        memory = lstm()
        memory.config.activation_checkpointing = recomputed
        tokens = trial(memory, 2, 600).requires_grad_()
        outputs = memory(tokens)
        outputs.square().mean().backward()
        results.append([outputs, tokens.grad, *(p.grad for p in memory.parameters())])
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(plain, recomputed, atol=1e-6, rtol=1e-5)


def test_the_state_has_the_same_size_after_any_history() -> None:
    memory = lstm(layers=3)
    cache = memory.new_cache(2, "cpu")
    assert cache.bytes_in_use().tolist() == [0, 0]
    for steps in (1, 500):
        memory.extend(trial(memory, 2, steps), cache)
        assert cache.allocated_bytes() == 2 * 2 * 3 * 16 * 4
        assert cache.bytes_in_use().tolist() == [2 * 3 * 16 * 4] * 2
    assert cache.tokens_in_use().tolist() == [0, 0]
    cache.reset(torch.tensor([True, False]))
    assert cache.bytes_in_use().tolist() == [0, 2 * 3 * 16 * 4]
    assert cache.steps.tolist() == [0, 501]


def test_bfloat16_autocast_leaves_the_recurrence_in_float32() -> None:
    memory = lstm()
    tokens = trial(memory, 2, 20)
    with torch.autocast("cpu", torch.bfloat16):
        acted = act(memory, tokens, memory.new_cache(2, "cpu", torch.bfloat16), starts(2, 20))
        close(acted, memory(tokens))
    assert acted.dtype == torch.float32


def test_episode_starts_and_segments_change_nothing() -> None:
    memory = lstm()
    tokens, begins = trial(memory, 2, 9), starts(2, 9)
    encoded = memory.encode(tokens, 3, begins)
    assert torch.equal(encoded.outputs, memory(tokens))
    assert encoded.auxiliary_loss is None
    assert memory.draw_segment_length() == memory.config.segment_length
    caches = [memory.new_cache(2, "cpu") for _ in range(4)]
    stepped = memory.step(tokens[:, 0], caches[0], begins[:, 0])
    assert torch.equal(stepped, memory.step(tokens[:, 0], caches[1]))
    extended = memory.extend(tokens, caches[2], begins)
    assert torch.equal(extended, memory.extend(tokens, caches[3]))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 16), "3 environments, the cache has 2"), ((2, 15), "with D = 16"), ((2,), "with D")],
)
def test_tokens_of_another_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    memory = lstm()
    with pytest.raises(ValueError, match=message):
        memory.step(torch.zeros(shape), memory.new_cache(2, "cpu"))


@pytest.mark.parametrize("which", [torch.ones(3, dtype=torch.bool), torch.ones(2)])
def test_resets_of_another_shape_or_kind_are_refused(which: Tensor) -> None:
    with pytest.raises(ValueError, match=r"bool tensor of shape \[2\]"):
        lstm().new_cache(2, "cpu").reset(which)
