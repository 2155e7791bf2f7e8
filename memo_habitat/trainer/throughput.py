"""How fast a training will be: what a run took at each station, scaled by how much there is to do.

A rate is seconds of a run that there was; none is built in. What one config has to do beside
another is counted: steps of environments, operations of the passes (`live_bytes`), bytes that are
averaged. A GPU that waits for launches gains nothing from less to compute: rates of a config of
about the same size tell most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from memo_habitat.errors import UserError
from memo_habitat.trainer.live_bytes import fake_tensors
from memo_habitat.trainer.memory_estimate import checked
from memo_habitat.trainer.progress import read_progress
from memo_habitat.trainer.rehearsal import Rehearsal, stored_spec
from memo_habitat.trainer.resume import changes
from memo_habitat.trainer.run_dir import RunFolder

# Keys that change how much there is to do, which is counted, and nothing of how long a step takes.
_COUNTED = {"habitat.task.trial_steps", "habitat.seed"}
# What may make a rate another one, besides the environments.
_SAME = (
    "precision",
    "memory.compile",
    "memory.compile_acting",
    "memory.cuda_graphs",
    "memory.kind",
)


@dataclass(frozen=True)
class Throughput:
    """What a trial of all environments takes."""

    seconds: dict[str, float]  # by station, of one worker: they work side by side
    steps: int  # of the environments of all workers
    missing: tuple[str, ...]  # stations at which the run spent no time that is on record
    warnings: tuple[str, ...] = ()

    @property
    def steps_per_second(self) -> float:
        """Of all workers."""
        return self.steps / sum(self.seconds.values())

    @property
    def bound(self) -> str:
        """The station that takes longest."""
        return max(self.seconds, key=lambda station: self.seconds[station])

    def summary(self) -> dict[str, Any]:
        """All of it, as one JSON object."""
        return {**asdict(self), "steps_per_second": self.steps_per_second, "bound": self.bound}


def seconds_by_station(rows: Sequence[Mapping[str, Any]], config: DictConfig) -> dict[str, float]:
    """Seconds that a trial spends at each station, the mean of all trials but the first to end.

    `rows` are those of progress.jsonl that one process wrote, one an update, with the ends of at
    least two trials. The first trial has the warm-up, or a resume left a part of it. Gradients
    are averaged when the slowest worker has its own.
    """
    ppo, steps = config.habitat_baselines.rl.ppo, config.habitat.task.trial_steps
    updates = ppo.updates_per_trial
    ends = [(done, row) for done, row in enumerate(rows, 1) if "trials" in row]
    (done_first, first), (done_last, last) = ends[0], ends[-1]
    trials = len(ends) - 1

    def spent(name: str, times: float) -> float:
        # A timer's mean is of all its starts in the process, and each update has as many of them.
        before, after = (
            float(row["timers"].get(f"trainer.{name}", 0.0)) * done * times / updates
            for done, row in ((done_first, first), (done_last, last))
        )
        return (after - before) / trials

    found = {
        "act": spent("sample_action", steps),
        "average gradients": spent("average_gradients", _optimiser_steps(config)),
        "refresh": spent("refresh", updates),
    }
    found["environments"] = spent("rollout_collect", updates) - found["act"]  # and storing
    found["learn"] = spent("ppo", updates) - found["average gradients"]
    trial = (last["seconds"] - first["seconds"]) / trials
    found["other"] = max(0.0, trial - sum(found.values()))  # waiting for the others, saving
    return found


def _optimiser_steps(config: DictConfig) -> int:
    """In a trial."""
    ppo = config.habitat_baselines.rl.ppo
    minibatches = min(ppo.num_mini_batch, config.habitat_baselines.num_environments)
    per_epoch = 1 if ppo.accumulate_gradients else minibatches * (1 + ppo.hindsight_passes)
    return int(ppo.updates_per_trial * ppo.ppo_epoch * per_epoch)


def trial_work(config: DictConfig, workers: int) -> dict[str, float]:
    """How much a worker has to do at each station in a trial, each in a unit of its own."""
    config = checked(config)
    ppo, environments = config.habitat_baselines.rl.ppo, config.habitat_baselines.num_environments
    updates = ppo.updates_per_trial
    minibatches = min(ppo.num_mini_batch, environments)
    spec = stored_spec(config, torch.device("cpu"))
    with fake_tensors() as live:
        rehearsal = Rehearsal(config, *spec, torch.device("cpu"), is_fake=True)
        # Step by step or in chunks, the same tokens pass the same weights.
        refresh = live.flops_of(rehearsal.refresh)
        minibatch = math.ceil(environments / minibatches)
        one_pass = live.flops_of(lambda: rehearsal.backward(minibatch)) * environments / minibatch
        gradients = sum(p.nbytes for p in rehearsal.policy.parameters())
    passes = ppo.ppo_epoch * (1 if ppo.accumulate_gradients else 1 + ppo.hindsight_passes)
    # Updates see 1/U, 2/U, ... of the trial, and the last one leaves nothing to refresh.
    return {
        "act": refresh,
        # What each sends and receives in a ring.
        "average gradients": gradients * _optimiser_steps(config) * 2 * (workers - 1) / workers,
        "refresh": refresh * (updates - 1) / 2,
        "environments": environments * config.habitat.task.trial_steps,
        "learn": one_pass * passes * (updates + 1) / 2,
        "other": updates,
    }


def predict(run: RunFolder, config: DictConfig, workers: int) -> Throughput:
    """How fast `workers` train `config` where each has what a worker of `run` had: GPU and cores.

    Raises:
        UserError: of `run` fewer than two trials are on record since its last resume, or it was
            none of the trainer memo.
    """
    before, record = run.config(), run.record()
    resumed = record.resumed[-1] if record and record.resumed else None
    had = resumed.workers if resumed else record.workers if record else None
    rows = read_progress(run.progress_file) if run.progress_file.is_file() else []
    since = ""
    if resumed and resumed.steps:
        # Config and workers are those since then, and the timers of a new process begin again.
        rows = [row for row in rows if row["steps"] > resumed.steps]
        since = f" since it was resumed at {resumed.steps:,} steps"
    if sum("trials" in row for row in rows) < 2 or "timers" not in rows[-1]:
        raise UserError(
            f"--rates {run.path}: fewer than two trials are on record there{since}; resume "
            "it for two trials or more, or name another run"
        )
    spent = seconds_by_station(rows, before)
    there, here = trial_work(before, had or 1), trial_work(config, workers)
    seconds = scale(spent, there, here)
    if "act" in seconds:
        # A step takes its calls, however few environments take it.
        longer = config.habitat.task.trial_steps / before.habitat.task.trial_steps
        seconds["act"] = max(seconds["act"], spent["act"] * longer)
    return Throughput(
        dict(sorted(seconds.items(), key=lambda item: -item[1])),
        workers * config.habitat_baselines.num_environments * config.habitat.task.trial_steps,
        tuple(station for station in here if here[station] and station not in seconds),
        tuple(_warnings(before, config)),
    )


def scale(
    spent: Mapping[str, float], there: Mapping[str, float], here: Mapping[str, float]
) -> dict[str, float]:
    """Seconds by station where the work `there` took `spent` and now is as much as `here`.

    Stations that had no work there, or took no time, are left out.
    """
    known = [station for station in here if there[station] and spent[station] > 0.0]
    return {station: spent[station] * here[station] / there[station] for station in known}


def _warnings(before: DictConfig, config: DictConfig) -> Iterator[str]:
    others = [
        key
        for key in changes(before, config)
        if (key.startswith("habitat.") and key not in _COUNTED)
        or key.startswith("habitat_baselines.vector_env_factory")
        or key.removeprefix("habitat_baselines.rl.") in _SAME
    ]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        yield (
            f"--rates: the run had another {', '.join(others[:3])}{more}; its seconds are taken "
            "as if that made no difference"
        )


def table(source: str, found: Throughput) -> str:
    """A throughput as people read it."""
    whole = sum(found.seconds.values())
    lines = [f"throughput by the rates of {source}, of a trial of all environments:"]
    for station, seconds in found.seconds.items():
        share, rate = seconds / whole, found.steps / seconds
        lines.append(f"  {station:<21}{seconds:>10.2f} s  {share:4.0%}  {rate:,.0f} steps/s alone")
    lines += [f"  {station:<21}  not known: that run had none" for station in found.missing]
    lines.append(f"{found.steps_per_second:,.0f} steps a second; what bounds it: {found.bound}")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in found.warnings)])
