"""Wrong sizes and shapes are named, and the package stands on torch alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from memo_habitat.errors import UserError
from memo_habitat.memory import MemoryConfig, build

from .factories import small_memory, trial


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "mem"}, r"kind 'mem' is unknown: use one of memo, fct, .*memory\.register"),
        ({"summary_length": 256}, "summary_length 256 is not below segment_length 256"),
        ({"width": 250}, "width 250 does not split into 8 heads .* multiple of 16"),
        ({"width": 24}, "width 24 does not split into 8 heads of an even size"),
        ({"layers": 0}, "layers is 0: it must be at least 1"),
        ({"segment_jitter": 1.0}, r"segment_jitter is 1.0: it must be in \[0, 1\)"),
        ({"depth_dropout": -0.1}, r"depth_dropout is -0.1"),
        ({"sink_value": "one"}, "sink_value 'one': use one of"),
        ({"rope_base": 0.5}, "rope_base is 0.5: it must be above 1"),
        ({"kind": "ac", "detach_probability": 1.5}, r"detach_probability is 1.5: .* \[0, 1\]"),
        ({"top_k": -1}, "top_k is -1: it must be at least 0"),
        ({"memory_loss": "mse"}, "memory_loss 'mse': use one of"),
        ({"memory_loss_coef": float("nan")}, "memory_loss_coef is nan: .* finite"),
        ({"memory_loss_coef": float("inf")}, "memory_loss_coef is inf"),
        ({"rope_base": float("nan")}, "rope_base is nan"),
        ({"segment_jitter": float("nan")}, "segment_jitter is nan"),
        ({"kind": "rmt", "token_budget": 512}, "leave it at 0, or use one of memo, fct, ac$"),
        ({"kind": "fct", "top_k": 4}, "top_k=4 means nothing to kind 'fct': leave it at 0"),
        ({"kind": "lstm", "token_budget": 512}, "token_budget=512 means nothing to kind 'lstm'"),
        (
            {"segment_jitter_in": "pass"},
            "segment_jitter_in 'pass': use one of update, update_with_",
        ),
        ({"kind": "fct", "segment_jitter_in": "trial"}, "=trial means nothing to kind 'fct'"),
        (
            {"segment_jitter_in": "trial", "segment_jitter": 0.0},
            "=trial draws nothing, .* every segment has 256 steps: .* leave it at update",
        ),
        (
            {"segment_jitter_in": "update_with_recomputed_ratios", "segment_jitter": 0.003},
            "_ratios draws nothing, as with segment_jitter 0.003",
        ),
        ({"token_budget": 287}, "token_budget 287 does not hold .* use at least 288"),
        ({"kind": "fct", "token_budget": 256}, "token_budget 256 does not hold .* at least 257"),
    ],
)
def test_sizes_that_do_not_fit_are_named_with_the_remedy(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(MemoryConfig(**values))


def test_full_context_does_not_mind_its_unused_summary_length() -> None:
    build(MemoryConfig(kind="fct", summary_length=300))


@pytest.mark.parametrize("kind", ["memo", "lstm"])
def test_wrong_token_shapes_are_named(kind: str) -> None:
    memory = small_memory(kind)
    cache = memory.new_cache(2, "cpu")
    with pytest.raises(ValueError, match=r"tokens must be \[B, T, D\].*D = 16; got \[2, 5, 8\]"):
        memory(torch.zeros(2, 5, 8))
    for wrong in (torch.zeros(2, 1, 16), torch.zeros(2, 15), torch.zeros(2)):
        with pytest.raises(ValueError, match=r"\[N, D\], none of them 0, with D = 16"):
            memory.step(wrong, cache)
    with pytest.raises(ValueError, match=r"\[N, C, D\].*got \[2, 0, 16\]"):
        memory.extend(torch.zeros(2, 0, 16), cache)
    with pytest.raises(ValueError, match="3 environments, the cache has 2"):
        memory.step(torch.zeros(3, 16), cache)


def test_a_segment_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="segment_length is 0"):
        small_memory()(torch.zeros(2, 5, 16), segment_length=0)


@pytest.mark.parametrize("kind", ["memo", "lstm"])
def test_a_cache_for_nobody_and_resets_of_another_shape_are_refused(kind: str) -> None:
    for batch in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1 environment, got {batch}"):
            small_memory(kind).new_cache(batch, "cpu")
    cache = small_memory(kind).new_cache(3, "cpu")
    with pytest.raises(ValueError, match=r"\[3\], got torch.bool of shape \[2\]"):
        cache.reset(torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r"torch.int64"):
        cache.reset(torch.tensor([1, 0, 1]))


@pytest.mark.parametrize("wrong", [None, torch.ones(3, 1, dtype=torch.bool)])
def test_no_inter_episode_attention_says_what_it_needs(wrong: torch.Tensor | None) -> None:
    memory = small_memory("no_iea")
    cache, tokens = memory.new_cache(3, "cpu"), trial(memory, 3, 4)
    needs = r"needs episode_starts, bool "
    with pytest.raises(ValueError, match=needs + r"\[B, T\] = \[3, 4\]; got"):
        memory(tokens, None, wrong)
    with pytest.raises(ValueError, match=needs + r"\[N\] = \[3\]; got"):
        memory.step(tokens[:, 0], cache, wrong)
    with pytest.raises(ValueError, match=needs + r"\[N, C\] = \[3, 4\]; got"):
        memory.extend(tokens, cache, wrong)


@pytest.mark.slow
def test_the_memory_imports_no_habitat_and_no_hydra() -> None:
    program = "import sys, memo_habitat.memory; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    roots = {name.split(".")[0] for name in done.stdout.split()}
    assert not roots & {"habitat", "habitat_baselines", "habitat_sim", "hydra", "omegaconf", "gym"}
