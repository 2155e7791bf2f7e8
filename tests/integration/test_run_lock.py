"""Two trainings in one run folder: a suspended one keeps the second out, a killed one does not."""

from __future__ import annotations

import json
import signal
import time

import pytest

from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.utils.lock import HeldError, hold
from tests.integration.conftest import TINY_DARK_KEY, run, start, stop, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = ("--config-name=dark_key_to_door", *TINY_DARK_KEY)
ENDLESS = "habitat_baselines.total_num_steps=100000000"
TRAIN = ("memo-habitat", "train")
CASES = {
    "of two workers, and a resume": (
        (*TRAIN, *CONFIG, ENDLESS, "--out", "run", "--workers", "2"),
        (*TRAIN, "--resume", "run"),
    ),
    "and an untouched command": (
        (*TRAIN, *CONFIG, ENDLESS, "--out", "run"),
        ("habitat-baselines", *CONFIG, ENDLESS, "run_dir=run"),
    ),
}


def is_held(path) -> bool:
    try:
        with hold(path):
            return False
    except HeldError:
        return True


@pytest.mark.parametrize(("one", "other"), CASES.values(), ids=list(CASES))
def test_a_run_has_one_training_at_a_time(tmp_path, one, other):
    folder = RunFolder(tmp_path / "run")
    progress = folder.progress_file
    first = start(*one, cwd=tmp_path)
    try:
        wait_for(lambda: progress.exists() and progress.read_text().count("\n") > 2, first)
        first.send_signal(signal.SIGSTOP)
        second = run(*other, cwd=tmp_path)
    finally:
        stop(first)
    assert second.returncode in (1, 2)
    assert f"process {first.pid} is at work in run" in second.stderr

    if "--workers" in one:  # the workers notice, save and leave
        for _ in range(600):
            if not is_held(folder.locks[1]):
                break
            time.sleep(0.1)
    third = start(*other, cwd=tmp_path)
    try:
        wait_for(lambda: "Resumed at" in folder.log_file.read_text(), third)
        reached = int(folder.log_file.read_text().rpartition("Resumed at ")[2].split()[0])
        wait_for(lambda: f'"steps": {reached + 400},' in progress.read_text(), third)
    finally:
        stop(third)
    lines = progress.read_text().splitlines()
    steps = [json.loads(line)["steps"] for line in lines if line.endswith("}")]
    assert steps == sorted(set(steps))
