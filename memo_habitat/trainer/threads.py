"""How many threads torch may use while acting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Within: torch computes on one thread if `device` is a CPU.

    One step of a few environments is too little work to share; waiting for each other, threads take
    the cores from the environments' own processes.
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
