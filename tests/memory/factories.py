"""Small memories, trials and the strategies that draw them."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from memo_habitat.memory import Memory, MemoryConfig, build

KINDS = ("memo", "fct")
TOLERANCE = 1e-5
quick = settings(max_examples=12, deadline=None, derandomize=True, database=None)


def small_memory(kind: str = "memo", seed: int = 0, **sizes: object) -> Memory:
    """A memory in evaluation mode whose sink and summaries differ from their starting values."""
    torch.manual_seed(seed)
    chosen = {"width": 16, "layers": 2, "heads": 2, "hidden": 24, "depth_dropout": 0.0}
    chosen |= {"segment_length": 6, "summary_length": 2, **sizes}
    memory = build(MemoryConfig(kind=kind, **chosen)).eval()
    with torch.no_grad():
        for block in memory.blocks:
            block.attention.sink_key.normal_()
            if chosen.get("sink_value", "learned") == "learned":
                block.attention.sink_value.normal_()
    return memory


def trial(memory: Memory, batch: int, steps: int, seed: int = 1) -> Tensor:
    """Random tokens [B, T, D]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, memory.config.width, generator=generator)


@st.composite
def memories(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> Memory:
    """Memories of random small sizes."""
    segment = draw(st.integers(2, 9))
    return small_memory(
        draw(st.sampled_from(kinds)),
        seed=draw(st.integers(0, 99)),
        layers=draw(st.integers(1, 3)),
        heads=draw(st.sampled_from((1, 2, 4))),
        segment_length=segment,
        summary_length=draw(st.integers(1, segment - 1)),
        sink_value=draw(st.sampled_from(("learned", "zero"))),
    )
