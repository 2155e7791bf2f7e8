"""The examples of docs/method.md run as printed, and do what the text beside them says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from memo_habitat.memory import MemoryConfig, build
from memo_habitat.memory.variants import kinds, unregister

METHOD = Path(__file__).parents[2] / "docs/method.md"
SIZES = {"width": 16, "layers": 2, "heads": 2, "hidden": 24, "depth_dropout": 0.0}
SIZES |= {"segment_length": 6, "summary_length": 2}
Names = dict[str, Any]


def example(containing: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```$", METHOD.read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if containing in block]
    return found


def run(block: str, names: Names) -> Names:
    exec(compile(block, str(METHOD), "exec"), names)
    return names


@pytest.fixture
def own_kinds() -> Iterator[None]:
    """Kinds that are registered in the test are forgotten after it."""
    before = kinds()
    yield
    for kind in set(kinds()) - set(before):
        unregister(kind)


@pytest.fixture
def alone() -> Names:
    """The memory alone, after the lines of the example."""
    torch.manual_seed(0)
    return run(example("cache = memory.new_cache"), {})


def test_acting_in_the_example_gives_what_the_training_pass_gives(alone: Names) -> None:
    memory, tokens = alone["memory"], alone["tokens"]
    torch.testing.assert_close(alone["acted"], memory(tokens), atol=1e-5, rtol=0)
    assert memory.queries.grad.abs().max() > 0


def test_the_cache_of_the_example_holds_what_its_comment_says(alone: Names) -> None:
    assert "28 each: 6 summaries of 4, and 4 steps" in example("cache = memory.new_cache")
    assert alone["cache"].tokens_in_use().tolist() == [0, 28]


def test_the_example_of_inspection_reads_every_step(alone: Names) -> None:
    names = run(example("with observe(cache)"), alone)
    assert len(names["probe"].stats) == 20
    torch.testing.assert_close(names["shares"], torch.ones(2))
    fields = re.findall(r"^\| `(\w+)` \| \[N", METHOD.read_text(), re.MULTILINE)
    assert fields == list(names["stats"].__dataclass_fields__)


def gradient_of_first_segment(kind: str, last: slice) -> torch.Tensor:
    """By the loss of the steps `last` of a trial of three segments of 6 steps."""
    torch.manual_seed(3)
    memory = build(MemoryConfig(kind=kind, **SIZES))
    tokens = torch.randn(1, 18, 16, requires_grad=True)
    (memory(tokens) - tokens)[:, last].square().sum().backward()
    return tokens.grad[:, :6]


def test_the_variant_of_the_example_halves_the_gradient_and_nothing_else(own_kinds) -> None:
    run(example("register("), {"__name__": "my_variants"})
    own, memo = (gradient_of_first_segment(k, slice(6, 12)) for k in ("half_credit", "memo"))
    assert memo.abs().max() > 1e-4
    torch.testing.assert_close(own, memo / 2)


def test_the_variant_of_the_example_trains_with_the_memory_that_acts(own_kinds) -> None:
    run(example("register("), {"__name__": "my_variants"})
    memory = build(MemoryConfig(kind="half_credit", **SIZES))
    tokens = torch.randn(2, 20, 16)
    cache = memory.new_cache(2, "cpu")
    acted = torch.stack([memory.step(now, cache) for now in tokens.unbind(1)], dim=1)
    torch.testing.assert_close(memory.train()(tokens), acted, atol=1e-5, rtol=0)


def test_the_variant_of_the_example_is_a_choice_in_configs(own_kinds) -> None:
    from memo_habitat.config.compose import compose_config
    from memo_habitat.errors import UserError
    from memo_habitat.trainer.launch import check

    chosen = ["habitat_baselines.rl.memory.kind=half_credit"]
    config = compose_config("extobjnav/studio", chosen)
    with pytest.raises(UserError, match=r"memory\.kind 'half_credit' is unknown: .*register"):
        check(config)
    run(example("register("), {"__name__": "my_variants"})
    check(config)
