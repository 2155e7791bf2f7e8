"""A compiled step of acting is one graph for a whole trial, and gives what an eager one does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from memo_habitat.memory import static_step
from memo_habitat.testing.memory_conformance import TOLERANCE, sample_trial

from .factories import TRANSFORMERS, M, S, small_memory, trial
from .test_launches import count

FAST = ("memo", "top_k")


@pytest.fixture(autouse=True)
def _traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compile as `torch.compile` does but for the last stage, which needs a C++ compiler.

    With `fullgraph` what cannot be in the graph is an error.
    """
    monkeypatch.setattr(
        torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True)
    )
    static_step.compiled.cache_clear()
    torch._dynamo.reset()
    counters.clear()
    yield
    static_step.compiled.cache_clear()
    torch._dynamo.reset()


@torch.inference_mode()
def acted(flavour: str, steps: int, resets: dict[int, int], **sizes: object) -> Tensor:
    """Outputs of three environments step by step; resets: step to the row that begins again."""
    memory = small_memory(flavour, **sizes)
    tokens, starts = sample_trial(memory, 3, steps)
    cache, outputs = memory.new_cache(3, "cpu"), []
    for step in range(steps):
        if step in resets:
            cache.reset(torch.arange(3) == resets[step])
        outputs.append(memory.step(tokens[:, step], cache, starts[:, step]))
    return torch.stack(outputs)


@pytest.mark.parametrize(
    ("flavour", "sizes"),
    [
        *(pytest.param(f, {}, marks=() if f in FAST else pytest.mark.slow) for f in TRANSFORMERS),
        ("memo", {"token_budget": 2 * S + M}),
        pytest.param("fct", {"token_budget": 2 * S}, marks=pytest.mark.slow),
    ],
)
def test_it_acts_as_without_through_segments_ends_and_resets(
    flavour: str, sizes: dict[str, object]
) -> None:
    resets = {S + 1: 1, 3 * S + 2: 0, 3 * S + 3: 1}
    steps = 5 * S
    expected = acted(flavour, steps, resets, **sizes)
    found = acted(flavour, steps, resets, compile_acting=True, **sizes)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("kind", ["fct", pytest.param("memo", marks=pytest.mark.slow)])
def test_longer_caches_are_served_by_the_same_graph(kind: str) -> None:
    sizes = {"layers": 1, "segment_length": 8, "summary_length": 7}
    # Three times more is allocated, for either; what was acted is in it still.
    found = acted(kind, 700, {}, compile_acting=True, **sizes)
    torch.testing.assert_close(found, acted(kind, 700, {}, **sizes), atol=TOLERANCE, rtol=0)
    assert counters["stats"]["unique_graphs"] == 1


def test_a_cache_grows_by_halves_so_that_its_sizes_are_few() -> None:
    memory = small_memory("fct", layers=1, compile_acting=True)
    cache, sizes = memory.new_cache(1, "cpu"), set()
    for part in trial(memory, 1, 8000).split(100, dim=1):
        memory.extend(part, cache)
        sizes.add(cache.keys(0).shape[2])
    assert len(sizes) <= 9
    assert max(sizes) < 1.5 * 8000 + 256


def test_outside_the_graph_a_step_is_a_handful_of_operators_whatever_the_layers() -> None:
    outside = []
    for layers in (2, 5):
        memory = small_memory(layers=layers)
        cache, tokens = memory.new_cache(3, "cpu"), trial(memory, 3, S)
        memory.extend(tokens[:, :2], cache)
        given = tokens[:, 2:3], memory.rotary, memory.sinks()
        outside.append(count(partial(cache.begin_step, *given)).operators)
    assert outside[0] == outside[1] <= 5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_to_the_end_it_acts_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="inductor"))
    expected = acted("memo", 3 * S, {S + 1: 1}, layers=1)
    found = acted("memo", 3 * S, {S + 1: 1}, layers=1, compile_acting=True)
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
