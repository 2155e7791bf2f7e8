"""Processes at work for another one: their cores, requests to stop, how one ended."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# Exit status of what Ctrl-C ended.
INTERRUPTED = 130
_TAIL_BYTES = 65536


class StopCount:
    """How often a process with others at work for it was asked to stop."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
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


@contextmanager
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


def available_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def last_lines(log: Path, since: int) -> list[str]:
    """The last lines of a log that are not blank, of what was written from byte `since` on."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(since, size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def describe_status(status: int) -> str:
    """What an exit status says: "exit status 2", "killed by SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
