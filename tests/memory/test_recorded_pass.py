"""Recorded training passes, with a stand-in that computes anew what a GPU would replay."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from memo_habitat.errors import UserError
from memo_habitat.memory import MemoryConfig, build, recorded_pass
from memo_habitat.memory.attention import RotaryTable
from memo_habitat.memory.recorded_pass import RecordedPasses
from memo_habitat.memory.variants import Memo, check_recorded_training, takes

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
    # None is not the same as zeros: by zeros an optimiser with momentum moves a weight.
    missing = torch.tensor([p.grad is None for p in memory.parameters()]).float()
    return [*found, missing, *(p.grad for p in memory.parameters() if p.grad is not None)]


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
    for memory in (plain, other):  # a weight that does not learn counts as well
        frozen = memory.blocks[0].attention.qkv
        frozen.weight = torch.nn.Parameter(frozen.weight.detach() * 3, requires_grad=False)
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


def test_recordings_share_what_goes_in_and_comes_out() -> None:
    memory = recorded(small_memory())
    for steps in (20, 14, 8):
        gradients(memory, trial(memory, 4, steps))
    storages = [
        {x.untyped_storage().data_ptr() for x in (one.tokens, *one.output_gradients)}
        for one in memory._recorded._recordings.values()
    ]
    assert len(storages) == 3
    assert storages[1] <= storages[0] and storages[2] <= storages[1]


def test_a_memory_that_has_nothing_to_learn_is_computed(graphs: type[_Computed]) -> None:
    memory = recorded(small_memory().requires_grad_(False))
    for _ in range(3):
        assert not memory.encode(trial(memory, 2, 20)).outputs.requires_grad
    assert graphs.made == 0


def test_rotations_stay_where_a_recording_reads_them() -> None:
    table = RotaryTable(head_dim=4, base=100.0)
    read = weakref.ref(table.span(0, 10, torch.device("cpu")).cos._base)
    table.span(0, 5000, torch.device("cpu"))
    assert read() is not None


@pytest.mark.parametrize(
    ("options", "device", "remedy"),
    [
        ({"segment_length": 200}, "cuda", "segment_jitter_in=trial"),
        ({"kind": "ac", "detach_probability": 0.5, "segment_jitter": 0.0}, "cuda", "use 0 or 1"),
        ({"segment_jitter_in": "trial"}, "cpu", "needs a GPU"),
    ],
)
def test_a_training_whose_passes_do_not_come_again_is_refused(
    options: dict[str, Any], device: str, remedy: str
) -> None:
    config = MemoryConfig(cuda_graphs=True, **options)
    build(config)  # to evaluate with, or to look at
    with pytest.raises(UserError, match=remedy):
        check_recorded_training(config, torch.device(device))
    check_recorded_training(
        MemoryConfig(cuda_graphs=True, segment_jitter_in="trial"), torch.device("cuda")
    )


def test_kinds_whose_passes_are_never_the_same_do_not_take_it() -> None:
    with pytest.raises(UserError, match="means nothing to kind 'no_iea'"):
        build(MemoryConfig(cuda_graphs=True, kind="no_iea"))
    assert not takes(f"{_Draws.__module__}:{_Draws.__qualname__}", "cuda_graphs")


class _Draws(Memo):
    def carry(self, summary: Tensor) -> Tensor:
        return summary.detach() if torch.rand(()) < 0.5 else summary
