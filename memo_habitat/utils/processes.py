"""Processes at work for another one: requests to stop, how one ended, what it said last."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import NamedTuple

# Exit status of what Ctrl-C ended.
INTERRUPTED = 130
# Begins the line that a process writes into a log before it writes anything else.
LOG_HEADER = "== "
# Begins what Python's faulthandler says of a process that a signal ends.
CRASH_REPORT = "Fatal Python error: "
_TAIL_BYTES = 65536
_NOISE = ("duplicate static plugin", "Gym has been", "Please upgrade", "See the migration")
_DRIVER = (
    "install an OpenGL driver (Debian without a GPU: libegl1 libgl1 libopengl0 libgl1-mesa-dri; in"
    " a container with one: NVIDIA_DRIVER_CAPABILITIES=all), as no OpenGL driver serves this"
    " device; set habitat.simulator.habitat_sim_v0.gpu_device_id, or choose simulator=embree, which"
    " needs none (docs/habitat_sim.md)"
)
# What to do about a process that a library ended, by a sign in what it wrote.
_REMEDIES = {
    "LLVM ERROR": "Mesa and Triton were loaded into one process (docs/habitat_sim.md)",
    "EGL": _DRIVER,
    "WindowlessContext": _DRIVER,
    "libGL.so.1": "Debian, Ubuntu: apt-get install libgl1 libglib2.0-0",
    "shared object": "install the library that is named, for Habitat-Sim (docs/habitat_sim.md)",
}
# The limit of a container, in both versions of Linux's control groups.
_MEMORY_LIMITS = tuple(
    Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory/memory.limit_in_bytes")
)


def environment_of_one_process() -> dict[str, str]:
    """This process's environment variables without what makes another one a part of a job.

    A training started with them neither waits for others nor asks SLURM to queue its job again.
    """
    joint = ("SLURM_", "TORCHELASTIC_")
    ranks = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK")
    return {k: v for k, v in os.environ.items() if not k.startswith(joint) and k not in ranks}


def stop_signals() -> tuple[int, ...]:
    """What asks a command to stop: Ctrl-C, SIGTERM, and the terminal's end except under nohup."""
    hangs_up = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangs_up else []))


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


@contextlib.contextmanager
def lifeline() -> Iterator[Callable[[], None]]:
    """Within: processes that are started lose their standard input when we call what is yielded.

    Or when we die, by whatever signal. A pipe tells them instead of a signal, because it cannot
    come too early, when a process is not ready for it, and never comes twice, which would stop a
    training before its state is saved. See `interrupt_with_parent`.
    """
    end, ours = os.pipe()
    before = os.dup(0)
    os.dup2(end, 0)
    os.close(end)
    with os.fdopen(ours, "wb") as pipe:
        try:
            yield pipe.close
        finally:
            os.dup2(before, 0)
            os.close(before)


def interrupt_with_parent() -> None:
    """From now on Ctrl-C interrupts this process, and so does the end of its standard input.

    That is a pipe which the parent holds open and writes nothing to: see `lifeline`.
    """

    def wait() -> None:
        while os.read(0, 1):
            pass
        if own := threading.main_thread().ident:
            signal.pthread_kill(own, signal.SIGINT)

    # Whoever starts the parent in the background may have Ctrl-C ignored, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=wait, daemon=True).start()


class LocalProcess:
    """`python -m MODULE ARGUMENTS` at work in a session of its own, with one thread a core of its.

    Ctrl-C reaches its parent alone, which then stops it; it has to call `interrupt_with_parent`.
    """

    def __init__(self, module: str, *arguments: str, threads: int = 1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,  # its end asks the process to stop, also when we are killed
            # More threads, from every process, would only wait for each other.
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            start_new_session=True,
        )
        self.pid = self._process.pid

    def status(self) -> int | None:
        """Exit status, negative after a signal; None while it is at work."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to save and leave, by the end of its standard input: once however often called."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """End it at once with all its own processes."""
        if self.status() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def write_into(log: Path, descriptors: Iterable[int] = (1, 2)) -> None:
    """From now on what this process and its children print is appended to `log`."""
    with log.open("ab", buffering=0) as file:
        file.write(f"{LOG_HEADER}{time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        for descriptor in descriptors:
            os.dup2(file.fileno(), descriptor)


def last_line(log: Path) -> str:
    """The last line that is not blank of what the last process wrote into a log; empty if none."""
    lines = tail(log).splitlines() if log.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return "" if last.startswith(LOG_HEADER) else last


def tail(path: Path) -> str:
    """The end of a text; its first line may be cut."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def describe_status(status: int) -> str:
    """What an exit status says: "exit status 2", "killed by SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    names = {number.value: number.name for number in signal.Signals}
    return f"killed by {names.get(-status, f'signal {-status}')}"


def without_noise(lines: Iterable[str]) -> list[str]:
    """The lines without those that Magnum and gym write at every start, whatever they are told."""
    return [line for line in lines if not any(noise in line for noise in _NOISE)]


def explain_exit(status: int, said: str, more: Mapping[str, str] = MappingProxyType({})) -> str:
    """How a process ended without an exception, what it said last, and what to do about it.

    Args:
        status: as `describe_status` takes it.
        said: what it wrote to its terminal.
        more: what to do by a sign in a line, beside what is known of the libraries that draw.
    """
    said, place = split_crash_report(said)
    lines = without_noise(line.strip() for line in said.splitlines() if line.strip())
    remedy, told = "HABITAT_SIM_LOG=debug MAGNUM_LOG=verbose say more", lines[-1:]
    for sign, known in {**_REMEDIES, **more}.items():
        if telling := [line for line in lines if sign in line]:
            remedy, told = known, telling[-1:]
            break
    words = "".join(f"; its last words: {line}" for line in told)
    where = f" at {place}" if place else ""
    return f"{describe_status(status)}{where}{words}; {remedy}"


def split_crash_report(said: str) -> tuple[str, str]:
    """What a process said before a signal ended it, and where in Python it was then, or ""."""
    words, _, report = said.partition(CRASH_REPORT)
    _, _, frames = report.partition("Current thread ")
    return words, "".join(frames.splitlines()[1:2]).strip()


class Ranks(NamedTuple):
    """The place of a process among those that train together."""

    local: int  # among those on its machine
    rank: int  # among all
    size: int  # of all


ALONE = Ranks(0, 0, 1)


def ranks() -> Ranks:
    """That of this process, as torchrun or a step of srun tells it; else it is alone.

    Not what Habitat reads: within a job of SLURM, but for a step of srun, SLURM_NTASKS promises
    tasks that nobody has started, and the first would wait for them for ever.
    """
    for names in (
        ("LOCAL_RANK", "RANK", "WORLD_SIZE"),
        ("SLURM_LOCALID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ):
        if all(os.environ.get(name, "").isdecimal() for name in names):
            return Ranks(*(int(os.environ[name]) for name in names))
    return ALONE


def is_first_process() -> bool:
    """Whether a training has this process alone, or it is the first of several."""
    return ranks().rank == 0


def available_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def free_memory() -> int:
    """Bytes of RAM that processes may still take, at most the limit of the container."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    free = 0 if found is None else int(found[1]) * 1024
    for file in _MEMORY_LIMITS:
        # Without a limit version 2 says "max", and version 1 a number beyond any memory.
        if file.is_file() and (limit := file.read_text().strip()).isdigit():
            free = min(free, int(limit))
    return free
