"""How a training is asked to stop, and how many threads it acts with."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from habitat_baselines.rl.ddppo.ddp_utils import EXIT, REQUEUE
from torch import Tensor

from memo_habitat.trainer.batched_envs import BatchedVectorEnv
from memo_habitat.utils.processes import handling

_UNHANDLED = (signal.SIG_DFL, signal.default_int_handler)


class StopRequest:
    """Whether somebody asked for the training to stop."""

    def __init__(self) -> None:
        self.by_user = False

    @property
    def is_set(self) -> bool:
        """Whether to stop, by the user or by a signal that Habitat handles."""
        return self.by_user or bool(EXIT.is_set())

    def agree(self, all_reduce: Callable[[Tensor], Tensor]) -> bool:
        """Whether to stop, the same on every worker: one that went on alone would wait forever.

        So would one that alone asked SLURM to queue the job again: that is agreed on as well.

        Args:
            all_reduce: the sum of a tensor over all workers.
        """
        asked = torch.tensor([float(self.is_set), float(REQUEUE.is_set())])
        stops, requeues = (bool(total) for total in all_reduce(asked))
        if stops:
            self.by_user = True
        if requeues:
            REQUEUE.set()
        return stops


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
    with handling(caught, on_interrupt):
        yield request


@contextmanager
def acting_threads(device: torch.device, envs: Any) -> Iterator[None]:
    """Within: torch computes on one thread if it acts on a CPU for workers.

    One step of a few environments is too little work to share; waiting for each other, threads take
    the cores from the environments' own processes. Environments in this process leave them free.
    """
    if device.type != "cpu" or isinstance(envs, BatchedVectorEnv):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
