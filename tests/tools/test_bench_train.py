"""What tools/bench/train.py says of a training adds up, whatever the clock shows."""

from __future__ import annotations

import pytest

SIZES = (
    "habitat.task.size=3",
    "habitat.task.trial_steps=12",
    "habitat.environment.max_episode_steps=5",
    "habitat_baselines.num_environments=3",
    "habitat_baselines.rl.ppo.updates_per_trial=2",
    "habitat_baselines.rl.memory.segment_length=5",
    "habitat_baselines.rl.memory.summary_length=2",
)


@pytest.mark.slow
def test_every_trial_is_timed_and_its_parts_add_up(bench, tmp_path):
    row = bench("train", "--trials", "2", *SIZES)[-1]
    assert row["overrides"] == list(SIZES)
    assert len(row["trial_seconds"]) == 2
    assert row["env_steps_per_second"] > 0
    spent = row["seconds_by_station"]
    assert sum(spent.values()) == pytest.approx(sum(row["trial_seconds"]) / 2, abs=2e-3)
    assert min(spent.values()) >= 0.0 < spent["learn"]
    assert list(tmp_path.iterdir()) == []
