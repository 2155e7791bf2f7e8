"""`memo-habitat quickstart`: from nothing to the report of a trained agent."""

from __future__ import annotations

import argparse

from memo_habitat.cli_common import Subparsers, add_command, add_evaluation_size, add_overrides

EXAMPLES = """
memo-habitat quickstart
memo-habitat quickstart --train-steps 400000
memo-habitat quickstart --config-name=extobjnav/fct_studio
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
        default="extobjnav/memo_studio",
        metavar="NAME",
        help="(extobjnav/memo_studio)",
    )
    parser.add_argument("--train-steps", type=int, metavar="N", help="environment steps to train")
    add_evaluation_size(parser)
    parser.add_argument("--root", default="runs", help="folder of run folders (default: runs)")
    add_overrides(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the quickstart; the last line is the report's path."""
    from memo_habitat import quickstart

    plan = quickstart.Plan.of(
        config_name=arguments.config_name,
        train_steps=arguments.train_steps,
        trials=arguments.trials,
        steps=arguments.steps,
        root=arguments.root,
        overrides=arguments.overrides,
    )
    for line in quickstart.run(plan):
        print(line, flush=True)
    return 0
