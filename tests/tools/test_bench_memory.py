"""What tools/bench/memory.py says of a memory adds up, whatever the clock shows."""

from __future__ import annotations

import pytest

SIZES = ("--width", "16", "--heads", "2", "--hidden", "24", "--layers", "2", "--segment", "8")
SIZES += ("--summary", "2", "--train", "20x3", "--act", "24", "--environments", "2")


@pytest.mark.slow
def test_every_kind_is_measured_beside_full_context(bench):
    rows = bench("memory", "--kinds", "memo", "no_iea", "lstm", *SIZES)
    trained, acted = ([row for row in rows if key in row] for key in ("train_steps", "acted_steps"))
    for found in (trained, acted):
        assert [row["kind"] for row in found] == ["memo", "no_iea", "lstm", "fct"]
        assert found[-1]["to_fct"] == 1.0
    assert all(row["ms"] > 0 and row["peak_bytes"] > 0 for row in trained)
    assert all(row["ms_a_step"] > 0 and row["refresh_s"] > 0 for row in acted)
    # Three trials of full context: every step through the stack once, and 20 * 21 / 2 pairs of
    # steps and the sink's 20.
    weights = 2 * (16 * 48 + 16 * 16 + 16 * 48 + 24 * 16)
    assert trained[-1]["flops"] == 3 * (6 * weights * 20 + 12 * 2 * 16 * (210 + 20))
    # Memo: segments of 8, 8 and 4 steps; a summary of 2 tokens is made of the first two and read
    # by the last two, of which the last sees one more.
    tokens, pairs = (10, 12, 6), 55 + 10 + 78 + 12 + 21 + 3 * 6
    assert trained[0]["flops"] == 3 * (6 * weights * sum(tokens) + 12 * 2 * 16 * pairs)
    assert trained[2]["flops"] is None
