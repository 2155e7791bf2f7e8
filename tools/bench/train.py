"""Environment steps per second of a whole training, and the share of each part of it.

python tools/bench/train.py
python tools/bench/train.py --config-name=dark_key_to_door memory=fct --json
python tools/bench/train.py --workers 1,2 habitat_baselines.num_environments=32
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import cpu_seconds, family, machine

from memo_habitat.config.compose import compose_config
from memo_habitat.trainer.launch import start_training, train
from memo_habitat.trainer.throughput import seconds_by_station
from memo_habitat.utils.files import read_json_lines


def bench_train(
    name: str, overrides: Sequence[str] = (), trials: int = 5, workers: int = 1
) -> dict[str, Any]:
    """Train `trials` trials of the config `name` after one to warm up, and time them.

    Returns a row with, among others, env_steps_per_second (of the median trial, all workers),
    trial_seconds, cpu_seconds_per_trial (of all processes; None where there is no /proc), and the
    seconds of the mean trial by station, as the first worker spent them.
    """
    config = compose_config(name, overrides)
    baselines, task = config.habitat_baselines, config.habitat.task
    steps = task.trial_steps * baselines.num_environments * workers
    size = [
        f"habitat_baselines.total_num_steps={(1 + trials) * steps}",
        "habitat_baselines.num_updates=-1",
        "habitat_baselines.num_checkpoints=1",
    ]
    with TemporaryDirectory() as folder, CpuWatch(Path(folder) / "run/progress.jsonl") as watch:
        training = start_training(
            name, [*overrides, *size], out=Path(folder) / "run", workers=workers
        )
        if not train(training):
            raise KeyboardInterrupt
        rows = list(read_json_lines(training.run.progress_file))
    ends = [row["seconds"] for row in rows if "trials" in row]
    seconds = [after - before for before, after in pairwise(ends)]
    stations = seconds_by_station(rows, config)
    return {
        "config": name,
        "overrides": list(overrides),
        "env_steps_per_second": round(steps / statistics.median(seconds)),
        "trial_seconds": [round(value, 3) for value in seconds],
        "cpu_seconds_per_trial": watch.per_row(baselines.rl.ppo.updates_per_trial),
        "seconds_by_station": {name: round(spent, 4) for name, spent in stations.items()},
        "steps_per_trial": steps,
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


class CpuWatch:
    """Within: looks now and then at the processor time of this process and all that it started.

    Beside other work a clock tells what that leaves; processor time is nearly what it would be
    alone.
    """

    def __init__(self, progress: Path) -> None:
        self._progress, self._over = progress, threading.Event()
        self._seen: list[tuple[int, float]] = []  # rows of progress, CPU seconds
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> CpuWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            rows = self._progress.read_bytes().count(b"\n") if self._progress.exists() else 0
            self._seen.append((rows, sum(map(cpu_seconds, family(os.getpid())))))

    def per_row(self, count: int) -> float | None:
        """Seconds for `count` rows, from the first trial's end to the last look with all there."""
        warm = [(rows, spent) for rows, spent in self._seen if rows >= count]
        if not warm or warm[0][0] == warm[-1][0] or not warm[0][1]:
            return None
        # What has ended takes its time with it, and before it ends it saves and tidies up.
        last = warm[-1][0]
        end = next(spent for rows, spent in warm if rows == last)
        return round(count * (end - warm[0][1]) / (last - warm[0][0]), 3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed of a whole training.")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys of the config")
    parser.add_argument("--config-name", default="dark_key_to_door", metavar="NAME")
    parser.add_argument("--trials", type=int, default=5, help="measured, after one to warm up")
    parser.add_argument(
        "--workers",
        type=_counts,
        default=[1],
        metavar="N,N,...",
        help="processes that train together; one row for each number",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    given = parser.parse_args()
    if given.trials < 1:
        parser.error(f"--trials {given.trials}: at least 1 is needed")
    before: dict[str, Any] | None = None
    for workers in given.workers:
        row = bench_train(given.config_name, given.overrides, given.trials, workers)
        if given.json:
            print(json.dumps(row), flush=True)
        else:
            _print(row, before)
        before = row


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _print(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
    seconds = row["trial_seconds"]
    print(
        f"{row['config']}: {row['env_steps_per_second']:,} environment steps a second "
        f"({row['workers']} workers, each with {row['environments']} environments, "
        f"{row['threads']} threads on {row['device']}; trials of {row['trial_steps']} steps took "
        f"{min(seconds):.2f} to {max(seconds):.2f} s)"
    )
    if cpu := row["cpu_seconds_per_trial"]:
        rate = row["steps_per_trial"] / cpu
        print(f"{cpu:.2f} s of processor time a trial, {rate:,.0f} steps for each second of it")
    if before is not None:
        times = row["env_steps_per_second"] / before["env_steps_per_second"]
        print(f"{times:.2f} times the steps of {before['workers']} workers")
    whole = statistics.mean(seconds)
    for station, spent in row["seconds_by_station"].items():
        if spent > 0:
            rate = row["steps_per_trial"] / spent
            print(f"{station:>18} {spent / whole:7.1%} {rate:14,.0f} steps/s", flush=True)


if __name__ == "__main__":
    main()
