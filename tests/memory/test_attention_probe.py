"""Inspection tells where queries attend, as an explicit softmax does, and changes nothing."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from memo_habitat.errors import UserError
from memo_habitat.memory import MemoryConfig, MemoTransformer, build
from memo_habitat.memory.attention_probe import AttentionStats, check_attends, observe
from memo_habitat.testing.memory_conformance import sample_trial

from . import reference
from .factories import TRANSFORMERS, memories, quick, small_memory, trial

STREAMING = {
    "streaming_memo": {"token_budget": 11},
    "streaming_fct": {"kind": "fct", "token_budget": 8},
}
SINK, STEP = "sink", "step"  # what a place is; that of a summary is its number, from the oldest


class Sequence(NamedTuple):
    """What the step at the last place of a trial sees, by the specification's sentences."""

    tokens: Tensor  # [1, P, D]
    positions: list[int]
    visible: reference.Visible
    retrieved: reference.Visible | None
    kinds: list[object]  # of every place, the sink's first


def sequence(memory: MemoTransformer, trial: Tensor, begins: Tensor) -> Sequence:
    """trial: [1, T, D] up to the step in question; begins: bool [1, T]."""
    config = memory.config
    length, segment = config.summary_length, config.segment_length
    if config.kind == "no_iea":
        trial = trial[:, int(begins[0].nonzero().max()) :]
    if config.kind in ("fct", "no_iea"):
        if config.token_budget:
            kept = 0
            for _ in range(trial.shape[1]):
                kept = (kept - segment if kept == config.token_budget else kept) + 1
            trial = trial[:, -kept:]
        return _plain(trial, 0, 1)
    parts = torch.split(trial, segment, dim=1)
    summaries = trial[:, :0]
    for steps in parts[:-1]:
        whole = torch.cat([summaries, steps, memory.queries.expand(1, -1, -1)], dim=1)
        groups = reference._groups(summaries.shape[1], length)
        places = range(whole.shape[1])
        made = reference.encode(memory, whole, places, reference.causal, groups)[:, -length:]
        summaries = torch.cat([summaries, reference._summary(memory, made)], dim=1)
        if config.kind == "rmt":
            summaries = summaries[:, -length:]
        while config.token_budget and summaries.shape[1] + segment > config.token_budget:
            summaries = summaries[:, length:]
    return _plain(torch.cat([summaries, parts[-1]], dim=1), summaries.shape[1], length)


def _plain(tokens: Tensor, old: int, length: int) -> Sequence:
    count = tokens.shape[1]
    kinds = [SINK, *(place // length for place in range(old)), *[STEP] * (count - old)]
    groups = reference._groups(old, length)
    return Sequence(tokens, [*range(count)], reference.causal, groups, kinds)


def weights(memory: MemoTransformer, seen: Sequence) -> Tensor:
    """Attention of the step to the sink and every place, [L, H, 1 + P]."""
    x, found, top_k = seen.tokens, [], memory.config.top_k
    places, row = range(x.shape[1]), x.shape[1] - 1
    for block in memory.blocks:
        attention, size = block.attention, block.attention.head_dim
        normed = reference._norm(x, block.attention_norm.weight)
        q, k = (
            reference._turn(
                (normed @ part.T).unflatten(-1, (attention.heads, size)).transpose(1, 2),
                seen.positions,
            )
            for part in attention.qkv.weight.chunk(3)[:2]
        )
        k = torch.cat([attention.sink_key[None], k], dim=2)
        scores = q[:, :, row : row + 1] @ k.transpose(-1, -2) / math.sqrt(size)
        mask = torch.tensor([[True] + [seen.visible(row, other) for other in places]])
        scores = scores.masked_fill(~mask, -torch.inf)
        if top_k:
            among = torch.tensor([[False] + [seen.retrieved(row, other) for other in places]])
            scores = reference._best(scores, mask & among, top_k)
        found.append(scores.softmax(-1)[0, :, 0])
        x = reference.block_output(
            block, x, seen.positions, seen.visible, seen.retrieved, memory.config.top_k
        )
    return torch.stack(found)


@torch.no_grad()
def expected(
    memory: MemoTransformer, trial: Tensor, begins: Tensor
) -> tuple[dict[object, float], float]:
    """Mass by what attends to: the sink, steps, ages of summaries; and the effective context."""
    seen = sequence(memory, trial, begins)
    found = weights(memory, seen)
    held = len({kind for kind in seen.kinds if isinstance(kind, int)})
    mass = dict.fromkeys((SINK, STEP, *range(held)), 0.0)
    for kind, value in zip(seen.kinds, found.mean((0, 1)).tolist(), strict=True):
        mass[held - 1 - kind if isinstance(kind, int) else kind] += value
    tokens = found[..., 1:] / found[..., 1:].sum(-1, keepdim=True)
    logs = torch.where(tokens > 0, tokens, 1).log()
    return mass, float((-(tokens * logs).sum(-1)).exp().mean())


def assert_equal(
    reading: AttentionStats, row: int, explicit: tuple[dict[object, float], float]
) -> None:
    mass, width = explicit
    ages = [float(value) for value in reading.summaries[row]]
    held = int(reading.held[row])
    assert held == len(mass) - 2
    actual = {SINK: float(reading.sink[row]), STEP: float(reading.steps[row])}
    assert actual | dict(enumerate(ages[:held])) == pytest.approx(mass, abs=1e-5)
    assert not any(ages[held:])
    assert float(reading.effective_context[row]) == pytest.approx(width, rel=1e-4)


def observed(memory: MemoTransformer, tokens: Tensor, begins: Tensor) -> list[AttentionStats]:
    """Readings of all steps [3, T]; the second environment is reset before step 4, the third, 9."""
    cache = memory.new_cache(3, "cpu")
    with observe(cache) as probe:
        for step in range(tokens.shape[1]):
            cache.reset(torch.tensor([False, step == 4, step == 9]))
            memory.step(tokens[:, step], cache, begins[:, step])
    return probe.stats


def flavoured(name: str) -> MemoTransformer:
    if name not in STREAMING:
        return small_memory(name)
    return small_memory(**STREAMING[name])


@pytest.mark.parametrize("flavour", [*TRANSFORMERS, "streaming_memo", "streaming_fct"])
def test_readings_equal_an_explicit_softmax_for_environments_at_different_places(
    flavour: str,
) -> None:
    memory = flavoured(flavour)
    tokens, begins = sample_trial(memory, 3, 33)
    begins[1, 4] = begins[2, 9] = True
    readings = observed(memory, tokens, begins)
    assert len(readings) == 33
    for step in (0, 3, 5, 6, 12, 20, 27, 32):
        for row, reset in enumerate((0, 4, 9)):
            own = slice(row, row + 1), slice(reset if step >= reset else 0, step + 1)
            explicit = expected(memory, tokens[own], begins[own])
            assert_equal(readings[step], row, explicit)


@pytest.mark.parametrize("flavour", [*TRANSFORMERS, "streaming_memo", "streaming_fct"])
def test_every_token_s_share_of_every_layer_equals_an_explicit_softmax(flavour: str) -> None:
    memory = flavoured(flavour)
    tokens, begins = sample_trial(memory, 1, 29)
    cache = memory.new_cache(1, "cpu")
    with observe(cache) as probe:
        for step in range(29):
            memory.step(tokens[:, step], cache, begins[:, step])
    with torch.no_grad():
        explicit = weights(memory, sequence(memory, tokens, begins)).mean(1)
    torch.testing.assert_close(probe.stats[-1].by_token[0], explicit, atol=1e-5, rtol=0)


@quick
@given(memories(), st.integers(1, 3), st.integers(1, 40))
def test_shares_add_up_to_one(memory: MemoTransformer, batch: int, steps: int) -> None:
    tokens, begins = sample_trial(memory, batch, steps)
    cache = memory.new_cache(batch, "cpu")
    with observe(cache) as probe:
        for step in range(steps):
            memory.step(tokens[:, step], cache, begins[:, step])
            reading = probe.stats[-1]
            total = reading.sink + reading.steps + reading.summaries.sum(-1)
            torch.testing.assert_close(total, torch.ones(batch), atol=1e-5, rtol=0)
            assert (reading.effective_context >= 1 - 1e-5).all()
            assert len(probe.stats) == step + 1


@pytest.mark.parametrize("name", STREAMING)
def test_streaming_holds_no_more_summaries_than_the_budget(name: str) -> None:
    memory = flavoured(name)
    tokens, begins = sample_trial(memory, 3, 50)
    for reading in observed(memory, tokens, begins):
        assert int(reading.held.max()) <= (0 if name == "streaming_fct" else 2)
        total = reading.sink + reading.steps + reading.summaries.sum(-1)
        torch.testing.assert_close(total, torch.ones(3), atol=1e-5, rtol=0)


@quick
@given(memories(), st.integers(0, 9))
def test_observing_leaves_outputs_bit_equal(memory: MemoTransformer, reset: int) -> None:
    tokens, begins = sample_trial(memory, 3, 20)
    caches = memory.new_cache(3, "cpu"), memory.new_cache(3, "cpu")
    for step in range(20):
        for cache in caches:
            cache.reset(torch.tensor([False, step == reset, False]))
        plain = memory.step(tokens[:, step], caches[0], begins[:, step])
        with observe(caches[1]):
            assert torch.equal(memory.step(tokens[:, step], caches[1], begins[:, step]), plain)


def test_equal_scores_spread_the_attention_over_all_tokens() -> None:
    memory = small_memory()
    with torch.no_grad():
        for block in memory.blocks:
            block.attention.qkv.weight[: memory.config.width] = 0  # all queries are zero
    cache = memory.new_cache(1, "cpu")
    memory.extend(trial(memory, 1, 15), cache)
    with observe(cache) as probe:
        memory.step(trial(memory, 1, 1)[:, 0], cache)
    reading = probe.stats[0]  # the sink, two summaries of two tokens, four steps
    assert float(reading.effective_context) == pytest.approx(8, abs=1e-3)
    found = [float(reading.sink), *reading.summaries[0].tolist(), float(reading.steps)]
    assert found == pytest.approx([1 / 9, 2 / 9, 2 / 9, 4 / 9], abs=1e-5)


def test_only_steps_inside_the_block_are_read_and_none_of_the_summaries_making() -> None:
    memory = small_memory(summary_length=1)
    cache, tokens = memory.new_cache(2, "cpu"), trial(memory, 2, 14)
    memory.extend(tokens[:, :5], cache)
    with observe(cache) as probe:
        for now in tokens[:, 5:13].unbind(1):  # closes two segments
            memory.step(now, cache)
    memory.step(tokens[:, 13], cache)
    assert len(probe.stats) == 8
    assert cache.probe is None


def test_a_cache_in_bfloat16_is_read_in_float32() -> None:
    memory = small_memory()
    cache = memory.new_cache(2, "cpu", torch.bfloat16)
    with observe(cache) as probe, torch.autocast("cpu", torch.bfloat16):
        for now in trial(memory, 2, 20).unbind(1):
            memory.step(now, cache)
    for reading in probe.stats:
        total = reading.sink + reading.steps + reading.summaries.sum(-1)
        torch.testing.assert_close(total, torch.ones(2), atol=1e-5, rtol=0)


def test_an_lstm_attends_to_nothing_and_says_so() -> None:
    config = MemoryConfig(kind="lstm", width=8, layers=1, heads=1)
    with pytest.raises(UserError, match="attends to nothing"):
        check_attends(config)
    with (
        pytest.raises(UserError, match="inspect one of memo, fct"),
        observe(build(config).new_cache(1, "cpu")),
    ):
        pass
    check_attends(MemoryConfig())
