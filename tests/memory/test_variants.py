"""Variants are registered under a name, which is then a kind like any other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memo_habitat.errors import UserError
from memo_habitat.memory import MemoryConfig, build, register, variants
from memo_habitat.memory.variants import FullContext, Memo, kinds, takes


class Own(Memo):
    pass


class OwnFull(FullContext):
    pass


class SummariesWithinEpisodes(Memo):
    within_episode = True


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    for table in (variants.VARIANTS, variants._taken):
        table.pop("own", None)


def test_a_registered_variant_is_a_kind() -> None:
    assert "own" not in kinds()
    register("own", Own)
    assert kinds()[-2:] == ("own", "lstm")
    assert isinstance(build(MemoryConfig(kind="own")).variant, Own)


@pytest.mark.parametrize("summarises", [True, False])
def test_options_follow_from_what_it_is_and_what_it_claims(summarises: bool) -> None:
    register("own", Own if summarises else OwnFull, options=("token_budget",))
    for option in ("summary_layer", "top_k", "memory_loss"):
        assert takes("own", option) is summarises
    assert takes("own", "compile")
    assert takes("own", "token_budget")
    build(MemoryConfig(kind="own", token_budget=512))
    with pytest.raises(UserError, match="memory_form=kv means nothing to kind 'own'"):
        build(MemoryConfig(kind="own", memory_form="kv"))


def test_the_same_class_may_be_registered_again_as_a_notebook_does() -> None:
    register("own", Own)
    again = type("Own", (Memo,), {"__module__": Own.__module__, "__qualname__": "Own"})
    register("own", again)
    assert variants.VARIANTS["own"] is again


@pytest.mark.parametrize(
    ("kind", "variant", "options", "message"),
    [
        ("memo", Own, (), "kind 'memo' is taken"),
        ("lstm", Own, (), "kind 'lstm' is taken"),
        ("", Own, (), "kind '' is taken or empty"),
        ("own", object, (), r"derived from variants\.Memo"),
        ("own", Own, ("top_k",), "options top_k: choose of detach_probability, token_budget"),
        ("own", SummariesWithinEpisodes, (), "within_episode needs summarises = False"),
    ],
)
def test_what_cannot_be_registered_is_refused(kind, variant, options, message) -> None:
    before = dict(variants.VARIANTS)
    with pytest.raises(ValueError, match=message):
        register(kind, variant, options)
    assert before == variants.VARIANTS


def test_a_name_that_another_class_holds_is_refused() -> None:
    register("own", Own)
    with pytest.raises(ValueError, match="kind 'own' is taken"):
        register("own", OwnFull)
