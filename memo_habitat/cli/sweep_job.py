"""One job of a sweep in a process of its own, which runs the commands `train` and `eval`.

    python -m memo_habitat.cli.sweep_job SWEEP NAME

is that process on this machine; `SlurmTask` is what submitit runs on a cluster.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from memo_habitat.cli.main import USER_ERROR, main
from memo_habitat.errors import UserError, cannot_write
from memo_habitat.sweep.jobs import SweepJob
from memo_habitat.sweep.spec import read_sweep
from memo_habitat.trainer.run_dir import SWEEP_LOCK, SWEEP_LOG, RunFolder, discard_run
from memo_habitat.utils.lock import hold
from memo_habitat.utils.processes import (
    INTERRUPTED,
    LOG_HEADER,
    handling,
    interrupt_with_parent,
    write_into,
)

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

# How long to wait for the process of a killed sweep to leave, at the latest after an update (s).
PATIENCE = 60.0


def work(folder: Path, name: str) -> int:
    """Do in this process what is left of the job `name` of a sweep; returns the exit status.

    What it prints goes to the log in the job's folder.
    """
    sweep = read_sweep(folder)
    jobs = (SweepJob(sweep, run) for run in (None, *sweep.runs()))
    job = next(job for job in jobs if job.name == name)
    try:
        job.path.mkdir(parents=True, exist_ok=True)
        write_into(job.path / SWEEP_LOG)
    except OSError as error:
        print(cannot_write(job.path, error), file=sys.stderr)
        return USER_ERROR
    try:
        with hold(job.path / SWEEP_LOCK, PATIENCE):
            pending = job.pending()
            if pending is not None and pending.starts:
                _discard(RunFolder(job.path))
            for command in () if pending is None else pending.commands:
                print(f"{LOG_HEADER}memo-habitat {shlex.join(command)}", flush=True)
                sys.argv = ["memo-habitat", *command]  # what run.json says that the run came from
                if command[0] == "eval":
                    job.set_aside()
                if status := main(command):
                    return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    return 0


def _discard(run: RunFolder) -> None:
    """Remove a run in which nothing was learned; HeldError where a process is about to learn."""
    command_lock, trainer_lock = run.locks
    with hold(command_lock), hold(trainer_lock):
        discard_run(run)


@dataclass(frozen=True)
class SlurmTask:
    """A job on a node of a cluster: saves at its time limit or preemption, and is queued again."""

    folder: Path
    name: str

    def __call__(self) -> int:
        """Do what is left; returns the exit status."""
        queue_again = signal.getsignal(signal.SIGUSR2)  # submitit's handler, which calls checkpoint
        asked: list[int] = []

        def on_signal(signum: int, frame: FrameType | None) -> None:
            asked.append(signum)
            if len(asked) == 1:  # the second interrupt stops a training before its state is saved
                signal.raise_signal(signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        # Or Habitat takes this for one of several processes, and the signals for its own.
        slurm = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("SLURM_")}
        with handling((signal.SIGUSR2, signal.SIGTERM), on_signal):
            status = work(self.folder, self.name)
        os.environ.update(slurm)
        if status == INTERRUPTED and signal.SIGUSR2 in asked and callable(queue_again):
            queue_again(signal.SIGUSR2, None)
        return status

    def checkpoint(self) -> DelayedSubmission:
        """What submitit queues again: the same, as the folder says how far it is."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


if __name__ == "__main__":
    interrupt_with_parent()
    sys.exit(work(Path(sys.argv[1]), sys.argv[2]))
