"""What the commands share: how a command is declared, and arguments that recur."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Subparsers = Any  # argparse's own class of it is private


def add_command(
    commands: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help_text: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Declare a command with a description and examples in its help; returns its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Declare the "key=value" arguments."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="change a key of the config, e.g. habitat.seed=1 (docs/configs.md lists more)",
    )


def add_evaluation_size(parser: argparse.ArgumentParser) -> None:
    """Declare how much is evaluated."""
    parser.add_argument("--trials", type=int, metavar="N", help="trials in every house")
    parser.add_argument("--steps", type=int, metavar="N", help="steps of each trial")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Declare how many processes train."""
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that train together on this machine (DD-PPO), each with "
        "habitat_baselines.num_environments environments (default: 1)",
    )
