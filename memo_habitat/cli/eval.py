"""`memo-habitat eval`: one record per episode of an agent on held-out houses."""

from __future__ import annotations

from typing import Annotated, Literal

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

EXAMPLES = examples(
    "memo-habitat eval runs/extobjnav-studio-20260101-120000",
    "memo-habitat eval RUN --agent random --trials 3 --steps 512",
    "memo-habitat eval RUN --checkpoint ckpt.4 --deterministic --name greedy",
    "memo-habitat eval RUN --inspect-memory --name inspected",
    "memo-habitat eval RUN --forget",
)


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder.")],
    overrides: Overrides = None,
    agent: Annotated[
        Literal["checkpoint", "random", "oracle", "perfect_memory"], option("Who acts.", None)
    ] = "checkpoint",
    checkpoint: Annotated[
        str | None, option("File, or name in the run's checkpoints.", "FILE")
    ] = None,
    trials: Annotated[int | None, option("Trials in every house.")] = None,
    steps: Annotated[int | None, option("Steps of each trial.")] = None,
    deterministic: Annotated[
        bool, flag("--deterministic", "Likeliest actions, not sampled.")
    ] = False,
    inspect_memory: Annotated[
        bool, flag("--inspect-memory", "Record where the memory attends, for the report.")
    ] = False,
    forget: Annotated[
        bool, flag("--forget", "Empty the memory at the start of every episode.")
    ] = False,
    split: Annotated[
        str | None, option("Split of the data set.", None, "the config's, test")
    ] = None,
    name: Annotated[
        str | None, option("Folder in RUN/eval.", None, "the agent or checkpoint")
    ] = None,
    seed: Seed = None,
    debug: Debug = False,
) -> None:
    """Evaluate an agent in the task of a run; prints the table and the folder of the records."""
    from memo_habitat.report.html import summarise
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
    )
    records = launch.evaluate(opened, options)
    print(summarise([opened.path]), records, sep="\n")
