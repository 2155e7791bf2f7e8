"""Small memories, trials and the strategies that draw them."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from memo_habitat.memory import MemoryConfig, MemoTransformer, build
from memo_habitat.memory.kv_cache import KVCache

# What users can ask for, by name: settings beyond the sizes.
FLAVOURS: dict[str, dict[str, object]] = {
    "memo": {},
    "fct": {"kind": "fct"},
    "rmt": {"kind": "rmt"},
    "ac": {"kind": "ac"},
    "no_iea": {"kind": "no_iea"},
    "top_k": {"top_k": 3},
    "rmt_top_k": {"kind": "rmt", "top_k": 1},
    "summary_layer": {"summary_layer": True},
}
ALL = tuple(FLAVOURS)
KINDS = ("memo", "fct")
FLAVOURS["lstm"] = {"kind": "lstm"}
FLAVOURS["gru"] = {"kind": "gru"}  # attend to nothing: only where acting is what matters
EVERY = tuple(FLAVOURS)
SUMMARISING = tuple(name for name in ALL if name not in ("fct", "no_iea"))
TOLERANCE = 1e-5
quick = settings(max_examples=12, deadline=None, derandomize=True, database=None)
thorough = settings(quick, max_examples=30)


def small_memory(flavour: str = "memo", seed: int = 0, **sizes: object) -> MemoTransformer:
    """A memory in evaluation mode whose sink and summaries differ from their starting values."""
    torch.manual_seed(seed)
    chosen = {"width": 16, "layers": 2, "heads": 2, "hidden": 24, "depth_dropout": 0.0}
    chosen |= {"segment_length": 6, "summary_length": 2, **FLAVOURS[flavour], **sizes}
    memory = build(MemoryConfig(**chosen)).eval()
    with torch.no_grad():
        for name, parameter in memory.named_parameters():
            if "sink" in name or name == "queries":
                parameter.normal_()
    return memory


def trial(memory: MemoTransformer, batch: int, steps: int, seed: int = 1) -> Tensor:
    """Random tokens [B, T, D]."""
    generator = torch.Generator().manual_seed(seed)
    weight = next(memory.parameters())
    tokens = torch.randn(batch, steps, memory.config.width, generator=generator)
    return tokens.to(weight.dtype)


def starts(batch: int, steps: int, seed: int = 2) -> Tensor:
    """Random first steps of episodes, bool [B, T]; the first step of the trial is one."""
    generator = torch.Generator().manual_seed(seed)
    begins = torch.rand(batch, steps, generator=generator) < 0.2
    begins[:, 0] = True
    return begins


def act(memory: MemoTransformer, tokens: Tensor, cache: KVCache, begins: Tensor) -> Tensor:
    """Step through [N, T, D] one step at a time; begins: bool [N, T]."""
    steps = zip(tokens.unbind(1), begins.unbind(1), strict=True)
    return torch.stack([memory.step(now, cache, begin) for now, begin in steps], dim=1)


def close(actual: Tensor, expected: Tensor) -> None:
    """Equal up to rounding."""
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


def near_in_bfloat16(memory: MemoTransformer, actual: Tensor, expected: Tensor) -> None:
    """Equal but for rounding to 8 bits, at outputs of RMS 1; seen: mean 0.003, largest 0.024."""
    error = (actual - expected).detach().abs().flatten()
    assert error.mean() < 5e-3
    if memory.config.top_k:
        return  # of two summaries that score nearly alike, rounding may retrieve the other
    assert error.quantile(0.99) < 2e-2
    assert error.max() < 5e-2


@st.composite
def memories(draw: st.DrawFn, flavours: tuple[str, ...] = ALL) -> MemoTransformer:
    """Memories of random small sizes."""
    segment = draw(st.integers(2, 9))
    return small_memory(
        draw(st.sampled_from(flavours)),
        seed=draw(st.integers(0, 99)),
        layers=draw(st.integers(1, 3)),
        heads=draw(st.sampled_from((1, 2, 4))),
        segment_length=segment,
        summary_length=draw(st.integers(1, segment - 1)),
        sink_value=draw(st.sampled_from(("learned", "zero"))),
    )
