"""Runs the jobs of a sweep, so many at once, until all have ended or somebody asks to stop."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from tqdm import tqdm

from memo_habitat.errors import UserError
from memo_habitat.sweep.jobs import SweepJob, copy_reference_config
from memo_habitat.sweep.spec import Sweep, slurm_executor
from memo_habitat.trainer.progress import share_done
from memo_habitat.trainer.run_dir import SWEEP_LOG, RunFolder
from memo_habitat.utils.processes import (
    INTERRUPTED,
    LocalProcess,
    available_cores,
    describe_status,
    handling,
    last_line,
    stop_signals,
    tail,
)

# The program of a job, by its module's name: what it runs lies downstream of the sweep. Here it is
# a process `python -m ...`, in a cluster submitit runs its `SlurmTask`.
PROGRAM = "memo_habitat.cli.sweep_job"
# Between two looks at the processes, here and in a cluster, and at the progress of the runs (s).
LOCAL_SECONDS, SLURM_SECONDS, SHOW_SECONDS = 0.2, 5.0, 2.0
# How processes end when a sweep is stopped; SIGTERM may have been sent to all of them at once.
_STOPPED = (0, INTERRUPTED, -signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL)


class Failure(NamedTuple):
    """A job that did not reach its end: why, what it said last, and where."""

    name: str
    why: str
    said: str
    log: Path


@dataclass
class Outcome:
    """How the jobs ended."""

    finished: int = 0
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False


class SlurmProcess:
    """A job in the queue of a cluster, or at work there; it stays when the sweep is killed."""

    def __init__(self, job: SweepJob, executor: Any) -> None:
        executor.update_parameters(job_name=job.name.replace(" ", "_"))
        task = import_module(PROGRAM).SlurmTask(job.sweep.folder.resolve(), job.name)
        self._job = executor.submit(task)
        self._stopped = False

    def status(self) -> int | None:
        """Exit status, -SIGTERM where it was cancelled, 1 where it died; None until it ends."""
        if not self._job.done(force_check=self._stopped):
            return None
        if self._job.exception() is None:
            return int(self._job.result())
        return -signal.SIGTERM if self._job.state.startswith("CANCELLED") else 1

    def stop(self) -> None:
        """Take it out of the queue, or ask it to save and leave, for which it has all the time."""
        self._stopped = True
        for option in ("--state=PENDING", "--signal=INT"):
            subprocess.run(["scancel", option, self._job.job_id], check=False)

    def kill(self) -> None:
        """End it."""
        self._job.cancel(check=False)


class Places:
    """Where `count` jobs at once find their place: on this machine, or on a cluster.

    `slurm` are options "key=value" of `sbatch`, such as partition=gpu, time=720 (minutes) or
    gpus_per_node=1; without any it is this machine. `sweep` is whose folder gets submitit's files.

    Raises:
        UserError: no SLURM here, or an unknown key.
    """

    def __init__(self, sweep: Sweep, count: int, slurm: Sequence[str] = ()) -> None:
        self.count, self.seconds = count, LOCAL_SECONDS
        self._executor = None
        if slurm:
            self._executor = slurm_executor(sweep.folder / "slurm", slurm)
            self.seconds = SLURM_SECONDS

    def start(self, job: SweepJob, place: int) -> LocalProcess | SlurmProcess:
        """Start the process of a job, or submit it."""
        if self._executor is not None:
            return SlurmProcess(job, self._executor)
        cores = core_share(place, self.count)
        folder = str(job.sweep.folder)
        process = LocalProcess(PROGRAM, folder, job.name, threads=max(1, len(cores)))
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, cores)
        return process


class Queue:
    """The jobs of a sweep: the runs in order, the references as soon as there is a config."""

    def __init__(self, sweep: Sweep, places: Places, say: Callable[[str], None]) -> None:
        self._sweep, self._places, self._say = sweep, places, say
        self._jobs = [SweepJob(sweep, run) for run in sweep.runs()]
        self._total = len(self._jobs) + 1
        self._running: dict[int, tuple[SweepJob, LocalProcess | SlurmProcess, float]] = {}
        self._referenced = False
        self._baselines = functools.cache(lambda run: RunFolder(run).config().habitat_baselines)
        self._stops = 0
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Do all jobs; those that fail leave the others alone.

        The first request to stop lets them save and leave, the second ends them.
        """
        self._add_references()
        shown = 0.0
        bar: tqdm[Any] = tqdm(
            total=len(self._sweep.runs()),
            initial=self.training_done(),
            desc=f"{self._outcome.finished}/{self._total}",
            bar_format="{desc} done · training {percentage:.0f} % · about {remaining} of it left",
            disable=None,  # unless it is a terminal
            leave=False,
        )

        def on_stop(signum: int, frame: FrameType | None) -> None:
            self._stops += 1

        with handling(stop_signals(), on_stop):
            try:
                while self._running or (self._jobs and not self._stops):
                    self._advance()
                    if not bar.disable and time.monotonic() > shown + SHOW_SECONDS:
                        shown, bar.n = time.monotonic(), self.training_done()
                        _quietly(bar.set_description_str, f"{self._outcome.finished}/{self._total}")
                    time.sleep(self._places.seconds)
            finally:
                for _, process, _ in self._running.values():
                    process.stop()  # none, unless something unforeseen was raised
                _quietly(bar.close)
        self._outcome.interrupted |= self._stops > 0 and bool(self._jobs)
        return self._outcome

    def training_done(self) -> float:
        """How many runs' worth of training is done."""
        done = 0.0
        for run in self._sweep.runs():
            rows = _last_rows(RunFolder(run.path).progress_file)
            with contextlib.suppress(UserError):  # the job of that run tells of it
                if rows:
                    config = self._baselines(run.path)
                    done += share_done(config, rows[-1]["steps"], rows[-1]["updates"])
        return done

    def _advance(self) -> None:
        if self._stops and not self._outcome.interrupted:
            self._outcome.interrupted = True
            self._say("stopping: runs save their state; again: stop at once")
            for _, process, _ in self._running.values():
                process.stop()
        if self._stops > 1:
            for _, process, _ in self._running.values():
                process.kill()
        for place, (job, process, began) in list(self._running.items()):
            if (status := process.status()) is not None:
                del self._running[place]  # the place, with its cores, is free for the next job
                process.stop()
                self._end(job, status, time.monotonic() - began)
        while self._jobs and not self._stops and len(self._running) < self._places.count:
            self._start(self._jobs.pop(0))

    def _start(self, job: SweepJob) -> None:
        try:
            pending = job.pending()
            if pending is None:
                self._finish(job, "finished before")
                return
            place = next(place for place in itertools.count() if place not in self._running)
            process = self._places.start(job, place)
        except (UserError, OSError) as error:
            self._fail(job, "not started", str(error))
            return
        self._running[place] = (job, process, time.monotonic())
        self._say(f"{job.name}: {pending.says}")

    def _end(self, job: SweepJob, status: int, seconds: float) -> None:
        try:
            pending = job.pending()
        except (UserError, OSError) as error:
            self._fail(job, "unreadable", str(error))
            return
        if pending is None:
            facts = [f"finished in {seconds:.0f} s", last_return(RunFolder(job.path).progress_file)]
            self._finish(job, ", ".join(filter(None, facts)))
        elif self._outcome.interrupted and status in _STOPPED:
            self._say(f"{job.name}: stopped, {pending.says} next time")
        else:
            why = describe_status(status) if status else "left unfinished"
            self._fail(job, why, last_line(job.path / SWEEP_LOG))
        self._add_references()

    def _add_references(self) -> None:
        """Put the references first as soon as there is a config to evaluate them with."""
        if not self._referenced and copy_reference_config(self._sweep):
            self._referenced = True
            self._jobs.insert(0, SweepJob(self._sweep, None))

    def _finish(self, job: SweepJob, told: str) -> None:
        self._outcome.finished += 1
        self._say(f"[{self._outcome.finished}/{self._total}] {job.name}: {told}")

    def _fail(self, job: SweepJob, why: str, said: str) -> None:
        self._outcome.failures.append(Failure(job.name, why, said, job.path / SWEEP_LOG))
        self._say(f"{job.name}: failed ({why}): {said}")


def say(line: str) -> None:
    """Write a line above the one that changes.

    Runs outlive who reads of them: a terminal that was closed is not written to, nor an error.
    """
    _quietly(tqdm.write, line)
    _quietly(sys.stdout.flush)


def core_share(place: int, jobs: int) -> list[int]:
    """The cores of one of `jobs` processes: even shares, or one each where they are too few."""
    cores = available_cores()
    return cores[place::jobs] or [cores[place % len(cores)]]


def last_return(progress: Path) -> str:
    """The return of the trials, or reward of the episodes, that ended last; empty if unknown."""
    rows = _last_rows(progress)
    for row in reversed(rows):
        trials = row.get("trials") or {}
        if trials.get("count") and trials.get("return") is not None:
            return f"last return {trials['return']:.2f}"
    reward = rows[-1].get("metrics", {}).get("reward") if rows else None
    return "" if reward is None else f"last reward per episode {reward:.2f}"


def _quietly(write: Callable[..., object], *arguments: str) -> None:
    with contextlib.suppress(OSError):
        write(*arguments)


def _last_rows(progress: Path) -> list[dict[str, Any]]:
    """The last whole rows of a progress file, without reading all of it."""
    rows = []
    for line in tail(progress).splitlines(keepends=True) if progress.is_file() else ():
        with contextlib.suppress(ValueError):  # the first one may have been cut
            rows.append(json.loads(line if line.endswith("\n") else ""))
    return rows
