"""A class of one's own is a kind of memory like any other, by a name or by where it is."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from memo_habitat.errors import UserError
from memo_habitat.memory import MemoryConfig, RecurrentMemory, build, register
from memo_habitat.memory.variants import (
    FullContext,
    Memo,
    check_variant,
    kinds,
    memory_class,
    takes,
    unregister,
)
from memo_habitat.testing.memory_conformance import check_memory


class Own(Memo):
    pass


class OwnFull(FullContext):
    pass


class SummariesWithinEpisodes(Memo):
    within_episode = True


class Unknown(Memo):
    options = ("top_k",)


class NoMemory(nn.Linear):
    pass


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    before = kinds()
    yield
    for kind in set(kinds()) - set(before):
        unregister(kind)


class OtherShape(Memo):
    def carry(self, summary: Tensor) -> Tensor:
        return summary[:, :1]


class OtherValues(Memo):
    def carry(self, summary: Tensor) -> Tensor:
        return 0.5 * summary


class WithWeights(Memo):
    def __init__(self, config: MemoryConfig) -> None:
        super().__init__(config)
        self.register_buffer("scale", torch.ones(1))  # type: ignore[attr-defined]


class HalfTheGradient(Memo):
    def carry(self, summary: Tensor) -> Tensor:
        return 0.3 * summary + 0.7 * summary.detach() if torch.rand(()) < 2 else summary


@pytest.mark.parametrize(
    ("variant", "told"),
    [
        (OtherShape, r"'own': carry\(\) makes shape \(1, 1, 64\) of a summary \(1, 6, 64\)"),
        (OtherValues, r"'own': carry\(\) makes other values of a summary"),
        (WithWeights, "'own' fails .*register_buffer.*is no torch module"),
        (HalfTheGradient, None),
    ],
)
def test_a_variant_trains_the_memory_that_it_acts_with(variant: type, told: str | None) -> None:
    register("own", variant)
    config = MemoryConfig(kind="own", width=64, summary_length=6)
    torch.manual_seed(0)
    drawn = torch.rand(())
    torch.manual_seed(0)
    if told is None:
        check_variant(config)
    else:
        with pytest.raises(UserError, match=told):
            check_variant(config)
    assert torch.equal(torch.rand(()), drawn)


def test_a_registered_variant_is_a_kind() -> None:
    assert "own" not in kinds()
    register("own", Own)
    assert kinds()[-1] == "own"
    assert isinstance(build(MemoryConfig(kind="own")).variant, Own)


@pytest.mark.parametrize("variant", [Own, OwnFull])
def test_options_follow_from_what_it_is_and_what_it_claims(variant: type) -> None:
    register("own", variant)
    for option in ("summary_layer", "top_k", "memory_loss"):
        assert takes("own", option) is variant.summarises
    for option in ("compile", "activation_checkpointing", "token_budget"):
        assert takes("own", option)
    build(MemoryConfig(kind="own", token_budget=512))
    with pytest.raises(UserError, match=r"detach_probability=0\.5 means nothing to kind 'own'"):
        build(MemoryConfig(kind="own", detach_probability=0.5))


@pytest.fixture
def own_file(tmp_path, monkeypatch) -> Iterator[None]:
    """A module of memories that lies anywhere on the path."""
    shutil.copy(Path(__file__).with_name("my_memories.py"), tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_memories", None)


OWN = ("my_memories:HalfCredit", "my_memories:LinearState")


@pytest.mark.usefixtures("own_file")
@pytest.mark.parametrize("kind", OWN)
def test_a_class_in_a_file_of_ones_own_conforms(kind: str) -> None:
    sizes = {"width": 16, "layers": 2, "heads": 2, "hidden": 24, "depth_dropout": 0.0}
    memory = build(MemoryConfig(kind=kind, segment_length=6, summary_length=2, **sizes)).eval()
    assert memory_class(kind).__module__ == "my_memories"
    check_memory(memory)


@pytest.mark.usefixtures("own_file")
def test_options_of_a_module_of_ones_own_are_those_that_it_names() -> None:
    kind = "my_memories:LinearState"
    build(MemoryConfig(kind=kind, activation_checkpointing=True))
    for option in ("compile", "top_k", "token_budget", "memory_loss"):
        assert not takes(kind, option)
    with pytest.raises(UserError, match=f"compile=True means nothing to kind '{kind}'"):
        build(MemoryConfig(kind=kind, compile=True))


@pytest.mark.usefixtures("own_file")
@pytest.mark.parametrize("kind", OWN)
def test_a_class_in_a_file_of_ones_own_is_trained_by_config(kind: str, tmp_path) -> None:
    from memo_habitat.trainer import launch

    sizes = ("habitat_baselines.num_environments=4", "habitat_baselines.rl.ppo.num_mini_batch=2")
    small = ("width=16", "heads=2", "hidden=16", "segment_length=20", "summary_length=2")
    training = launch.start_training(
        "dark_key_to_door",
        [
            *("setting=quick", "habitat_baselines.total_num_steps=600", *sizes),
            *(f"habitat_baselines.rl.memory.{size}" for size in (f"kind={kind}", *small)),
        ],
        out=tmp_path / "run",
    )
    assert launch.train(training)
    rows = training.run.progress_file.read_text().splitlines()
    assert json.loads(rows[-1])["steps"] >= 600
    saved = next((tmp_path / "run" / "checkpoints").glob("*.pth"))
    names = torch.load(saved, weights_only=False)["state_dict"]
    assert any("memory.decay" in name or "memory.queries" in name for name in names)


@pytest.mark.parametrize(("kind", "network"), [("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_a_recurrent_memory_derived_from_another_has_its_network(kind: str, network: type) -> None:
    register("own", type("Own", (memory_class(kind),), {}))
    assert type(build(MemoryConfig(kind="own")).rnn) is network
    assert type(build(MemoryConfig(kind=kind)).rnn) is network


@pytest.mark.parametrize("kind", ["my_mislaid:Mine", "torch:Missing", "torch.nn:Linear"])
def test_a_place_where_no_memory_is_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match=f"kind '{kind}': .*PYTHONPATH"):
        build(MemoryConfig(kind=kind))


def test_the_same_class_may_be_registered_again_as_a_notebook_does() -> None:
    register("own", Own)
    again = type("Own", (Memo,), {"__module__": Own.__module__, "__qualname__": "Own"})
    register("own", again)
    assert memory_class("own") is again


@pytest.mark.parametrize(
    ("kind", "memory", "message"),
    [
        ("memo", Own, "kind 'memo' is taken"),
        ("lstm", Own, "kind 'lstm' is taken"),
        ("", Own, "kind '' is taken or empty"),
        ("own", object, r"derived from variants\.Memo"),
        ("own", NoMemory, "it lacks encode, new_cache, step, extend, draw_segment_length"),
        ("own", RecurrentMemory(MemoryConfig(kind="gru")), "derived from"),
        ("own", Unknown, "options top_k: choose of detach_probability, token_budget"),
        ("own", SummariesWithinEpisodes, "within_episode needs summarises = False"),
    ],
)
def test_what_cannot_be_registered_is_refused(kind, memory, message) -> None:
    before = kinds()
    with pytest.raises(ValueError, match=message):
        register(kind, memory)
    assert before == kinds()


def test_a_name_that_another_class_holds_is_refused() -> None:
    register("own", Own)
    with pytest.raises(ValueError, match="kind 'own' is taken"):
        register("own", OwnFull)
