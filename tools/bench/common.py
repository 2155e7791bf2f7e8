"""What the benchmarks share: timing, the machine, and how rows are printed."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from memo_habitat.compat import habitat_sim_stub

habitat_sim_stub.install()  # an installed package has it done at every start, a checkout alone not


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds that `work` takes, with what it started on a GPU, and its result."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begin = time.perf_counter()
    result = work()
    wait()
    return time.perf_counter() - begin, result


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """What figures depend on besides their settings."""
    on_gpu = torch.cuda.is_available() if device is None else device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        threads = [*Path(f"/proc/{pid}/task").iterdir()]
        children = [
            int(child) for thread in threads for child in (thread / "children").read_text().split()
        ]
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in family(child))]


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def print_rows(rows: Iterable[dict[str, Any]], as_json: bool) -> None:
    """Each row as soon as it is there: a line of JSON, or its values under their names."""
    names: list[str] = []
    for row in rows:
        if as_json:
            print(json.dumps(row), flush=True)
            continue
        found = {name: value for name, value in row.items() if value is not None}
        if list(found) != names:
            names = list(found)
            print("\n" + "".join(f"{name:>14}" for name in names))
        print("".join(f"{value!s:>14}" for value in found.values()), flush=True)
