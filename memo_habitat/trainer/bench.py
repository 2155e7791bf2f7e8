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

from memo_habitat.config.compose import compose_config
from memo_habitat.errors import check_at_least_one
from memo_habitat.trainer.memo_trainer import MemoTrainer

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


def bench_train(name: str, overrides: Sequence[str] = (), trials: int = 5) -> dict[str, Any]:
    """Train `trials` trials of the config `name` after one to warm up, and say how long they took.

    Returns:
        config, env_steps_per_second (of the median trial), trial_seconds (each of them), shares
        (of the time: `STATIONS` and `other`), environments, trial_steps, updates_per_trial,
        ppo_epoch, num_mini_batch, memory, precision, device, threads, processor, torch.
    """
    check_at_least_one("--trials", trials)
    config = patch_config(compose_config(name, overrides))
    baselines, steps = config.habitat_baselines, config.habitat.task.trial_steps
    with TemporaryDirectory() as folder:
        with read_write(config):
            config.run_dir = str(Path(folder) / "run")
            baselines.num_updates = -1
            baselines.total_num_steps = (1 + trials) * steps * baselines.num_environments
        g_timer.clear()
        trainer = _TimedTrainer(config)
        trainer.train()
    seconds = [after.clock - before.clock for before, after in pairwise(trainer.marks)]
    first, last = trainer.marks[0], trainer.marks[-1]
    spent = {
        station: sum(last.timers.get(key, 0.0) - first.timers.get(key, 0.0) for key in keys)
        for station, keys in STATIONS.items()
    }
    whole = last.clock - first.clock
    spent["other"] = whole - sum(spent.values())
    ppo = baselines.rl.ppo
    return {
        "config": name,
        "overrides": list(overrides),
        "env_steps_per_second": round(
            steps * baselines.num_environments / statistics.median(seconds)
        ),
        "trial_seconds": [round(value, 3) for value in seconds],
        "shares": {station: round(value / whole, 4) for station, value in spent.items()},
        "environments": baselines.num_environments,
        "trial_steps": steps,
        "updates_per_trial": ppo.updates_per_trial,
        "ppo_epoch": ppo.ppo_epoch,
        "num_mini_batch": ppo.num_mini_batch,
        "memory": baselines.rl.memory.kind,
        "precision": baselines.rl.precision,
        "device": str(trainer.device),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
