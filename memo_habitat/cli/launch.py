"""`memo-habitat launch`: a training on several GPUs, here or as a job of a SLURM cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from typer.core import TyperCommand

from memo_habitat.cli.common import ROOT, Overrides, Seed, Slurm, Work, flag, option
from memo_habitat.cli.train import train
from memo_habitat.errors import UserError, check_at_least_one, command

if TYPE_CHECKING:
    from memo_habitat.trainer.launch import Training
    from memo_habitat.trainer.scheduler import BatchJob

EXAMPLES = (
    "memo-habitat launch --gpus 4 --config-name=extobjnav/apartments",
    "memo-habitat launch --slurm --nodes 2 --gpus 8 --dry-run --config-name=extobjnav/apartments",
    "memo-habitat launch --slurm partition=gpu --slurm time=720 --slurm cpus_per_task=12 --nodes 2 "
    "--gpus 8 --config-name=extobjnav/apartments memory=rmt",
    "memo-habitat launch --slurm partition=gpu --gpus 8 --resume runs/extobjnav-apartments-...",
)
_SLURM = "--slurm"


class OptionalValue(TyperCommand):
    """`--slurm` may stand alone: on clusters whose defaults are good enough."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give it an empty value then."""
        following = [*args, "-"][1:]
        alone = [
            word == _SLURM and (after.startswith("-") or "=" not in after)
            for word, after in zip(args, following, strict=True)
        ]
        return super().parse_args(
            ctx,
            [f"{_SLURM}=" if bare else word for word, bare in zip(args, alone, strict=True)],
        )


def launch(
    work: Work,
    overrides: Overrides = None,
    gpus: Annotated[int, option("Processes on each machine, one a GPU.")] = 1,
    slurm: Slurm = None,
    nodes: Annotated[int, option("Machines; more than one with --slurm.")] = 1,
    dry_run: Annotated[
        bool, flag("--dry-run", "Print the batch file, or the command, and do nothing else.")
    ] = False,
    seed: Seed = None,
) -> None:
    """Train on several GPUs, of this machine or of a SLURM cluster.

    --slurm may stand alone where the cluster's own defaults are good enough.
    """
    check_at_least_one("--gpus", gpus)
    check_at_least_one("--nodes", nodes)
    work.check()
    if slurm is None:
        if nodes > 1:
            raise UserError(
                f"--nodes {nodes} goes with --slurm; without it start torchrun on each machine "
                "(docs/clusters.md)"
            )
        if dry_run:
            print(_train_command(work, overrides or [], gpus))
        else:
            train(work, overrides, workers=gpus)
        return
    from memo_habitat.sweep.spec import parse_slurm
    from memo_habitat.trainer import launch as trainings
    from memo_habitat.trainer.scheduler import check_options

    options, keys, together = parse_slurm([o for o in slurm if o]), overrides or (), nodes * gpus
    check_options(options)
    if work.config_name is None:
        training = trainings.resume_training(str(work.resume), keys, together)
    else:
        make = trainings.plan_training if dry_run else trainings.start_training
        training = make(work.config_name, keys, work.root, work.out, together)
    job = _job(training, nodes, gpus, options)
    if dry_run:
        print(job.text(), end="")
        return
    try:
        number = job.submit(training.run.path / "job.sbatch")
    except UserError:
        if work.config_name is not None:
            trainings.discard_run(training.run)
        raise
    print(f"run folder: {training.run.path}")
    log = str(options.get("output", training.run.path / "slurm-%j.log"))
    print(f"submitted as job {number}; its log: {log.replace('%j', number)}")


def _train_command(work: Work, overrides: list[str], gpus: int) -> str:
    """What trains as this command does on one machine."""
    places = {"--config-name": work.config_name, "--resume": work.resume, "--out": work.out}
    words = [f"{name}={value}" for name, value in places.items() if value is not None]
    words += [f"--root={work.root}"] if work.root != ROOT else []
    return command("train", "--workers", gpus, *words, *overrides)


def _job(training: Training, nodes: int, gpus: int, options: dict[str, int | str]) -> BatchJob:
    from memo_habitat.trainer.scheduler import BatchJob

    folder = training.run.path.absolute()
    # Of a run that is resumed, what changes is given to the job, which writes it down.
    return BatchJob(
        name=folder.name,
        nodes=nodes,
        tasks=gpus,
        options=options,
        log=folder / "slurm-%j.log",
        command=(
            *(sys.executable, "-m", "memo_habitat.cli.main", "train", "--resume", str(folder)),
            *(training.resumed_with or ()),
        ),
    )
