"""The recurrent baselines are an LSTM and a GRU whose state does not grow."""

from __future__ import annotations

import pytest
import torch

from memo_habitat.testing.memory_conformance import sample_trial

from .factories import act, close, small_memory, trial

KINDS = pytest.mark.parametrize("kind", ["lstm", "gru"])


@KINDS
def test_an_output_depends_on_every_earlier_step_and_on_no_later_one(kind: str) -> None:
    memory = small_memory(kind)
    tokens = trial(memory, 1, 12).requires_grad_()
    memory(tokens)[0, 7].sum().backward()
    seen = tokens.grad[0].abs().sum(-1) > 0
    assert seen.tolist() == [True] * 8 + [False] * 4


def test_the_training_pass_is_the_definition_of_an_lstm() -> None:
    memory = small_memory("lstm", layers=1)
    tokens = trial(memory, 2, 6)
    cells, hidden, cell = memory.rnn, torch.zeros(2, 16), torch.zeros(2, 16)
    for step in range(6):
        gates = tokens[:, step] @ cells.weight_ih_l0.T + hidden @ cells.weight_hh_l0.T
        enter, forget, candidate, leave = (gates + cells.bias_ih_l0 + cells.bias_hh_l0).chunk(4, 1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        close(memory(tokens)[:, step], hidden)


def test_the_training_pass_is_the_definition_of_a_gru() -> None:
    memory = small_memory("gru", layers=1)
    tokens = trial(memory, 2, 6)
    cells, hidden = memory.rnn, torch.zeros(2, 16)
    for step in range(6):
        given = (tokens[:, step] @ cells.weight_ih_l0.T + cells.bias_ih_l0).chunk(3, 1)
        held = (hidden @ cells.weight_hh_l0.T + cells.bias_hh_l0).chunk(3, 1)
        reset, update = ((a + b).sigmoid() for a, b in zip(given[:2], held[:2], strict=True))
        candidate = (given[2] + reset * held[2]).tanh()
        hidden = torch.lerp(candidate, hidden, update)
        close(memory(tokens)[:, step], hidden)


@KINDS
def test_the_gradient_is_that_of_finite_differences(kind: str) -> None:
    memory = small_memory(kind, width=4).double()
    tokens = trial(memory, 2, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(memory, (tokens,))


@pytest.mark.parametrize(("kind", "parts"), [("lstm", 2), ("gru", 1)])
def test_the_state_has_the_same_size_after_any_history(kind: str, parts: int) -> None:
    memory = small_memory(kind, layers=3)
    cache = memory.new_cache(2, "cpu")
    for steps in (1, 500):
        memory.extend(trial(memory, 2, steps), cache)
        assert cache.allocated_bytes() == parts * 2 * 3 * 16 * 4
        assert cache.bytes_in_use().tolist() == [parts * 3 * 16 * 4] * 2
    assert cache.tokens_in_use().tolist() == [0, 0]


@KINDS
def test_bfloat16_autocast_leaves_the_recurrence_in_float32(kind: str) -> None:
    memory = small_memory(kind)
    tokens, starts = sample_trial(memory, 2, 20)
    with torch.autocast("cpu", torch.bfloat16):
        acted = act(memory, tokens, memory.new_cache(2, "cpu", torch.bfloat16), starts)
        close(acted, memory(tokens))
    assert acted.dtype == torch.float32


@KINDS
def test_episode_starts_and_segments_change_nothing(kind: str) -> None:
    memory = small_memory(kind)
    tokens, starts = sample_trial(memory, 2, 9)
    encoded = memory.encode(tokens, 3, starts)
    assert torch.equal(encoded.outputs, memory(tokens))
    assert encoded.auxiliary_loss is None
    given, none = (memory.new_cache(2, "cpu") for _ in range(2))
    stepped = memory.step(tokens[:, 0], given, starts[:, 0])
    assert torch.equal(stepped, memory.step(tokens[:, 0], none))
    assert torch.equal(memory.extend(tokens, given, starts), memory.extend(tokens, none))
