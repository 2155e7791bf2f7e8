"""`memo-habitat doctor`: what is installed, what is found, what is missing."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib import metadata

import typer

from memo_habitat import __version__
from memo_habitat.cli.common import Debug
from memo_habitat.errors import UserError
from memo_habitat.utils.processes import available_cores

MISSING = 1


class Impaired(Exception):
    """Works, but not as well as it could here."""


def doctor(debug: Debug = False) -> None:
    """Say what is installed, found and missing; exits with 1 where training would not work.

    Lines begin with ok; ?? is slower than need be, !! is missing or broken.
    """
    packages = ("habitat-lab", "habitat-baselines", "hydra-core", "trimesh", "embreex", "numpy")
    sets = ("data/studios", "data/apartments", "data/lofts")
    facts: dict[str, Callable[[], str]] = {
        "memo-habitat": lambda: __version__,
        "python": lambda: f"{platform.python_version()} ({sys.executable})",
        "system": lambda: f"{platform.platform()}, {len(available_cores())} cores",
        "torch": _torch,
        **{name: lambda name=name: _version(name) for name in packages},  # type: ignore[misc]
        "habitat-sim": _habitat_sim,
        "rendering": _rendering,
        **{name: lambda name=name: _data(name) for name in sets},  # type: ignore[misc]
    }
    is_well = True
    for name, find in facts.items():
        try:
            print(f"ok {name:19}{find()}")
        except Impaired as warning:
            print(f"?? {name:19}{warning}")
        except UserError as error:
            print(f"!! {name:19}{error}")
            is_well = False
    if not is_well:
        raise typer.Exit(MISSING)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError as error:
        raise UserError(f"missing: pip install {name}") from error


def _torch() -> str:
    try:
        import torch
    except ImportError as error:
        raise UserError(f"missing or broken: {error}") from error
    if not torch.cuda.is_available():
        return f"{torch.__version__}, no GPU: runs on the CPU"
    count = torch.cuda.device_count()
    names = sorted({torch.cuda.get_device_name(i) for i in range(count)})
    return f"{torch.__version__}, {count} GPU: {', '.join(names)}"


def _habitat_sim() -> str:
    from memo_habitat.compat import habitat_sim_stub

    if habitat_sim_stub.habitat_sim_is_missing():
        return (
            "not installed: EmbreeSim-v0 runs without; simulator=habitat_sim needs it"
            " (docs/habitat_sim.md)"
        )
    try:
        return metadata.version("habitat-sim")
    except metadata.PackageNotFoundError:
        return "found, of unknown version"


def _rendering() -> str:
    from memo_habitat.cli.render_check import who_draws
    from memo_habitat.compat import habitat_sim_stub
    from memo_habitat.simulator.habitat_sim.device import has_nvidia_gpu

    if habitat_sim_stub.habitat_sim_is_missing():
        return "by EmbreeSim-v0, on the CPU"
    renderer = who_draws()
    if renderer == "Mesa" and has_nvidia_gpu():
        raise Impaired(
            "Habitat-Sim draws with Mesa, although there is a GPU: let CUDA_VISIBLE_DEVICES leave"
            " one (docs/habitat_sim.md)"
        )
    return f"Habitat-Sim draws with {renderer}"


def _data(name: str) -> str:
    from memo_habitat.utils.data_paths import resolve

    return str(resolve(name).resolve())
