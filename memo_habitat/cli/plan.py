"""`memo-habitat plan`: what a training will hold in memory, before it is launched."""

from __future__ import annotations

import argparse
import json

from memo_habitat.cli.common import Subparsers, add_command, add_overrides
from memo_habitat.errors import check_at_least_one

EXAMPLES = """
memo-habitat plan --config-name=extobjnav/studio
memo-habitat plan --config-name=extobjnav/apartments --gpus 8 --gpu-memory 80GB
memo-habitat plan --config-name=extobjnav/apartments habitat.task.trial_steps=16384 --json
memo-habitat plan --config-name=extobjnav/studio --measure
"""


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "plan", run, "say what a training will hold in memory, and what fits", EXAMPLES
    )
    parser.add_argument("--config-name", required=True, metavar="NAME", help="config to plan")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="workers, one a GPU (1)")
    parser.add_argument(
        "--gpu-memory",
        metavar="80GB",
        help="of each GPU (default: what is free here, of the GPU or else of the RAM)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--measure", action="store_true", help="run one update here, on random data, and compare"
    )
    add_overrides(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan, with warnings where the config will not fit."""
    check_at_least_one("--gpus", arguments.gpus)
    from memo_habitat.config.compose import compose_config

    config = compose_config(arguments.config_name, arguments.overrides)
    from memo_habitat.trainer.plan import make_plan, measure_plan
    from memo_habitat.trainer.plan_limits import available_memory, parse_memory
    from memo_habitat.trainer.plan_text import measured_text, table

    memory = (
        available_memory(arguments.gpus)
        if arguments.gpu_memory is None
        else parse_memory(arguments.gpu_memory)
    )
    plan = make_plan(config, memory, arguments.gpus)
    name = arguments.config_name
    if not arguments.json:
        print(table(name, plan), flush=True)
    measured = measure_plan(config, plan) if arguments.measure else None
    if arguments.json:
        print(json.dumps({"config": name, **plan.as_json(), "measured": measured}))
    elif measured is not None:
        print(measured_text(plan, measured))
    return 0
