"""The options around Memo: the memory loss, the summary layer, top-k retrieval."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memo_habitat.memory import MemoTransformer

from .factories import SUMMARISING, small_memory, trial

S = 6  # of small_memory


def loss(memory: MemoTransformer, tokens: Tensor) -> Tensor:
    """The memory loss of a trial."""
    found = memory.encode(tokens).auxiliary_loss
    assert found is not None
    return found


@pytest.mark.parametrize("flavour", SUMMARISING)
@pytest.mark.parametrize("kind", ["reconstruction", "prediction"])
def test_the_memory_loss_leaves_the_outputs_alone(flavour: str, kind: str) -> None:
    memory = small_memory(flavour, memory_loss=kind)
    tokens = trial(memory, 2, 20)
    plain = small_memory(flavour)
    plain.load_state_dict(memory.state_dict(), strict=False)
    encoded = memory.encode(tokens)
    assert torch.equal(encoded.outputs, plain(tokens))
    assert torch.equal(encoded.outputs, memory(tokens))
    assert plain.encode(tokens).auxiliary_loss is None


@pytest.mark.parametrize(
    ("kind", "matters"),
    [("reconstruction", [True] * 3 + [False]), ("prediction", [True] * 4)],
)
def test_the_memory_loss_speaks_of_its_own_segment_or_of_the_next(
    kind: str, matters: list[bool]
) -> None:
    memory = small_memory(memory_loss=kind)
    tokens = trial(memory, 1, 4 * S)
    before = loss(memory, tokens)
    changed = []
    for segment in range(4):
        other = tokens.clone()
        other[:, segment * S : (segment + 1) * S] *= -1
        changed.append(bool(loss(memory, other) != before))
    assert changed == matters


def test_the_memory_loss_of_a_trial_without_a_summary_is_zero() -> None:
    assert loss(small_memory(memory_loss="prediction"), trial(small_memory(), 2, S)) == 0


@pytest.mark.parametrize("kind", ["reconstruction", "prediction"])
def test_the_memory_loss_trains_the_summaries_but_not_its_targets(kind: str) -> None:
    memory = small_memory(memory_loss=kind)
    tokens = trial(memory, 1, 2 * S).requires_grad_()
    loss(memory, tokens).backward()
    assert memory.queries.grad.abs().sum() > 0
    assert (tokens.grad[:, :S].abs().amax(-1) > 0).all()  # through the summary
    assert (tokens.grad[:, S:] == 0).all()


def test_summaries_learn_to_say_what_their_segment_held() -> None:
    memory = small_memory(memory_loss="reconstruction", layers=1).train()
    tokens = trial(memory, 64, S + 1)
    tokens[:, :S] = tokens[:, :1].sign()  # one pattern per trial, at every step of the segment
    optimiser = torch.optim.Adam(memory.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss(memory, tokens).backward()
        optimiser.step()
    learned = loss(memory, tokens).item()
    memory.variant.carry = torch.zeros_like
    with torch.no_grad():
        memory.queries.zero_()
        for block in memory.blocks:
            block.attention.out.weight.zero_()  # summaries that know nothing of the segment
    assert learned < 0.5 * loss(memory, tokens).item()


def test_the_summary_layer_has_weights_of_its_own_that_matter() -> None:
    memory = small_memory(summary_layer=True)
    names = {name for name, _ in memory.named_parameters() if name.startswith("summary_")}
    assert len(names) >= 8
    tokens = trial(memory, 1, 20)
    before = memory(tokens)
    with torch.no_grad():
        memory.summary_block.mlp.down.weight.mul_(2)
    same = (memory(tokens) == before).all(-1)[0]
    assert same[:S].all()
    assert not same[S:].any()


@pytest.mark.parametrize("flavour", ["memo"])
def test_retrieving_as_many_as_there_are_changes_nothing(flavour: str) -> None:
    tokens = trial(small_memory(), 2, 30)
    all_seen, all_retrieved = small_memory(flavour), small_memory(flavour, top_k=100)
    torch.testing.assert_close(all_seen(tokens), all_retrieved(tokens), atol=1e-6, rtol=0)


def test_retrieving_fewer_changes_outputs_once_there_is_a_choice() -> None:
    tokens = trial(small_memory(), 1, 30)
    same = torch.isclose(small_memory()(tokens), small_memory(top_k=2)(tokens), atol=1e-6)
    assert same.all(-1)[0].tolist() == [True] * 12 + [False] * 18
