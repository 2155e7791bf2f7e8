"""The folder of one run: what it was made from, what it logged, its checkpoints and evaluations.

runs/<config>-<time>/
    config.yaml      the config as composed, and as changed by a resume
    run.json         versions, git revision, seed, command, workers; every resume (`RunRecord`)
    tb/  checkpoints/  train.log  progress.jsonl
    .train.lock      held by the command that trains; by its trainer, the one in checkpoints/
    workers/         <rank>.log of each, where several processes train; of those that evaluate
                     shards, <evaluation>-shard-<k>-of-<n>.log
    eval/<name>/     one per evaluated agent
    profile/         <rank>.txt and .trace.json.gz, where updates were profiled
    report.html
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from memo_habitat.errors import UserError, cannot_write, command
from memo_habitat.trainer.integrity import read_tensors
from memo_habitat.trainer.progress import read_progress, share_done
from memo_habitat.trainer.scheduler import job_names
from memo_habitat.utils.files import atomic_write, file_name, read_json, write_json
from memo_habitat.utils.provenance import Provenance, now, typed_command

CONFIG_FILE = "config.yaml"
# Habitat's own name, hidden so that it never counts as a checkpoint.
RESUME_STATE = ".habitat-resume-state.pth"
# The one before, for where that gets damaged.
PREVIOUS_STATE = ".habitat-resume-state.previous.pth"
LATEST = "latest.safetensors"
# The weights of a folder that `memo-habitat export` wrote, where model hubs look for them.
EXPORTED = "model.safetensors"
# In a run folder and in its folder of checkpoints.
TRAIN_LOCK = ".train.lock"
# Of the sweep that a run belongs to. They lie in the folder before the run does.
SWEEP_LOG = "sweep.log"
SWEEP_LOCK = ".sweep.lock"


class ResumeRecord(BaseModel):
    """One resume of a run, in run.json."""

    command: list[str]
    time: str
    overrides: list[str]  # "key=value", as given
    changed: dict[str, tuple[Any, Any]]  # values before and after; None where there is no such key
    workers: int  # that train from here on
    steps: int | None  # of the environments, when it was resumed; None with Habitat's own trainers

    @classmethod
    def of_this_process(cls, workers: int, steps: int | None, **fields: Any) -> ResumeRecord:
        """That of the present command; without overrides where none are given."""
        fields = {"overrides": [], "changed": {}, **fields}
        return cls(command=typed_command(), time=now(), workers=workers, steps=steps, **fields)


class RunRecord(Provenance):
    """What run.json holds; config is None where `habitat-baselines` trains, all where the file
    was lost."""

    config: str | None = None
    seed: int | None = None
    workers: int | None = None
    resumed: list[ResumeRecord] = []
    # Of the cluster or of torchrun, in which it was begun (`scheduler.job_names`).
    jobs: list[str] = []


class RunFolder:
    """The paths of one run, and what its files say."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / CONFIG_FILE
        self.record_path = self.path / "run.json"
        self.tensorboard_dir = self.path / "tb"
        # ckpt.N.safetensors, the latest, and the hidden state to resume from.
        self.checkpoint_dir = self.path / "checkpoints"
        self.latest_checkpoint = self.checkpoint_dir / LATEST
        self.resume_state = self.checkpoint_dir / RESUME_STATE
        self.log_file = self.path / "train.log"
        self.workers_dir = self.path / "workers"
        self.progress_file = self.path / "progress.jsonl"
        self.report_file = self.path / "report.html"
        # What a command that trains holds, and what its trainer does. Two, because the trainer may
        # be in a process of its own, which outlives a killed command, or have been started by
        # another command than ours.
        self.locks = (self.path / TRAIN_LOCK, self.checkpoint_dir / TRAIN_LOCK)

    def eval_dir(self, name: str) -> Path:
        """The folder of the evaluation of that name; made by who writes to it."""
        return self.path / "eval" / file_name(name)

    def config(self) -> Any:
        """The config that it trains with, a DictConfig; UserError where it cannot be read."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        try:
            return OmegaConf.load(self.config_path)
        except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
            first_line = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(
                f"cannot read {self.config_path}: {first_line}; "
                "give a folder that `memo-habitat train` made"
            ) from error

    def locate(self, config: Any) -> None:
        """Let a config say that the run lies here: every path of a run derives from that."""
        from omegaconf import open_dict

        with open_dict(config):
            config.run_dir = str(self.path)

    def record(self) -> RunRecord | None:
        """What run.json says, None where there is none; UserError for a malformed field."""
        if not self.record_path.exists():
            return None
        return read_json(self.record_path, RunRecord.model_validate)

    def is_finished(self, config: Any) -> bool:
        """Whether the last line of the progress file is at the end that `config` sets."""
        if not self.progress_file.is_file():
            return True  # a trainer of Habitat's own: it keeps none and returns when it is done
        rows = read_progress(self.progress_file)
        last = rows[-1] if rows else {"steps": 0, "updates": 0}
        return share_done(config.habitat_baselines, last["steps"], last["updates"]) >= 1.0

    def is_trained(self, config: Any = None) -> bool:
        """Whether training and weights are at the end that `config` (or the run's own) sets.

        UserError where config or weights cannot be read.
        """
        if not (self.progress_file.is_file() and self.latest_checkpoint.is_file()):
            return False
        if not self.is_finished(self.config() if config is None else config):
            return False
        # The last line of progress is written before the weights.
        steps = read_progress(self.progress_file)[-1]["steps"]
        return checkpoint_step(newest_checkpoint(self.checkpoint_dir)) >= steps

    def checkpoints(self) -> list[Path]:
        """The files ckpt.N.safetensors in the order in which they were made."""
        there = self.checkpoint_dir.glob("ckpt.*.safetensors")
        return sorted((path for path in there if path.name.split(".")[1].isdigit()), key=_number)

    def find_checkpoint(self, wanted: str | None) -> Path:
        """The checkpoint file that `wanted` names, a path or a name here; None is the newest good.

        UserError where there is none of that name, with those that there are.
        """
        folder = self.checkpoint_dir
        if wanted is None and (self.path / EXPORTED).is_file():
            return self.path / EXPORTED
        if wanted is None and self.latest_checkpoint.is_file():
            return newest_checkpoint(folder)
        places = [] if wanted is None else [Path(wanted)]
        places += [folder / f"{wanted}{suffix}" for suffix in ("", ".safetensors") if wanted]
        for place in places:
            if place.is_file():
                return place
        there = sorted(path.name for path in folder.glob("*.safetensors"))
        known = f"there are {', '.join(there)}" if there else f"{folder} holds none: train first"
        raise UserError(f"no checkpoint {wanted or 'latest'!r} in {self.path}; {known}")


def _number(path: Path) -> int:
    return int(path.name.split(".")[1])


def checkpoint_step(path: Path) -> int:
    """The environment steps after which a checkpoint was written; UserError if it is damaged."""
    try:
        return int(json.loads(read_tensors(path).header["extra_state"])["step"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read the checkpoint {path} ({error}); remove it") from error


def newest_checkpoint(path: Path) -> Path:
    """`path` itself if it is a file; in a folder the latest checkpoint, or the newest good one.

    UserError where there is none. Where all are damaged it is the latest, which reading refuses.
    """
    found = path / LATEST if path.is_dir() else path
    if not found.is_file():
        raise UserError(f"no checkpoint at {found}: train first, or name a checkpoint file")
    if not path.is_dir():
        return found
    try:
        checkpoint_step(found)
        return found
    except UserError as error:
        damage = error
    steps = {}
    for other in path.glob("ckpt.*.safetensors"):
        with contextlib.suppress(UserError):
            steps[other] = checkpoint_step(other)
    if not steps:
        return found
    best = max(steps, key=lambda other: steps[other])
    _warn(f"{damage}; {best.name} of step {steps[best]:,} is used, the newest good checkpoint")
    return best


@cache
def _warn(line: str) -> None:
    """Once a process, however many ask for the checkpoint."""
    logging.getLogger(__name__).warning(line)


def plan_run(name: str, root: str | Path = "runs", out: str | Path | None = None) -> RunFolder:
    """The folder that a new run of the config `name` will have; nothing is made yet.

    It is called <config>-<time> in `root`, or it is `out`. UserError where that holds something.
    """
    if out is None:
        first = out = Path(root) / f"{name.replace('/', '-')}-{datetime.now():%Y%m%d-%H%M%S}"
        # Two runs begun in the same second.
        attempt = 2
        while out.exists():
            out = first.with_name(f"{first.name}~{attempt}")
            attempt += 1
    run = RunFolder(out)
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"the output folder {run.path} is a file; name a new folder")
    if run.path.is_dir() and any(_own_entries(run)):
        held, remedy = "other files", "name a new folder"
        if run.record_path.exists():
            held = "another run"
            remedy += f", or resume it: {command('train', '--resume', run.path)}"
        raise UserError(f"the output folder {run.path} holds {held}; {remedy}")
    return run


def create_run(run: RunFolder, name: str, config: Any, workers: int = 1) -> None:
    """Make the folder of a planned run, with config and record; UserError where it cannot be.

    `config` is a DictConfig, `workers` the processes that will train together.
    """
    from omegaconf import OmegaConf

    try:
        for folder in (run.path, run.tensorboard_dir, run.checkpoint_dir):
            folder.mkdir(parents=True, exist_ok=True)
        # Of two that begin here at once, the second finds the file of the first.
        with run.config_path.open("x", encoding="utf-8") as file:
            file.write(OmegaConf.to_yaml(config))
        _write_record(run, name, config, workers)
    except FileExistsError as error:
        raise cannot_write(run.path, error) from error
    except (OSError, UserError) as error:
        if run.path.exists():
            discard_run(run)
        raise (cannot_write(run.path, error) if isinstance(error, OSError) else error) from error


def record_start(config: Any, workers: int) -> None:
    """Leave config and record of a training that begins where none of our commands made the folder.

    That is where `habitat-baselines` trains: `eval`, `report` and `train --resume` then know it.
    A config that an earlier attempt left is replaced: nothing was trained with it.
    """
    from omegaconf import OmegaConf

    run = _run_of(config)
    record = None if run is None else run.record()
    if run is None or (record is not None and record.config is not None):
        return  # the folder is no run, or `create_run` made it
    atomic_write(run.config_path, OmegaConf.to_yaml(config))
    _write_record(run, None, config, workers)


def record_resume(config: Any, workers: int, steps: int) -> None:
    """Note that a training goes on at `steps`, where none of our commands did that.

    `habitat-baselines` goes on with the config that the run had: nothing is changed.
    """
    run = _run_of(config)
    record = None if run is None else run.record()
    if run is None or record is None:
        return
    last = record.resumed[-1] if record.resumed else None
    if last is not None and (last.steps, last.workers) == (steps, workers):
        return  # by the command that started this process
    record.resumed.append(ResumeRecord.of_this_process(workers, steps))
    write_json(run.record_path, record.model_dump())


def config_of_run(config: Any) -> Any:
    """The config that the run of `config` goes on with: its config.yaml, wherever it lies now.

    None where `config` trains in no run folder.
    """
    from habitat.config.default import patch_config

    run = _run_of(config)
    if run is None or not run.config_path.is_file():
        return None
    found = run.config()
    run.locate(found)
    return patch_config(found)


def _run_of(config: Any) -> RunFolder | None:
    """The run folder that `config` trains in; None where its checkpoints go elsewhere."""
    from omegaconf import OmegaConf

    folder = OmegaConf.select(config, "run_dir")
    run = RunFolder(folder or "")
    is_own = folder and Path(config.habitat_baselines.checkpoint_folder) == run.checkpoint_dir
    return run if is_own else None


def _write_record(run: RunFolder, name: str | None, config: Any, workers: int) -> None:
    """The first content of run.json; `name` as in `RunRecord.config`."""
    from omegaconf import OmegaConf

    seed = OmegaConf.select(config, "habitat.seed")
    jobs = job_names()
    record = RunRecord.of_this_process(config=name, seed=seed, workers=workers, jobs=jobs)
    write_json(run.record_path, record.model_dump())


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
    """The run folder at `path`; UserError where there is none."""
    run = RunFolder(path)
    if not run.config_path.is_file():
        others = sorted(str(p.parent) for p in Path("runs").glob(f"*/{CONFIG_FILE}"))
        known = f"the newest here is {others[-1]}" if others else "make one: memo-habitat train"
        raise UserError(f"{run.path} is not a run folder (it has no {CONFIG_FILE}); {known}")
    return run


def _own_entries(run: RunFolder) -> list[Path]:
    return [path for path in run.path.iterdir() if path.name not in (SWEEP_LOG, SWEEP_LOCK)]
