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


def doctor(debug: Debug = False) -> None:
    """Say what is installed, found and missing; exits with 1 where training would not work."""
    packages = ("habitat-lab", "habitat-baselines", "hydra-core", "trimesh", "embreex", "numpy")
    sets = ("data/studios", "data/apartments", "data/lofts")
    facts: dict[str, Callable[[], str]] = {
        "memo-habitat": lambda: __version__,
        "python": lambda: f"{platform.python_version()} ({sys.executable})",
        "system": lambda: f"{platform.platform()}, {len(available_cores())} cores",
        "torch": _torch,
        **{name: lambda name=name: _version(name) for name in packages},  # type: ignore[misc]
        "habitat-sim": _habitat_sim,
        **{name: lambda name=name: _data(name) for name in sets},  # type: ignore[misc]
    }
    is_well = True
    for name, find in facts.items():
        try:
            print(f"ok {name:19}{find()}")
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
        return "not installed: EmbreeSim-v0 runs without; Sim-v0 needs it (docs/troubleshooting.md)"
    try:
        return metadata.version("habitat-sim")
    except metadata.PackageNotFoundError:
        return "found, of unknown version"


def _data(name: str) -> str:
    from memo_habitat.utils.data_paths import resolve

    return str(resolve(name).resolve())
