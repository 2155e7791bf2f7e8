"""What draws: a GPU through EGL, or Mesa on the CPU where there is none; and by which light."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from memo_habitat.errors import UserError

#: Habitat-Sim's number for the first EGL device whatever it is: without a GPU this is Mesa.
SOFTWARE = -1
_TRITON = "triton._C.libtriton"
#: Where Habitat-Sim looks for its default below the working directory, and what it finds there:
#: of images that it does not find it makes nothing.
_FILE = "data/default.pbr_config.json"
_NONE = {"enable_ibl": False, "ibl_blut_filename": "none.png", "ibl_envmap_filename": "none.hdr"}
_one_at_a_time = threading.Lock()


def has_nvidia_gpu() -> bool:
    """Whether the driver of an NVIDIA GPU is loaded here; asked without torch and CUDA."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def gpu_index(wanted: int) -> int:
    """The index, among the GPUs that this process sees, of the one to use.

    Args:
        wanted: an index, in distributed training the local rank; -1: none.

    Returns:
        0 where CUDA_VISIBLE_DEVICES leaves one GPU, as launchers do that give each rank its own:
        CUDA counts what is visible. -1 where it leaves none or no driver is loaded, else `wanted`.
    """
    if wanted < 0 or not has_nvidia_gpu():
        return SOFTWARE
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return wanted
    names = [name.strip() for name in visible.split(",")]
    # CUDA ignores what follows an entry that names no device.
    count = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
    if count == 0:
        return SOFTWARE
    return 0 if count == 1 else wanted


def rendering_device(wanted: int) -> int:
    """The device to draw on: `wanted` is a CUDA device's index (see `gpu_index`), or -1 for Mesa.

    Raises:
        UserError: Mesa would have to draw in a process where it would end it.
    """
    device = gpu_index(wanted)
    if device == SOFTWARE:
        keep_triton_away()
        if wanted != SOFTWARE:
            from habitat.core.logging import logger  # here: its import brings all of Habitat

            logger.info("no NVIDIA GPU to be seen: Habitat-Sim draws on the CPU, with Mesa")
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


@contextlib.contextmanager
def no_image_based_lighting() -> Iterator[None]:
    """Within: metadata mediators that are made light nothing by images.

    To prepare such light takes 10 s and more of CPU, and flat-shaded assets do without it. The
    working directory is another one meanwhile; paths should be absolute.
    """
    with _one_at_a_time, tempfile.TemporaryDirectory() as folder:
        file = Path(folder, _FILE)
        file.parent.mkdir()
        file.write_text(json.dumps(_NONE))
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
