"""How many threads torch may use while acting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from memo_habitat.trainer.in_process import TogetherEnvs


@contextmanager
def acting_threads(device: torch.device, envs: Any) -> Iterator[None]:
    """Within: torch computes on one thread if it acts on a CPU for workers.

    One step of a few environments is too little work to share; waiting for each other, threads take
    the cores from the environments' own processes. Environments in this process leave them free.
    """
    if device.type != "cpu" or isinstance(envs, TogetherEnvs):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
