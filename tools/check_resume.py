"""Stop a small training at random moments, let it go on, and compare it with an undisturbed one.

python tools/check_resume.py --moments 10 --signals USR1 KILL
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from memo_habitat.trainer.compare_runs import differences
from memo_habitat.trainer.progress import read_progress
from memo_habitat.trainer.run_dir import RunFolder
from memo_habitat.utils.processes import environment_of_one_process

# Dark-Key-To-Door on 3x3 cells; 4 updates a trial, 20 environment steps an update.
CONFIG = (
    "--config-name=dark_key_to_door",
    "habitat.task.size=3",
    "habitat.task.trial_steps=20",
    "habitat.environment.max_episode_steps=7",
    "habitat_baselines.num_environments=4",
    "habitat_baselines.num_checkpoints=3",
    "habitat_baselines.rl.ppo.updates_per_trial=4",
    "habitat_baselines.rl.ppo.num_mini_batch=2",
    "habitat_baselines.rl.ppo.ppo_epoch=2",
    "habitat_baselines.rl.memory.width=16",
    "habitat_baselines.rl.memory.layers=2",
    "habitat_baselines.rl.memory.heads=2",
    "habitat_baselines.rl.memory.hidden=16",
    "habitat_baselines.rl.memory.segment_length=4",
    "habitat_baselines.rl.memory.summary_length=2",
)
PER_UPDATE = 20


def check(folder: Path, by: signal.Signals, moments: int, updates: int, seed: int) -> list[str]:
    """Stop a training by `by`; what is wrong after it has come to its end, nothing if all is well.

    Args:
        folder: for an undisturbed training and one that is stopped.
        by: SIGKILL, or what asks for a stop.
        moments: how often it is stopped.
        updates: of each training; it is stopped after about `updates / (moments + 1)` of them.
        seed: of the moments.
    """
    goal = f"habitat_baselines.total_num_steps={updates * PER_UPDATE}"
    whole, cut = RunFolder(folder / "whole"), RunFolder(folder / f"by {by.name}")
    if not whole.path.exists():
        _start("--out", str(whole.path), *CONFIG, goal).wait()
    drawn, problems = random.Random(f"{seed} {by.name}"), []
    begin = ("--out", str(cut.path), *CONFIG, goal)
    for number in range(moments):
        process = _start(*(("--resume", str(cut.path)) if number else begin))
        wanted = _updates(cut) + drawn.randint(1, max(1, 2 * updates // (moments + 1) - 2))
        while process.poll() is None and _updates(cut) < min(wanted, updates - 1):
            time.sleep(0.005)
        time.sleep(drawn.uniform(0.0, 0.2))  # anywhere in the update that follows
        process.send_signal(by)
        process.wait()
        told, state = _updates(cut), _state(cut)
        lost = told - state
        print(f"{by.name} {number + 1}: {told} updates told, {state} saved", flush=True)
        if lost > (1 if by == signal.SIGKILL else 0):
            problems.append(f"{lost} updates were lost by {by.name} after {told}")
    _start("--resume", str(cut.path)).wait()
    return problems + differences(whole, cut)


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "memo_habitat.cli.main", "train", *arguments]
    environment = {
        **environment_of_one_process(),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    # In a session of its own: a Ctrl-C here is not the training's.
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, start_new_session=True
    )


def _updates(run: RunFolder) -> int:
    rows = read_progress(run.progress_file)
    return int(rows[-1]["updates"]) if rows else 0


def _state(run: RunFolder) -> int:
    from memo_habitat.trainer.checkpoint import read_resume_state

    state = read_resume_state(run.checkpoint_dir)
    return 0 if state is None else int(state["counts"]["num_updates_done"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Check by each signal; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--signals", nargs="+", default=["USR1", "KILL"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every restart
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name in options.signals:
            by = signal.Signals[f"SIG{name}"]
            found = check(Path(folder), by, options.moments, options.updates, options.seed)
            failed |= bool(found)
            print(f"{'FAIL' if found else 'PASS'} {by.name} at {options.moments} moments", *found)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
