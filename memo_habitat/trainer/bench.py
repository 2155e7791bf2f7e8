"""How fast a whole training runs, and which station its time goes to."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from habitat.config import read_write
from habitat.config.default import patch_config
from habitat_baselines.utils.timing import g_timer
from omegaconf import DictConfig

from memo_habitat.config.compose import compose_config, import_habitat
from memo_habitat.errors import check_at_least_one
from memo_habitat.trainer.distributed import check_workers, run_workers
from memo_habitat.trainer.trainer import MemoTrainer

# Name in the table -> the timers in it, of the trainer's own and of Habitat's collection.
STATIONS = {
    "act": ("trainer.sample_action",),
    "environments": ("trainer.step_env",),
    "store": ("trainer.obs_insert", "trainer.update_stats"),
    "learn": ("trainer.ppo",),
    "refresh": ("trainer.refresh",),
}


class _Mark(NamedTuple):
    """The clock (s) and the timers (s) where a trial ended."""

    clock: float
    timers: dict[str, float]


class _TimedTrainer(MemoTrainer):
    """Notes the clock at each trial's end and keeps nothing on disk."""

    def _log_update(self, writer: Any, progress: Any) -> None:
        if self._agent.rollouts.steps == 0:
            timers = {name: float(timer.sum) for name, timer in g_timer.items()}
            self.marks.append(_Mark(time.perf_counter(), timers))

    def _keep(self, writer: Any) -> None:
        pass

    def _keep_last(self) -> None:
        pass

    def train(self) -> None:
        """Train; `marks` has one entry per trial afterwards."""
        self.marks: list[_Mark] = []
        super().train()


def bench_train(
    name: str, overrides: Sequence[str] = (), trials: int = 5, workers: int = 1
) -> dict[str, Any]:
    """Train `trials` trials of the config `name` after one to warm up, and say how long they took.

    Args:
        name: of the config.
        overrides: "key=value".
        trials: measured.
        workers: processes that train together, as in `launch.train`.

    Returns:
        config, env_steps_per_second (of the median trial, summed over the workers), trial_seconds
        (each of the first worker's), shares (of the time: `STATIONS` and `other`; means over the
        workers), workers, environments (of each worker), environments_total, trial_steps,
        updates_per_trial, ppo_epoch, num_mini_batch, memory, precision, device, threads (of each
        worker), processor, torch.
    """
    check_at_least_one("--trials", trials)
    check_workers(workers)
    config = compose_config(name, overrides)
    baselines, steps = config.habitat_baselines, config.habitat.task.trial_steps
    with TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        run_dir.mkdir()  # Habitat leaves it to the first worker, and the others would not wait
        with read_write(config):
            config.run_dir = str(run_dir)
            baselines.num_updates = -1
            baselines.total_num_steps = (1 + trials) * steps * baselines.num_environments * workers
        rows = (
            [measure_training(config)]
            if workers == 1
            else run_workers(measure_training, config, workers)
        )
    if any(len(row["trial_seconds"]) < trials for row in rows):
        raise KeyboardInterrupt  # asked to stop
    return {"config": name, "overrides": list(overrides), **_together(config, rows)}


def measure_training(config: DictConfig) -> dict[str, Any]:
    """Train in this process and time it.

    Returns:
        trial_seconds (of all trials but the first), shares, threads, device.
    """
    import_habitat()
    g_timer.clear()
    trainer = _TimedTrainer(patch_config(config))
    trainer.train()
    marks = trainer.marks
    return {
        "trial_seconds": [after.clock - before.clock for before, after in pairwise(marks)],
        "shares": _shares(marks[0], marks[-1]) if len(marks) > 1 else {},
        "threads": torch.get_num_threads(),
        "device": str(trainer.device),
    }


def _shares(first: _Mark, last: _Mark) -> dict[str, float]:
    """The part of the time between two marks that each station took."""
    whole = last.clock - first.clock
    spent = {
        station: sum(last.timers.get(key, 0.0) - first.timers.get(key, 0.0) for key in keys)
        for station, keys in STATIONS.items()
    }
    spent["other"] = whole - sum(spent.values())
    return {station: value / whole for station, value in spent.items()}


def _together(config: DictConfig, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `measure_training` found in each worker, as one row."""
    baselines, first = config.habitat_baselines, rows[0]
    ppo = baselines.rl.ppo
    each = config.habitat.task.trial_steps * baselines.num_environments
    return {
        "env_steps_per_second": round(
            sum(each / statistics.median(row["trial_seconds"]) for row in rows)
        ),
        "trial_seconds": [round(value, 3) for value in first["trial_seconds"]],
        "shares": {
            station: round(statistics.fmean(row["shares"][station] for row in rows), 4)
            for station in first["shares"]
        },
        "workers": len(rows),
        "environments": baselines.num_environments,
        "environments_total": baselines.num_environments * len(rows),
        "trial_steps": config.habitat.task.trial_steps,
        "updates_per_trial": ppo.updates_per_trial,
        "ppo_epoch": ppo.ppo_epoch,
        "num_mini_batch": ppo.num_mini_batch,
        "memory": baselines.rl.memory.kind,
        "precision": baselines.rl.precision,
        "device": first["device"],
        "threads": first["threads"],
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
