"""`memo-habitat doctor`: what is installed, what is found, what is missing."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import NamedTuple

import typer

from memo_habitat import __version__
from memo_habitat.cli.common import Debug
from memo_habitat.errors import UserError
from memo_habitat.utils.processes import available_cores

MISSING = 1


class Fact(NamedTuple):
    """One line of what was found."""

    name: str
    text: str
    is_well: bool = True


def doctor(debug: Debug = False) -> None:
    """Say what is installed, found and missing; exits with 1 where training would not work."""
    facts = [
        Fact("memo-habitat", __version__),
        Fact("python", f"{platform.python_version()} ({sys.executable})"),
        Fact("system", f"{platform.platform()}, {len(available_cores())} cores"),
        _torch(),
        *(_version(name) for name in ("habitat-lab", "habitat-baselines", "hydra-core")),
        *(_version(name) for name in ("trimesh", "embreex", "numpy")),
        _habitat_sim(),
        *(_data(name) for name in ("studios", "apartments")),
    ]
    for fact in facts:
        print(f"{'ok' if fact.is_well else '!!':3}{fact.name:19}{fact.text}")
    if not all(fact.is_well for fact in facts):
        raise typer.Exit(MISSING)


def _version(name: str) -> Fact:
    try:
        return Fact(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Fact(name, f"missing: pip install {name}", False)


def _torch() -> Fact:
    try:
        import torch
    except ImportError as error:
        return Fact("torch", f"missing or broken: {error}", False)
    if not torch.cuda.is_available():
        return Fact("torch", f"{torch.__version__}, no GPU: runs on the CPU")
    count = torch.cuda.device_count()
    names = sorted({torch.cuda.get_device_name(i) for i in range(count)})
    return Fact("torch", f"{torch.__version__}, {count} GPU: {', '.join(names)}")


def _habitat_sim() -> Fact:
    from memo_habitat.compat import habitat_sim_stub

    if habitat_sim_stub.habitat_sim_is_missing():
        text = "not installed: EmbreeSim-v0 runs without; Sim-v0 needs it (docs/troubleshooting.md)"
        return Fact("habitat-sim", text)
    try:
        return Fact("habitat-sim", metadata.version("habitat-sim"))
    except metadata.PackageNotFoundError:
        return Fact("habitat-sim", "found, of unknown version")


def _data(name: str) -> Fact:
    from memo_habitat.utils.data_paths import resolve

    try:
        return Fact(f"data/{name}", str(resolve(f"data/{name}").resolve()))
    except UserError as error:
        return Fact(f"data/{name}", str(error), False)
