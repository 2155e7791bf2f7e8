"""What remembering is worth, by an agent that ships with the package.

`memo-habitat demo` evaluates it; `memo-habitat quickstart` also trains another one to remember.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from memo_habitat.cli.common import ROOT, ConfigName, Overrides, Root, option
from memo_habitat.cli.eval_processes import evaluate_in_processes
from memo_habitat.errors import check_at_least_one
from memo_habitat.utils.processes import available_cores

if TYPE_CHECKING:
    from memo_habitat.trainer.run_dir import RunFolder

EXAMPLES = ("memo-habitat demo", "memo-habitat demo --trials 6 --steps 4096")
QUICKSTART_EXAMPLES = (
    "memo-habitat quickstart",
    "memo-habitat quickstart --train-steps 1300000",
    "memo-habitat quickstart memory=fct",
)

#: The run folder of the agent that ships, and the config it was trained with.
SHIPPED, CONFIG = "data/agents/recall", "extobjnav/recall"


@dataclass(frozen=True)
class Size:
    """How long agents are looked at: two minutes of CPU, over two cores where there are two."""

    trials: Annotated[int, option("Trials in every house.")] = 2
    steps: Annotated[int, option("Steps of each trial.")] = 1024

    def check(self) -> None:
        """UserError for none."""
        check_at_least_one("--trials", self.trials)
        check_at_least_one("--steps", self.steps)


def demo(size: Size, root: Root = ROOT) -> None:
    """Let the agent that ships find things in homes it has never seen, with and without memory."""
    size.check()
    from memo_habitat.report.html import summarise, write_report

    run = copy_of_shipped_agent(root)
    compare_with_forgetting(run, size)
    print(summarise([run.path]), flush=True)
    print(write_report([run.path], run.report_file))


def quickstart(
    size: Size,
    overrides: Overrides = None,
    config_name: Annotated[str, ConfigName] = CONFIG,
    train_steps: Annotated[int, option("Environment steps to train.")] = 850_000,
    root: Root = ROOT,
) -> None:
    """Show an agent that remembers, train a small one, and write a report of both.

    The first has shipped and is evaluated with its memory and without. The second is trained here.
    """
    check_at_least_one("--train-steps", train_steps)
    size.check()
    from memo_habitat.report.html import summarise, write_report
    from memo_habitat.trainer import launch

    shipped = copy_of_shipped_agent(root)
    print("1/4 the agent that ships, with its memory and without", flush=True)
    compare_with_forgetting(shipped, size)
    keys = [f"habitat_baselines.total_num_steps={train_steps}", *(overrides or ())]
    training = launch.start_training(config_name, keys, root)
    run = training.run
    print(f"2/4 train {config_name} for {train_steps} steps into {run.path}", flush=True)
    if not launch.train(training):
        raise KeyboardInterrupt
    agents = ["checkpoint", "random", "oracle"]
    print(f"3/4 evaluate it beside {' and '.join(agents[1:])}", flush=True)
    several = [launch.EvalOptions(agent=agent, **vars(size)) for agent in agents]
    evaluate_in_processes(run, several, useful_shards())
    runs = [shipped.path, run.path]
    print(summarise(runs), "4/4 write the report", sep="\n", flush=True)
    print(write_report(runs, run.report_file))


def copy_of_shipped_agent(root: str) -> RunFolder:
    """A run folder of its own in `root`: what ships may lie where nothing can be written."""
    from memo_habitat.trainer.run_dir import open_run, plan_run
    from memo_habitat.utils.data_paths import resolve

    run = plan_run("demo", root)
    shutil.copytree(resolve(SHIPPED), run.path, dirs_exist_ok=True)
    return open_run(run.path)


def compare_with_forgetting(run: RunFolder, size: Size) -> None:
    """Evaluate the agent as it is, and emptied of its memory at the start of every episode."""
    from memo_habitat.trainer import launch

    print(
        f"an agent in {run.path}: {size.trials} trials of {size.steps} steps in every home",
        flush=True,
    )
    both = [launch.EvalOptions(**vars(size), forget=forget) for forget in (False, True)]
    evaluate_in_processes(run, both, useful_shards())


def useful_shards() -> int:
    """Two processes, which halve the time; more would wait longer for imports than they save."""
    return min(2, len(available_cores()))
