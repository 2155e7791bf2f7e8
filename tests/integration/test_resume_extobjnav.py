"""ExtObjNav goes on in the middle of a later trial, in this process and in workers."""

from __future__ import annotations

import signal

import pytest

import memo_habitat as mh
from memo_habitat.policy.policy import MemoPolicy
from memo_habitat.trainer.compare_runs import differences
from memo_habitat.trainer.run_dir import RunFolder

pytestmark = [pytest.mark.integration, pytest.mark.slow]
TRIAL, ENVS = 16, 2
SIZES = (
    f"habitat.task.trial_steps={TRIAL}",
    "habitat.environment.max_episode_steps=6",
    f"habitat_baselines.num_environments={ENVS}",
    f"habitat_baselines.total_num_steps={2 * TRIAL * ENVS}",
    "habitat_baselines.num_checkpoints=1",
    "habitat_baselines.rl.ppo.updates_per_trial=4",
    "habitat_baselines.rl.ppo.ppo_epoch=1",
    "habitat_baselines.rl.ppo.num_mini_batch=1",
    "habitat_baselines.rl.memory.width=32",
    "habitat_baselines.rl.memory.layers=1",
    "habitat_baselines.rl.memory.heads=2",
    "habitat_baselines.rl.memory.hidden=32",
    "habitat_baselines.rl.memory.segment_length=6",
    "habitat_baselines.rl.memory.summary_length=2",
)
IMAGES = (
    "habitat.simulator.agents.main_agent.sim_sensors.head_rgb_sensor.width=32",
    "habitat.simulator.agents.main_agent.sim_sensors.head_rgb_sensor.height=32",
    "habitat_baselines.rl.encoder.features=16",
)


@pytest.mark.parametrize(
    ("name", "more"),
    [("extobjnav/recall", ()), ("extobjnav/studio", IMAGES)],
    ids=["in this process, with a teacher", "in workers, with images"],
)
def test_a_stop_in_a_later_trial_changes_nothing(tmp_path, monkeypatch, name, more):
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    assert mh.train(mh.start_training(name, [*SIZES, *more], out=whole.path))
    acted, act = [0], MemoPolicy.act

    def stopping(self, *args, **kwargs):
        acted[0] += 1
        if acted[0] == TRIAL + 7:
            signal.raise_signal(signal.SIGUSR1)
        return act(self, *args, **kwargs)

    monkeypatch.setattr(MemoPolicy, "act", stopping)
    assert not mh.train(mh.start_training(name, [*SIZES, *more], out=cut.path))
    monkeypatch.setattr(MemoPolicy, "act", act)
    assert mh.train(mh.resume_training(cut.path))
    assert "is left" not in cut.log_file.read_text()
    assert differences(whole, cut) == []
