"""Environment steps per second of a whole training, and the share of each part of it.

python tools/bench/train.py
python tools/bench/train.py --config-name=dark_key_to_door memory=fct --json
python tools/bench/train.py --workers 2 habitat_baselines.num_environments=32
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import machine

from memo_habitat.config.compose import compose_config
from memo_habitat.trainer.launch import start_training, train
from memo_habitat.utils.files import read_json_lines

# Part of a training -> Habitat's timers of it.
PARTS = {
    "act": ("trainer.sample_action",),
    "environments": ("trainer.step_env",),
    "store": ("trainer.obs_insert", "trainer.update_stats"),
    "learn": ("trainer.ppo",),
    "refresh": ("trainer.refresh",),
}


def bench_train(
    name: str, overrides: Sequence[str] = (), trials: int = 5, workers: int = 1
) -> dict[str, Any]:
    """Train `trials` trials of the config `name` after one to warm up, and time them.

    Returns a row with, among others, env_steps_per_second (of the median trial, all workers),
    trial_seconds, and shares of the time by part (of a training in one process).
    """
    config = compose_config(name, overrides)
    baselines, task = config.habitat_baselines, config.habitat.task
    steps = task.trial_steps * baselines.num_environments * workers
    size = [
        f"habitat_baselines.total_num_steps={(1 + trials) * steps}",
        "habitat_baselines.num_updates=-1",
        "habitat_baselines.num_checkpoints=1",
    ]
    with TemporaryDirectory() as folder:
        training = start_training(
            name, [*overrides, *size], out=Path(folder) / "run", workers=workers
        )
        if not train(training):
            raise KeyboardInterrupt
        rows = list(read_json_lines(training.run.progress_file))
    ends = [row["seconds"] for row in rows if "trials" in row]
    seconds = [after - before for before, after in pairwise(ends)]
    return {
        "config": name,
        "overrides": list(overrides),
        "env_steps_per_second": round(steps / statistics.median(seconds)),
        "trial_seconds": [round(value, 3) for value in seconds],
        "shares": shares(rows[-1]["seconds"]) if workers == 1 else None,
        "workers": workers,
        "environments": baselines.num_environments,
        "trial_steps": task.trial_steps,
        "updates_per_trial": baselines.rl.ppo.updates_per_trial,
        "ppo_epoch": baselines.rl.ppo.ppo_epoch,
        "num_mini_batch": baselines.rl.ppo.num_mini_batch,
        "memory": baselines.rl.memory.kind,
        "precision": baselines.rl.precision,
        **machine(),
    }


def shares(seconds: float) -> dict[str, float]:
    """Part of the time of the training in this process that each part of it took."""
    from habitat_baselines.utils.timing import g_timer

    spent = {
        part: sum(float(g_timer[key].sum) for key in keys if key in g_timer) / seconds
        for part, keys in PARTS.items()
    }
    spent["other"] = 1.0 - sum(spent.values())
    return {part: round(value, 4) for part, value in spent.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed of a whole training.")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the config")
    parser.add_argument("--config-name", default="dark_key_to_door", metavar="NAME")
    parser.add_argument("--trials", type=int, default=5, help="measured, after one to warm up")
    parser.add_argument("--workers", type=int, default=1, help="processes that train together")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_args()
    if given.trials < 1:
        parser.error(f"--trials {given.trials}: at least 1 is needed")
    row = bench_train(given.config_name, given.overrides, given.trials, given.workers)
    if given.json:
        print(json.dumps(row))
        return
    seconds = row["trial_seconds"]
    print(
        f"{row['config']}: {row['env_steps_per_second']:,} environment steps a second "
        f"({row['workers']} workers, each with {row['environments']} environments, "
        f"{row['threads']} threads on {row['device']}; trials of {row['trial_steps']} steps took "
        f"{min(seconds):.2f} to {max(seconds):.2f} s)"
    )
    for part, share in (row["shares"] or {}).items():
        print(f"{part:>14} {share:7.1%}")


if __name__ == "__main__":
    main()
