"""Where a result comes from: command, time, versions, git revision and machine."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
from collections.abc import Collection, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from typing_extensions import Self

from memo_habitat.utils.processes import available_cores

# Distributions whose version can change a result.
PACKAGES = (
    *("memo-habitat", "habitat-lab", "habitat-baselines", "habitat-sim", "hydra-core"),
    *("torch", "torchvision", "numpy", "scipy", "trimesh", "embreex"),
)


class Provenance(BaseModel):
    """What a result should be repeatable from; the files of runs and sweeps begin with it."""

    # What a later version writes survives being read and written by this one.
    model_config = ConfigDict(extra="allow")

    command: list[str]
    started: str
    git_revision: str | None
    versions: dict[str, str]
    machine: dict[str, str | int]

    @classmethod
    def of_this_process(cls, **fields: Any) -> Self:
        """That of the present command, with the fields that a subclass adds."""
        return cls(
            command=typed_command(),
            started=now(),
            git_revision=git_revision(),
            versions={"python": platform.python_version(), **package_versions()},
            machine={
                "system": platform.platform(),
                "processor": platform.machine(),
                "cores": len(available_cores()),
            },
            **fields,
        )


def typed_command() -> list[str]:
    """The command of this process, as typed."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def without_options(words: Sequence[str], *names: str, flags: Collection[str] = ()) -> list[str]:
    """A typed command without these options, their values, and these flags."""
    kept, left = [], iter(words)
    for word in left:
        name, equals, _ = word.partition("=")
        if name in names:
            if not equals:
                next(left, None)
        elif word not in flags:
            kept.append(word)
    return kept


def now() -> str:
    """The present time as ISO 8601, to the second, with the time zone of this machine."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def package_versions() -> dict[str, str]:
    """Versions of the installed packages among `PACKAGES`."""
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[package] = metadata.version(package)
    return installed


def git_revision() -> str | None:
    """Revision of the checkout this package runs from, "+changes" if edited; None without one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():  # installed, perhaps inside a checkout of something else
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.check_output(command, stderr=subprocess.PIPE, text=True, timeout=10)

    try:
        changes = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "HEAD").strip() + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None
