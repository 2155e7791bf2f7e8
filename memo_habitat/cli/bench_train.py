"""`memo-habitat bench train`: environment steps per second of a whole training, by station."""

from __future__ import annotations

import argparse
import json

from memo_habitat.cli.common import Subparsers, add_command, add_overrides, add_workers

EXAMPLES = """
memo-habitat bench train
memo-habitat bench train --config-name=dark_key_to_door memory=fct --json
memo-habitat bench train --config-name=extobjnav/studio --trials 2
memo-habitat bench train --workers 2 habitat_baselines.num_environments=32
"""
CONFIG = "dark_key_to_door"


def add(subjects: Subparsers) -> None:
    """Declare `bench train`."""
    parser = add_command(
        subjects,
        "train",
        run,
        "environment steps per second of a whole training, and the share of each station",
        EXAMPLES,
    )
    parser.add_argument("--config-name", default=CONFIG, metavar="NAME", help=f"({CONFIG})")
    parser.add_argument(
        "--trials", type=int, default=5, metavar="N", help="measured, after one to warm up (5)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_workers(parser)
    add_overrides(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    from memo_habitat.config.compose import import_habitat

    import_habitat()
    from memo_habitat.trainer.bench import bench_train

    row = bench_train(
        arguments.config_name, arguments.overrides, arguments.trials, arguments.workers
    )
    if arguments.json:
        print(json.dumps(row))
        return 0
    seconds = row["trial_seconds"]
    each = f"{row['workers']} workers, each with " if row["workers"] > 1 else ""
    print(
        f"{row['config']}: {row['env_steps_per_second']:,} environment steps a second "
        f"({each}{row['environments']} environments, {row['threads']} threads on {row['device']}; "
        f"trials of {row['trial_steps']} steps took {min(seconds):.2f} to {max(seconds):.2f} s)"
    )
    for station, share in row["shares"].items():
        print(f"{station:>14} {share:7.1%}")
    return 0
