"""One process at work for a sweep: started under the folder's lock, its output in the folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime

from memo_habitat.processes import last_lines
from memo_habitat.sweep.lock import lock, sign
from memo_habitat.sweep.tasks import Task, Todo
from memo_habitat.sweep.worker import COMMANDS_BEGIN
from memo_habitat.trainer.run_folder import SWEEP_LOCK, SWEEP_LOG, RunFolder, discard_run

WORKER = "memo_habitat.sweep.worker"


class Job:
    """The process of a task.

    It has a session of its own, so that Ctrl-C at the terminal reaches the sweep alone, which
    passes it on once.

    Attributes:
        task: what it does.
        todo: what was left to do when it began.
    """

    def __init__(self, task: Task, cores: Sequence[int], threads: int) -> None:
        """Start the process, if anything is left to do.

        Args:
            task: what is to be done.
            cores: to run on; none: on all.
            threads: that torch may use, unless OMP_NUM_THREADS is set already.

        Raises:
            HeldError: another process is at work in the folder.
        """
        self.task = task
        self._began = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        task.path.mkdir(parents=True, exist_ok=True)
        held = lock(task.path / SWEEP_LOCK)
        try:
            self.todo = task.todo()
            if self.todo.anew:
                discard_run(RunFolder(task.path))
            if self.todo.commands:
                self._process = self._start(self.todo, cores, threads, held)
                sign(held, self._process.pid)
        finally:
            os.close(held)  # from here on the process has it

    def _start(
        self, todo: Todo, cores: Sequence[int], threads: int, held: int
    ) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        arguments = [json.dumps(list(cores)), json.dumps(todo.commands)]
        self._log = self.task.path / SWEEP_LOG
        with self._log.open("ab") as log:
            self._log_start = log.seek(0, os.SEEK_END)
            log.write(f"{COMMANDS_BEGIN}{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}\n".encode())
            log.flush()
            return subprocess.Popen(
                [sys.executable, "-m", WORKER, *arguments],
                stdin=subprocess.PIPE,  # held open: the worker leaves when it ends
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=(held,),
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    @property
    def status(self) -> int | None:
        """Exit status, negative after a signal; None while it runs."""
        return 0 if self._process is None else self._process.poll()

    def kill(self) -> None:
        """End it at once, with all its own processes."""
        if self._process is not None and self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the pipe to it: asks a process at work to save and leave, once however often called.

        A signal would come on top of the pipe's end when the sweep leaves early, and the second
        interrupt stops a training before its state is saved.
        """
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def last_line(self) -> str:
        """The last line of output since it began."""
        if self._process is None or not self._log.is_file():
            return ""
        lines = last_lines(self._log, self._log_start)
        said = [line for line in lines if not line.startswith(COMMANDS_BEGIN)]
        return said[-1] if said else ""
