"""`memo-habitat quickstart`: from nothing to the report of a trained agent."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from memo_habitat.cli.common import Subparsers, add_command, add_evaluation_size, add_overrides
from memo_habitat.errors import check_at_least_one
from memo_habitat.trainer import launch

# Sized for fifteen minutes in all on two cores.
TRAIN_STEPS = 150_000
EVAL_TRIALS = 5
EVAL_STEPS = 256


@dataclass(frozen=True)
class Plan:
    """What the quickstart does: environment steps to train, trials and their steps to evaluate."""

    config_name: str = "extobjnav/studio"
    train_steps: int = TRAIN_STEPS
    trials: int = EVAL_TRIALS
    steps: int = EVAL_STEPS
    root: str = "runs"
    overrides: Sequence[str] = ()

    @classmethod
    def of(cls, **given: Any) -> Plan:
        """Return the plan with what is given; None keeps a default.

        Raises:
            UserError: a number that is not positive.
        """
        chosen = {name: value for name, value in given.items() if value is not None}
        for name in ("train_steps", "trials", "steps"):
            check_at_least_one(f"--{name.replace('_', '-')}", chosen.get(name, 1))
        return cls(**chosen)


def run_quickstart(plan: Plan) -> Iterator[str]:
    """Train, evaluate and report; yields what to tell meanwhile, the report's path last."""
    from memo_habitat.report.build import summarise, write_report

    overrides = [f"habitat_baselines.total_num_steps={plan.train_steps}", *plan.overrides]
    folder, config = launch.start_training(plan.config_name, overrides, plan.root)
    yield f"1/3 train {plan.config_name} for {plan.train_steps} steps into {folder.path}"
    if not launch.train(folder, config):
        raise KeyboardInterrupt
    trials = f"{plan.trials} trials of {plan.steps} steps in every held-out house"
    yield f"2/3 evaluate random, trained and oracle: {trials}"
    for agent in ("random", "checkpoint", "oracle"):
        options = launch.EvalOptions(agent=agent, trials=plan.trials, steps=plan.steps)
        launch.evaluate(folder, options)
    yield summarise([folder.path])
    yield "3/3 write the report"
    yield str(write_report([folder.path], folder.report_file))


EXAMPLES = """
memo-habitat quickstart
memo-habitat quickstart --train-steps 400000
memo-habitat quickstart memory=fct
"""


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "quickstart",
        run,
        "train a small agent, evaluate it beside random and oracle, write the report",
        EXAMPLES,
    )
    parser.add_argument(
        "--config-name",
        default="extobjnav/studio",
        metavar="NAME",
        help="(extobjnav/studio)",
    )
    parser.add_argument("--train-steps", type=int, metavar="N", help="environment steps to train")
    add_evaluation_size(parser)
    parser.add_argument("--root", default="runs", help="folder of run folders (default: runs)")
    add_overrides(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the quickstart; the last line is the report's path."""

    plan = Plan.of(
        config_name=arguments.config_name,
        train_steps=arguments.train_steps,
        trials=arguments.trials,
        steps=arguments.steps,
        root=arguments.root,
        overrides=arguments.overrides,
    )
    for line in run_quickstart(plan):
        print(line, flush=True)
    return 0
