"""`memo-habitat eval`: one record per episode of an agent on held-out houses."""

from __future__ import annotations

import argparse

from memo_habitat.cli.common import Subparsers, add_command, add_evaluation_size, add_overrides
from memo_habitat.evaluation.records import AGENTS

EXAMPLES = """
memo-habitat eval runs/extobjnav-studio-20260101-120000
memo-habitat eval RUN --agent random --trials 3 --steps 512
memo-habitat eval RUN --checkpoint ckpt.4 --deterministic --name greedy
memo-habitat eval RUN --inspect-memory --name inspected
"""


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(commands, "eval", run, "evaluate an agent in the task of a run", EXAMPLES)
    parser.add_argument("folder", metavar="RUN", help="run folder")
    parser.add_argument("--agent", choices=AGENTS, default=AGENTS[0], help="who acts")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="file, or name in the run's checkpoints"
    )
    add_evaluation_size(parser)
    parser.add_argument(
        "--deterministic", action="store_true", help="likeliest actions, not sampled"
    )
    parser.add_argument(
        "--inspect-memory",
        action="store_true",
        help="write down where the memory attends, for the report",
    )
    parser.add_argument("--split", help="split of the data set (default: the config's, test)")
    parser.add_argument("--name", help="folder in RUN/eval (default: the agent or checkpoint)")
    add_overrides(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate; prints the table and the folder with the records."""
    from memo_habitat.report.build import summarise
    from memo_habitat.trainer import launch
    from memo_habitat.trainer.run_dir import open_run

    folder = open_run(arguments.folder)
    options = launch.EvalOptions(
        checkpoint=arguments.checkpoint,
        trials=arguments.trials,
        steps=arguments.steps,
        agent=arguments.agent,
        deterministic=arguments.deterministic,
        split=arguments.split,
        name=arguments.name,
        overrides=arguments.overrides,
        inspect_memory=arguments.inspect_memory,
    )
    records = launch.evaluate(folder, options)
    print(summarise([folder.path]))
    print(records)
    return 0
