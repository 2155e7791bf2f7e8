"""`memo-habitat quickstart`: from nothing to the report of a trained agent."""

from __future__ import annotations

from typing import Annotated

from memo_habitat.cli.common import (
    ROOT,
    ConfigName,
    Debug,
    Overrides,
    Root,
    examples,
    option,
)
from memo_habitat.errors import check_at_least_one

EXAMPLES = examples(
    "memo-habitat quickstart",
    "memo-habitat quickstart --train-steps 400000",
    "memo-habitat quickstart memory=fct",
)


# The sizes take fifteen minutes in all on two cores.
def quickstart(
    overrides: Overrides = None,
    config_name: Annotated[str, ConfigName] = "extobjnav/studio",
    train_steps: Annotated[int, option("Environment steps to train.")] = 150_000,
    trials: Annotated[int, option("Trials in every house.")] = 5,
    steps: Annotated[int, option("Steps of each trial.")] = 256,
    root: Root = ROOT,
    debug: Debug = False,
) -> None:
    """Train a small agent, evaluate it beside random and oracle, write the report."""
    for name, value in (("--train-steps", train_steps), ("--trials", trials), ("--steps", steps)):
        check_at_least_one(name, value)
    from memo_habitat.report.html import summarise, write_report
    from memo_habitat.trainer import launch

    keys = [f"habitat_baselines.total_num_steps={train_steps}", *(overrides or ())]
    training = launch.start_training(config_name, keys, root)
    run = training.run
    print(f"1/3 train {config_name} for {train_steps} steps into {run.path}", flush=True)
    if not launch.train(training):
        raise KeyboardInterrupt
    size = f"{trials} trials of {steps} steps in every held-out house"
    print(f"2/3 evaluate random, trained and oracle: {size}", flush=True)
    for agent in ("random", "checkpoint", "oracle"):
        launch.evaluate(run, launch.EvalOptions(agent=agent, trials=trials, steps=steps))
    print(summarise([run.path]), "3/3 write the report", sep="\n", flush=True)
    print(write_report([run.path], run.report_file))
