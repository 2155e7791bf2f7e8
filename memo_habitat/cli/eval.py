"""`memo-habitat eval`: one record per episode of an agent on held-out houses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from memo_habitat.cli.common import (
    Debug,
    Overrides,
    Seed,
    examples,
    flag,
    option,
    run_and_overrides,
)
from memo_habitat.cli.eval_jobs import submit_shards
from memo_habitat.cli.eval_processes import GOES_ON, evaluate_in_processes
from memo_habitat.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from memo_habitat.trainer.run_dir import RunFolder

EXAMPLES = examples(
    "memo-habitat eval runs/extobjnav-studio-20260101-120000",
    "memo-habitat eval RUN --agent random --trials 3 --steps 512",
    "memo-habitat eval RUN --checkpoint ckpt.4 --deterministic --name greedy",
    "memo-habitat eval RUN --inspect-memory --name inspected",
    "memo-habitat eval RUN --forget",
    "memo-habitat eval RUN --shards 4   # on four cores",
    "memo-habitat eval RUN --shard 3/16   # and the others; the last one to end merges them",
    "memo-habitat eval RUN --shards 16 --slurm partition=gpu --slurm time=240",
)

AgentName = Annotated[
    Literal["checkpoint", "random", "forward", "oracle", "perfect_memory"],
    option("Who acts.", None),
]
Checkpoint = Annotated[
    str | None, option("File, or name in the run's checkpoints; `all` of them.", "FILE")
]
Deterministic = Annotated[bool, flag("--deterministic", "Likeliest actions, not sampled.")]
InspectMemory = Annotated[
    bool, flag("--inspect-memory", "Record where the memory attends, for the report.")
]
Forget = Annotated[bool, flag("--forget", "Empty the memory at the start of every episode.")]
Split = Annotated[str | None, option("Split of the data set.", None, "the config's, test")]
Name = Annotated[str | None, option("Folder in RUN/eval.", None, "the agent or checkpoint")]
ShardOption = Annotated[str | None, option("Play this part of the trials, such as 3/16.", "K/N")]
Merge = Annotated[
    bool, flag("--merge", "Play nothing: merge the shards there are, of --name or of all.")
]
Shards = Annotated[
    int | None, option("Parts, each a process of this machine, or with --slurm a job.")
]
Slurm = Annotated[list[str] | None, option("Option of sbatch; several are possible.", "KEY=VALUE")]
DryRun = Annotated[bool, flag("--dry-run", "With --slurm: show the jobs alone.")]


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    overrides: Overrides = None,
    agent: AgentName = "checkpoint",
    checkpoint: Checkpoint = None,
    trials: Annotated[int | None, option("Trials in every house.")] = None,
    steps: Annotated[int | None, option("Steps of each trial.")] = None,
    deterministic: Deterministic = False,
    inspect_memory: InspectMemory = False,
    forget: Forget = False,
    split: Split = None,
    name: Name = None,
    shard: ShardOption = None,
    merge: Merge = False,
    shards: Shards = None,
    slurm: Slurm = None,
    dry_run: DryRun = False,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Evaluate an agent in the task of a run; prints the table and the folder of the records."""
    from memo_habitat.trainer import launch
    from memo_habitat.trainer.run_dir import open_run

    folder, keys = run_and_overrides(run, overrides)
    opened = open_run(folder)
    options = launch.EvalOptions(
        checkpoint=checkpoint,
        trials=trials,
        steps=steps,
        agent=agent,
        deterministic=deterministic,
        split=split,
        name=name,
        overrides=keys,
        inspect_memory=inspect_memory,
        forget=forget,
        shard=shard,
    )
    if merge:
        if shards or slurm or dry_run or options != launch.EvalOptions(name=name, overrides=[]):
            raise UserError("--merge plays nothing: of the other options it takes --name alone")
        _merge(opened, name)
        return
    if shard is not None and shards is not None:
        raise UserError(f"--shard {shard} with --shards {shards}: give one of them")
    if slurm or dry_run:
        submit_shards(opened, options, shards, slurm or (), dry_run)
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
