"""Environments in worker processes that may die or hang: why one did, and another in its place."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from habitat import VectorEnv, logger
from habitat.config import read_write
from habitat.core.vector_env import RESET_COMMAND
from omegaconf import DictConfig
from torch import Tensor

from memo_habitat.compat import startup
from memo_habitat.errors import UserError
from memo_habitat.rollout.storage import TrialStorage
from memo_habitat.trainer.env_worker import (
    CANNOT_MEND,
    exit_note,
    hung_note,
    make_env,
    terminal_note,
    trace_note,
)
from memo_habitat.utils.processes import (
    CRASH_REPORT,
    describe_status,
    explain_exit,
    split_crash_report,
    tail,
    without_noise,
)

#: How long after a closed pipe its worker may take to end, s.
_PATIENCE = 10.0
# Between the seeds of a worker and of the one in its place: no other environment's seed.
_SEED_STRIDE = 1_000_003


class WorkerVectorEnv(VectorEnv):
    """Habitat's, whose workers may die: whoever trains says how many may be replaced.

    Environments go through their trials in step. A new worker cannot join a trial half way: until
    the next ones begin its environment waits at the first observation of its own next trial, and is
    among the `lost` ones, whose trial is not to be learned from.

    Attributes:
        deaths: folder of the notes that workers leave.
        restarts: how many workers may still be replaced; 0 where nobody allowed it.
        replaced: how many were.
        lost: environments that wait.
    """

    _workers: list[Any]
    _num_envs: int

    def __init__(self, arguments: Sequence[tuple[DictConfig, str]], timeout: float) -> None:
        """A worker for each pair of a config and the path of its note of death.

        Who does not answer within `timeout` seconds is ended.
        """
        self.deaths = Path(arguments[0][1]).parent
        self.restarts = 0
        self.lost: set[int] = set()
        self.timeout = timeout
        self.replaced = 0
        self._arguments = list(arguments)
        self._watches: list[_Watch] = []
        # What stands in for the answers of an environment that waits.
        self._first: dict[int, Any] = {}
        self._info: dict[str, Any] | None = None
        # Signals are the trainer's business alone: Ctrl-C must not kill a worker in mid-step.
        super().__init__(make_env, self._arguments, workers_ignore_signals=True)

    def async_step_at(self, index_env: int, action: Any) -> None:
        """Send the action to one environment, unless it waits."""
        if index_env not in self.lost:
            super().async_step_at(index_env, action)

    def wait_step_at(self, index_env: int) -> Any:
        """Observation, reward, whether the episode ended, and measures, of one environment."""
        if index_env not in self.lost:
            try:
                answer = super().wait_step_at(index_env)
            except EOFError:
                self._replace(index_env)
            else:
                self._info = answer[3]
                return answer
        # No episode ends here, so that of these measures, which must be there, none counts.
        return self._first[index_env], 0.0, False, self._info

    def close(self) -> None:
        """End all workers; those that do not answer any more are killed.

        They ignore the signals that would ask them to, and the interpreter waits for them at exit.
        """
        self.timeout = min(self.timeout, _PATIENCE)
        with contextlib.suppress(EOFError, ConnectionError):
            super().close()
        for worker in self._workers:  # those that had already ended do not mind
            worker.kill()
        shutil.rmtree(self.deaths, ignore_errors=True)
        self._is_closed = True

    def _replace(self, index: int) -> None:
        """Put a worker in the place of a dead one; if it may not be, say why that one died.

        Raises:
            EOFError: none is to be replaced, as in an evaluation.
            UserError: no more of them may be, or it would not help.
        """
        is_allowed = bool(self.restarts or self.replaced)
        while True:
            status = self._watches[index].ended()
            if not is_allowed or self._info is None:
                raise EOFError(f"the worker of environment {index} ended")
            death = worker_death(self.deaths, index)
            if status == CANNOT_MEND:
                raise death
            if self.restarts == 0:
                raise UserError(
                    f"{death}; it is the last of {self.replaced + 1} deaths: mend the cause, or "
                    "raise habitat_baselines.max_worker_restarts"
                )
            if len({*self.lost, index}) == self._num_envs:
                raise UserError(f"{death}; no environment is left whose trial could go on")
            self.restarts, self.replaced = self.restarts - 1, self.replaced + 1
            logger.warning(
                f"{death}; its trial is left out, another worker takes its place "
                f"({self.restarts} more may die: habitat_baselines.max_worker_restarts)"
            )
            self.lost.add(index)
            with contextlib.suppress(EOFError):  # then this one has died, too
                self._first[index] = self._start_again(index)
                return

    def _start_again(self, index: int) -> Any:
        """Start a worker for environment `index`; the first observation of its first trial."""
        config, death_note = self._arguments[index]
        for note in self.deaths.glob(f"{index}.*"):
            note.unlink()
        with read_write(config):  # with the same seed it would play its old trials again
            config.habitat.seed += _SEED_STRIDE
        workers, watches, count = self._workers, self._watches, self._num_envs
        try:
            self._num_envs = 1
            (read,), (write,) = self._spawn_workers([(config, death_note)], make_env, True)
            workers[index], watches[index] = self._workers[0], self._watches[0]
        finally:
            self._workers, self._watches, self._num_envs = workers, watches, count
        self._connection_read_fns[index], self._connection_write_fns[index] = read, write
        write((RESET_COMMAND, None))
        return read()

    def _spawn_workers(self, env_fn_args: Any, *args: Any, **kwargs: Any) -> Any:
        with startup.command_left_out():
            reads, writes = super()._spawn_workers(env_fn_args, *args, **kwargs)
        self._watches = []
        for worker, (_, note), read, write in zip(
            self._workers, env_fn_args, reads, writes, strict=True
        ):
            watch = _Watch(worker, note)
            watch.start()
            self._watches.append(watch)
            pipe = _Pipe(read.read_fn.__self__, watch, lambda: self.timeout)
            read.read_fn, write.write_fn = pipe.receive, pipe.send
        return reads, writes


class _Pipe:
    """To a worker, which is ended if it does not answer in time: then it is as if it had died."""

    def __init__(self, connection: Any, watch: _Watch, timeout: Callable[[], float]) -> None:
        self._connection, self._watch, self._timeout = connection, watch, timeout
        self._asked = time.monotonic()
        self._poll = select.poll()  # made once: `Connection.poll` makes one at every call
        self._poll.register(connection.fileno(), select.POLLIN)

    def send(self, message: Any) -> None:
        self._asked = time.monotonic()
        with contextlib.suppress(ConnectionError):  # who reads the answer will know
            self._connection.send(message)

    def receive(self) -> Any:
        left = self._timeout() - (time.monotonic() - self._asked)
        # Several that hang were asked at the same time: they are waited for once.
        if not self._poll.poll(max(0.0, left) * 1000.0):
            self._watch.end_hung(self._timeout())
        try:
            return self._connection.recv()
        except ConnectionError as error:
            raise EOFError from error


class _Watch(threading.Thread):
    """Passes on what a worker says, and notes how it ended.

    Once its pipe is closed that is in nobody's hands.
    """

    def __init__(self, worker: Any, death_note: str) -> None:
        super().__init__(daemon=True)
        self._worker, self._note = worker, death_note

    def run(self) -> None:
        said, passed_on = terminal_note(self._note), 0
        while self._worker.exitcode is None:
            self._worker.join(1.0)
            passed_on = _pass_on(said, passed_on)
        with contextlib.suppress(OSError):  # the folder goes when all are closed on purpose
            exit_note(self._note).write_text(str(self._worker.exitcode))

    def ended(self) -> int:
        """The exit status of a worker whose pipe is closed; it is killed if it does not end."""
        self.join(_PATIENCE)
        if self.is_alive():
            self._worker.kill()
            self.join(_PATIENCE)
        return int(self._worker.exitcode or 0)

    def end_hung(self, seconds: float) -> None:
        """End a worker that has not answered for so long."""
        with contextlib.suppress(OSError):
            hung_note(self._note).write_text(f"{seconds:g}")
            os.kill(self._worker.pid, signal.SIGABRT)  # which makes Python say where it is
        self.join(2.0)
        self._worker.kill()


def _pass_on(said: Path, start: int) -> int:
    """Write what a worker has said from byte `start` on to the terminal; where it ends.

    Not what Python says of a crash: that is in the report of the death.
    """
    try:
        with said.open("rb") as file:
            file.seek(start)
            new = file.read()
    except OSError:
        return start
    whole = new[: new.rfind(b"\n") + 1]
    words, _, _ = whole.decode(errors="replace").partition(CRASH_REPORT)
    sys.stderr.write("".join(without_noise(words.splitlines(keepends=True))))
    return start + len(whole)


def allow_restarts(envs: Any, config: DictConfig) -> None:
    """Let dead workers be replaced in a training, whose storage can leave a trial out."""
    if isinstance(envs, WorkerVectorEnv):
        envs.restarts = config.habitat_baselines.max_worker_restarts


def are_as_made(envs: Any) -> bool:
    """No worker was replaced: every environment plays the trials that its config says."""
    return not (isinstance(envs, WorkerVectorEnv) and envs.replaced)


def begin_trials(envs: Any) -> None:
    """Where all environments are at the beginning of a trial: none waits any more."""
    if isinstance(envs, WorkerVectorEnv):
        envs.lost.clear()


def leave_out_lost(envs: Any, storage: TrialStorage, episode_rewards: Tensor) -> None:
    """Let nothing be learned from trials that broke off, nor their episodes [N, 1] be counted."""
    if isinstance(envs, WorkerVectorEnv) and (lost := sorted(envs.lost)):
        storage.live[lost] = False
        episode_rewards[lost] = 0.0


@contextlib.contextmanager
def closed_at_the_end(trainer: Any) -> Iterator[None]:
    """Within, a trainer uses its `envs`; the death of a worker that ends it is explained."""
    try:
        yield
    except (EOFError, ConnectionError) as error:  # all that a dead worker shows of itself
        raise worker_death(trainer.envs.deaths) from error
    finally:
        if trainer.envs is not None:
            trainer.envs.close()
            if notes := getattr(trainer.envs, "deaths", None):  # of environments in threads
                shutil.rmtree(notes, ignore_errors=True)


def worker_death(deaths: Path, index: int | None = None) -> UserError:
    """What a worker that died left behind, as one line; of the first where none is given."""
    which = "*" if index is None else str(index)
    until = time.monotonic() + _PATIENCE
    while True:
        for suffix in (".hung", ".txt", ".exit"):
            for note in sorted(deaths.glob(f"{which}{suffix}")):
                told = f"environment {note.stem}{_cause(note, suffix)}"
                return UserError(told + _place(trace_note(note)))
        if not deaths.is_dir() or time.monotonic() > until:
            break
        time.sleep(0.05)
    return UserError(
        "an environment worker died without a word, most often for lack of memory: lower "
        "habitat_baselines.num_environments, or set HABITAT_ENV_DEBUG=1 to run them as threads"
    )


def _cause(note: Path, suffix: str) -> str:
    """How a worker ended, by the one of its notes that knows best, and what to do about it."""
    words = note.read_text().strip()
    if suffix == ".txt":
        return f": {words}"
    said = tail(terminal_note(note)) if terminal_note(note).is_file() else ""
    if suffix == ".hung":
        _, place = split_crash_report(said)
        return (
            f" gave no answer for {words} s (habitat_baselines.worker_timeout)"
            f"{place and f', hung at {place}'}; raise it if a house takes longer to load"
        )
    status = int(words or 0)
    if status == -signal.SIGKILL:
        return (
            f" was {describe_status(status)}, most often for lack of memory: lower"
            " habitat_baselines.num_environments"
        )
    return f" ended: {explain_exit(status, said)}"


def _place(trace: Path) -> str:
    """Where a worker was; empty where it has not told."""
    try:
        told, _, _ = trace.read_bytes().partition(b"\n")
        where = json.loads(told)
    except (OSError, ValueError):
        return ""
    step = "" if where["trial_step"] is None else f", step {where['trial_step']} of the trial"
    last = f", last actions {' '.join(where['actions'])}" if where["actions"] else ""
    held = f", {where['resident'] / 2**20:.0f} MiB resident" if where["resident"] else ""
    return f" (scene {where['scene']}, episode {where['episode']}{step}{last}{held})"
