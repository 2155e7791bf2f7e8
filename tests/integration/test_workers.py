"""`memo-habitat train --workers`: two processes train, are killed, stopped and go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from memo_habitat.cli.main import main
from memo_habitat.trainer.compare_runs import differences
from memo_habitat.trainer.run_dir import RunFolder
from tests.integration.conftest import TINY_DARK_KEY, start, stop, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TRIAL, ENVS, WORKERS = 20, 4, 2
PER_TRIAL = TRIAL * ENVS * WORKERS
TRAIN = ("memo-habitat", "train", "--workers", str(WORKERS))
NEW = ("--config-name=dark_key_to_door", *TINY_DARK_KEY)
ENDLESS = "habitat_baselines.total_num_steps=100000000"


def rows(progress: Path) -> list[dict]:
    return [json.loads(line) for line in progress.read_text().splitlines()]


def worker(parent: int, rank: int) -> int:
    """The process of a worker: torchrun starts them in order."""
    command = ["pgrep", "-P", str(parent), "-f", "trainer.distributed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return sorted(map(int, done.stdout.split()))[rank]


def until_it_learns(progress: Path, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    done = progress.read_text().count("\n") if progress.exists() else 0
    process = start(*TRAIN, *arguments, cwd=cwd)
    wait_for(lambda: progress.exists() and progress.read_text().count("\n") > done + 2, process)
    return process


def command_here(folder: Path, monkeypatch, capfd) -> Callable[..., tuple[int, str]]:
    """Trains by the command in this process, which saves a start: status, and its stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def train(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        return main([*TRAIN[1:], *arguments]), capfd.readouterr().err

    return train


@pytest.mark.skipif(shutil.which("pgrep") is None, reason="finds a worker with pgrep (procps)")
def test_two_workers_learn_as_one_run_and_go_on_after_a_kill_and_a_stop(
    tmp_path, monkeypatch, capfd
):
    progress = tmp_path / "run/progress.jsonl"
    training = until_it_learns(progress, *NEW, ENDLESS, "--out", "run", cwd=tmp_path)
    try:
        os.kill(worker(training.pid, 1), signal.SIGKILL)
        _, err = training.communicate(timeout=600)
    finally:
        stop(training)
    remedy = f"resume with: memo-habitat train --resume run --workers {WORKERS}\n"
    assert training.returncode == 1
    assert err == (
        "memo-habitat train: worker 1 of 2 ended: killed by SIGKILL; "
        f"its log is run/workers/1.log; {remedy}"
    )

    training = until_it_learns(progress, "--resume", "run", cwd=tmp_path)
    try:
        training.send_signal(signal.SIGINT)
        _, err = training.communicate(timeout=600)
    finally:
        stop(training)
    assert (training.returncode, err) == (130, f"stopped; {remedy}")

    total = rows(progress)[-1]["steps"] + PER_TRIAL
    last = f"habitat_baselines.total_num_steps={total}"
    train_here = command_here(tmp_path, monkeypatch, capfd)
    assert train_here("--resume", "run", last) == (0, "")
    assert f"Num updates: {total // PER_TRIAL}\t" in (tmp_path / "run/train.log").read_text()
    # No gap and nothing twice: the steps of both workers, the trials of both.
    found = rows(progress)
    assert [row["steps"] for row in found] == list(range(PER_TRIAL, total + 1, PER_TRIAL))
    assert [row["updates"] for row in found] == list(range(1, len(found) + 1))
    assert {row["trials"]["count"] for row in found} == {ENVS * WORKERS}
    assert all(row["episodes"] >= ENVS * WORKERS for row in found)


def test_two_workers_that_end_within_a_trial_go_on_as_if_they_had_not(tmp_path, monkeypatch, capfd):
    train_here = command_here(tmp_path, monkeypatch, capfd)
    steady = (
        "habitat_baselines.rl.ppo.updates_per_trial=2",
        "habitat_baselines.rl.ppo.entropy_coef_final=null",
    )
    jitter = ("segment_jitter=0.5", "segment_jitter_in=trial")  # each worker draws its own
    steady += tuple(f"habitat_baselines.rl.memory.{key}" for key in jitter)

    def until(trials: float, *arguments: str) -> None:
        total = f"habitat_baselines.total_num_steps={int(trials * PER_TRIAL)}"
        assert train_here(*arguments, total) == (0, "")

    until(3, *NEW, *steady, "--out", "whole")
    until(1.5, *NEW, *steady, "--out", "halves")
    until(3, "--resume", "halves")
    folders = (RunFolder(tmp_path / name) for name in ("whole", "halves"))
    assert differences(*folders) == []


def test_what_the_trainer_refuses_is_one_line_and_leaves_no_run(tmp_path, monkeypatch, capfd):
    wrong = "habitat_baselines.rl.encoder.auxiliary_sensor=sonar"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main([*TRAIN[1:], *NEW, wrong, "--out", "run"]) == 2
    _, err = capfd.readouterr()
    assert "auxiliary_sensor names 'sonar', which is not observed" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
