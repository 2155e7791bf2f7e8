"""How much memory there is: as the user gives it, or as this machine has it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from memo_habitat.errors import UserError

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def parse_memory(text: str) -> int:
    """Bytes of "80GB" or "79.5 GiB".

    Raises:
        UserError: neither.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    unit = match and _UNITS.get(match[2].upper())
    if not match or not unit or float(match[1]) == 0.0:
        raise UserError(
            f"--gpu-memory {text}: give an amount above 0 with its unit, for example 80GB or 24GiB"
        )
    return int(float(match[1]) * unit)


def available_memory(workers: int) -> int:
    """Bytes free here for each worker: of its GPU, or its share of the RAM where there is none."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return min(_free_ram(), _free_of_container()) // workers


def _free_ram() -> int:
    if _MEMINFO.is_file():
        found = re.search(r"MemAvailable:\s+(\d+) kB", _MEMINFO.read_text())
        if found:
            return int(found[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_of_container() -> int:
    """What a container's own limit leaves; more than there is where it has none."""
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if not (limit.is_file() and used.is_file()):
        return 2**63
    most = limit.read_text().strip()
    return 2**63 if most == "max" else max(0, int(most) - int(used.read_text()))
