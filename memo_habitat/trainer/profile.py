"""What updates are spent on: PyTorch's profiler over the updates that a config names.

`habitat_baselines.profiling.capture_start_step=N num_steps_to_capture=K` profiles K updates of this
process, the first of which has N before it. Each process leaves two files in RUN/profile:
<rank>.txt, operators and kernels by the time they took, and <rank>.trace.json.gz, which
ui.perfetto.dev draws.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from habitat import logger
from omegaconf import DictConfig
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, schedule

from memo_habitat.utils.files import atomic_write
from memo_habitat.utils.processes import ranks

FOLDER = "profile"
# Spans of `torch.profiler.record_function`.
COLLECT, LEARN = "memo_habitat: collect", "memo_habitat: learn"
_ROWS = 40


@contextlib.contextmanager
def profiled_updates(config: DictConfig) -> Iterator[Callable[[], None]]:
    """Within, the updates that `config` names are profiled; yields what to call after each."""
    baselines, wanted = config.habitat_baselines, config.habitat_baselines.profiling
    first, count = wanted.capture_start_step, wanted.num_steps_to_capture
    if first < 0:
        yield lambda: None
        return
    folder = Path(baselines.checkpoint_folder).parent / FOLDER
    written: list[Path] = []

    def write(profiler: profile) -> None:
        path = folder / f"{ranks().rank}.txt"
        written.append(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            atomic_write(path, summary(profiler))
            profiler.export_chrome_trace(str(path.with_suffix(".trace.json.gz")))
        except OSError as error:  # a training is worth more than its profile
            logger.warning(f"the profile is not complete: {path}: {error.strerror or error}")
        else:
            logger.info(f"Profile of at most {count} updates after the first {first}: {path}")

    # The update before those is profiled and dropped: the first pays for starting the profiler.
    with warnings.catch_warnings():
        # There is none before the first of all.
        warnings.filterwarnings("ignore", "Profiler won't be using warmup")
        plan = schedule(wait=max(first - 1, 0), warmup=min(first, 1), active=count, repeat=1)
    # Else a build for CUDA prints that it finds no GPU, beside lines for those who build PyTorch.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    found = {ProfilerActivity.CPU} | (
        {ProfilerActivity.CUDA} if torch.cuda.is_available() else set()
    )
    with profile(activities=found, schedule=plan, on_trace_ready=write) as profiler:
        yield profiler.step
    if not written:
        logger.warning(
            f"no profile: the training ended within {first} updates of this process "
            "(habitat_baselines.profiling.capture_start_step)"
        )


def summary(profiler: profile) -> str:
    """Where the time of the profiled updates went, by phase, then by operator or kernel."""
    events = profiler.events() or []
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    lines = []
    for name in (COLLECT, LEARN):
        spent = [event.time_range.elapsed_us() for event in on_host if event.name == name]
        lines.append(f"{name.partition(': ')[2]:>8} {sum(spent) / 1e6:10.3f} s")
    order = "self_cpu_time_total"
    if torch.cuda.is_available():
        order = "self_cuda_time_total"
        # Spans of the host stand on the GPU's side once more, under their names.
        spans = {event.name for event in on_host}
        kernels = [
            event.time_range.elapsed_us()
            for event in events
            if event.device_type == DeviceType.CUDA and event.name not in spans
        ]
        lines.append(f"{'GPU':>8} {sum(kernels) / 1e6:10.3f} s in {len(kernels):,} kernels")
    averages = profiler.key_averages()
    table = averages.table(sort_by=order, row_limit=_ROWS, max_name_column_width=80)
    return "\n".join([*lines, "", str(table), ""])
