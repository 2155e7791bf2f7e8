"""`memo-habitat eval`: one record per episode of an agent on held-out houses."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from memo_habitat.cli.common import (
    Forget,
    Overrides,
    Run,
    Seed,
    Slurm,
    flag,
    option,
    run_and_overrides,
)
from memo_habitat.cli.eval_processes import GOES_ON, evaluate_in_processes
from memo_habitat.errors import UserError, check_at_least_one

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

    from memo_habitat.trainer.launch import EvalOptions
    from memo_habitat.trainer.run_dir import RunFolder

EXAMPLES = (
    "memo-habitat eval runs/extobjnav-studio-20260101-120000",
    "memo-habitat eval RUN --agent random --trials 3 --steps 512",
    "memo-habitat eval RUN --checkpoint ckpt.4 --deterministic --name greedy",
    "memo-habitat eval RUN --inspect-memory --name inspected",
    "memo-habitat eval RUN --forget",
    "memo-habitat eval RUN --shards 4   # on four cores",
    "memo-habitat eval RUN --shard 3/16   # and the others; the last one to end merges them",
    "memo-habitat eval RUN --shards 16 --slurm partition=gpu --slurm time=240",
)


@dataclass(frozen=True)
class Evaluation:
    """What to evaluate, by the names of `trainer.launch.EvalOptions`."""

    agent: Annotated[
        Literal["checkpoint", "random", "forward", "oracle", "perfect_memory"],
        option("Who acts.", None),
    ] = "checkpoint"
    checkpoint: Annotated[
        str | None, option("File, or name in the run's checkpoints; `all` of them.", "FILE")
    ] = None
    trials: Annotated[int | None, option("Trials in every house.")] = None
    steps: Annotated[int | None, option("Steps of each trial.")] = None
    deterministic: Annotated[bool, flag("--deterministic", "Likeliest actions, not sampled.")] = (
        False
    )
    inspect_memory: Annotated[
        bool, flag("--inspect-memory", "Record where the memory attends, for the report.")
    ] = False
    forget: Forget = False
    split: Annotated[str | None, option("Split of the data set.", None, "the config's, test")] = (
        None
    )
    name: Annotated[str | None, option("Folder in RUN/eval.", None, "the agent or checkpoint")] = (
        None
    )
    shard: Annotated[str | None, option("Play this part of the trials, such as 3/16.", "K/N")] = (
        None
    )


@dataclass(frozen=True)
class Division:
    """Whether all of it is done at once, and where."""

    shards: Annotated[
        int | None, option("Parts, each a process of this machine, or with --slurm a job.")
    ] = None
    slurm: Slurm = None
    dry_run: Annotated[bool, flag("--dry-run", "With --slurm: show the jobs alone.")] = False


def evaluate(
    run: Run,
    what: Evaluation,
    division: Division,
    overrides: Overrides = None,
    merge: Annotated[
        bool, flag("--merge", "Play nothing: merge the shards there are, of --name or of all.")
    ] = False,
    seed: Seed = None,
) -> None:
    """Evaluate an agent in the task of a run; prints the table and the folder of the records."""
    from memo_habitat.trainer import launch
    from memo_habitat.trainer.run_dir import open_run

    folder, keys = run_and_overrides(run, overrides)
    opened = open_run(folder)
    shards, shard = division.shards, what.shard
    if merge:
        if keys or any(vars(division).values()) or what != Evaluation(name=what.name):
            raise UserError("--merge plays nothing: of the other options it takes --name alone")
        _merge(opened, what.name)
        return
    options = launch.EvalOptions(**vars(what), overrides=keys)
    if shard is not None and shards is not None:
        raise UserError(f"--shard {shard} with --shards {shards}: give one of them")
    if division.slurm or division.dry_run:
        submit_shards(opened, options, division)
        return
    if shards is not None:
        try:
            records = evaluate_in_processes(opened, [options], shards)[-1]
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"stopped; {GOES_ON}") from stop
    else:
        records = launch.evaluate(opened, options)
    _show(opened, records, shard)


def _merge(run: RunFolder, name: str | None) -> None:
    from memo_habitat.evaluation.shards import merge_run
    from memo_habitat.report.html import summarise

    merged = merge_run(run, name)
    print(summarise([run.path]), *merged, sep="\n")


def _show(run: RunFolder, records: Path, shard: str | None) -> None:
    """The table, unless this was a shard and others are missing."""
    from memo_habitat.config.evaluation import Shard
    from memo_habitat.evaluation.shards import missing_shards
    from memo_habitat.report.html import summarise
    from memo_habitat.trainer.rendezvous import own_shard

    part = Shard.parse(shard or own_shard())
    if part.total > 1 and (left := missing_shards(records)):
        print(f"shard {part} is finished; not yet: {', '.join(map(str, left))}", records, sep="\n")
        return
    print(summarise([run.path]), records, sep="\n")


@dataclass(frozen=True)
class ShardJob:
    """What submitit runs: `memo-habitat` with these arguments."""

    arguments: tuple[str, ...]

    def __call__(self) -> int:
        """Evaluate; returns the exit status."""
        sys.argv = ["memo-habitat", *self.arguments]  # what meta.json says that it came from
        # By its name: the command line imports this module.
        return int(import_module("memo_habitat.cli.main").main(self.arguments))

    def checkpoint(self) -> DelayedSubmission:
        """What is queued again at the time limit: the same, which goes on with the next trial."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def submit_shards(run: RunFolder, options: EvalOptions, division: Division) -> None:
    """Submit each part of this command's evaluation as a job, and leave.

    The job that ends last merges them. Submitit's files go into the run's folder slurm.

    Raises:
        UserError: options that do not go together, what would be refused by the jobs, no SLURM
            here, or an unknown key.
    """
    from memo_habitat.sweep.spec import parse_slurm, slurm_executor
    from memo_habitat.trainer import launch
    from memo_habitat.utils.provenance import without_options

    shards, slurm = division.shards, division.slurm
    if shards is None or not slurm:
        raise UserError(
            "--slurm and --dry-run go with --shards: --shards 16 --slurm partition=gpu makes "
            "sixteen jobs"
        )
    check_at_least_one("--shards", shards)
    given = {"time": 1440, **parse_slurm(slurm)}
    _check_weights_stay(run, options)
    launch.prepare_evaluations(run, replace(options, shard=f"1/{shards}"))
    arguments = without_options(sys.argv[1:], "--shards", "--slurm", flags=["--dry-run"])
    jobs = [ShardJob((*arguments, "--shard", f"{k}/{shards}")) for k in range(1, shards + 1)]
    if division.dry_run:
        words = " ".join(f"{key}={value}" for key, value in given.items())
        print(f"{shards} jobs of SLURM: {words}")
        for job in jobs:
            print(f"memo-habitat {shlex.join(job.arguments)}")
        return
    executor = slurm_executor(run.path / "slurm", slurm)
    for number, job in enumerate(jobs, start=1):
        executor.update_parameters(job_name=f"eval_{number}_of_{shards}")
        submitted = executor.submit(job)
        print(f"shard {number}/{shards}: job {submitted.job_id}")
    print(f"the last one to end merges them; their output: {Path(executor.folder).absolute()}")


def _check_weights_stay(run: RunFolder, options: EvalOptions) -> None:
    """Refuse the latest checkpoint of a training that has not ended.

    Until the last job begins it would be another one, and shards of both make no evaluation.
    """
    from memo_habitat.trainer.launch import ALL

    latest = run.latest_checkpoint
    if options.agent != "checkpoint" or not latest.is_file() or run.is_finished(run.config()):
        return
    all_there = options.checkpoint == ALL
    if all_there or run.find_checkpoint(options.checkpoint).samefile(latest):
        there = ", ".join(path.stem for path in run.checkpoints()) or "none yet"
        what = "it may write more checkpoints" if all_there else "its latest checkpoint may change"
        raise UserError(
            f"the training in {run.path} has not ended, and {what} before jobs begin: name one "
            f"with --checkpoint (there are: {there}), or a copy of {latest}"
        )
