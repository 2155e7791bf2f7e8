"""Workers that are killed or hang in a training: another takes its place, its trial is left out."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from habitat.config.default import patch_config

from memo_habitat.config.compose import compose_config
from memo_habitat.errors import UserError
from memo_habitat.trainer import worker_envs
from memo_habitat.trainer.progress import read_progress
from memo_habitat.trainer.trainer import MemoTrainer
from tests.factories.trainings import TINY_STUDIO

pytestmark = pytest.mark.slow

TRIAL, ENVS = 16, 2
STUDIO = (
    *TINY_STUDIO,
    f"habitat.task.trial_steps={TRIAL}",
    f"habitat_baselines.num_environments={ENVS}",
    "habitat_baselines.rl.ppo.updates_per_trial=2",
    "habitat_baselines.rl.memory.layers=1",
)


class DisturbedTrainer(MemoTrainer):
    """Calls `at[n]` with itself before step n; keeps what the environments observed and ended."""

    def __init__(self, config, at):
        super().__init__(config)
        self.at, self.taken = at, 0
        self.trial_steps, self.rewards, self.live = [], [], []

    def _compute_actions_and_step_envs(self, *args):
        self.at.get(self.taken, lambda trainer: None)(self)
        self.taken += 1
        super()._compute_actions_and_step_envs(*args)

    def _update_agent(self):
        storage = self._agent.rollouts
        if storage.trial_complete:
            self.trial_steps.append(storage.observations["trial_step"][..., 0].clone())
            self.rewards.append(storage.rewards.clone())
            self.live.append(storage.live.tolist())
        return super()._update_agent()


def send(index, number):
    return lambda trainer: os.kill(trainer.envs._workers[index].pid, number)


def hang(index):
    """The worker stops; in this one step nobody waits long."""

    def stop(trainer):
        trainer.envs.timeout = 2.0
        os.kill(trainer.envs._workers[index].pid, signal.SIGSTOP)

    return stop


@pytest.fixture
def train(tmp_path, checkout, monkeypatch):
    """A training of so many trials; the trainer and what was told of deaths."""
    monkeypatch.chdir(checkout)
    monkeypatch.delenv("HABITAT_ENV_DEBUG", raising=False)

    def go(trials, at, *overrides):
        total = f"habitat_baselines.total_num_steps={trials * TRIAL * ENVS}"
        names = [f"run_dir={tmp_path}", total, *overrides]
        config = patch_config(compose_config("extobjnav/studio", [*STUDIO, *names]))
        trainer, told = DisturbedTrainer(config, at), []

        def tell(text):
            told.append(text)
            trainer.envs.timeout = 600.0  # for the start of the next one

        monkeypatch.setattr(worker_envs.logger, "warning", tell)
        try:
            trainer.train()
        except UserError as error:
            told.append(str(error))
        return trainer, told

    go.progress = tmp_path / "progress.jsonl"
    return go


def test_killed_and_hung_workers_are_replaced_and_their_trials_left_out(train):
    at = {3: send(1, signal.SIGKILL), TRIAL + TRIAL - 1: hang(0)}
    trainer, told = train(3, at)
    killed, hung = told
    assert killed.startswith("environment 1 was killed by SIGKILL, most often for lack of memory")
    assert "(scene " in killed and "MiB resident" in killed
    assert "step 2 of the trial, last actions " in killed or "step 3 of the trial" in killed
    assert "its trial is left out, another worker takes its place (9 more may die" in killed
    assert hung.startswith("environment 0 gave no answer for 2 s (habitat_baselines.worker_timeout")

    # The trials go on in step: of the one that broke off only the beginning is there.
    assert trainer.live == [[True, False], [False, True], [True, True]]
    whole = torch.arange(TRIAL)
    for live, steps, rewards in zip(
        trainer.live, trainer.trial_steps, trainer.rewards, strict=True
    ):
        for row in range(ENVS):
            if live[row]:
                assert torch.equal(steps[row, :TRIAL], whole)
            else:
                lost = int((steps[row, :TRIAL] == whole).sum())
                assert not steps[row, lost:].any() and not rewards[row, lost:].any()
        assert not steps[:, TRIAL].any()  # all begin the next trial together
    rows = read_progress(train.progress)
    assert [row["trials"]["count"] for row in rows if "trials" in row] == [1, 1, 2]
    assert [row["steps"] for row in rows] == [TRIAL * (i + 1) for i in range(6)]
    assert all(np.isfinite(row["learner"]["value_loss"]) for row in rows)


def test_repeated_deaths_stop_the_training(train):
    at = {2: send(1, signal.SIGKILL), TRIAL + 2: send(1, signal.SIGKILL)}
    _, (first, last) = train(3, at, "habitat_baselines.max_worker_restarts=1")
    assert "(0 more may die" in first
    assert "environment 1 was killed by SIGKILL" in last and "the last of 2 deaths" in last
    assert "raise habitat_baselines.max_worker_restarts" in last


def test_a_trial_that_nobody_plays_on_stops_the_training(train):
    _, (told,) = train(1, {2: send(0, signal.SIGKILL)}, "habitat_baselines.num_environments=1")
    assert "environment 0 was killed by SIGKILL" in told
    assert told.endswith("no environment is left whose trial could go on")
