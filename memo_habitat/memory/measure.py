"""What a piece of work takes: seconds, and the most bytes that it holds at once."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.autograd.profiler import profile


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that `work` takes, with what it started on a GPU."""
    _wait(device)
    begin = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    """Until a GPU has done what it was given; a CPU is done already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Most bytes that `work` holds at once beyond what was allocated before it.

    Counted from what PyTorch's allocator reports, so that saved activations, gradients and the
    temporaries inside kernels are all in it: on a CPU through the profiler's memory events, on a
    GPU as the allocator's own peak. `work` should free what it allocates.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return int(torch.cuda.max_memory_allocated(device)) - before
    with profile(profile_memory=True, use_kineto=True) as recorded:
        work()
    held = peak = 0
    for event in recorded.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
