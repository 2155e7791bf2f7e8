"""Counts the requests to stop: the first lets the processes save and leave, the second kills."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopCount:
    """How often the sweep was asked to stop."""

    def __init__(self) -> None:
        self.count = 0


@contextmanager
def count_stops() -> Iterator[StopCount]:
    """Within: Ctrl-C, SIGTERM and the terminal's end are counted and do nothing else."""
    stops = StopCount()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stops.count += 1

    # nohup asks for the terminal's end to be ignored.
    hangs_up = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    caught = (signal.SIGINT, signal.SIGTERM, *hangs_up)
    before = {number: signal.signal(number, on_signal) for number in caught}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
