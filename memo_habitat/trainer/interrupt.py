"""Turns Ctrl-C and the schedulers' signals into a request that is granted between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from habitat_baselines.rl.ddppo.ddp_utils import EXIT

_UNHANDLED = (signal.SIG_DFL, signal.default_int_handler)


class StopRequest:
    """Whether somebody asked for the training to stop."""

    def __init__(self) -> None:
        self.by_user = False

    @property
    def is_set(self) -> bool:
        """Whether to stop, by the user or by a signal that Habitat handles."""
        return self.by_user or bool(EXIT.is_set())


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
    """Within: the first Ctrl-C or SIGTERM asks to stop after the step, the second stops at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def on_interrupt(signum: int, frame: FrameType | None) -> None:
        request.by_user = True
        signal.signal(signum, signal.default_int_handler)

    # In a SLURM job Habitat has handlers of its own by now; they set what `is_set` asks.
    caught = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) in _UNHANDLED]
    before = {s: signal.signal(s, on_interrupt) for s in caught}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
