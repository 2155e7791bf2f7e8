"""`memo-habitat doctor`: what is installed, what is found, what is missing."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import metadata

from memo_habitat import __version__
from memo_habitat.cli.common import Subparsers, add_command
from memo_habitat.errors import UserError
from memo_habitat.utils.processes import available_cores

EXAMPLES = """
memo-habitat doctor
"""


def add(commands: Subparsers) -> None:
    """Declare the command."""
    add_command(commands, "doctor", run, "say what is installed, found and missing", EXAMPLES)


def run(arguments: argparse.Namespace) -> int:
    """Print one line per fact; 1 if something that training needs is missing."""
    lines = [
        ("memo-habitat", __version__, True),
        ("python", f"{platform.python_version()} ({sys.executable})", True),
        ("system", f"{platform.platform()}, {len(available_cores())} cores", True),
        _torch(),
        *(_version(name) for name in ("habitat-lab", "habitat-baselines", "hydra-core")),
        *(_version(name) for name in ("trimesh", "embreex", "numpy")),
        _habitat_sim(),
        *(_data(name) for name in ("studios", "apartments")),
    ]
    for name, fact, is_well in lines:
        print(f"{'ok' if is_well else '!!':3}{name:19}{fact}")
    return 0 if all(is_well for _, _, is_well in lines) else 1


def _version(name: str) -> tuple[str, str, bool]:
    try:
        return name, metadata.version(name), True
    except metadata.PackageNotFoundError:
        return name, f"missing: pip install {name}", False


def _torch() -> tuple[str, str, bool]:
    try:
        import torch
    except ImportError as error:
        return "torch", f"missing or broken: {error}", False
    if not torch.cuda.is_available():
        return "torch", f"{torch.__version__}, no GPU: runs on the CPU", True
    names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return (
        "torch",
        f"{torch.__version__}, {torch.cuda.device_count()} GPU: {', '.join(names)}",
        True,
    )


def _habitat_sim() -> tuple[str, str, bool]:
    from memo_habitat.compat import habitat_sim_stub

    if habitat_sim_stub.habitat_sim_is_missing():
        fact = "not installed: EmbreeSim-v0 runs without; Sim-v0 needs it (docs/troubleshooting.md)"
        return "habitat-sim", fact, True
    try:
        return "habitat-sim", metadata.version("habitat-sim"), True
    except metadata.PackageNotFoundError:
        return "habitat-sim", "found, of unknown version", True


def _data(name: str) -> tuple[str, str, bool]:
    from memo_habitat.utils.data_paths import resolve

    try:
        return f"data/{name}", str(resolve(f"data/{name}").resolve()), True
    except UserError as error:
        return f"data/{name}", str(error), False
