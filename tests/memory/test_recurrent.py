"""The LSTM baseline: acting is training, a reset forgets, and its state does not grow."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memo_habitat.config.memory import MemoryConfig
from memo_habitat.memory.recurrent import RecurrentCache, RecurrentMemory

TOLERANCE = 1e-5
quick = settings(max_examples=12, deadline=None, derandomize=True, database=None)


def small_memory(seed: int = 0, **sizes: object) -> RecurrentMemory:
    torch.manual_seed(seed)
    chosen = {"kind": "lstm", "width": 16, "layers": 2, "heads": 2, **sizes}
    return RecurrentMemory(MemoryConfig(**chosen))


@st.composite
def memories(draw: st.DrawFn) -> RecurrentMemory:
    """Memories of random small sizes."""
    width = draw(st.sampled_from((4, 8, 20)))
    return small_memory(draw(st.integers(0, 99)), width=width, layers=draw(st.integers(1, 3)))


def trial(memory: RecurrentMemory, batch: int, steps: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, memory.config.width, generator=generator)


def act(memory: RecurrentMemory, tokens: Tensor, cache: RecurrentCache) -> Tensor:
    return torch.stack([memory.step(now, cache) for now in tokens.unbind(1)], dim=1)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


@quick
@given(memories(), st.integers(1, 3), st.integers(1, 40))
def test_stepping_equals_the_training_pass(memory: RecurrentMemory, batch: int, steps: int) -> None:
    tokens = trial(memory, batch, steps)
    close(act(memory, tokens, memory.new_cache(batch, "cpu")), memory(tokens))


@quick
@given(memories(), st.lists(st.sets(st.integers(0, 2)), min_size=2, max_size=30))
def test_each_environment_starts_anew_where_it_is_reset(
    memory: RecurrentMemory, resets: list[set[int]]
) -> None:
    tokens = trial(memory, 3, len(resets))
    cache = memory.new_cache(3, "cpu")
    starts = [[0], [0], [0]]
    acted = []
    for step, rows in enumerate(resets):
        cache.reset(torch.tensor([row in rows for row in range(3)]))
        acted.append(memory.step(tokens[:, step], cache))
        for row in rows:
            starts[row].append(step)
    for row in range(3):
        for start, end in pairwise([*starts[row], len(resets)]):
            if start < end:
                expected = memory(tokens[row : row + 1, start:end])[0]
                close(torch.stack([step[row] for step in acted[start:end]]), expected)
        assert cache.steps[row] == len(resets) - starts[row][-1]


@quick
@given(
    memories(),
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_extending_in_chunks_equals_stepping(
    memory: RecurrentMemory, chunks: list[int], before: int, reset_row: int
) -> None:
    tokens = trial(memory, 3, before + sum(chunks))
    stepped, extended = (memory.new_cache(3, "cpu") for _ in range(2))
    for cache in (stepped, extended):
        act(memory, tokens[:, :before], cache) if before else None
        cache.reset(torch.arange(3) == reset_row)  # from 3 on: all stay together
    tokens = tokens[:, before:]
    expected = act(memory, tokens, stepped)
    actual = [memory.extend(part, extended) for part in tokens.split(chunks, 1)]
    close(torch.cat(actual, dim=1), expected)
    assert torch.equal(stepped.steps, extended.steps)
    following = trial(memory, 3, 1, seed=9)[:, 0]  # what was left behind is the same too
    close(memory.step(following, extended), memory.step(following, stepped))


def test_an_output_depends_on_every_earlier_step_and_on_no_later_one() -> None:
    memory = small_memory()
    tokens = trial(memory, 1, 12).requires_grad_()
    memory(tokens)[0, 7].sum().backward()
    seen = tokens.grad[0].abs().sum(-1) > 0
    assert seen.tolist() == [True] * 8 + [False] * 4


def test_the_training_pass_is_the_definition_of_an_lstm() -> None:
    memory = small_memory(layers=1)
    tokens = trial(memory, 2, 6)
    lstm, hidden, cell = memory.lstm, torch.zeros(2, 16), torch.zeros(2, 16)
    for step in range(6):
        gates = tokens[:, step] @ lstm.weight_ih_l0.T + hidden @ lstm.weight_hh_l0.T
        enter, forget, candidate, leave = (gates + lstm.bias_ih_l0 + lstm.bias_hh_l0).chunk(4, 1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        close(memory(tokens)[:, step], hidden)


def test_the_gradient_is_that_of_finite_differences() -> None:
    memory = small_memory(width=4).double()
    tokens = trial(memory, 2, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(memory, (tokens,))


def test_recomputed_activations_give_the_same_outputs_and_gradients() -> None:
    results = []
    for recomputed in (False, True):
        memory = small_memory()
        memory.config.activation_checkpointing = recomputed
        tokens = trial(memory, 2, 600).requires_grad_()
        outputs = memory(tokens)
        outputs.square().mean().backward()
        results.append([outputs, tokens.grad, *(p.grad for p in memory.parameters())])
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(plain, recomputed, atol=1e-6, rtol=1e-5)


def test_the_state_has_the_same_size_after_any_history() -> None:
    memory = small_memory(layers=3)
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


def test_acting_leaves_no_graph_and_goes_on_outside_of_inference_mode() -> None:
    memory = small_memory()
    tokens = trial(memory, 2, 30)
    with torch.inference_mode():
        cache = memory.new_cache(2, "cpu")
        memory.extend(tokens[:, :20], cache)
    cache.reset(torch.tensor([False, True]))
    acted = act(memory, tokens[:, 20:], cache)
    assert not acted.requires_grad
    close(acted[0], memory(tokens)[0, 20:])
    close(acted[1], memory(tokens[:, 20:])[1])
    memory(tokens).sum().backward()


def test_bfloat16_autocast_leaves_the_recurrence_in_float32() -> None:
    memory = small_memory()
    tokens = trial(memory, 2, 20)
    with torch.autocast("cpu", torch.bfloat16):
        acted = act(memory, tokens, memory.new_cache(2, "cpu", torch.bfloat16))
        close(acted, memory(tokens))
    assert acted.dtype == torch.float32


def test_episode_starts_and_segments_change_nothing() -> None:
    memory = small_memory()
    tokens, starts = trial(memory, 2, 9), torch.arange(18).view(2, 9) % 4 == 0
    encoded = memory.encode(tokens, 3, starts)
    assert torch.equal(encoded.outputs, memory(tokens))
    assert encoded.memory_loss is None
    assert memory.draw_segment_length() == memory.config.segment_length
    caches = [memory.new_cache(2, "cpu") for _ in range(4)]
    stepped = memory.step(tokens[:, 0], caches[0], starts[:, 0])
    assert torch.equal(stepped, memory.step(tokens[:, 0], caches[1]))
    extended = memory.extend(tokens, caches[2], starts)
    assert torch.equal(extended, memory.extend(tokens, caches[3]))


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 16), "3 environments, the cache has 2"), ((2, 15), "with D = 16"), ((2,), "with D")],
)
def test_tokens_of_another_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    memory = small_memory()
    with pytest.raises(ValueError, match=message):
        memory.step(torch.zeros(shape), memory.new_cache(2, "cpu"))


@pytest.mark.parametrize("which", [torch.ones(3, dtype=torch.bool), torch.ones(2)])
def test_resets_of_another_shape_or_kind_are_refused(which: Tensor) -> None:
    with pytest.raises(ValueError, match=r"bool tensor of shape \[2\]"):
        small_memory().new_cache(2, "cpu").reset(which)
