"""Every variant word for word: everything re-encoded, every mask explicit, no cache.

Slow and obvious on purpose. It shares the weights of a `MemoTransformer`, none of its arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from memo_habitat.memory import MemoTransformer

Visible = Callable[[int, int], bool]  # may the token at this place see the token at that place?


def outputs(
    memory: MemoTransformer,
    trial: Tensor,
    episode_starts: Tensor,
    segment_length: int | None = None,
) -> Tensor:
    """Outputs [B, T, D] by the specification's sentences."""
    length = segment_length or memory.config.segment_length
    if memory.config.kind == "no_iea":
        return within_episodes(memory, trial, episode_starts)
    if memory.config.kind == "fct":
        return full_context(memory, trial)
    return by_segments(memory, trial, length)


def by_segments(memory: MemoTransformer, trial: Tensor, segment_length: int) -> Tensor:
    """memo, ac, rmt and streaming memo: one segment after the other, all summaries fed again."""
    config = memory.config
    batch, total, width = trial.shape
    length = config.summary_length
    summaries = trial.new_zeros(batch, 0, width)
    found = []
    for start in range(0, total, segment_length):
        steps = trial[:, start : start + segment_length]
        sequence = torch.cat([summaries, steps, memory.queries.expand(batch, -1, -1)], dim=1)
        # Positions: summary i at i*M .. (i+1)*M-1, steps of segment k from k*M, queries after.
        old = summaries.shape[1]
        encoded = encode(memory, sequence, range(sequence.shape[1]), causal, _groups(old, length))
        found.append(encoded[:, old : old + steps.shape[1]])
        summaries = torch.cat([summaries, _summary(memory, encoded[:, -length:])], dim=1)
        if config.kind == "rmt":
            summaries = summaries[:, -length:]
        while config.token_budget and summaries.shape[1] + segment_length > config.token_budget:
            summaries = summaries[:, length:]
    return torch.cat(found, dim=1)


def full_context(memory: MemoTransformer, trial: Tensor) -> Tensor:
    """fct: one causal pass over all steps; streaming, a pass for every step over what is left."""
    config = memory.config
    if not config.token_budget:
        return encode(memory, trial, range(trial.shape[1]), causal)
    kept, found = trial[:, :0], []
    for step in trial.split(1, dim=1):
        if kept.shape[1] == config.token_budget:
            kept = kept[:, config.segment_length :]
        kept = torch.cat([kept, step], dim=1)
        found.append(encode(memory, kept, range(kept.shape[1]), causal)[:, -1:])
    return torch.cat(found, dim=1)


def within_episodes(memory: MemoTransformer, trial: Tensor, episode_starts: Tensor) -> Tensor:
    """no_iea: every episode as if it were a trial of its own."""
    rows = []
    for tokens, begins in zip(trial, episode_starts, strict=True):
        borders = [0, *(i for i in range(1, len(begins)) if begins[i]), len(begins)]
        rows.append(
            torch.cat(
                [
                    encode(memory, tokens[None, a:b], range(b - a), causal)
                    for a, b in pairwise(borders)
                ],
                dim=1,
            )
        )
    return torch.cat(rows)


def causal(place: int, other: int) -> bool:
    """Itself and everything before it: in `memo` the older summaries and the own segment."""
    return other <= place


def _groups(summary_tokens: int, length: int) -> Visible:
    """Is the other place that of a summary which this place is not part of?"""

    def retrieved(place: int, other: int) -> bool:
        own = place // length if place < summary_tokens else -1
        return other < summary_tokens and other // length != own

    return retrieved


def _summary(memory: MemoTransformer, made: Tensor) -> Tensor:
    if memory.summary_block is None:
        return made
    x = block_output(memory.summary_block, made, range(made.shape[1]), causal)
    return _norm(x, memory.summary_norm.weight)


def encode(memory, tokens, positions, visible: Visible, retrieved: Visible | None = None) -> Tensor:
    """The backbone over a whole sequence [B, T, D]; `retrieved` places are subject to top-k."""
    x = tokens
    for block in memory.blocks:
        x = block_output(block, x, positions, visible, retrieved, memory.config.top_k)
    return _norm(x, memory.norm.weight)


def block_output(block, x, positions, visible: Visible, retrieved=None, top_k: int = 0) -> Tensor:
    """One block over a whole sequence [B, T, D]."""
    places = range(x.shape[1])
    mask = torch.tensor([[True] + [visible(i, j) for j in places] for i in places])  # sink first
    candidates = None
    if top_k:
        candidates = torch.tensor([[False] + [retrieved(i, j) for j in places] for i in places])
    normed = _norm(x, block.attention_norm.weight)
    x = x + _attention(block.attention, normed, list(positions), mask, candidates, top_k)
    gate, up = (_norm(x, block.mlp_norm.weight) @ block.mlp.gate_up.weight.T).chunk(2, -1)
    return x + (_tanh_gelu(gate) * up) @ block.mlp.down.weight.T


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def _tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _attention(attention, x, positions, mask, candidates, top_k) -> Tensor:
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
    if top_k:
        scores = _best(scores, mask & candidates, top_k)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ attention.out.weight.T


def _best(scores: Tensor, candidates: Tensor, top_k: int) -> Tensor:
    """Scores [B, H, T, T] where candidates below the k-th best of their row are hidden."""
    scores = scores.clone()
    for place, allowed in enumerate(candidates):
        found = allowed.nonzero().flatten()
        if len(found) > top_k:
            row = scores[:, :, place, found]
            border = row.sort(dim=-1, descending=True).values[..., top_k - 1 : top_k]
            scores[:, :, place, found] = row.masked_fill(row < border, -torch.inf)
    return scores


def _turn(x: Tensor, positions: list[int], base: float = 10000.0) -> Tensor:
    """Rotary positions as complex numbers."""
    half = x.shape[-1] // 2
    angles = torch.tensor([[p * base ** (-i / half) for i in range(half)] for p in positions])
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angles), angles
    ).to(torch.complex128 if x.dtype == torch.float64 else torch.complex64)
    return torch.cat([turned.real, turned.imag], dim=-1)
