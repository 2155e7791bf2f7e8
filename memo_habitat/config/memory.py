"""The settings of the agent's memory: the one place that names its sizes and their defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MemoryConfig:
    """Sizes and options of the memory transformer (Memo, arXiv 2510.19732).

    kind: "memo", "fct", "rmt", "ac", "no_iea", "lstm" or "gru"; one given to `memory.register`; or
        a class of your own as "package.module:Class".
    width: D, features of a token.
    layers: L, transformer blocks.
    heads: H, attention heads; D / H must be even (rotary positions turn pairs).
    hidden: hidden width of the gated MLP.
    segment_length: S, steps between two summaries.
    summary_length: M, summary tokens made per segment; less than S.
    segment_jitter: share of S by which the segment length varies in training, both ways.
    segment_jitter_in: where lengths are drawn. "update": for every pass of an update, while acting
        has segments of S steps, so that a learned policy is not quite the one that acted.
        "update_with_recomputed_ratios": for an update, which compares with what its first weights
        would have done at that length. "trial": for the trials of a rollout, in acting as in
        learning.
    depth_dropout: probability that a training pass skips a layer.
    sink_value: "learned" or "zero", the value of the attention sink.
    rope_base: base of the rotary wave lengths.
    detach_probability: of `ac`, with which a new summary loses its gradient in training.
    token_budget: most tokens an acting step attends to, the oldest being dropped; 0: no limit.
    summary_layer: one more layer of its own turns the outputs at the queries into the summary.
    top_k: summary tokens that each head attends to, those with the highest scores; 0: all.
    memory_loss: "none", or predict from a summary the tokens of its own segment
        ("reconstruction") or of the segment after it ("prediction"), or whether and where each
        category was detected in it ("observations", with the encoder "detections").
    memory_loss_coef: weight of that loss.
    activation_checkpointing: recompute activations in the backward pass: less memory, more time.
    compile: fuse each layer's elementwise work in training by `torch.compile`, which needs a C++
        compiler.
    cuda_graphs: on a GPU, record the training passes of one shape and launch each as two CUDA
        graphs; for that segments need lengths that come back, see segment_jitter_in.
    compile_acting: `torch.compile` for the step of acting with all of the policy around the
        memory, which a GPU then launches as a few CUDA graphs.
    """

    kind: str = "memo"
    width: int = 256
    layers: int = 4
    heads: int = 8
    hidden: int = 1024
    segment_length: int = 256
    summary_length: int = 32
    segment_jitter: float = 0.2
    segment_jitter_in: str = "update"
    depth_dropout: float = 0.1
    sink_value: str = "learned"
    rope_base: float = 10000.0
    detach_probability: float = 1.0
    token_budget: int = 0
    summary_layer: bool = False
    top_k: int = 0
    memory_loss: str = "none"
    memory_loss_coef: float = 0.1
    activation_checkpointing: bool = False
    compile: bool = False
    cuda_graphs: bool = False
    compile_acting: bool = False
