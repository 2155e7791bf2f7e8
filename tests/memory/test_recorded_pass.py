"""Recorded training passes, with a stand-in that computes anew what a GPU would replay."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from memo_habitat.errors import UserError
from memo_habitat.memory import MemoryConfig, build, recorded_pass
from memo_habitat.memory.recorded_pass import RecordedPasses

from .factories import S, small_memory, trial


class _Computed:
    """As a CUDA graph: it reads and writes the same tensors each time."""

    made = 0
    replays = 0

    def __init__(self, function: Callable[[], Any], pool: Any) -> None:
        type(self).made += 1
        self._function, self.results = function, function()

    def replay(self) -> None:
        type(self).replays += 1
        for place, new in zip(self.results, self._function(), strict=True):
            if place is not None:
                place.data.copy_(new)


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> type[_Computed]:
    monkeypatch.setattr(recorded_pass, "record", _Computed)
    _Computed.made = _Computed.replays = 0
    return _Computed


def recorded(memory: Any) -> Any:
    """The same memory, whose passes are recorded on a CPU, too."""
    memory.config.cuda_graphs = True
    memory.encode = lambda tokens, length=None, starts=None: memory._encode_recorded(
        tokens, length or S
    )
    return memory


def gradients(memory: Any, tokens: Tensor, length: int | None = None) -> list[Tensor]:
    """Outputs, and gradients of tokens and weights, of two minibatches whose gradients add up."""
    memory.zero_grad()
    found = []
    for rows in tokens.split(2):
        own = rows.clone().requires_grad_()
        encoded = memory.encode(own, length)
        weights = torch.arange(encoded.outputs.numel()).view_as(encoded.outputs).cos()
        loss = (encoded.outputs * weights).sum() + sum(s[..., 0].sum() for s in encoded.summaries)
        if encoded.auxiliary_loss is not None:
            loss = loss + encoded.auxiliary_loss
        loss.backward()
        found += [encoded.outputs.detach(), own.grad]
    return found + [torch.zeros_like(p) if p.grad is None else p.grad for p in memory.parameters()]


@pytest.mark.parametrize(
    ("flavour", "options"),
    [
        *(("memo", {}), ("fct", {}), ("rmt", {}), ("ac", {}), ("top_k", {}), ("summary_layer", {})),
        ("memo", {"memory_loss": "reconstruction"}),
    ],
)
def test_replayed_passes_give_the_outputs_and_gradients_of_computed_ones(
    flavour: str, options: dict[str, object], graphs: type[_Computed]
) -> None:
    plain, other = (small_memory(flavour, layers=3, **options) for _ in range(2))
    other = recorded(other)
    for seed in range(3):
        for length in (S, S + 1):
            tokens = trial(plain, 6, 20, seed)
            expected = gradients(plain, tokens, length)
            for there, here in zip(gradients(other, tokens, length), expected, strict=True):
                torch.testing.assert_close(there, here, atol=1e-5, rtol=1e-5)
    assert graphs.made == 2 * 2  # of each length a pass forward and one backward
    assert graphs.replays == 2 * (3 * 3 * 2 - 2)  # all but the first of each length


def test_new_weights_at_the_same_place_are_used_and_others_recorded_anew(
    graphs: type[_Computed],
) -> None:
    plain, other = small_memory(), recorded(small_memory())
    tokens = trial(plain, 4, 20)
    for memory in (plain, other):
        gradients(memory, tokens)
        with torch.no_grad():
            for parameter in memory.parameters():
                parameter.mul_(0.5)
    torch.testing.assert_close(gradients(other, tokens), gradients(plain, tokens))
    made = graphs.made
    other.queries = torch.nn.Parameter(other.queries.detach() * 3)
    plain.queries = torch.nn.Parameter(plain.queries.detach() * 3)
    torch.testing.assert_close(gradients(other, tokens), gradients(plain, tokens))
    assert graphs.made == 2 * made


def test_dropped_layers_are_those_of_a_computed_pass() -> None:
    plain, other = (small_memory(layers=4, depth_dropout=0.5).train() for _ in range(2))
    other = recorded(other)
    for seed in range(6):
        tokens = trial(plain, 4, 20, seed)
        found = []
        for memory in (plain, other):
            torch.manual_seed(seed)
            found.append(gradients(memory, tokens))
        torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_a_pass_beside_one_that_waits_for_its_gradients_is_computed(
    graphs: type[_Computed],
) -> None:
    memory, tokens = recorded(small_memory()), trial(small_memory(), 2, 20)
    gradients(memory, tokens)
    tokens.requires_grad_()
    first = memory.encode(tokens).outputs
    count = graphs.replays
    second = memory.encode(tokens).outputs
    assert graphs.replays == count == 1
    torch.testing.assert_close(first, second)
    del first  # nobody will ask for its gradients any more
    memory.encode(tokens)
    assert graphs.replays == count + 1


def test_gradients_of_a_replayed_pass_can_be_asked_for_once() -> None:
    memory, tokens = recorded(small_memory()), trial(small_memory(), 2, 20)
    gradients(memory, tokens)
    loss = memory.encode(tokens.requires_grad_()).outputs.std()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="cuda_graphs off"):
        loss.backward()


def test_copies_record_for_themselves() -> None:
    memory = recorded(small_memory())
    del memory.encode  # the stand-in of this test cannot be copied
    for copied in (deepcopy(memory), pickle.loads(pickle.dumps(memory))):
        assert copied._recorded is not memory._recorded
        assert isinstance(copied._recorded, RecordedPasses)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"segment_jitter": 0.2, "segment_length": 20}, "segment_jitter_in=trial"),
        ({"kind": "ac", "detach_probability": 0.5, "segment_jitter": 0.0}, "use 0 or 1"),
        ({"kind": "no_iea"}, "means nothing to kind 'no_iea'"),
    ],
)
def test_what_cannot_come_again_is_refused(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        build(MemoryConfig(cuda_graphs=True, **options))
    build(MemoryConfig(cuda_graphs=True, segment_jitter_in="trial"))
