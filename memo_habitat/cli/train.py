"""`memo-habitat train`: a new run, or going on with one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from memo_habitat.cli.common import Subparsers, add_command, add_overrides, add_workers
from memo_habitat.errors import UserError, WorkerError
from memo_habitat.utils.processes import INTERRUPTED

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from memo_habitat.trainer.run_dir import RunFolder

EXAMPLES = """
memo-habitat train --config-name=extobjnav/studio
memo-habitat train --config-name=extobjnav/studio habitat.seed=1 --root /data/runs
memo-habitat train --resume runs/extobjnav-studio-20260101-120000
memo-habitat train --config-name=dark_key_to_door --workers 4
memo-habitat train --list
"""


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(commands, "train", run, "train an agent into a run folder", EXAMPLES)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-name", metavar="NAME", help="config of a new run")
    what.add_argument("--resume", metavar="RUN", help="run folder to go on with")
    what.add_argument("--list", action="store_true", help="list the configs that ship")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--root", default="runs", help="folder of run folders (default: runs)")
    where.add_argument("--out", metavar="DIR", help="this very run folder; new or empty")
    parser.add_argument("--cfg", action="store_true", help="print the config and do nothing else")
    add_workers(parser)
    add_overrides(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train; run folder and log are printed first and how to go on last."""
    from memo_habitat.config.compose import compose_config, known_configs
    from memo_habitat.trainer import launch
    from memo_habitat.trainer.distributed import check_workers

    if arguments.list:
        print("\n".join(known_configs()))
        return 0
    check_workers(arguments.workers)
    if arguments.cfg:
        from omegaconf import OmegaConf

        composed = (
            compose_config(arguments.config_name, arguments.overrides)
            if arguments.resume is None
            else _open(arguments)[1]
        )
        print(OmegaConf.to_yaml(composed))
        return 0
    folder, config = _open(arguments)
    print(f"run folder: {folder.path}", flush=True)
    if arguments.resume is not None:
        if end := launch.end_reached(folder, config):
            print(end)
            return 0
        from memo_habitat.trainer.resume import note_on_trials

        if note := note_on_trials(folder, config, arguments.workers):
            print(note, flush=True)
    print(f"log: {config.habitat_baselines.log_file}", flush=True)
    going_on = f"go on with: memo-habitat train --resume {folder.path}"
    if arguments.workers > 1:
        going_on += f" --workers {arguments.workers}"
    try:
        resumed_with = arguments.overrides if arguments.resume is not None else None
        finished = launch.train(folder, config, arguments.workers, resumed_with)
    except WorkerError as error:
        if not folder.resume_state.exists():
            raise
        raise WorkerError(f"{error}; {going_on}") from error
    if not finished:
        print(f"stopped; {going_on}", file=sys.stderr)
        return INTERRUPTED
    print(f"trained; next: memo-habitat eval {folder.path}")
    return 0


def _open(arguments: argparse.Namespace) -> tuple[RunFolder, DictConfig]:
    """The folder to train in, a new one or that of a run to go on with, and its config."""
    from memo_habitat.trainer import launch

    if arguments.resume is None:
        return launch.start_training(
            arguments.config_name,
            arguments.overrides,
            arguments.root,
            arguments.out,
            arguments.workers,
        )
    if arguments.out is not None:
        raise UserError(f"--out {arguments.out} goes with a new run, not with --resume")
    _refuse_sweep(arguments.resume)
    return launch.resume(arguments.resume, arguments.overrides)


def _refuse_sweep(folder: str) -> None:
    """Refuse to go on with the folder of a sweep as if it were a run.

    Raises:
        UserError: names the command for it.
    """
    from memo_habitat.report.sweep_folder import SWEEP_FILE

    if (Path(folder) / SWEEP_FILE).exists():
        raise UserError(
            f"{folder} is a sweep and no run; go on with it: memo-habitat sweep --resume {folder}"
        )
