"""`memo-habitat demo`: what remembering is worth, by an agent that ships with the package."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated

from memo_habitat.cli.common import ROOT, Debug, Root, examples, option
from memo_habitat.cli.eval_processes import evaluate_in_processes
from memo_habitat.errors import check_at_least_one
from memo_habitat.utils.processes import available_cores

if TYPE_CHECKING:
    from memo_habitat.trainer.run_dir import RunFolder

EXAMPLES = examples("memo-habitat demo", "memo-habitat demo --trials 6 --steps 4096")

#: The run folder of the agent that ships, and the config it was trained with.
SHIPPED, CONFIG = "data/agents/recall", "extobjnav/recall"


# The sizes take two minutes of CPU, divided over two cores where there are two.
def demo(
    trials: Annotated[int, option("Trials in every house.")] = 2,
    steps: Annotated[int, option("Steps of each trial.")] = 1024,
    root: Root = ROOT,
    debug: Debug = False,
) -> None:
    """Let the agent that ships find things in homes it has never seen, with and without memory."""
    for name, value in (("--trials", trials), ("--steps", steps)):
        check_at_least_one(name, value)
    from memo_habitat.report.html import summarise, write_report

    run = copy_of_shipped_agent(root)
    compare_with_forgetting(run, trials, steps)
    print(summarise([run.path]), flush=True)
    print(write_report([run.path], run.report_file))


def copy_of_shipped_agent(root: str) -> RunFolder:
    """A run folder of its own in `root`: what ships may lie where nothing can be written."""
    from memo_habitat.trainer.run_dir import open_run, plan_run
    from memo_habitat.utils.data_paths import resolve

    run = plan_run("demo", root)
    shutil.copytree(resolve(SHIPPED), run.path, dirs_exist_ok=True)
    return open_run(run.path)


def compare_with_forgetting(run: RunFolder, trials: int, steps: int) -> None:
    """Evaluate the agent as it is, and emptied of its memory at the start of every episode."""
    from memo_habitat.trainer import launch

    print(f"an agent in {run.path}: {trials} trials of {steps} steps in every home", flush=True)
    both = [launch.EvalOptions(trials=trials, steps=steps, forget=f) for f in (False, True)]
    evaluate_in_processes(run, both, useful_shards())


def useful_shards() -> int:
    """Two processes, which halve the time; more would wait longer for imports than they save."""
    return min(2, len(available_cores()))
