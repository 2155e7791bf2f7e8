"""The folder of one run: what it was made from, what it logged, its checkpoints and evaluations.

runs/<config>-<time>/
    config.yaml      the config as composed, and as changed where it was gone on with
    run.json         versions, git revision, seed, command, workers; how it was gone on with
    tb/  checkpoints/  train.log  progress.jsonl
    .train.lock      held by the command that trains; by its trainer, the one in checkpoints/
    workers/         <rank>.log of each, where several processes train
    eval/<name>/     one per evaluated agent
    report.html
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from memo_habitat.errors import UserError, cannot_write
from memo_habitat.utils.processes import available_cores

CONFIG_FILE = "config.yaml"
FACTS_FILE = "run.json"
# Habitat's own name, hidden so that it never counts as a checkpoint.
RESUME_STATE = ".habitat-resume-state.pth"
LATEST = "latest.safetensors"
# In a run folder and in its folder of checkpoints.
TRAIN_LOCK = ".train.lock"
# Of the sweep that a run belongs to. They lie in the folder before the run does.
SWEEP_LOG = "sweep.log"
SWEEP_LOCK = ".sweep.lock"
# Distributions whose version can change a result.
PACKAGES = (
    "memo-habitat",
    "habitat-lab",
    "habitat-baselines",
    "habitat-sim",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "trimesh",
    "embreex",
    "hydra-core",
)


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def config_path(self) -> Path:
        """The config that it trains with."""
        return self.path / CONFIG_FILE

    @property
    def facts_path(self) -> Path:
        """Versions, git revision, seed and command; how it was gone on with."""
        return self.path / FACTS_FILE

    @property
    def tensorboard_dir(self) -> Path:
        """Event files of TensorBoard."""
        return self.path / "tb"

    @property
    def checkpoint_dir(self) -> Path:
        """Weights (ckpt.N.safetensors, latest.safetensors) and the hidden state to resume from."""
        return self.path / "checkpoints"

    @property
    def resume_state(self) -> Path:
        """What a training goes on from."""
        return self.checkpoint_dir / RESUME_STATE

    @property
    def latest_checkpoint(self) -> Path:
        """The weights that were written last."""
        return self.checkpoint_dir / LATEST

    @property
    def log_file(self) -> Path:
        """What the trainer logs."""
        return self.path / "train.log"

    @property
    def workers_dir(self) -> Path:
        """What the processes of a training by several printed, one file each."""
        return self.path / "workers"

    @property
    def locks(self) -> tuple[Path, Path]:
        """What a command that trains holds, and what its trainer does.

        Two, because the trainer may be in a process of its own, which outlives a killed command,
        or have been started by another command than ours.
        """
        return self.path / TRAIN_LOCK, self.checkpoint_dir / TRAIN_LOCK

    @property
    def progress_file(self) -> Path:
        """One JSON line of metrics per update."""
        return self.path / "progress.jsonl"

    @property
    def report_file(self) -> Path:
        """The report."""
        return self.path / "report.html"

    def eval_dir(self, name: str) -> Path:
        """The folder of the evaluation of one agent or checkpoint; made by who writes to it."""
        return self.path / "eval" / name

    def evaluations(self) -> tuple[str, ...]:
        """Names of the evaluations that have records, sorted."""
        return tuple(sorted(p.parent.name for p in self.path.glob("eval/*/records.jsonl")))

    def config(self) -> Any:
        """The config that it trains with (an OmegaConf DictConfig).

        Raises:
            UserError: the file is missing or no YAML.
        """
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        try:
            return OmegaConf.load(self.config_path)
        except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
            raise UserError(
                f"cannot read {self.config_path}: {_first_line(error)}; "
                "give a folder that `memo-habitat train` made"
            ) from error


def plan_run(name: str, root: str | Path = "runs", out: str | Path | None = None) -> RunFolder:
    """Return the folder that a new run of the config `name` will have; nothing is made yet.

    Args:
        name: of the config, for example "extobjnav/studio".
        root: the folder that holds runs; the new one is called <config>-<time> in it.
        out: this very folder instead; it must be new or empty.

    Raises:
        UserError: the folder holds something already.
    """
    run = RunFolder(Path(out) if out is not None else _new_path(Path(root), name))
    if run.path.is_dir() and any(_own_entries(run)):
        remedy = "name a new folder"
        if run.facts_path.exists():
            remedy += f", or go on with it: memo-habitat train --resume {run.path}"
        held = "another run" if run.facts_path.exists() else "other files"
        raise UserError(f"the output folder {run.path} holds {held}; {remedy}")
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"the output folder {run.path} is a file; name a new folder")
    return run


def create_run(run: RunFolder, name: str, config: Any, workers: int = 1) -> None:
    """Make the folder of a planned run, with the config (a DictConfig) and the facts in it.

    workers: processes that will train together.

    Raises:
        UserError: it cannot be written.
    """
    from omegaconf import OmegaConf

    try:
        for folder in (run.path, run.tensorboard_dir, run.checkpoint_dir):
            folder.mkdir(parents=True, exist_ok=True)
        # Of two that begin here at once, the second finds the file of the first.
        with run.config_path.open("x", encoding="utf-8") as file:
            file.write(OmegaConf.to_yaml(config))
        facts = {**run_facts(name, OmegaConf.select(config, "habitat.seed")), "workers": workers}
        run.facts_path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise cannot_write(run.path, error) from error


def discard_run(run: RunFolder) -> None:
    """Remove a run in which nothing was learned; lock and log of its sweep stay."""
    for entry in _own_entries(run):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not empty
        run.path.rmdir()


def open_run(path: str | Path) -> RunFolder:
    """Return the run folder at `path`.

    Raises:
        UserError: there is none.
    """
    run = RunFolder(Path(path))
    if not run.config_path.is_file():
        others = sorted(str(p.parent) for p in Path("runs").glob(f"*/{CONFIG_FILE}"))
        known = f"the newest here is {others[-1]}" if others else "make one: memo-habitat train"
        raise UserError(f"{run.path} is not a run folder (it has no {CONFIG_FILE}); {known}")
    return run


def run_facts(name: str, seed: int | None) -> Mapping[str, Any]:
    """Return what a run should be repeatable from: versions, revision, seed, command, machine."""
    return {
        "config": name,
        "seed": seed,
        "command": typed_command(),
        "started": now(),
        "git_revision": git_revision(),
        "versions": {"python": platform.python_version(), **package_versions()},
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": len(available_cores()),
        },
    }


def typed_command() -> list[str]:
    """Return the command of this process, as typed."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def now() -> str:
    """Return the present time as ISO 8601, to the second, with the time zone of this machine."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages among `PACKAGES`."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_revision() -> str | None:
    """Return the revision of the checkout this package runs from, "+changes" if edited, or None."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        revision = _git(checkout, "rev-parse", "HEAD")
        changes = _git(checkout, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("+changes" if changes else "")


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _own_entries(run: RunFolder) -> list[Path]:
    return [path for path in run.path.iterdir() if path.name not in (SWEEP_LOG, SWEEP_LOCK)]


def _new_path(root: Path, name: str) -> Path:
    path = root / f"{name.replace('/', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
    # Two runs begun in the same second.
    attempt = 2
    while path.exists():
        path = path.with_name(f"{path.name.partition('~')[0]}~{attempt}")
        attempt += 1
    return path


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
