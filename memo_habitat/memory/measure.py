"""What a piece of work takes: seconds, and the most bytes that it holds at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

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
    with recording() as recorded:
        work()
    return bytes_of(recorded).peak


class Bytes(NamedTuple):
    """What a piece of work added to the bytes held: at most, and still when it had ended."""

    peak: int
    left: int


def recording() -> profile:
    """A profiler that records what the allocator of the CPU gives and takes back."""
    return profile(profile_memory=True, use_kineto=True)


def bytes_of(recorded: profile) -> Bytes:
    """The bytes that a `recording` which has ended saw, 0 or more at the peak."""
    results: Any = recorded.kineto_results
    events = [] if results is None else [e for e in results.events() if e.name() == "[memory]"]
    held = peak = 0
    # Threads allocate at the same time, and no order of the record is promised.
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return Bytes(peak, held)
