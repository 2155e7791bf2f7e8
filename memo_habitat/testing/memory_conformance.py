"""What holds for every memory; run `check_memory` on one of your own, in evaluation mode.

Each check raises AssertionError. Memories are compared with themselves: step by step, in chunks,
beside other environments and after resets they must give what their training pass gives.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5


def check_memory(memory: Any) -> None:
    """All checks, at sizes that a small memory takes a second for."""
    check_interface(memory)
    check_training_is_causal(memory)
    check_acting(memory, steps=40)
    check_acting(memory, steps=25, resets={(3, 1), (3, 2), (11, 0), (12, 0)})
    check_extending(memory, before=0, chunks=(1, 7, 12, 5))
    check_extending(memory, before=9, chunks=(14, 1, 6), reset_row=1)
    check_refreshing(memory)
    check_drawn_lengths(memory)
    check_rows_are_independent(memory)
    check_bytes(memory)


def sample_trial(memory: Any, batch: int, steps: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random tokens [B, T, D] and episode starts, bool [B, T], on the memory's device."""
    generator = torch.Generator().manual_seed(seed)
    weight = next(memory.parameters())
    tokens = torch.randn(batch, steps, memory.config.width, generator=generator)
    starts = torch.rand(batch, steps, generator=generator) < 0.2
    starts[:, 0] = True
    return tokens.to(weight), starts.to(weight.device)


def act(memory: Any, tokens: Tensor, cache: Any, starts: Tensor) -> Tensor:
    """Outputs of [N, T, D] step by step, [N, T, D]."""
    steps = zip(tokens.unbind(1), starts.unbind(1), strict=True)
    return torch.stack([memory.step(now, cache, start) for now, start in steps], dim=1)


def check_interface(memory: Any) -> None:
    """Shapes, and that acting leaves no graph behind."""
    _require(isinstance(memory, nn.Module), "it is no torch module")
    tokens, starts = sample_trial(memory, 2, 9)
    encoded = memory.encode(tokens, None, starts)
    _require(encoded.outputs.shape == tokens.shape, "outputs have another shape than tokens")
    length = memory.draw_segment_length(torch.Generator().manual_seed(0))
    _require(isinstance(length, int) and length > 0, f"a segment length of {length!r}")
    cache = _cache(memory, 2)
    acted = memory.step(tokens[:, 0], cache, starts[:, 0])
    extended = memory.extend(tokens[:, 1:], cache, starts[:, 1:])
    _require(acted.shape == tokens[:, 0].shape, "a step's output has another shape")
    _require(extended.shape == tokens[:, 1:].shape, "outputs of `extend` have another shape")
    _require(not (acted.requires_grad or extended.requires_grad), "acting keeps a graph")
    _require(cache.steps.tolist() == [9, 9], f"9 steps taken, cache.steps is {cache.steps}")


def check_training_is_causal(memory: Any) -> None:
    """An output depends on no later step and on no other trial, and its gradient is finite."""
    tokens, starts = sample_trial(memory, 2, 30)
    outputs = memory.encode(tokens, None, starts).outputs
    for step in (0, 7, 29):
        changed = tokens.clone()
        changed[0, step] += 1
        other = memory.encode(changed, None, starts).outputs
        _close(other[1], outputs[1], "another trial changed an output")
        _close(other[0, :step], outputs[0, :step], "a later step changed an output")
        _require(not torch.equal(other[0, step], outputs[0, step]), "a step's token has no effect")
    tokens.requires_grad_()
    memory.encode(tokens, None, starts).outputs.square().sum().backward()
    memory.zero_grad()
    _require(bool(tokens.grad.isfinite().all()), "the gradient is not finite")  # type: ignore[union-attr]


def check_acting(
    memory: Any, batch: int = 3, steps: int = 40, resets: Collection[tuple[int, int]] = ()
) -> None:
    """Step by step is the training pass of each row since its reset; resets: (step, row)."""
    tokens, starts = sample_trial(memory, batch, steps)
    cache = _cache(memory, batch)
    begun: list[list[int]] = [[0] for _ in range(batch)]
    acted = []
    for step in range(steps):
        rows = {row for at, row in resets if at == step}
        cache.reset(torch.tensor([row in rows for row in range(batch)]))
        acted.append(memory.step(tokens[:, step], cache, starts[:, step]))
        for row in rows:
            begun[row].append(step)
    _require(
        cache.steps.tolist() == [steps - begins[-1] for begins in begun],
        f"cache.steps is {cache.steps}",
    )
    found = torch.stack(acted, dim=1)
    for row, begins in enumerate(begun):
        for first, end in pairwise([*begins, steps]):
            if first < end:
                own = slice(row, row + 1), slice(first, end)
                expected = memory.encode(tokens[own], None, starts[own]).outputs
                _close(found[own], expected, f"row {row} acts differently than it trains")


def check_extending(
    memory: Any, before: int = 0, chunks: Sequence[int] = (7, 12), reset_row: int = -1
) -> None:
    """Chunks are what their steps are, also behind rows at different places of their trials."""
    tokens, starts = sample_trial(memory, 3, before + sum(chunks) + 1)
    stepped, extended = _cache(memory, 3), _cache(memory, 3)
    for cache in (stepped, extended):
        if before:
            act(memory, tokens[:, :before], cache, starts[:, :before])
        cache.reset(torch.arange(3) == reset_row)
    now = slice(before, before + sum(chunks))
    expected = act(memory, tokens[:, now], stepped, starts[:, now])
    sizes = list(chunks)
    parts = zip(tokens[:, now].split(sizes, 1), starts[:, now].split(sizes, 1), strict=True)
    found = torch.cat([memory.extend(part, extended, begin) for part, begin in parts], dim=1)
    _close(found, expected, "chunks differ from steps")
    for name in ("tokens_in_use", "bytes_in_use"):
        same = torch.equal(getattr(stepped, name)(), getattr(extended, name)())
        _require(same, f"{name} differs between chunks and steps")
    _require(torch.equal(stepped.steps, extended.steps), "steps differ between chunks and steps")
    after, expected = (memory.step(tokens[:, -1], c, starts[:, -1]) for c in (extended, stepped))
    _close(after, expected, "chunks leave another memory behind than steps")


def check_refreshing(memory: Any) -> None:
    """Emptied and extended after an update, the cache is that of the new weights."""
    tokens, starts = sample_trial(memory, 2, 24)
    cache = _cache(memory, 2)
    act(memory, tokens[:, :17], cache, starts[:, :17])
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    try:
        with torch.no_grad():
            for parameter in memory.parameters():
                parameter.add_(0.05)
        cache.reset(torch.ones(2, dtype=torch.bool))
        memory.extend(tokens[:, :17], cache, starts[:, :17])
        found = act(memory, tokens[:, 17:], cache, starts[:, 17:])
        expected = memory.encode(tokens, None, starts).outputs[:, 17:]
        _close(found, expected, "something of the old weights is left in the cache")
    finally:
        memory.load_state_dict(before)


def check_drawn_lengths(memory: Any, lengths: Sequence[int] = (5, 7)) -> None:
    """Where its caches take a segment length: in steps or chunks, it acts as it trains at that.

    They have S at first, and after a reset any other.
    """
    tokens, starts = sample_trial(memory, 2, 23)
    cache = _cache(memory, 2)
    if not hasattr(cache, "segment_length"):
        return
    own = memory.config.segment_length
    _require(cache.segment_length == own, f"segments of {cache.segment_length} steps, S is {own}")
    for length in lengths:
        cache.reset(torch.ones(2, dtype=torch.bool))
        cache.segment_length = length
        acted = act(memory, tokens[:, :9], cache, starts[:, :9])
        extended = memory.extend(tokens[:, 9:], cache, starts[:, 9:])
        expected = memory.encode(tokens, length, starts).outputs
        found = torch.cat([acted, extended], dim=1)
        _close(found, expected, f"in segments of {length} steps it acts differently than it trains")


def check_rows_are_independent(memory: Any) -> None:
    """What happens in one environment, not a number even, changes nothing in another one."""
    tokens, starts = sample_trial(memory, 3, 20)
    other = tokens.clone()
    other[1, 4:] = torch.nan
    found = []
    for given in (tokens, other):
        cache = _cache(memory, 3)
        found.append(act(memory, given, cache, starts))
    _close(found[1][[0, 2]], found[0][[0, 2]], "a row changed another row")
    cache.reset(torch.tensor([False, True, False]))
    healed = act(memory, tokens[1:2].expand(3, -1, -1), cache, starts[1:2].expand(3, -1))
    _close(healed[1], found[0][1], "a reset left something behind")


def check_bytes(memory: Any) -> None:
    """Empty rows take no bytes, the others what is allocated at most, and resets keep that."""
    tokens, starts = sample_trial(memory, 3, 20)
    cache = _cache(memory, 3)
    _require(cache.bytes_in_use().tolist() == [0, 0, 0], "bytes in use before the first step")
    memory.extend(tokens, cache, starts)
    used, allocated = cache.bytes_in_use(), cache.allocated_bytes()
    _require(bool((used > 0).all()), f"bytes in use after 20 steps: {used}")
    _require(int(used.sum()) <= allocated, f"{used} bytes in use, {allocated} allocated")
    cache.reset(torch.tensor([True, False, True]))
    _require(cache.bytes_in_use().tolist() == [0, int(used[1]), 0], "a reset leaves bytes in use")
    _require(cache.tokens_in_use().tolist()[::2] == [0, 0], "a reset leaves tokens in use")
    _require(cache.steps.tolist() == [0, 20, 0], "a reset leaves steps")
    _require(cache.allocated_bytes() == allocated, "a reset changes what is allocated")


def _cache(memory: Any, batch: int) -> Any:
    weight = next(memory.parameters())
    return memory.new_cache(batch, weight.device, weight.dtype)


def _close(actual: Tensor, expected: Tensor, message: str) -> None:
    torch.testing.assert_close(
        actual, expected, atol=TOLERANCE, rtol=TOLERANCE, msg=lambda told: f"{message}: {told}"
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
