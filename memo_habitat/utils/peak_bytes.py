"""The most bytes that a piece of work with tensors holds at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.profiler import profile


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
    results: Any = recorded.kineto_results
    events = [] if results is None else [e for e in results.events() if e.name() == "[memory]"]
    held = peak = 0
    # Threads allocate at the same time, and no order of the record is promised.
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
