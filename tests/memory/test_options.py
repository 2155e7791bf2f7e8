"""Options: memory loss, summary layer, retrieval, depth dropout, segment lengths, recomputation."""

from __future__ import annotations

import pickle
import shutil
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from memo_habitat.memory import MemoTransformer
from memo_habitat.testing.memory_conformance import sample_trial

from .factories import EVERY, SUMMARISING, S, close, small_memory, trial


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


@pytest.mark.parametrize("kind", ["memo", "fct"])
def test_depth_dropout_skips_whole_layers_in_training_only(kind: str) -> None:
    memory = small_memory(kind, layers=3, depth_dropout=0.5)
    tokens = trial(memory, 2, 20)
    assert torch.equal(memory(tokens), memory(tokens))
    memory.train()
    outcomes: dict[tuple[int, ...], list[Tensor]] = {}
    for seed in range(20):
        torch.manual_seed(seed)
        live = tuple(i for i, coin in enumerate(torch.rand(3).tolist()) if coin >= 0.5)
        torch.manual_seed(seed)
        outcomes.setdefault(live, []).append(memory(tokens))
    for live, outputs in outcomes.items():
        shorter = small_memory(kind, layers=3)
        shorter.blocks = torch.nn.ModuleList([shorter.blocks[i] for i in live])
        for output in outputs:
            close(output, shorter(tokens))
    assert len(outcomes) > 3


def test_depth_dropout_tosses_once_per_pass_not_once_per_segment() -> None:
    memory = small_memory(layers=3, depth_dropout=0.5).train()
    calls: list[int] = []
    for index, block in enumerate(memory.blocks):
        block.attention_norm.register_forward_pre_hook(
            lambda _, __, index=index: calls.append(index)
        )
    for seed in range(8):
        torch.manual_seed(seed)
        calls.clear()
        memory(trial(memory, 2, 24))
        assert {calls.count(layer) for layer in range(3)} <= {0, 4}


def test_the_sink_takes_part_and_its_value_can_be_fixed_at_zero() -> None:
    memory = small_memory(sink_value="zero")
    names = dict(memory.named_parameters())
    assert not any(name.endswith("sink_value") for name in names)
    tokens = trial(memory, 1, 4)
    before = memory(tokens)
    with torch.no_grad():
        names["blocks.0.attention.sink_key"].mul_(3)
    assert not torch.allclose(memory(tokens), before)


def test_drawn_segment_lengths_cover_the_jitter_and_nothing_else() -> None:
    memory = small_memory(segment_length=256, summary_length=32, segment_jitter=0.2)
    generator = torch.Generator().manual_seed(0)
    drawn = {memory.draw_segment_length(generator) for _ in range(3000)}
    assert drawn == set(range(205, 308))
    assert small_memory(segment_jitter=0.0).draw_segment_length(generator) == 6
    for kind in ("fct", "lstm"):
        memory = small_memory(kind, segment_length=100, segment_jitter=0.2)
        assert memory.draw_segment_length(generator) == 100


def gradients(memory: MemoTransformer, steps: int) -> list[Tensor]:
    """Output, and the gradients of inputs and parameters."""
    tokens, starts = sample_trial(memory, 2, steps)
    tokens.requires_grad_()
    output = memory(tokens, None, starts)
    (output * trial(memory, 2, steps, seed=5)).sum().backward()
    return [output, tokens.grad, *(p.grad for p in memory.parameters())]


@pytest.mark.parametrize("flavour", EVERY)
def test_recomputing_activations_changes_no_gradient(flavour: str) -> None:
    steps = 300 if flavour in ("lstm", "gru") else 33  # more than are recomputed together
    found = [
        gradients(small_memory(flavour, activation_checkpointing=recomputed), steps)
        for recomputed in (False, True)
    ]
    for kept, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(kept, recomputed, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiling_changes_no_gradient_and_copies_compute_with_their_own_weights() -> None:
    # Eleven steps are no other size of it: a graph for one length then serves the others as well.
    memory, plain = (small_memory(segment_length=11, compile=chosen) for chosen in (True, False))
    for found, expected in zip(gradients(memory, 27), gradients(plain, 27), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    tokens = trial(memory, 2, 27)
    before = memory(tokens)
    copy = deepcopy(memory)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.mul_(2)
    assert not torch.allclose(copy(tokens), before)
    close(pickle.loads(pickle.dumps(memory))(tokens), before)
