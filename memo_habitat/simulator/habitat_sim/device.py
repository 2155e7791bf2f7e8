"""What draws: a GPU through EGL, or Mesa on the CPU where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

from memo_habitat.errors import UserError

#: Habitat-Sim's number for the first EGL device whatever it is: without a GPU this is Mesa.
SOFTWARE = -1
_TRITON = "triton._C.libtriton"


def has_nvidia_gpu() -> bool:
    """Whether the driver of an NVIDIA GPU is loaded here; asked without torch and CUDA."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def rendering_device(wanted: int) -> int:
    """The device to draw on: `wanted` is a CUDA device's index, or -1 for Mesa.

    Raises:
        UserError: Mesa would have to draw in a process where it would end it.
    """
    device = wanted if wanted >= 0 and has_nvidia_gpu() else SOFTWARE
    if device == SOFTWARE:
        keep_triton_away()
        if wanted != SOFTWARE:
            from habitat.core.logging import logger  # here: its import brings all of Habitat

            logger.info("no NVIDIA GPU here: Habitat-Sim draws on the CPU, with Mesa")
    return device


def keep_triton_away() -> None:
    """Keep Triton, useless without a GPU, out of this process: it and Mesa each bring an LLVM, and
    the second to load ends the process by `LLVM ERROR: Option 'default' already exists!`.

    Raises:
        UserError: it is loaded already.
    """
    if _TRITON in sys.modules:
        raise UserError(
            "Habitat-Sim draws with Mesa here, which cannot run in a process that has loaded"
            " Triton (torchvision and Habitat-Baselines load it): let environments run in worker"
            " processes (without HABITAT_ENV_DEBUG=1), or make the simulator before these imports"
        )
    # An import of it fails from now on, and torch goes on without it.
    sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
