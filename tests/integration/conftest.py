"""What the integration tests share: commands in processes of their own, and a tiny training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
# Two workers, trials of 64 steps, 32x32 images, a memory of one layer.
TINY = (
    "habitat.task.trial_steps=64",
    "habitat.environment.max_episode_steps=20",
    "habitat.simulator.agents.main_agent.sim_sensors.head_rgb_sensor.width=32",
    "habitat.simulator.agents.main_agent.sim_sensors.head_rgb_sensor.height=32",
    "habitat_baselines.num_environments=2",
    "habitat_baselines.num_checkpoints=2",
    "habitat_baselines.rl.ppo.updates_per_trial=2",
    "habitat_baselines.rl.ppo.num_mini_batch=1",
    "habitat_baselines.rl.ppo.ppo_epoch=1",
    "habitat_baselines.rl.memory.width=32",
    "habitat_baselines.rl.memory.layers=1",
    "habitat_baselines.rl.memory.heads=2",
    "habitat_baselines.rl.memory.hidden=64",
    "habitat_baselines.rl.memory.segment_length=16",
    "habitat_baselines.rl.memory.summary_length=4",
    "habitat_baselines.rl.encoder.features=16",
)
# Dark-Key-To-Door on 3×3 cells, four environments, trials of 20 steps and one update each.
TINY_DARK_KEY = (
    "habitat.task.size=3",
    "habitat.task.trial_steps=20",
    "habitat.environment.max_episode_steps=10",
    "habitat_baselines.num_environments=4",
    "habitat_baselines.num_checkpoints=2",
    "habitat_baselines.rl.ppo.num_mini_batch=1",
    "habitat_baselines.rl.ppo.ppo_epoch=1",
    "habitat_baselines.rl.memory.width=16",
    "habitat_baselines.rl.memory.layers=1",
    "habitat_baselines.rl.memory.heads=2",
    "habitat_baselines.rl.memory.hidden=16",
    "habitat_baselines.rl.memory.segment_length=10",
    "habitat_baselines.rl.memory.summary_length=2",
)


def command(name: str) -> str:
    path = BIN / name
    if not path.exists():
        pytest.skip(f"the command {name} is not installed beside this interpreter")
    return str(path)


def environment() -> dict[str, str]:
    """That of a user's shell: commands run in this process by other tests quiet its loggers."""
    own = {key: value for key, value in os.environ.items() if key != "HABITAT_LAB_LOG"}
    return {**own, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(*arguments: str, cwd: Path, timeout: float = 400.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a process group that is gone afterwards."""
    process = start(*arguments, cwd=cwd)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        stop(process)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [command(arguments[0]), *arguments[1:]],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[str]) -> None:
    """Kill a process with all its workers, as a scheduler or the lack of memory would."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(timeout=30)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until `condition` holds; fail with what the process said if it ends before."""
    for _ in range(4000):
        if condition():
            return
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}: {process.communicate()[1]}")
        time.sleep(0.1)
    pytest.fail("nothing happened for too long")
