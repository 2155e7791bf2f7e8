"""Without some of its summaries a memory is what it would be had they never come in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memo_habitat.memory.ablation import remembered, without
from memo_habitat.memory.kv_cache import KVCache

from .factories import SUMMARISING, TRANSFORMERS, M, S, close, sample_trial, small_memory
from .test_attention_probe import STREAMING, flavoured

STEPS = 3 * S + 2  # two steps into the fourth segment


def trial_so_far(flavour: str) -> tuple[object, Tensor, Tensor, KVCache]:
    """A memory, tokens and starts of a trial, and the cache in front of step `STEPS`."""
    memory = flavoured(flavour)
    tokens, begins = sample_trial(memory, 1, STEPS + 1)
    cache = memory.new_cache(1, "cpu", record=True)
    memory.extend(tokens[:, :STEPS], cache, begins[:, :STEPS])
    return memory, tokens, begins, cache


@pytest.mark.parametrize("flavour", [*TRANSFORMERS, "streaming_memo"])
def test_without_nothing_it_is_the_same(flavour: str) -> None:
    memory, tokens, begins, cache = trial_so_far(flavour)
    begins[:, STEPS] = False
    same = without(memory, cache)
    now = tokens[:, STEPS], begins[:, STEPS]
    close(memory.step(now[0], same, now[1]), memory.step(now[0], cache, now[1]))


@pytest.mark.parametrize("flavour", [*SUMMARISING, "streaming_memo"])
def test_without_all_summaries_it_has_forgotten_at_the_segment_s_start(flavour: str) -> None:
    memory, tokens, _, cache = trial_so_far(flavour)
    emptied = without(memory, cache, *(part.places for part in remembered(cache, M)))
    forgetful = memory.new_cache(1, "cpu")
    memory.extend(tokens[:, 3 * S : STEPS], forgetful)
    expected = memory.step(tokens[:, STEPS], forgetful)
    close(memory.step(tokens[:, STEPS], emptied), expected)
    assert (memory.step(tokens[:, STEPS], cache) - expected).abs().max() > 1e-3


def test_a_summary_that_is_dropped_leaves_the_others_as_they_are() -> None:
    memory, tokens, _, cache = trial_so_far("memo")
    first, second, third = remembered(cache, M)
    found = memory.step(tokens[:, STEPS], without(memory, cache, second.places))
    # The same from the training pass's blocks: two summaries, then the segment's steps.
    kept = [*first.places, *third.places, *range(third.places.stop, third.places.stop + 2)]
    stack = torch.cat(
        [cache.recorded(slice(0, 1), slice(0, 3 * M + 2))[:, kept], tokens[:, STEPS:]], 1
    )
    plain = small_memory(kind="fct")
    plain.load_state_dict(memory.state_dict(), strict=False)
    close(found, plain.encode(stack).outputs[:, -1])


@pytest.mark.parametrize("name", ["memo", "rmt", "fct", "no_iea", *STREAMING])
def test_parts_are_what_is_held_of_the_segments_before(name: str) -> None:
    _, _, begins, cache = trial_so_far(name)
    parts, used = remembered(cache, M), cache.length(slice(0, 1))
    places = [place for part in parts for place in part.places]
    assert places == list(range(len(places)))
    if name == "no_iea":
        began = int(begins[0, :STEPS].nonzero().max())
        assert [part.segment for part in parts] == list(range(began // S, 3))
    else:
        held = {"memo": [0, 1, 2], "rmt": [2], "fct": [0, 1, 2]}
        # Of 11 tokens 6 are for the segment's steps; of 8 steps two are of the fourth segment.
        held |= {"streaming_memo": [1, 2], "streaming_fct": [2]}
        assert [part.segment for part in parts] == held[name]
    assert used - len(places) == min(2, used)
