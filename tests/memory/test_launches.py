"""Operators counted on a CPU, as kernels that a GPU would launch: nothing grows with the history.

Kernels launched decide how fast a GPU acts and trains here; an operator that runs once more for
every summary held, or allocates as much as is held, would show in these counts on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .factories import EVERY, SUMMARISING, S, act, small_memory, trial


class Counts(NamedTuple):
    """Operators that compute (views do not), and bytes of the storages that they make."""

    operators: int
    allocated: int


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operators, self.storages = 0, {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves(args) if isinstance(x, Tensor)}
        for made in tree_leaves(result):
            # Views share the storage of what they look at.
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in given:
                self.storages[id(made)] = made, made.untyped_storage().nbytes()
        self.operators += not func.is_view
        return result


def count(work: Callable[[], object]) -> Counts:
    with _Counter() as counter:
        work()
    return Counts(counter.operators, sum(size for _, size in counter.storages.values()))


def count_training(memory: Any, tokens: Tensor) -> int:
    """Operators of a training pass over [B, T, D] and its gradients, tables made before."""
    memory(tokens)
    memory.zero_grad(set_to_none=True)
    return count(lambda: memory(tokens).sum().backward()).operators


@pytest.mark.parametrize("flavour", EVERY)
def test_an_acting_step_is_as_many_operators_and_bytes_whatever_came_before(flavour: str) -> None:
    memory = small_memory(flavour)
    tokens = trial(memory, 3, 40 * S)
    starts = torch.zeros(3, 40 * S, dtype=torch.bool)
    starts[:, 0] = True
    found = []
    for before in (10 * S + 2, 30 * S + 2):  # the same place of a segment
        cache = memory.new_cache(3, "cpu")
        act(memory, tokens[:, :before], cache, starts[:, :before])
        now = tokens[:, before], cache, starts[:, before]
        found.append(count(lambda now=now: memory.step(*now)))
    early, late = found
    assert early.operators == late.operators
    if "top_k" not in flavour:  # which looks through all summaries to choose among them
        assert early.allocated == late.allocated


@pytest.mark.parametrize("flavour", SUMMARISING)
def test_a_training_pass_is_as_many_operators_for_every_segment(flavour: str) -> None:
    memory = small_memory(flavour).train()
    counts = [count_training(memory, trial(memory, 2, n * S)) for n in (4, 8, 12)]
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    # A CPU's mask, which a GPU does without, is now and then made larger.
    assert abs(second - first) <= 4


def test_full_context_trains_in_as_many_operators_whatever_the_length() -> None:
    memory = small_memory("fct").train()
    few, many = (count_training(memory, trial(memory, 2, steps)) for steps in (40, 400))
    assert few == many
