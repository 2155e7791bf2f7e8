"""`extobjnav/recall`: a teacher in training and none in evaluation, and the player as a mark."""

from __future__ import annotations

import json
import math

import pytest

from memo_habitat.trainer import launch

ENVS = "habitat_baselines.num_environments=2"
HOUSES = "habitat.dataset.content_scenes=[loft_0_val_000,loft_0_val_001]"
SIZES = (
    *("habitat.task.trial_steps=64", ENVS, "habitat_baselines.num_checkpoints=1"),
    *("habitat_baselines.total_num_steps=256", "habitat_baselines.rl.ppo.num_mini_batch=1"),
    *("habitat_baselines.rl.memory.segment_length=16", "habitat_baselines.rl.memory.hidden=64"),
    HOUSES,
    *("habitat.dataset.split=val", "habitat_baselines.eval.split=val"),
)


def episodes_of(run, **options):
    size = launch.EvalOptions(trials=1, overrides=(ENVS, HOUSES), **options)
    records = launch.evaluate(run, size) / "records.jsonl"
    return [json.loads(line) for line in records.read_text().splitlines()]


@pytest.mark.slow
def test_who_was_taught_is_evaluated_alone_beside_perfect_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = launch.start_training("extobjnav/recall", SIZES)
    assert launch.train(training)
    rows = [json.loads(line) for line in training.run.progress_file.read_text().splitlines()]
    learners = [row["learner"] for row in rows]
    assert len(rows) == 2
    assert all(math.isfinite(value) for learner in learners for value in learner.values())
    for name in ("imitation_loss", "recall_seen", "recall_error_m", "memory_loss"):
        assert sum(learner[name] for learner in learners) > 0.0, name
    # Trials of another length than those of the training.
    assert episodes_of(training.run, steps=100)[-1]["trial_step_end"] == 100

    steps = 1200
    found = [0, 0]
    for episode in episodes_of(training.run, agent="perfect_memory", steps=steps):
        found[episode["trial_step_end"] > steps // 2] += episode["success"]
    # What it has seen in the first half it goes straight back to in the second.
    assert found[1] > 1.1 * found[0] > 10
