"""Processes at work for another one: their cores, requests to stop, how one ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

# Exit status of what Ctrl-C ended.
INTERRUPTED = 130
_TAIL_BYTES = 65536


class Child:
    """A Python module at work for this process, whose words a log keeps.

    It has a session of its own, so that Ctrl-C at the terminal reaches us alone, and its standard
    input is a pipe that we hold open: see `interrupt_with_parent`.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        logs_output: bool = True,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start it.

        Args:
            command: the module and its arguments.
            log: appended to.
            environment: its variables.
            logs_output: whether what it prints goes to the log, or where ours does.
            descriptors: open files that it inherits.
        """
        self._log = log
        with log.open("ab") as file:
            self._log_start = file.seek(0, os.SEEK_END)
            output = file if logs_output else None
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=tuple(descriptors),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its number, and that of its process group."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative after a signal; None while it runs."""
        return self._process.poll()

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        self._process.send_signal(number)

    def close(self) -> None:
        """End the pipe: asks a process at work to save and leave, once however often called."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """End it at once with all its own processes, if it still runs."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def end(self, deadline: float) -> None:
        """Wait until `deadline` (of time.monotonic), then kill it."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self.close()

    def last_lines(self) -> list[str]:
        """The last lines in its log since it began that are not blank."""
        if not self._log.is_file():
            return []
        lines = tail(self._log, self._log_start).splitlines()
        return [line.strip() for line in lines if line.strip()]


class StopCount:
    """How often a process with others at work for it was asked to stop."""

    def __init__(self) -> None:
        self.count = 0


@contextlib.contextmanager
def count_stops() -> Iterator[StopCount]:
    """Within: Ctrl-C, SIGTERM and the terminal's end are counted and do nothing else.

    The first lets the processes at work save and leave, the second ends them.
    """
    stops = StopCount()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stops.count += 1

    # nohup asks for the terminal's end to be ignored.
    hangs_up = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    caught = (signal.SIGINT, signal.SIGTERM, *hangs_up)
    with handling(caught, on_signal):
        yield stops


@contextlib.contextmanager
def handling(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Within: `handler` answers these signals; afterwards who answered them before."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def interrupt_with_parent() -> None:
    """From now on Ctrl-C interrupts this process, and so does the end of its parent.

    Standard input must be a pipe that the parent holds open and writes nothing to. When the parent
    dies, by whatever signal, the pipe ends: a training then saves its state and leaves.
    """
    # Whoever starts the parent in the background may have Ctrl-C ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_interrupt_at_the_pipes_end, daemon=True).start()


def _interrupt_at_the_pipes_end() -> None:
    while os.read(0, 1):
        pass
    own = threading.main_thread().ident
    if own is not None:
        signal.pthread_kill(own, signal.SIGINT)


def is_first_process() -> bool:
    """Whether a training has this process alone, or it is the first of several (Habitat's rank)."""
    rank = "RANK" if "LOCAL_RANK" in os.environ else "SLURM_PROCID"
    return int(os.environ.get(rank, "0")) == 0


def available_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def tail(path: Path, since: int = 0) -> str:
    """The end of a text of which byte `since` is the first wanted; its first line may be cut."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(since, size - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def describe_status(status: int) -> str:
    """What an exit status says: "exit status 2", "killed by SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
