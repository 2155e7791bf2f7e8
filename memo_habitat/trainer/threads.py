"""How many threads torch computes on where a training has no GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from habitat import logger

from memo_habitat.utils.processes import available_cores

# Fields of a core in /proc/stat: waiting is no work, and a guest's is its host's.
_IDLE, _WAITING, _FIELDS = 3, 4, 8
# Of a core: what others may take unnoticed, as a desktop does. From a thread that shares its core a
# busy program takes half.
_TOLERATED = 0.25
_FIRST_LOOK_SECONDS, _LOOK_EVERY_SECONDS = 0.1, 1.0
_NOTHING: tuple[float, ...] = (0.0, 0.0, 0.0)


@contextmanager
def acting_threads(device: torch.device) -> Iterator[None]:
    """Within: torch computes on one thread if it acts on a CPU.

    One step of some environments is too little work to share, and sums are then the same on every
    number of cores.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def busy_seconds(file: Path = Path("/proc/stat")) -> float | None:
    """Seconds that all processes took of the available cores since the system's start.

    None where the system has no such file, or it lacks one of the cores, as in some containers.
    """
    if not file.is_file():
        return None
    names = {f"cpu{core}" for core in available_cores()}
    lines = [line.split() for line in file.read_text().splitlines()]
    cores = [[int(n) for n in line[1 : 1 + _FIELDS]] for line in lines if line and line[0] in names]
    ticks = sum(sum(core) - core[_IDLE] - core[_WAITING] for core in cores)
    return ticks / os.sysconf("SC_CLK_TCK") if len(cores) == len(names) else None


class SpareCores:
    """Keeps the threads that learn to the cores that other programs leave to this process.

    Threads wait for each other after every operation, some thousand times a second. One that has
    to share its core makes them all wait for its turn: beside one busy program two threads on two
    cores learned twenty times as slowly, one thread lost a sixth (docs/troubleshooting.md).

    A number that the user chose by OMP_NUM_THREADS stays. So does torch's where there is a GPU, and
    where the system does not say what its cores do.
    """

    def __init__(
        self,
        device: torch.device,
        busy: Callable[[], float | None] = busy_seconds,
        own: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Look at the cores for a moment, while this process rests, and choose.

        Args:
            device: that the training computes on.
            busy: seconds that all processes took of the cores available to this one; None: unknown.
            own: seconds that this one took of them.
            clock: seconds that went by.
        """
        self._most = torch.get_num_threads()
        self._cores = len(available_cores())
        self._clocks = busy, own, clock
        # Of each clock: what it showed last, and what passed by it while learning.
        self._last = self._seen = _NOTHING
        chosen = device.type != "cpu" or self._most == 1 or "OMP_NUM_THREADS" in os.environ
        self._adapts = not chosen and busy() is not None
        if self._adapts:
            self._last = self._now()
            time.sleep(_FIRST_LOOK_SECONDS)
            self._add()
            self._choose()

    def close(self) -> None:
        """Give torch its threads back: what follows in this process is not this training's."""
        torch.set_num_threads(self._most)

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Within, all that works is this process, or somebody else's: its own workers rest."""
        if not self._adapts:
            yield
            return
        self._last = self._now()
        yield
        self._add()  # an update may be shorter than what is chosen by

    def look(self) -> None:
        """Choose again, once it has learned for a second since the last time.

        Not at the end of an update: one that has a busy neighbour might take an hour. Nor are all
        clocks read before: it is called after every pass.
        """
        if not self._adapts:
            return
        if self._seen[-1] + self._clocks[-1]() - self._last[-1] >= _LOOK_EVERY_SECONDS:
            self._add()
            self._choose()

    def _now(self) -> tuple[float, ...]:
        return tuple(clock() or 0.0 for clock in self._clocks)

    def _add(self) -> None:
        now = self._now()
        passed = zip(self._seen, now, self._last, strict=True)
        self._seen = tuple(seen + new - old for seen, new, old in passed)
        self._last = now

    def _choose(self) -> None:
        busy, own, seconds = self._seen
        self._seen = _NOTHING
        spare = self._cores - max(0.0, busy - own) / seconds
        threads = min(self._most, max(1, int(spare + _TOLERATED)))
        if threads != torch.get_num_threads():
            logger.info(
                f"{spare:.1f} of {self._cores} cores are free of other programs: torch learns on"
                f" {threads} of at most {self._most} threads (OMP_NUM_THREADS fixes the number)"
            )
            torch.set_num_threads(threads)
