"""What `memo-habitat doctor` asks of the machine: devices, space, what processes inherit.

Checks are as in `doctor_packages`.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

from memo_habitat.cli import doctor_probes
from memo_habitat.cli.doctor_packages import Check, Impaired, pip_install
from memo_habitat.errors import UserError
from memo_habitat.utils.files import cache_folder
from memo_habitat.utils.processes import free_memory

_GIB = 2**30
_DATA = ("data/studios", "data/apartments", "data/lofts")
SHARED_MEMORY = Path("/dev/shm")
# Docker gives 64 MB, of which NCCL uses tens for each pair of GPUs.
_LEAST_SHARED = _GIB // 2


def _gpu() -> str:
    from memo_habitat.simulator.habitat_sim.device import SOFTWARE, gpu_index, has_nvidia_gpu

    try:
        import torch
    except (ImportError, OSError) as error:
        raise UserError("see torch") from error
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if visible is None else f", CUDA_VISIBLE_DEVICES={visible}"
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names = sorted({torch.cuda.get_device_name(i) for i in range(count)})
        index = gpu_index(0)
        draws = "the CPU" if index == SOFTWARE else f"GPU {index}"
        return (
            f"{count}: {', '.join(names)}{hidden}; rank 0 learns on GPU 0, Habitat-Sim on {draws}"
        )
    if not has_nvidia_gpu():
        return "none: trains on the CPU"
    if hidden and gpu_index(0) == SOFTWARE:
        return f"hidden{hidden}: trains on the CPU"
    build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a CPU build"
    raise Impaired(
        f"an NVIDIA driver is loaded, but torch, which {build}, sees no GPU{hidden}: update the"
        f" driver, or {pip_install('--force-reinstall', 'torch', 'torchvision')}"
    )


def _rendering() -> str:
    from memo_habitat.compat import habitat_sim_stub
    from memo_habitat.simulator.habitat_sim.device import has_nvidia_gpu

    if habitat_sim_stub.habitat_sim_is_missing():
        return "by EmbreeSim-v0, on the CPU"
    renderer = doctor_probes.who_draws()
    if renderer == "Mesa" and has_nvidia_gpu():
        raise Impaired(
            "Habitat-Sim draws with Mesa, although there is a GPU: let CUDA_VISIBLE_DEVICES leave"
            " one (docs/habitat_sim.md)"
        )
    return f"Habitat-Sim draws with {renderer}"


def _data(name: str) -> str:
    from memo_habitat.scenes.check_data import check
    from memo_habitat.utils.data_paths import resolve

    folder = resolve(name).resolve()
    counts = list(check(folder))
    return f"{folder}: {max(count.houses for count in counts)} houses"


def _memory() -> str:
    free = free_memory()
    text = f"{free / _GIB:.1f} GiB free"
    if free < 4 * _GIB:
        raise Impaired(
            f"{text}: lower habitat_baselines.num_environments (`memo-habitat plan` says what a"
            " training needs), or end other processes"
        )
    return text


def _space(folder: Path, remedy: str) -> str:
    """Room in a folder that is written to, or in the nearest one above it that exists."""
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise Impaired(f"{folder} cannot be written ({error.strerror}): {remedy}") from error
    free = shutil.disk_usage(there).free
    if free < _GIB:
        raise Impaired(f"{folder}: {free / 2**20:.0f} MiB free: make room, or {remedy}")
    return f"{folder}: {free / _GIB:.0f} GiB free"


def _shared_memory() -> str:
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        raise UserError(
            f"no locks between processes ({error}): mount a tmpfs that can be written at"
            f" {SHARED_MEMORY}"
        ) from error
    if not SHARED_MEMORY.is_dir():
        return "locks work"
    size = shutil.disk_usage(SHARED_MEMORY).total
    text = f"{SHARED_MEMORY}: {size / _GIB:.1f} GiB"
    if size < _LEAST_SHARED:
        raise Impaired(
            f"{text}: too little for --workers on several GPUs; docker run --shm-size=2g, or"
            " --ipc=host"
        )
    return text


def _compiled() -> str:
    remedy = "set NUMBA_CACHE_DIR to a folder that can be written"
    folder = numba_folder()
    if folder is None:
        raise Impaired(f"numba has no place for them, every process compiles for itself: {remedy}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return str(folder)
    except OSError as error:
        raise Impaired(
            f"{folder} cannot be written ({error.strerror}), so that every process compiles for"
            f" itself: {remedy}"
        ) from error


def numba_folder() -> Path | None:
    """Where numba keeps what it compiles for this package; None where it has no place."""
    from numba.core.registry import CPUDispatcher

    from memo_habitat.tasks.extobjnav import floor_map

    compiled = next(each for each in vars(floor_map).values() if isinstance(each, CPUDispatcher))
    kept = compiled.stats.cache_path
    return None if kept is None else Path(kept)


def _rendezvous() -> str:
    from memo_habitat.trainer.rendezvous import waits_for_others

    if waits := waits_for_others():
        raise Impaired(waits)
    return "a training in this shell waits for no other process"


CHECKS: dict[str, Check] = {
    "gpu": _gpu,
    "rendering": _rendering,
    "discovery": doctor_probes.discover,
    **{name: partial(_data, name) for name in _DATA},
    "memory": _memory,
    "shared memory": _shared_memory,
    "runs": partial(_space, Path("runs"), "give another folder with --root"),
    "cache": lambda: _space(cache_folder(), "set XDG_CACHE_HOME to another folder"),
    "temporary files": lambda: _space(Path(tempfile.gettempdir()), "set TMPDIR to another folder"),
    "compiled loops": _compiled,
    "rendezvous": _rendezvous,
}
