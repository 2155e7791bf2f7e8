"""A class of one's own is a kind of memory like any other, by a name or by where it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from torch import nn

from memo_habitat.errors import UserError
from memo_habitat.memory import MemoryConfig, RecurrentMemory, build, register
from memo_habitat.memory.variants import FullContext, Memo, kinds, memory_class, takes, unregister


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


def test_a_class_in_a_file_of_ones_own_is_a_kind_by_its_place(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_memory.py").write_text(
        "from memo_habitat.memory.variants import Memo\nclass Mine(Memo):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    memory = build(MemoryConfig(kind="my_memory:Mine"))
    assert type(memory.variant).__name__ == "Mine"
    assert memory_class("my_memory:Mine") is type(memory.variant)
    del sys.modules["my_memory"]


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
