"""The untouched `habitat-baselines` command trains, goes on after a kill, and evaluates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from memo_habitat.cli.main import main
from memo_habitat.compat.habitat_checkpoints import allow_configs
from memo_habitat.trainer.run_dir import RESUME_STATE
from tests.integration.conftest import TINY, run, start, stop, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def lines(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def read(path: Path) -> dict[str, Any]:
    """A checkpoint or state of Habitat's own trainers, as those read it here."""
    allow_configs()
    return torch.load(path, weights_only=True)


def test_train_kill_resume_evaluate(tmp_path, monkeypatch):
    name = "--config-name=extobjnav/apartments"
    arguments = ("habitat-baselines", name, "memory=memo", "run_dir=run", *TINY)
    progress = tmp_path / "run/progress.jsonl"
    # A checkpoint every other update, so that there is one when the run is killed.
    arguments = (
        *arguments,
        "habitat_baselines.checkpoint_interval=2",
        "habitat_baselines.num_checkpoints=-1",
    )
    endless = start(*arguments, "habitat_baselines.total_num_steps=1000000", cwd=tmp_path)
    try:
        wait_for(lambda: len(lines(progress)) >= 5, endless)
    finally:
        stop(endless)
    assert (tmp_path / "run/checkpoints/.habitat-resume-state.pth").is_file()

    resumed = start(*arguments, "habitat_baselines.total_num_steps=1000000", cwd=tmp_path)
    try:
        log = tmp_path / "run/train.log"
        wait_for(lambda: "Resumed at" in log.read_text(), resumed)
        reached = int(log.read_text().rpartition("Resumed at ")[2].split()[0])
        wait_for(lambda: max(row["steps"] for row in lines(progress)) > reached + 256, resumed)
    finally:
        stop(resumed)
    steps = [row["steps"] for row in lines(progress)]
    assert reached > 0
    assert steps == sorted(set(steps))
    assert (tmp_path / "run/checkpoints/latest.safetensors").is_file()

    done = run(
        *arguments,
        "habitat_baselines.evaluate=True",
        "habitat_baselines.evaluator.trials_per_house=1",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (records,) = (tmp_path / "run/eval").glob("*/records.jsonl")
    episodes = lines(records)
    assert len({episode["trial_id"] for episode in episodes}) > 1
    assert {episode["success"] for episode in episodes} <= {0, 1}
    assert all(0 <= episode["spl"] <= 1 for episode in episodes)
    assert all(episode["kv_bytes"] > 0 for episode in episodes)

    # Our own commands know the folder.
    monkeypatch.chdir(tmp_path)
    options = ("--trials", "1", "--steps", "32", "--name", "ours")
    assert main(["eval", "run", *options]) == 0
    assert (tmp_path / "run/eval/ours/records.jsonl").is_file()
    assert main(["report", "run"]) == 0
    assert records.parent.name in (tmp_path / "run/report.html").read_text()


def test_habitats_own_ppo_and_pointnav_train_resume_and_evaluate(tmp_path, checkout):
    (tmp_path / "data").symlink_to(checkout / "data")
    arguments = (
        "habitat-baselines",
        "--config-name=nav/ppo_pointnav_studio",
        "run_dir=run",
        "habitat_baselines.num_environments=2",
        "habitat_baselines.total_num_steps=96",
        "habitat_baselines.num_checkpoints=3",
        "habitat_baselines.rl.preemption.save_resume_state_interval=2",
        "habitat_baselines.rl.preemption.save_state_batch_only=False",
        "habitat_baselines.rl.ppo.num_steps=16",
        "habitat_baselines.rl.ppo.ppo_epoch=1",
        "habitat_baselines.rl.ppo.hidden_size=32",
        "habitat_baselines.rl.ppo.reward_window_size=2",
    )
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    latest, log = tmp_path / "run/checkpoints/latest.pth", tmp_path / "run/train.log"
    assert list((tmp_path / "run/tb").glob("events*"))
    assert read(latest)["config"].habitat.task.type == "Nav-v0"

    # Its state is of before the second of three updates: they are done once more.
    latest.unlink()
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Loading resume state" in done.stdout + done.stderr + log.read_text()
    assert read(latest)["extra_state"]["step"] == 96
    state = read(latest.with_name(RESUME_STATE))["requeue_stats"]
    assert all(len(values) <= 2 for values in state["window_episode_stats"].values())

    evaluation = (
        "habitat_baselines.evaluate=True",
        f"habitat_baselines.eval_ckpt_path_dir={latest}",
        "habitat_baselines.test_episode_count=2",
    )
    done = run(*arguments, *evaluation, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Average episode spl" in done.stdout + done.stderr + log.read_text()
