"""Who sees whom, proven by intervention: change one thing, and see exactly which outputs change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from memo_habitat.memory import MemoTransformer

from .factories import ALL, quick, small_memory, starts, trial

STEPS = 24
S, M = 6, 2  # of small_memory: four segments


def unchanged(memory: MemoTransformer, step: int, batch: int = 2) -> Tensor:
    """Which outputs are bit-equal when this step of the first trial changes, bool [B, T]."""
    tokens, begins = trial(memory, batch, STEPS), starts(batch, STEPS)
    changed = tokens.clone()
    changed[0, step] += 1
    return (memory(tokens, None, begins) == memory(changed, None, begins)).all(-1)


@pytest.mark.parametrize("flavour", ALL)
@quick
@given(step=st.integers(0, STEPS - 1))
def test_a_step_never_changes_what_came_before_it_nor_another_trial(
    flavour: str, step: int
) -> None:
    same = unchanged(small_memory(flavour), step)
    assert same[1].all()
    assert same[0, :step].all()
    assert not same[0, step]


@pytest.mark.parametrize("flavour", ["memo", "fct", "rmt", "ac", "summary_layer"])
@quick
@given(step=st.integers(0, STEPS - 1))
def test_a_step_changes_every_later_output(flavour: str, step: int) -> None:
    assert not unchanged(small_memory(flavour), step)[0, step:].any()


@quick
@given(st.integers(0, STEPS - 1))
def test_without_inter_episode_attention_a_step_changes_its_own_episode_only(step: int) -> None:
    begins = starts(2, STEPS)[0].tolist()
    end = next((i for i in range(step + 1, STEPS) if begins[i]), STEPS)
    expected = [not step <= i < end for i in range(STEPS)]
    assert unchanged(small_memory("no_iea"), step)[0].tolist() == expected


@pytest.mark.parametrize("flavour", ["memo", "ac", "rmt", "top_k", "summary_layer"])
@quick
@given(step=st.integers(0, STEPS - 1))
def test_a_closed_segment_is_seen_through_its_summary_only(flavour: str, step: int) -> None:
    memory = small_memory(flavour)
    memory.variant.carry = torch.ones_like  # no summary says anything
    end = (step // S + 1) * S
    expected = [not step <= i < end for i in range(STEPS)]
    assert unchanged(memory, step)[0].tolist() == expected


def only_summary(which: int, value: float) -> Callable[[Tensor], Tensor]:
    """Hand on ones, but `value` as the summary of segment `which`."""
    made: list[Tensor] = []

    def carry(summary: Tensor) -> Tensor:
        made.append(summary)
        return torch.full_like(summary, value if len(made) - 1 == which else 1.0)

    return carry


@pytest.mark.parametrize(
    ("flavour", "reached"), [("memo", (1, 2, 3)), ("ac", (1, 2, 3)), ("rmt", (1,))]
)
def test_a_summary_is_seen_by_all_later_segments_or_by_the_next_one_only(
    flavour: str, reached: tuple[int, ...]
) -> None:
    memory = small_memory(flavour)
    outputs = []
    for value in (0.5, 2.0):
        memory.variant.carry = only_summary(0, value)
        outputs.append(memory(trial(memory, 1, STEPS)))
    same = (outputs[0] == outputs[1]).all(-1)[0].view(-1, S)
    assert [segment for segment in range(4) if not same[segment].any()] == list(reached)
    assert all(same[segment].all() for segment in range(4) if segment not in reached)


@quick
@given(st.integers(0, STEPS - 1), st.integers(1, 3))
def test_retrieval_hides_all_but_the_best_summary_tokens(step: int, top_k: int) -> None:
    memory = small_memory("memo", layers=1, heads=1, top_k=top_k)
    memory.variant.carry = lambda summary: torch.randn(
        summary.shape, generator=torch.Generator().manual_seed(3)
    ).requires_grad_()
    handed_on: list[Tensor] = []
    original = memory.variant.carry

    def keep(summary: Tensor) -> Tensor:
        handed_on.append(original(summary))
        return handed_on[-1]

    memory.variant.carry = keep
    memory(trial(memory, 1, STEPS))[0, step].sum().backward()
    seen = sum(
        int((part.grad.abs().amax(-1) > 0).sum()) for part in handed_on if part.grad is not None
    )
    assert seen == min(top_k, step // S * M)
