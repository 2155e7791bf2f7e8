"""Drills: a fault is done to a small local training; what it must not have harmed is compared."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memo_habitat.errors import UserError
from memo_habitat.trainer.checkpoint import read_resume_state
from memo_habitat.trainer.compare_runs import differences, flip_byte
from memo_habitat.trainer.progress import read_progress
from memo_habitat.trainer.run_dir import PREVIOUS_STATE, RunFolder, newest_checkpoint
from memo_habitat.utils.processes import environment_of_one_process

# Trials of 20 steps with two updates each, and a memory of one narrow layer.
_TINY = (
    "habitat.task.trial_steps=20",
    "habitat.environment.max_episode_steps=10",
    "habitat_baselines.num_checkpoints=2",
    "habitat_baselines.rl.ppo.updates_per_trial=2",
    "habitat_baselines.rl.ppo.num_mini_batch=1",
    "habitat_baselines.rl.ppo.ppo_epoch=1",
    "habitat_baselines.rl.memory.width=16",
    "habitat_baselines.rl.memory.layers=1",
    "habitat_baselines.rl.memory.heads=2",
    "habitat_baselines.rl.memory.hidden=16",
    "habitat_baselines.rl.memory.segment_length=10",
    "habitat_baselines.rl.memory.summary_length=2",
)
# How long the trainings are is a drill's own affair: it knows what has to come out.
_OWN = (
    *("habitat.task.trial_steps", "habitat_baselines.num_environments"),
    *("habitat_baselines.total_num_steps", "habitat_baselines.num_updates"),
    *("habitat_baselines.rl.ppo.updates_per_trial", "habitat_baselines.num_checkpoints"),
)
_ENVIRONMENTS = 2
_PER_UPDATE = 10 * _ENVIRONMENTS
# In which a training has to get to where a fault can be done, or to its end, s.
_PATIENCE = 300.0
# In which the others have to end when one of several processes is lost, s.
_GRACE = 60.0


@dataclass
class Drill:
    """Trainings in a folder, as a user starts them; what was compared, and what was wrong.

    Attributes:
        folder: empty; its path is short, as sockets of worker processes lie there.
        config_name: of an experiment.
        overrides: after those that make it small, of other keys than its size.
        compared: what has been found as it should be.
        wrong: what has not.
        trainings: all that were started.
    """

    folder: Path
    config_name: str
    overrides: Sequence[str] = ()
    compared: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)

    def check(self, what: str, holds: bool, found: object = "") -> None:
        """Note what was compared; `found` is told where it does not hold."""
        if holds:
            self.compared.append(what)
        else:
            on_one_line = " ".join(str(found).split())
            self.wrong.append(f"not so: {what}" + (f" ({on_one_line})" if found else ""))

    def new(self, name: str, updates: int, *more: str, workers: int = 1) -> Training:
        """Start a training of so many updates (of one worker) in a new run folder."""
        size = f"habitat_baselines.num_environments={_ENVIRONMENTS}"
        total = _total(updates * workers)
        words = [f"--config-name={self.config_name}", *_TINY, size, total, *self.overrides]
        return self._start(name, *words, "--out", str(self.folder / name), *more, workers=workers)

    def resume(self, name: str, updates: int, workers: int = 1) -> Training:
        """Start to go on with it until so many updates are made."""
        words = ["--resume", str(self.folder / name), _total(updates * workers)]
        return self._start(name, *words, workers=workers)

    def _start(self, name: str, *words: str, workers: int) -> Training:
        if workers > 1:
            words = (*words, "--workers", str(workers))
        environment = {
            **environment_of_one_process(),
            "TMPDIR": str(self.folder),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "HABITAT_ENV_DEBUG": "0",
        }
        self.trainings.append(Training(RunFolder(self.folder / name), words, environment))
        return self.trainings[-1]

    def close(self) -> None:
        """End what still runs, after an error or Ctrl-C: no terminal's signal reaches it."""
        for training in self.trainings:
            if training.process.poll() is None:  # else its number may be another's by now
                training.kill()


class Training:
    """`memo-habitat train` in a process, and in the end its exit status and what it said."""

    def __init__(self, run: RunFolder, words: Sequence[str], environment: dict[str, str]) -> None:
        self.run = run
        self.status, self.said = 0, ""
        command = [sys.executable, "-m", "memo_habitat.cli.main", "train", *words]
        self._output = run.path.with_suffix(".out")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, happens: Callable[[], bool]) -> None:
        """Wait until it happens; UserError if it never does."""
        end = time.monotonic() + _PATIENCE
        while not happens():
            if self.process.poll() is not None or time.monotonic() > end:
                raise UserError(f"the training was over before the fault: {self._last_words()}")
            time.sleep(0.02)

    def ended(self, within: float = _PATIENCE) -> Training:
        """Itself when it has ended; one that does not end in time is killed (status -9)."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(within)
        self.kill()
        self.status, self.said = self.process.wait(), self._output.read_text(errors="replace")
        return self

    def kill(self) -> None:
        """Kill it with all its workers, where they are still there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def updates(self) -> int:
        """How many it has made, with those before it was resumed."""
        return len(read_progress(self.run.progress_file))

    def _last_words(self) -> str:
        lines = self._output.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


def check_overrides(overrides: Sequence[str]) -> None:
    """UserError for one of a key that drills set themselves."""
    for override in overrides:
        if override.partition("=")[0].lstrip("+") in _OWN:
            raise UserError(f"{override}: the size of a drill's trainings cannot be changed")


def preempt(drill: Drill) -> None:
    """A signal stops a training in the middle of a trial; resumed, it must be as if undisturbed."""
    updates = 31
    undisturbed, stopped = drill.new("undisturbed", updates), drill.new("stopped", updates)
    stopped.until(lambda: stopped.updates() >= 3)
    stopped.process.send_signal(signal.SIGUSR1)
    stopped.ended()
    undisturbed.ended()
    drill.check("SIGUSR1 stops the training with status 130", stopped.status == 130, stopped.status)
    resumed = drill.resume("stopped", updates).ended()
    drill.check("resumed, it comes to its end", resumed.status == 0, resumed.said[-500:])
    found = differences(undisturbed.run, resumed.run)
    drill.check(
        "weights, progress and TensorBoard's curves are those of an undisturbed training",
        not found,
        "; ".join(found),
    )


def kill_worker(drill: Drill) -> None:
    """A worker of an environment is killed: another takes its place, its trial is left out."""
    updates = 8
    training = drill.new("run", updates)
    # Workers write down where they are, for whoever explains their end.
    training.until(lambda: training.updates() >= 1)
    trace = next(drill.folder.glob("memo-habitat-workers-*/1.trace"), None)
    if trace is None:
        raise UserError(f"{drill.config_name} has no worker processes: choose another config")
    os.kill(json.loads(trace.read_text().splitlines()[0])["pid"], signal.SIGKILL)
    training.ended()
    drill.check("the training comes to its end", training.status == 0, training.said[-500:])
    log = training.run.log_file.read_text()
    told = [line for line in log.splitlines() if "environment 1 was killed by SIGKILL" in line]
    drill.check("one line of the log says what killed which worker", len(told) == 1, len(told))
    for part in ("scene ", "episode ", "last actions ", "MiB resident", "takes its place"):
        drill.check(f"it has: {part.strip()}", any(part in line for line in told), told)
    rows = read_progress(training.run.progress_file)
    _check_rows(drill, rows, _PER_UPDATE, updates)
    counts = [int(row["trials"]["count"]) for row in rows if "trials" in row]
    left_out = counts.count(_ENVIRONMENTS - 1) == 1 and len(counts) == updates // 2
    drill.check("one trial is left out, and no other", left_out, counts)


def corrupt_checkpoint(drill: Drill) -> None:
    """A byte of the newest checkpoint and of the state is another: older ones are used."""
    updates = 8
    run = drill.new("run", updates).ended().run
    steps = updates * _PER_UPDATE
    flip_byte(run.latest_checkpoint)
    flip_byte(run.resume_state)
    best = newest_checkpoint(run.checkpoint_dir)
    drill.check("another checkpoint than the damaged one is read", best != run.latest_checkpoint)
    drill.check("it is the newest good one", best == run.checkpoints()[-1], best)
    resumed = drill.resume("run", 2 * updates).ended()
    drill.check("resumed, the training comes to its end", resumed.status == 0, resumed.said[-500:])
    said = resumed.said + run.log_file.read_text()
    drill.check("it says which state is damaged", run.resume_state.name in said, said[-500:])
    rows = read_progress(run.progress_file)
    _check_rows(drill, rows, _PER_UPDATE, 2 * updates)
    reached = newest_checkpoint(run.checkpoint_dir) == run.latest_checkpoint
    drill.check("the newest checkpoint is good again", reached and steps < rows[-1]["steps"])


def disk_full(drill: Drill) -> None:
    """No file may become as long as the state any more, as on a full disk: what is good stays."""
    training = drill.new("run", 10**6)
    run = training.run
    training.until(lambda: run.resume_state.is_file() and run.latest_checkpoint.is_file())
    longest = run.resume_state.stat().st_size // 2
    resource.prlimit(training.process.pid, resource.RLIMIT_FSIZE, (longest, longest))
    training.ended()
    drill.check("the exit status is 2", training.status == 2, training.status)
    errors = [line for line in training.said.splitlines() if "cannot write" in line]
    is_one_line = len(errors) == 1 and "Traceback" not in training.said
    drill.check("one line says which file cannot be written", is_one_line, training.said[-500:])
    known = {*run.checkpoints(), run.latest_checkpoint, run.resume_state, run.locks[1]}
    known.add(run.checkpoint_dir / PREVIOUS_STATE)
    left = sorted(path.name for path in set(run.checkpoint_dir.iterdir()) - known)
    drill.check("nothing half-written is left", not left, left)
    whole = run.progress_file.read_bytes()[-1:] == b"\n"
    drill.check("no line of progress is cut off", whole)
    state = read_resume_state(run.checkpoint_dir)
    is_good = state is not None and "instead" not in state
    is_good = is_good and newest_checkpoint(run.checkpoint_dir) == run.latest_checkpoint
    drill.check("the newest checkpoint and the state are good", is_good)
    more = training.updates() + 4
    resumed = drill.resume("run", more).ended()
    drill.check("with room again, it comes to its end", resumed.status == 0, resumed.said[-500:])
    _check_rows(drill, read_progress(run.progress_file), _PER_UPDATE, more)


def lose_rank(drill: Drill) -> None:
    """One of two processes that train together is killed: the other ends, and both go on again."""
    endless, workers = 10**6, 2
    training = drill.new("run", endless, workers=workers)
    training.until(lambda: training.updates() >= 3)
    os.kill(_process_of_rank(training.process.pid, 1), signal.SIGKILL)
    begun = time.monotonic()
    training.ended(within=_GRACE)
    seconds = time.monotonic() - begun
    drill.check(f"the others end within {_GRACE:.0f} s", seconds < _GRACE, f"{seconds:.0f} s")
    drill.check("the exit status is 1", training.status == 1, training.status)
    named = "worker 1 of 2" in training.said and "SIGKILL" in training.said
    drill.check("it says which one died, and how", named, training.said[-500:])
    # What was saved last is the end of a trial, of two updates.
    more = (training.updates() // 2 + 2) * 2
    resumed = drill.resume("run", more, workers).ended()
    drill.check("resumed, both come to the end", resumed.status == 0, resumed.said[-500:])
    rows = read_progress(resumed.run.progress_file)
    _check_rows(drill, rows, _PER_UPDATE * workers, more)


#: What `memo-habitat drill` offers, and the config that each takes unless it is told another.
DRILLS: dict[str, tuple[Callable[[Drill], None], str]] = {
    "preempt": (preempt, "dark_key_to_door"),
    "kill-worker": (kill_worker, "extobjnav/studio"),
    "corrupt-checkpoint": (corrupt_checkpoint, "dark_key_to_door"),
    "disk-full": (disk_full, "dark_key_to_door"),
    "lose-rank": (lose_rank, "dark_key_to_door"),
}


def _total(updates: int) -> str:
    return f"habitat_baselines.total_num_steps={updates * _PER_UPDATE}"


def _check_rows(drill: Drill, rows: list[dict[str, Any]], per_update: int, updates: int) -> None:
    steps = [row["steps"] for row in rows]
    expected = [per_update * (i + 1) for i in range(updates)]
    drill.check("progress has every update once", steps == expected, steps[-3:])


def _process_of_rank(launcher: int, rank: int) -> int:
    """The process, started by `launcher`, that has this RANK."""
    children = Path(f"/proc/{launcher}/task").glob("*/children")
    for child in " ".join(path.read_text() for path in children).split():
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(child)
    raise UserError(f"process {launcher} has no child with RANK={rank}; this drill needs Linux")
