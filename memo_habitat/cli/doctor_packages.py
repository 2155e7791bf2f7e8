"""What `memo-habitat doctor` asks of Python and of installed packages.

A check is a function that says in one line what it found. It raises `Impaired` where that works,
but not as well as it could, and UserError where training would not work, both with the remedy.
"""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from memo_habitat import __version__
from memo_habitat.errors import UserError
from memo_habitat.utils.processes import available_cores

Check = Callable[[], str]

NAME = "memo-habitat"
# With a line of their own: all that has ever been in the way.
_SHOWN = (
    *("habitat-lab", "habitat-baselines", "hydra-core", "numpy", "gym", "opencv-python"),
    *("torch", "torchvision", "trimesh", "embreex"),
)
# Why a bound is as it is, where the error behind it does not tell.
_REASONS = {
    "habitat-lab": "earlier releases do not import on Python 3.11",
    "hydra-core": "earlier ones fail on Python 3.11",
    "opencv-python": "OpenCV 5 breaks `import habitat`",
    "gym": "Habitat registers itself in a table that later ones have not",
}
# The same module under other names of distributions.
_ALSO = {
    "opencv-python": (
        *("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    )
}
_LABS_NUMPY = "1.26.4"
# Habitat-Lab 0.3.4 is on PyPI by the day of its release.
_SIM = "0.3.4"


class Impaired(Exception):
    """Works, but not as well as it could here."""


def pip_install(*requirements: object) -> str:
    """A command to type."""
    return shlex.join(["pip", "install", *map(str, requirements)])


def _python() -> str:
    version = platform.python_version()
    if not (3, 10) <= sys.version_info[:2] < (3, 13):
        raise UserError(
            f"{version}: Habitat-Lab runs on 3.10 to 3.12; make an environment with one of these,"
            " for example: uv venv --python 3.11"
        )
    return f"{version} ({sys.executable})"


def _system() -> str:
    return f"{platform.platform()}, {len(available_cores())} cores"


@cache
def _requirements() -> tuple[Requirement, ...]:
    """What setup.py asks for; empty where this package is a folder on PYTHONPATH only."""
    try:
        return tuple(map(Requirement, metadata.requires(NAME) or ()))
    except metadata.PackageNotFoundError:
        return ()


def _required(extra: str = "") -> Iterator[Requirement]:
    for requirement in _requirements():
        of_extra = requirement.marker is not None and "extra" in str(requirement.marker)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if applies and of_extra == bool(extra):
            yield requirement


def _own() -> str:
    if not _requirements():
        raise Impaired(
            f"{__version__}, not installed: `habitat-baselines` does not find its configs; in the"
            " checkout: pip install -e ."
        )
    return __version__


def _installed(name: str) -> str:
    for distribution in (name, *_ALSO.get(name, ())):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    raise UserError(f"missing: {pip_install(*_bounds(name))}")


def _bounds(name: str) -> list[str]:
    own = [f"{r.name}{r.specifier}" for r in _requirements() if r.name == name]
    return own[:1] or [name]


def _package(name: str) -> str:
    """A package that is required, within its bounds."""
    version = _installed(name)
    for requirement in _required():
        if requirement.name == name and not requirement.specifier.contains(version, True):
            why = f" ({_REASONS[name]})" if name in _REASONS else ""
            raise UserError(
                f"{version}, and {requirement.specifier} is needed{why}:"
                f" {pip_install(*_bounds(name))}"
            )
    return version


def _numpy() -> str:
    version = _package("numpy")
    if version != _LABS_NUMPY:
        raise Impaired(
            f"{version}: Habitat-Lab asks for {_LABS_NUMPY}, which all results here were made with:"
            f" {pip_install(f'numpy=={_LABS_NUMPY}')}"
        )
    return version


def _torch() -> str:
    _package("torch")
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of CUDA's that cannot be loaded
        raise UserError(
            f"does not import ({error}): {pip_install('--force-reinstall', 'torch', 'torchvision')}"
        ) from error
    return torch.__version__


def _others() -> str:
    """The requirements that have no line of their own."""
    names = [requirement.name for requirement in _required() if requirement.name not in _SHOWN]
    wrong = []
    for name in names:
        try:
            _package(name)
        except UserError as error:
            wrong.append(f"{name} {error}")
    if wrong:
        raise UserError("; ".join(wrong))
    return f"{len(names)}, all within their bounds"


def _extras() -> str:
    """Optional packages: none of them is needed."""
    if not _requirements():
        return "unknown, as memo-habitat is not installed"
    found, absent = [], []
    for extra in metadata.metadata(NAME).get_all("Provides-Extra") or ():
        try:
            for requirement in _required(extra):
                _installed(requirement.name)
            found.append(extra)
        except UserError:
            absent.append(extra)
    text = f"installed: {', '.join(found) or 'none'}"
    if not absent:
        return text
    return f"{text}; not: {', '.join(absent)} ({pip_install(f'{NAME}[{absent[0]}]')})"


def _habitat_sim() -> str:
    from memo_habitat.compat import habitat_sim_stub

    if habitat_sim_stub.habitat_sim_is_missing():
        return (
            "not installed: EmbreeSim-v0 runs without; simulator=habitat_sim needs it"
            " (docs/habitat_sim.md)"
        )
    try:
        version = metadata.version("habitat-sim")
    except metadata.PackageNotFoundError:
        version = "of unknown version"
    # Not by its version: the main branch calls itself 0.3.3, as the release that lacks it does.
    if not _has_sensor_interface():
        raise UserError(
            f"{version}: Habitat-Lab {_installed('habitat-lab')} calls sensors by the interface of"
            f" Habitat-Sim {_SIM}, which this one lacks, and fails at run time; install {_SIM} or"
            " the main branch (docs/habitat_sim.md), or uninstall it"
        )
    return version


def _has_sensor_interface() -> bool:
    """Whether the installed Habitat-Sim draws the sensors that Habitat-Lab names; not imported."""
    spec = find_spec("habitat_sim")
    if spec is None or spec.origin is None:
        return False
    return "def render_sensors(" in Path(spec.origin).with_name("simulator.py").read_text()


CHECKS: dict[str, Check] = {
    NAME: _own,
    "python": _python,
    "system": _system,
    **{name: partial(_package, name) for name in _SHOWN},
    "numpy": _numpy,
    "torch": _torch,
    "other packages": _others,
    "extras": _extras,
    "habitat-sim": _habitat_sim,
}
