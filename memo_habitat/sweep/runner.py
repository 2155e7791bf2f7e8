"""Runs the tasks of a sweep, so many at once, until all have ended or somebody asks to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from memo_habitat.errors import UserError
from memo_habitat.sweep.job import Job
from memo_habitat.sweep.spec import Sweep
from memo_habitat.sweep.status import Estimate, Terminal, last_return
from memo_habitat.sweep.tasks import ReferenceTask, RunTask, Task
from memo_habitat.trainer.run_dir import SWEEP_LOG, RunFolder
from memo_habitat.utils.lock import HeldError
from memo_habitat.utils.processes import (
    INTERRUPTED,
    StopCount,
    available_cores,
    count_stops,
    describe_status,
)

# What a killed sweep leaves behind ends by itself, at the latest when an update is over.
PATIENCE_SECONDS = 60.0
_TICK_SECONDS = 0.2
# How processes end when a sweep is stopped; SIGTERM may have been sent to all of them at once.
_STOPPED = (0, INTERRUPTED, -signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL)


@dataclass(frozen=True)
class Failure:
    """A task that did not reach its end: why, what it said last, and where."""

    name: str
    why: str
    said: str
    log: Path


@dataclass
class Outcome:
    """How the tasks ended."""

    finished: int = 0
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False


class Queue:
    """The tasks of a sweep: the runs in order, the references as soon as there is a config."""

    def __init__(
        self, sweep: Sweep, jobs: int, terminal: Terminal, patience: float = PATIENCE_SECONDS
    ) -> None:
        """Take the tasks of `sweep`, to be done `jobs` at once.

        Args:
            sweep: what there is to do.
            jobs: processes at once.
            terminal: to tell on.
            patience: seconds to wait for processes that are at work in folders of the sweep.
        """
        self._terminal, self._patience = terminal, patience
        self._tasks: list[Task] = [RunTask(sweep, member) for member in sweep.members()]
        self._reference: ReferenceTask | None = ReferenceTask(sweep)
        self._total = len(self._tasks) + 1
        self._estimate = Estimate(sweep, jobs)
        self._slots: list[Job | None] = [None] * jobs
        self._shares = core_shares(jobs)
        self._held: dict[str, HeldError] = {}
        self._idle_since: float | None = None
        self._outcome = Outcome()

    def run(self) -> Outcome:
        """Do all tasks; those that fail leave the others alone."""
        self._skip_finished()
        with count_stops() as stops:
            try:
                while not self._is_over(stops):
                    self._advance(stops)
                    time.sleep(_TICK_SECONDS)
            finally:
                for job in self._running():  # none, unless something unforeseen was raised
                    job.close()
        self._outcome.interrupted |= stops.count > 0 and bool(self._tasks)
        self._terminal.clear()
        return self._outcome

    def _running(self) -> list[Job]:
        return [job for job in self._slots if job is not None]

    def _is_over(self, stops: StopCount) -> bool:
        return not self._running() and (stops.count > 0 or not self._tasks)

    def _skip_finished(self) -> None:
        self._add_reference()
        left = [task for task in self._tasks if _is_left(task)]
        self._outcome.finished = len(self._tasks) - len(left)
        if self._outcome.finished:
            self._terminal.say(f"finished before: {self._outcome.finished} of {self._total}")
        self._tasks = left

    def _advance(self, stops: StopCount) -> None:
        if stops.count and not self._outcome.interrupted:
            self._outcome.interrupted = True
            self._terminal.say("stopping: runs save their state; again: stop at once")
            for job in self._running():
                job.close()
        if stops.count > 1:
            for job in self._running():
                job.kill()
        for slot, ended in enumerate(self._slots):
            if ended is not None and (status := ended.status) is not None:
                self._slots[slot] = None
                self._end(ended, status)
        if not stops.count:
            self._start()
            self._give_up_waiting()
        if self._terminal.is_due():
            self._terminal.show(self._estimate.line(self._outcome.finished, self._total))

    def _start(self) -> None:
        """Fill the slots; what another process is at work on stays in the queue."""
        for task in list(self._tasks):
            if None not in self._slots:
                return
            slot = self._slots.index(None)
            threads = max(1, len(self._shares[slot]))
            try:
                job = Job(task, self._shares[slot], threads)
            except HeldError as error:
                if task.name not in self._held:
                    self._terminal.say(f"{task.name}: waits, for {error}")
                self._held[task.name] = error
                continue
            except (UserError, OSError) as error:
                self._tasks.remove(task)
                self._fail(task, "not started", str(error))
                continue
            self._tasks.remove(task)
            self._slots[slot] = job
            if job.todo.commands:
                self._terminal.say(f"{task.name}: {job.todo.says}")

    def _give_up_waiting(self) -> None:
        """When nothing but what others hold is left, their time is limited."""
        if self._running() or not self._tasks:
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = time.monotonic()
        if time.monotonic() - self._idle_since >= self._patience:
            for task in self._tasks:
                self._fail(task, "in use", str(self._held[task.name]))
            self._tasks = []

    def _end(self, job: Job, status: int) -> None:
        job.close()
        task = job.task
        try:
            left = task.todo()
        except (UserError, OSError) as error:
            self._fail(task, "unreadable", str(error))
            return
        if not left.commands:
            self._outcome.finished += 1
            facts = [f"finished in {job.seconds:.0f} s", last_return(_progress(task))]
            told = f"{task.name}: {', '.join(fact for fact in facts if fact)}"
            self._terminal.say(f"[{self._outcome.finished}/{self._total}] {told}")
        elif self._outcome.interrupted and status in _STOPPED:
            self._terminal.say(f"{task.name}: stopped, {left.says} next time")
        else:
            why = "left unfinished" if status == 0 else describe_status(status)
            self._fail(task, why, job.last_line())
        self._add_reference()

    def _add_reference(self) -> None:
        """Put the references first as soon as there is a config to evaluate them with."""
        if self._reference is None:
            return
        if self._reference.prepare():
            self._tasks.insert(0, self._reference)
            self._reference = None

    def _fail(self, task: Task, why: str, said: str) -> None:
        self._outcome.failures.append(Failure(task.name, why, said, task.path / SWEEP_LOG))
        self._terminal.say(f"{task.name}: failed ({why}): {said}")


def core_shares(jobs: int) -> Sequence[Sequence[int]]:
    """The cores of each of `jobs` processes: even shares, or one each where they are too few."""
    cores = available_cores()
    count = len(cores)
    if jobs >= count:
        return [[cores[job % count]] for job in range(jobs)]
    return [cores[job * count // jobs : (job + 1) * count // jobs] for job in range(jobs)]


def _is_left(task: Task) -> bool:
    try:
        return bool(task.todo().commands)
    except (UserError, OSError):  # fails when it is started, and no other with it
        return True


def _progress(task: Task) -> Path:
    return RunFolder(task.path).progress_file
