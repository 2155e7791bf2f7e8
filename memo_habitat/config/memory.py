"""The settings of the agent's memory: the one place that names its sizes and their defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MemoryConfig:
    """Sizes and options of the memory transformer (Memo, arXiv 2510.19732).

    kind: memory variant, a key of `memo_habitat.memory.variants.VARIANTS`.
    width: D, features of a token.
    layers: L, transformer blocks.
    heads: H, attention heads; D / H must be even (rotary positions turn pairs).
    hidden: hidden width of the gated MLP.
    segment_length: S, steps between two summaries.
    summary_length: M, summary tokens made per segment; less than S.
    segment_jitter: share of S by which the segment length varies in training passes, both ways.
    depth_dropout: probability that a training pass skips a layer.
    sink_value: "learned" or "zero", the value of the attention sink.
    rope_base: base of the rotary wave lengths.
    """

    kind: str = "memo"
    width: int = 256
    layers: int = 4
    heads: int = 8
    hidden: int = 1024
    segment_length: int = 256
    summary_length: int = 32
    segment_jitter: float = 0.2
    depth_dropout: float = 0.1
    sink_value: str = "learned"
    rope_base: float = 10000.0
