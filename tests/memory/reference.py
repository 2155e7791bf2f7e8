"""Memo and full context word for word: everything re-encoded, every mask explicit, no cache.

Slow and obvious on purpose. It shares the weights of a `Memory`, none of its arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from memo_habitat.memory import Memory

Visible = Callable[[int, int], bool]  # may the token at this place see the token at that place?


def memo(memory: Memory, trial: Tensor, segment_length: int) -> Tensor:
    """Outputs [B, T, D] of the specification's sentences, one segment after the other."""
    batch, total, width = trial.shape
    length = memory.config.summary_length
    summaries = trial.new_zeros(batch, 0, width)
    outputs = []
    for start in range(0, total, segment_length):
        steps = trial[:, start : start + segment_length]
        queries = memory.queries.expand(batch, -1, -1)
        sequence = torch.cat([summaries, steps, queries], dim=1)
        # Positions: summary i at i*M .. (i+1)*M-1, steps of segment k from k*M, queries after.
        encoded = encode(memory, sequence, list(range(sequence.shape[1])), causal)
        first = summaries.shape[1]
        outputs.append(encoded[:, first : first + steps.shape[1]])
        summaries = torch.cat([summaries, encoded[:, -length:]], dim=1)
    return torch.cat(outputs, dim=1)


def full_context(memory: Memory, trial: Tensor) -> Tensor:
    """Outputs [B, T, D] of one causal pass over all steps."""
    return encode(memory, trial, list(range(trial.shape[1])), causal)


def causal(place: int, other: int) -> bool:
    """Itself and everything before it: in `memo` the older summaries and the own segment."""
    return other <= place


def encode(memory: Memory, tokens: Tensor, positions: list[int], visible: Visible) -> Tensor:
    """The backbone over a whole sequence [B, T, D]."""
    places = range(tokens.shape[1])
    mask = torch.tensor([[True] + [visible(i, j) for j in places] for i in places])  # sink first
    x = tokens
    for block in memory.blocks:
        x = x + _attention(block.attention, _norm(x, block.attention_norm.weight), positions, mask)
        gate, up = (_norm(x, block.mlp_norm.weight) @ block.mlp.gate_up.weight.T).chunk(2, -1)
        x = x + (_tanh_gelu(gate) * up) @ block.mlp.down.weight.T
    return _norm(x, memory.norm.weight)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def _tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _attention(attention, x: Tensor, positions: list[int], mask: Tensor) -> Tensor:
    heads, size = attention.heads, attention.head_dim
    q, k, v = (
        (x @ weight.T).unflatten(-1, (heads, size)).transpose(1, 2)
        for weight in attention.qkv.weight.chunk(3)
    )
    q, k = _turn(q, positions), _turn(k, positions)
    sink = (len(x), heads, 1, size)
    k = torch.cat([attention.sink_key.expand(sink), k], dim=2)
    v = torch.cat([attention.sink_value.expand(sink), v], dim=2)
    scores = (q @ k.transpose(-1, -2) / math.sqrt(size)).masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ attention.out.weight.T


def _turn(x: Tensor, positions: list[int], base: float = 10000.0) -> Tensor:
    """Rotary positions as complex numbers."""
    half = x.shape[-1] // 2
    angles = torch.tensor([[p * base ** (-i / half) for i in range(half)] for p in positions])
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angles), angles
    ).to(torch.complex128 if x.dtype == torch.float64 else torch.complex64)
    return torch.cat([turned.real, turned.imag], dim=-1)
