"""What tools/bench/frozen.py says of the parts of a training adds up, whatever the clock shows."""

from __future__ import annotations

import pytest

from tests.factories.frozen import BACKBONE, SIDE

pytest.importorskip("timm", reason="timm is not installed (extra 'timm')")

SIZES = (
    "habitat.task.trial_steps=32",
    "habitat_baselines.num_environments=3",
    "habitat_baselines.rl.ppo.updates_per_trial=2",
    "habitat_baselines.rl.memory.segment_length=8",
    "habitat_baselines.rl.memory.summary_length=2",
    f"habitat_baselines.rl.encoder.backbone={BACKBONE}",
    f"habitat_baselines.rl.encoder.image_size={SIDE}",
)


@pytest.mark.slow
def test_encoder_acting_and_update_are_measured_in_the_sizes_of_the_config(bench, tmp_path):
    rows = bench("frozen", "--device", "cpu", "--repeats", "1", *SIZES)
    assert [row["part"] for row in rows] == ["encode", "act", "update"]
    # Two of three environments are in the update's larger minibatch.
    done_steps = (3, 3 * 16, 2 * 32)
    assert [row["environments"] for row in rows] == [3, 3, 2]
    for row, count in zip(rows, done_steps, strict=True):
        assert row["a_second"] * row["ms"] / 1e3 == pytest.approx(count, rel=0.05)
        assert (row["tflop_s"] is None) == (row["part"] == "act") and row["peak_bytes"] > 0
        assert (row["memory"], row["backbone"], row["mfu"]) == ("memo", BACKBONE, None)
    assert list(tmp_path.iterdir()) == []
