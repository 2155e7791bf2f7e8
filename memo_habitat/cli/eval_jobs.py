"""The shards of an evaluation as jobs of a SLURM cluster, submitted by submitit."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memo_habitat.errors import UserError, check_at_least_one

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

    from memo_habitat.trainer.launch import EvalOptions
    from memo_habitat.trainer.run_dir import RunFolder

# As this command was typed, what the jobs do without.
_OF_SUBMITTING = ("--shards", "--slurm")


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


def submit_shards(
    run: RunFolder,
    options: EvalOptions,
    shards: int | None,
    slurm: Sequence[str],
    dry_run: bool,
) -> None:
    """Submit each of `shards` parts of this command's evaluation as a job, and leave.

    The job that ends last merges them.

    Args:
        run: where submitit's files go, into its folder slurm.
        options: what is evaluated: what would be refused by the jobs is refused now.
        shards: how many.
        slurm: options of sbatch, "key=value" each.
        dry_run: print the jobs and submit nothing.

    Raises:
        UserError: options that do not go together, no SLURM here, or an unknown key.
    """
    from memo_habitat.sweep.spec import parse_slurm
    from memo_habitat.trainer import launch

    if shards is None or not slurm:
        raise UserError(
            "--slurm and --dry-run go with --shards: --shards 16 --slurm partition=gpu makes "
            "sixteen jobs"
        )
    check_at_least_one("--shards", shards)
    given: dict[str, Any] = {"time": 1440, **parse_slurm(slurm)}
    _check_weights_stay(run, options)
    launch.prepare_evaluations(run, replace(options, shard=f"1/{shards}"))
    arguments = _without_submitting(sys.argv[1:])
    jobs = [ShardJob((*arguments, "--shard", f"{k}/{shards}")) for k in range(1, shards + 1)]
    if dry_run:
        words = " ".join(f"{key}={value}" for key, value in given.items())
        print(f"{shards} jobs of SLURM: {words}")
        for job in jobs:
            print(f"memo-habitat {shlex.join(job.arguments)}")
        return
    import submitit

    try:
        executor = submitit.SlurmExecutor(run.path / "slurm", 1000)
        executor.update_parameters(**given)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"--slurm {shlex.join(slurm)}: {error}") from error
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


def _without_submitting(words: Sequence[str]) -> tuple[str, ...]:
    """A command line without what says that it is submitted."""
    kept, skip = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        if not skip and name not in _OF_SUBMITTING and word != "--dry-run":
            kept.append(word)
        skip = not skip and name in _OF_SUBMITTING and not equals
    return tuple(kept)
