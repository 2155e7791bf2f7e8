"""Measures what the rehearsal of an update really holds, in a process of its own."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from habitat_baselines.common.env_spec import EnvironmentSpec
from omegaconf import DictConfig

from memo_habitat.config.compose import import_habitat
from memo_habitat.errors import UserError
from memo_habitat.memory.measure import bytes_of, recording
from memo_habitat.trainer.plan_rehearsal import Rehearsal

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SILENT = "99"  # the profiler's library tells of its every start on stderr


def measure(
    config: DictConfig, spec: EnvironmentSpec, minibatch: int, workers: int
) -> dict[str, Any]:
    """Run the rehearsal with real tensors: the peak in bytes, by allocator and by process.

    Returns:
        `environments` of the minibatch, `device`, `seconds` of the update, `update_bytes` and
        `refresh_bytes`, the allocator's peaks, and on a CPU under Linux `resident_bytes`, by
        which the process grew, else None.

    Raises:
        UserError: the process died, most often for lack of memory.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", _SILENT)
    context = get_context("spawn")
    try:
        with ProcessPoolExecutor(1, context, initializer=import_habitat) as pool:
            result: dict[str, Any] = pool.submit(
                measure_here, config, spec, minibatch, workers
            ).result()
            return result
    except BrokenProcessPool as error:
        raise UserError(
            f"measuring an update with minibatches of {minibatch} environments died, most often "
            "for lack of memory: set a larger habitat_baselines.rl.ppo.num_mini_batch"
        ) from error


def measure_here(
    config: DictConfig, spec: EnvironmentSpec, minibatch: int, workers: int
) -> dict[str, Any]:
    """The same in this process."""
    is_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if is_gpu else "cpu")

    def rehearse(meter: Any) -> float:
        rehearsal = Rehearsal(config, spec, device, is_fake=False)
        rehearsal.updater.act_as_one_of(workers)
        rehearsal.make_rollout()
        rehearsal.make_optimiser_state()
        meter.phase("first_step_bytes")
        rehearsal.refresh()
        meter.phase("refresh_bytes")
        began = time.perf_counter()
        rehearsal.update(minibatch)
        seconds = time.perf_counter() - began
        meter.phase("update_bytes")
        return seconds

    result: dict[str, Any] = {
        "environments": minibatch,
        "device": torch.cuda.get_device_name() if is_gpu else "cpu",
        "resident_bytes": None,
    }
    if not is_gpu:
        # First, and without the profiler, which keeps much itself.
        with _Resident() as resident:
            result["seconds"] = round(rehearse(resident), 3)
        result["resident_bytes"] = resident.grown
    with _GPUMeter() if is_gpu else _CPUMeter() as meter:
        seconds = rehearse(meter)
    return {"seconds": round(seconds, 3), **result, **meter.peaks}


class _Resident:
    """By how much the process grew at most; None where the system does not tell."""

    grown: int | None = None

    def __enter__(self) -> _Resident:
        if _CLEAR.exists():
            _CLEAR.write_text("5")  # the peak begins anew
            self._before = _status("VmRSS")
        return self

    def phase(self, name: str) -> None:
        """Phases are not told apart."""

    def __exit__(self, *error: object) -> None:
        if _CLEAR.exists():
            self.grown = _status("VmHWM") - self._before


class _CPUMeter:
    """Peaks of what torch's allocator holds, from the profiler's record of each allocation."""

    def __enter__(self) -> _CPUMeter:
        self.peaks: dict[str, int] = {}
        self._live = 0
        self._start()
        return self

    def phase(self, name: str) -> None:
        """Note the peak of the phase that ends here."""
        self._profile.__exit__(None, None, None)
        seen = bytes_of(self._profile)
        self.peaks[name] = self._live + seen.peak
        self._live += seen.left
        self._start()

    def __exit__(self, *error: object) -> None:
        self._profile.__exit__(None, None, None)

    def _start(self) -> None:
        self._profile = recording()
        self._profile.__enter__()


class _GPUMeter:
    """Peaks of what torch's allocator has given out on the GPU."""

    def __enter__(self) -> _GPUMeter:
        self.peaks: dict[str, int] = {}
        torch.cuda.reset_peak_memory_stats()
        return self

    def phase(self, name: str) -> None:
        """Note the peak of the phase that ends here."""
        self.peaks[name] = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()

    def __exit__(self, *error: object) -> None:
        torch.cuda.empty_cache()


def _status(name: str) -> int:
    """A line of the process's status, in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no line {name}")
