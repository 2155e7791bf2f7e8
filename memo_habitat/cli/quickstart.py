"""`memo-habitat quickstart`: what remembering is worth, and an agent trained to remember."""

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
from memo_habitat.cli.demo import (
    CONFIG,
    compare_with_forgetting,
    copy_of_shipped_agent,
    useful_shards,
)
from memo_habitat.cli.eval_processes import evaluate_in_processes
from memo_habitat.errors import check_at_least_one

EXAMPLES = examples(
    "memo-habitat quickstart",
    "memo-habitat quickstart --train-steps 1300000",
    "memo-habitat quickstart memory=fct",
)


def quickstart(
    overrides: Overrides = None,
    config_name: Annotated[str, ConfigName] = CONFIG,
    train_steps: Annotated[int, option("Environment steps to train.")] = 850_000,
    trials: Annotated[int, option("Trials in every house.")] = 2,
    steps: Annotated[int, option("Steps of each trial.")] = 1024,
    root: Root = ROOT,
    debug: Debug = False,
) -> None:
    """Show an agent that remembers, train a small one, and write a report of both.

    The first has shipped and is evaluated with its memory and without. The second is trained here.
    """
    for name, value in (("--train-steps", train_steps), ("--trials", trials), ("--steps", steps)):
        check_at_least_one(name, value)
    from memo_habitat.report.html import summarise, write_report
    from memo_habitat.trainer import launch

    shipped = copy_of_shipped_agent(root)
    print("1/4 the agent that ships, with its memory and without", flush=True)
    compare_with_forgetting(shipped, trials, steps)
    keys = [f"habitat_baselines.total_num_steps={train_steps}", *(overrides or ())]
    training = launch.start_training(config_name, keys, root)
    run = training.run
    print(f"2/4 train {config_name} for {train_steps} steps into {run.path}", flush=True)
    if not launch.train(training):
        raise KeyboardInterrupt
    agents = ["checkpoint", "random", "oracle"]
    print(f"3/4 evaluate it beside {' and '.join(agents[1:])}", flush=True)
    several = [launch.EvalOptions(agent=agent, trials=trials, steps=steps) for agent in agents]
    evaluate_in_processes(run, several, useful_shards())
    runs = [shipped.path, run.path]
    print(summarise(runs), "4/4 write the report", sep="\n", flush=True)
    print(write_report(runs, run.report_file))
