"""`memo-habitat sweep` with real trainings: stopped, killed and gone on with to the end."""

from __future__ import annotations

import csv
import json
import os
import signal
from pathlib import Path

import pytest

from tests.integration.conftest import TINY_DARK_KEY, run, start, stop, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

COMMAND = ("python", "-m", "memo_habitat.cli.main", "sweep")
TINY = (
    *TINY_DARK_KEY,
    "habitat_baselines.total_num_steps=8000",
    # Means nothing to full context, which refuses it.
    "habitat_baselines.rl.memory.top_k=3",
)


def rows(progress: Path) -> list[dict[str, float]]:
    if not progress.is_file():
        return []
    return [json.loads(line) for line in progress.read_text().splitlines() if line.endswith("}")]


def test_stop_kill_a_run_kill_the_sweep_and_go_on(tmp_path, monkeypatch, checkout):
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    own, progress = tmp_path / "dark/memo/seed_3", tmp_path / "dark/memo/seed_3/progress.jsonl"
    again = (*COMMAND, "--resume", "dark")

    def until_it_learns(*arguments: str):
        before = len(rows(progress))
        sweep = start(*arguments, cwd=tmp_path)
        # Rows past those that were there: a resumed training drops none that it can go on from.
        wait_for(lambda: len(rows(progress)) >= before + 2, sweep)
        return sweep

    new = ("--config-name=dark_key_to_door", "--seeds", "3", "--out", "dark", "--trials", "2")
    sweep = until_it_learns(*COMMAND, *new, *TINY)
    try:
        sweep.send_signal(signal.SIGINT)
        told, err = sweep.communicate(timeout=300)
    finally:
        stop(sweep)
    assert sweep.returncode == 130, err
    assert err == "stopped; resume with: memo-habitat sweep --resume dark\n"
    assert (own / "checkpoints/.habitat-resume-state.pth").is_file()

    sweep = until_it_learns(*again)
    try:
        os.kill(int((own / ".sweep.lock").read_text().split()[0]), signal.SIGKILL)
        told, err = sweep.communicate(timeout=300)
    finally:
        stop(sweep)
    assert sweep.returncode == 1
    assert "memo seed 3: failed (killed by SIGKILL)" in told

    stop(until_it_learns(*again))  # the sweep alone: its runs have sessions of their own

    done = run(*again, "--variants", "fct", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "fct seed 3: failed (exit status 2)" in done.stdout
    assert "top_k=3 means nothing to kind 'fct'" in done.stderr
    assert "memo seed 3: goes on at " in done.stdout
    assert "memo seed 3: finished" in done.stdout
    steps = [row["steps"] for row in rows(progress)]
    assert steps == list(range(80, 8001, 80))
    assert "Num frames 8000" in (own / "train.log").read_text()
    trials = {}
    for folder in (own / "eval/final", *(tmp_path / "dark/reference/eval").iterdir()):
        records = rows(folder / "records.jsonl")
        trials[folder.name] = {
            (record["trial_id"], tuple(record["start_position"]), str(record["goal_positions"]))
            for record in records
            if record["episode_index"] == 0
        }
    assert set(trials) == {"final", "oracle", "random"}
    assert len(trials["final"]) == 2
    assert trials["final"] == trials["oracle"] == trials["random"]

    # The report is the real one, over the folder as the sweep laid it out.
    page = (tmp_path / "dark/report.html").read_text()
    assert "fct, seed 3" in page  # what is missing is said
    with (tmp_path / "dark/results.csv").open() as file:
        (result,) = csv.DictReader(file)
    played = rows(own / "eval/final/returns.jsonl")
    held_out = [sum(row["rewards"]) for row in played]
    assert (result["variant"], result["seed"], result["steps"]) == ("memo", "3", "8000")
    assert float(result["held_out_return"]) == pytest.approx(
        sum(held_out) / len(held_out), abs=0.01
    )
    curve = (tmp_path / "dark/curves.csv").read_text().splitlines()
    assert len(curve) > 10
    assert (tmp_path / "dark/curve.png").stat().st_size > 1000
