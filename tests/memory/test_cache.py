"""The cache holds what the method says, in as many bytes as it says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from memo_habitat.memory import MemoTransformer
from memo_habitat.memory.kv_cache import KVCache

from .factories import KINDS, memories, quick, small_memory, starts, trial


@quick
@given(memories(), st.integers(0, 40))
def test_tokens_in_use_follow_the_formula(memory: MemoTransformer, steps: int) -> None:
    cache = memory.new_cache(2, "cpu")
    config, begins = memory.config, starts(2, 40)
    for step in range(steps):
        memory.step(trial(memory, 2, 1)[:, 0], cache, begins[:, step])
        closed, rest = divmod(step + 1, config.segment_length)
        kept = {"fct": 0, "no_iea": 0, "rmt": min(closed, 1)}.get(config.kind, closed)
        expected = [kept * config.summary_length + rest] * 2
        if config.kind == "fct":
            expected = [step + 1] * 2
        if config.kind == "no_iea":
            expected = [step + 1 - int(row[: step + 1].nonzero().max()) for row in begins]
        assert cache.tokens_in_use().tolist() == expected
    assert cache.steps.tolist() == [steps] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_in_use_follow_the_formula(dtype: torch.dtype) -> None:
    memory = small_memory(layers=3)
    cache = memory.new_cache(2, "cpu", dtype)
    memory.extend(trial(memory, 2, 9), cache)
    cache.reset(torch.tensor([False, True]))
    assert cache.bytes_in_use().tolist() == [2 * 3 * 16 * (2 + 3) * dtype.itemsize, 0]


def test_reset_empties_the_chosen_rows_and_gives_nothing_back() -> None:
    memory = small_memory()
    cache = memory.new_cache(3, "cpu")
    memory.extend(trial(memory, 3, 8), cache)
    allocated = cache.allocated_bytes()
    cache.reset(torch.tensor([True, False, True]))
    assert cache.steps.tolist() == [0, 8, 0]
    assert cache.tokens_in_use().tolist() == [0, 4, 0]
    assert cache.allocated_bytes() == allocated


def filled(memory: MemoTransformer, tokens: Tensor, ragged: bool) -> KVCache:
    """A cache of three environments after [3, T, D], the second reset after seven steps or not."""
    cache = memory.new_cache(3, "cpu")
    memory.extend(tokens[:, :7], cache)
    cache.reset(torch.tensor([False, ragged, False]))
    memory.extend(tokens[:, 7:], cache)
    return cache


def test_memo_keeps_less_than_a_seventh_of_full_context() -> None:
    sizes = {"width": 8, "layers": 1, "segment_length": 256, "summary_length": 32}
    caches = {}
    for kind in KINDS:
        memory = small_memory(kind, **sizes)
        caches[kind] = memory.new_cache(1, "cpu")
        for part in trial(memory, 1, 32_000).split(1000, dim=1):
            if kind == "memo":
                memory.extend(part, caches[kind])
            else:
                caches[kind].begin(slice(0, 1), part)  # its size is what counts here
    assert caches["fct"].allocated_bytes() >= 7 * caches["memo"].allocated_bytes()
    assert (caches["fct"].bytes_in_use() >= 7 * caches["memo"].bytes_in_use()).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ragged", [False, True])
def test_a_step_allocates_no_more_after_a_long_history(kind: str, ragged: bool) -> None:
    memory = small_memory(kind, segment_length=64, summary_length=56)
    allocated = []
    for steps in (1003, 3003):
        cache = filled(memory, trial(memory, 3, steps), ragged)
        before = cache.allocated_bytes()
        memory.step(trial(memory, 3, 1)[:, 0], cache)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            memory.step(trial(memory, 3, 1)[:, 0], cache)
        assert cache.allocated_bytes() == before
        events = profiled.key_averages()
        allocated.append(sum(max(0, event.self_cpu_memory_usage) for event in events))
    assert allocated[0] == allocated[1] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_growing_keeps_what_was_there(kind: str) -> None:
    memory = small_memory(kind, segment_length=8, summary_length=7)
    tokens = trial(memory, 3, 600)
    cache = filled(memory, tokens[:, :200], ragged=True)
    outputs = [memory.step(now, cache) for now in tokens[:, 200:].unbind(1)]
    actual = torch.stack(outputs, dim=1)
    for row, start in ((0, 0), (1, 7), (2, 0)):
        expected = memory(tokens[row : row + 1, start:])[0, 200 - start :]
        torch.testing.assert_close(actual[row], expected, atol=1e-5, rtol=0)


def test_rows_of_different_lengths_cannot_take_several_tokens_at_once() -> None:
    memory = small_memory()
    cache = filled(memory, trial(memory, 3, 9), ragged=True)
    with pytest.raises(ValueError, match="different lengths"):
        cache.begin(slice(0, 3), torch.zeros(3, 2, 16))


def test_reset_wants_one_bool_per_environment() -> None:
    cache = small_memory().new_cache(3, "cpu")
    with pytest.raises(ValueError, match=r"\[3\], got torch.bool of shape \[2\]"):
        cache.reset(torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r"torch.int64"):
        cache.reset(torch.tensor([1, 0, 1]))


@pytest.mark.parametrize("flavour", ["memo", "no_iea", "top_k", "lstm"])
def test_repeated_rows_go_on_as_the_row_would_have(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens, begins = trial(memory, 6, 30), starts(6, 30)
    cache = memory.new_cache(2, "cpu")
    memory.extend(tokens[:2, :10], cache, begins[:2, :10])
    cache.reset(torch.tensor([False, True]))
    memory.extend(tokens[:2, 10:17], cache, begins[:2, 10:17])
    six = cache.repeated(3)
    after = [memory.step(tokens[:, step], six, begins[:, step]) for step in range(17, 30)]
    for start in range(3):  # rows 0, 3 and 1, 4 and 2, 5 of the six are copies of rows 0 and 1
        rows = [start, 3 + start]
        alone = cache.repeated(1)
        for step, both in enumerate(after, start=17):
            expected = memory.step(tokens[rows, step], alone, begins[rows, step])
            torch.testing.assert_close(both[rows], expected, atol=1e-5, rtol=0)
    assert six.steps.tolist() == [30] * 3 + [20] * 3


@pytest.mark.parametrize("flavour", ["memo", "fct"])
def test_a_reset_heals_a_row_that_was_not_finite(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens = trial(memory, 2, 20)
    cache = memory.new_cache(2, "cpu")
    memory.extend(tokens[:, :7], cache)
    broken = tokens[:, 7].clone()
    broken[0] = torch.nan
    memory.step(broken, cache)
    cache.reset(torch.tensor([True, False]))
    acted = torch.stack([memory.step(now, cache) for now in tokens[:, 8:].unbind(1)], dim=1)
    torch.testing.assert_close(acted[0], memory(tokens[:1, 8:])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("flavour", ["memo", "fct"])
def test_streaming_feeds_in_what_came_in_whatever_the_type_of_the_cache(
    flavour: str, dtype: torch.dtype
) -> None:
    memory = small_memory(flavour, token_budget=9)
    outputs = []
    for cache in (memory.new_cache(1, "cpu", dtype), memory.new_cache(1, "cpu")):
        steps = trial(memory, 1, 40).unbind(1)
        outputs.append(torch.stack([memory.step(now, cache) for now in steps]))
    assert (outputs[0] - outputs[1]).abs().mean() < 2e-2


def test_a_cache_repeated_in_inference_mode_goes_on_outside_of_it() -> None:
    memory = small_memory()
    with torch.inference_mode():
        cache = memory.new_cache(1, "cpu")
        memory.extend(trial(memory, 1, 8), cache)
        cache = cache.repeated(2)
    cache.reset(torch.tensor([True, False]))
    memory.step(trial(memory, 2, 1)[:, 0], cache)


def test_starts_of_the_wrong_shape_are_named() -> None:
    memory = small_memory("no_iea")
    cache, tokens = memory.new_cache(3, "cpu"), trial(memory, 3, 4)
    wrong = torch.ones(3, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"bool \[N\] = \[3\]; got torch.bool of shape \[3, 1\]"):
        memory.step(tokens[:, 0], cache, wrong)
    with pytest.raises(ValueError, match=r"bool \[N, C\] = \[3, 4\]; got .*\[3, 1\]"):
        memory.extend(tokens, cache, wrong)
    with pytest.raises(ValueError, match=r"bool \[B, T\] = \[3, 4\]; got .*\[3, 1\]"):
        memory(tokens, None, wrong)
