"""What SLURM, or torchrun, says of the job that this process belongs to."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from memo_habitat.errors import UserError
from memo_habitat.utils.files import atomic_write
from memo_habitat.utils.processes import is_first_process

# Below the ports that Linux gives to whoever asks for any.
_FIRST_PORT, _PORTS = 10_000, 20_000
_STEPS = 16  # of one job have ports of their own: they may run side by side
#: What a job is told and how long before its end (s): an update may be under way, then it saves.
SIGNAL = "USR1@300"
_OTHER_GPUS = {"gpus", "gpus-per-task", "gres"}
# Options of sbatch that say how many take part, and what says it here.
_FIXED = {
    "nodes": "use --nodes",
    **dict.fromkeys(("ntasks", "ntasks-per-node", "ntasks-per-gpu"), "use --gpus"),
    **dict.fromkeys(("requeue", "no-requeue", "array", "wrap"), "not offered here"),
}
_BATCH_FILE = """#!/bin/bash
# Made by `memo-habitat launch`; submitted again, it goes on where it was.
{options}

set -euo pipefail

# Since SLURM 22.05 srun does not take over what sbatch was told of it.
if [[ -n "${{SLURM_CPUS_PER_TASK:-}}" ]]; then export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"; fi

# One task that ends in an error ends the others, which would wait for it.
srun --kill-on-bad-exit=1 --open-mode=append {command}
"""
_SHELLS = ("", "bash", "zsh", "fish", "tcsh", "sh", "interactive")


def first_node() -> str | None:
    """The machine of a step's (else a job's) first task; None outside of SLURM.

    Lists of nodes are written as node[03-05,9],login1.
    """
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST") or ""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group()) if first else None


def meeting_port() -> int | None:
    """A port that all tasks of a step work out alike, and other jobs do not; None: no SLURM."""
    job, step = (os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    if not job.isdecimal():
        return None
    return _FIRST_PORT + (int(job) * _STEPS + int(step if step.isdecimal() else 0)) % _PORTS


def requeue() -> None:
    """Put this batch job back into the queue, where it keeps its number; else nothing is done.

    Where SLURM refuses, one line says so: what was trained is saved, and the job ends.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job or os.environ.get("SLURM_JOB_NAME", "") in _SHELLS:
        return
    if shutil.which("scontrol") is None:
        said = "there is no scontrol here, as in a container without SLURM's commands"
    else:
        asked = ["scontrol", "requeue", job]
        done = subprocess.run(asked, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return
        said = done.stderr.strip() or f"scontrol ended with {done.returncode}"
    sys.stderr.write(f"job {job} is not queued again: {said}; `scontrol requeue {job}` does it\n")


def requeue_if_due() -> None:
    """The same for a training that was stopped as the job was preempted or its time is up.

    SLURM queues a preempted job again where it has ended it itself, at the end of the time of
    grace; one that saves and leaves within that would count as failed.
    """
    from habitat_baselines.rl.ddppo.ddp_utils import REQUEUE

    if is_first_process() and (REQUEUE.is_set() or _is_preempted()):
        requeue()


def _is_preempted() -> bool:
    if not (job := os.environ.get("SLURM_JOB_ID")) or shutil.which("scontrol") is None:
        return False
    told = subprocess.run(
        ["scontrol", "show", "job", job], check=False, capture_output=True, text=True
    )
    return re.search(r"\bPreemptTime=\d", told.stdout) is not None


def job_names() -> list[str]:
    """The jobs that this process belongs to, by names that a second start does not change."""
    names = []
    if job := os.environ.get("SLURM_JOB_ID"):
        names.append(f"slurm {os.environ.get('SLURM_CLUSTER_NAME', '')}:{job}")
    if (run_id := os.environ.get("TORCHELASTIC_RUN_ID")) is not None:
        # Without an id of its own a launch is told by its agent, which starts the processes again.
        agent = f"{socket.gethostname()}:{os.getppid()}"
        names.append(f"torchrun {agent if run_id in ('', 'none') else run_id}")
    return names


def names_if_restarted() -> list[str]:
    """Those of `job_names` by which this may be a second start of the same training."""
    requeued = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    # Of torchrun there is no such count: who joins again after another node failed has none.
    return [name for name in job_names() if requeued or not name.startswith("slurm ")]


def check_options(options: Mapping[str, int | str]) -> None:
    """UserError for an option of sbatch that a training does not leave to the user."""
    for key, value in options.items():
        if remedy := _FIXED.get(key.replace("_", "-")):
            raise UserError(f"--slurm {key}={value}: {remedy}")


@dataclass(frozen=True)
class BatchJob:
    """A training as a batch job of SLURM: one task a GPU, all started by one srun.

    Before the time limit every task gets `SIGNAL`; they save, and the first has the job queued
    again, in which the same command goes on. After a preemption it does so too (`requeue_if_due`),
    and when a node fails SLURM itself does.
    """

    name: str
    nodes: int
    tasks: int  # on each node, with a GPU each unless `options` say otherwise
    options: Mapping[str, int | str]  # of sbatch, by name
    log: Path
    command: tuple[str, ...]

    def text(self) -> str:
        """The file for sbatch."""
        options: dict[str, int | str | None] = {
            "job-name": self.name,
            "time": 1440,
            "gpus-per-node": self.tasks,
            "output": str(self.log),  # unless the options name another
            "open-mode": "append",
            "signal": SIGNAL,
            "requeue": None,
        }
        given = {key.replace("_", "-"): value for key, value in self.options.items()}
        if given.keys() & _OTHER_GPUS or given.get("gpus-per-node") == 0:
            options.pop("gpus-per-node")
            given.pop("gpus-per-node", None)
        options |= given
        options |= {"nodes": self.nodes, "ntasks-per-node": self.tasks}
        lines = "\n".join(
            f"#SBATCH --{key}" if value is None else f"#SBATCH --{key}={shlex.quote(str(value))}"
            for key, value in options.items()
        )
        return _BATCH_FILE.format(options=lines, command=shlex.join(self.command))

    def submit(self, file: Path) -> str:
        """Write `file` and submit it; returns the job's number. UserError as sbatch refuses it."""
        atomic_write(file, self.text())
        if shutil.which("sbatch") is None:
            raise UserError("no sbatch here: submit from a login node of the cluster")
        done = subprocess.run(
            ["sbatch", "--parsable", str(file)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = " ".join(done.stderr.split())
            raise UserError(f"sbatch refused the job (--slurm may need other options): {said}")
        return done.stdout.strip().partition(";")[0]
