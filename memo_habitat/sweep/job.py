"""One process at work for a sweep: started under the folder's lock, its output in the folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import datetime

from memo_habitat.sweep.tasks import Task, Todo
from memo_habitat.sweep.worker import COMMANDS_BEGIN
from memo_habitat.trainer.run_dir import SWEEP_LOCK, SWEEP_LOG, RunFolder, discard_run
from memo_habitat.utils.lock import lock, sign
from memo_habitat.utils.processes import Child

WORKER = "memo_habitat.sweep.worker"


class Job:
    """The process of a task; the sweep passes Ctrl-C on to it once.

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
        self._child: Child | None = None
        task.path.mkdir(parents=True, exist_ok=True)
        held = lock(task.path / SWEEP_LOCK)
        try:
            self.todo = task.todo()
            if self.todo.anew:
                discard_run(RunFolder(task.path))
            if self.todo.commands:
                self._child = self._start(self.todo, cores, threads, held)
                sign(held, self._child.pid)
        finally:
            os.close(held)  # from here on the process has it

    def _start(self, todo: Todo, cores: Sequence[int], threads: int, held: int) -> Child:
        environment = dict(os.environ)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        log = self.task.path / SWEEP_LOG
        with log.open("a") as file:
            file.write(f"{COMMANDS_BEGIN}{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}\n")
        command = [WORKER, json.dumps(list(cores)), json.dumps(todo.commands)]
        return Child(command, log, environment, descriptors=[held])

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    @property
    def status(self) -> int | None:
        """Exit status, negative after a signal; None while it runs."""
        return 0 if self._child is None else self._child.status

    def kill(self) -> None:
        """End it at once, with all its own processes."""
        if self._child is not None:
            self._child.kill()

    def close(self) -> None:
        """Ask it to save and leave, if it is still at work, by ending the pipe to it.

        A signal would come on top of the pipe's end when the sweep leaves early, and the second
        interrupt stops a training before its state is saved.
        """
        if self._child is not None:
            self._child.close()

    def last_line(self) -> str:
        """The last line of output since it began."""
        lines = [] if self._child is None else self._child.last_lines()
        said = [line for line in lines if not line.startswith(COMMANDS_BEGIN)]
        return said[-1] if said else ""
