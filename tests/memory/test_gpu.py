"""On a GPU: the same numbers as on a CPU, by fused attention, without a mask over the history."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.attention import SDPBackend, sdpa_kernel

from memo_habitat.testing.memory_conformance import check_memory, sample_trial

from .factories import EVERY, TRANSFORMERS, act, near_in_bfloat16, small_memory

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use"),
]


@pytest.fixture(autouse=True)
def _exact() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False


def outputs_and_gradients(memory: Any, device: str) -> list[Tensor]:
    """Of a training pass of three segments and a half; gradients of tokens and parameters."""
    memory = memory.to(device)
    memory.zero_grad()
    tokens, starts = sample_trial(memory, 2, 21)
    tokens.requires_grad_()
    output = memory(tokens, None, starts)
    weights = torch.arange(output.numel(), device=device).view_as(output).cos()
    (output * weights).sum().backward()  # that of squares has next to no gradient: they are normed
    return [x.cpu().clone() for x in (output, tokens.grad, *(p.grad for p in memory.parameters()))]


@pytest.mark.parametrize("flavour", EVERY)
def test_training_equals_that_of_a_cpu(flavour: str) -> None:
    memory = small_memory(flavour)
    expected = outputs_and_gradients(memory, "cpu")
    for there, here in zip(outputs_and_gradients(memory, DEVICE), expected, strict=True):
        torch.testing.assert_close(there, here, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("flavour", EVERY)
def test_it_conforms(flavour: str) -> None:
    # cuDNN computes a sequence of an LSTM or GRU otherwise than a step, 5e-4 apart.
    with torch.backends.cudnn.flags(enabled=False):
        check_memory(small_memory(flavour).to(DEVICE))


@pytest.mark.parametrize("flavour", TRANSFORMERS)
def test_bfloat16_stays_near_single_precision_in_training_and_acting(flavour: str) -> None:
    memory = small_memory(flavour).to(DEVICE)
    tokens, starts = sample_trial(memory, 2, 30)
    expected = memory(tokens, None, starts)
    with torch.autocast(DEVICE, torch.bfloat16):
        near_in_bfloat16(memory, memory(tokens, None, starts), expected)
        cache = memory.new_cache(2, DEVICE, torch.bfloat16)
        near_in_bfloat16(memory, act(memory, tokens, cache, starts), expected)


@pytest.mark.parametrize("kind", ["memo", "fct", "rmt", "no_iea"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_mask_is_made_in_a_training_pass(kind: str, dtype: torch.dtype) -> None:
    steps = 8192
    sizes = {"width": 16, "heads": 2, "hidden": 16, "layers": 1}
    memory = small_memory(kind, **sizes, segment_length=steps // 2, summary_length=64).to(DEVICE)
    tokens, starts = sample_trial(memory, 1, steps)
    starts[:, 1:] = False
    tokens.requires_grad_()
    # The kernel of bfloat16 cannot take masks at all; that of float32 would show its bytes.
    backend = (
        SDPBackend.FLASH_ATTENTION if dtype == torch.bfloat16 else SDPBackend.EFFICIENT_ATTENTION
    )
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with sdpa_kernel(backend), torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
        memory(tokens, None, starts).float().sum().backward()
    # One byte for each pair of steps, or of two steps of a segment: the least that a mask takes.
    pairs = (steps if kind in ("fct", "no_iea") else steps // 2) ** 2
    least_mask = pairs if kind in ("fct", "no_iea") else 4 * pairs  # in float32, as kernels want it
    assert torch.cuda.max_memory_allocated() - before < least_mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "flavour", ["memo", "fct", "rmt", "ac", "top_k", "summary_layer", "memory_loss"]
)
def test_recorded_training_passes_give_what_computed_ones_do(
    flavour: str, dtype: torch.dtype
) -> None:
    options = {"memory_loss": "reconstruction"} if flavour == "memory_loss" else {}
    kind = "memo" if options else flavour
    computed, recorded = (
        small_memory(kind, **options, segment_jitter=0.0, cuda_graphs=is_recorded).to(DEVICE)
        for is_recorded in (False, True)
    )
    is_low = dtype == torch.bfloat16
    tolerance = 0.05 if is_low else 1e-4
    for seed in range(4):  # computed, recorded, replayed twice
        found = []
        for memory in (computed, recorded):
            memory.zero_grad()
            tokens = sample_trial(memory, 2, 21, seed)[0].requires_grad_()
            with torch.autocast(DEVICE, dtype, enabled=is_low):
                encoded = memory.encode(tokens)
            outputs = encoded.outputs.float()
            loss = (
                outputs * torch.arange(outputs.numel(), device=DEVICE).view_as(outputs).cos()
            ).sum()
            (loss + (encoded.auxiliary_loss or 0.0)).backward()
            found.append([outputs.detach(), tokens.grad, *(p.grad for p in memory.parameters())])
        for there, here in zip(*found, strict=True):
            scale = float(here.abs().max()) or 1.0
            torch.testing.assert_close(there / scale, here / scale, atol=tolerance, rtol=0)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="torch.compile needs a C compiler")
@pytest.mark.parametrize(("flavour", "dtype"), [("memo", torch.float32), ("fct", torch.bfloat16)])
def test_compiled_acting_is_a_cuda_graph_that_gives_the_same(
    flavour: str, dtype: torch.dtype
) -> None:
    torch._dynamo.reset()
    counters.clear()
    memory = small_memory(flavour).to(DEVICE)
    tokens, starts = sample_trial(memory, 3, 600)  # that of full context grows on the way
    expected = act(memory, tokens, memory.new_cache(3, DEVICE), starts)
    memory.config.compile_acting = True
    cache, is_low = memory.new_cache(3, DEVICE, dtype), dtype == torch.bfloat16
    with torch.inference_mode(), torch.autocast(DEVICE, dtype, enabled=is_low):
        found = act(memory, tokens, cache, starts)
    if is_low:
        near_in_bfloat16(memory, found, expected)
    else:
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert counters["stats"]["unique_graphs"] == 1
    assert counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.parametrize("flavour", ["memo", "fct", "rmt", "top_k", "summary_layer"])
@pytest.mark.parametrize("ragged", [False, True])
def test_acting_never_waits_for_the_gpu(flavour: str, ragged: bool) -> None:
    memory = small_memory(flavour).to(DEVICE)
    tokens, starts = sample_trial(memory, 3, 40)
    cache = memory.new_cache(3, DEVICE)
    memory.extend(tokens[:, :15], cache, starts[:, :15])
    cache.reset(torch.tensor([False, ragged, False]))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(15, 40):  # closes several segments
            memory.step(tokens[:, step], cache, starts[:, step])
    finally:
        torch.cuda.set_sync_debug_mode("default")
