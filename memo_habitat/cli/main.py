"""The command line `memo-habitat`: finds the command, turns bad input into one line.

Each command lives in a module of its own, `cli/<command>.py`, with `add(subparsers)`; what is heavy
to import is imported by the command that needs it, so that help is immediate.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from memo_habitat import __version__
from memo_habitat.cli import bench, doctor, eval, plan, quickstart, report, scenes, sweep, train
from memo_habitat.compat import log_filters
from memo_habitat.errors import UserError, WorkerError
from memo_habitat.utils.processes import INTERRUPTED

COMMANDS = (
    quickstart,
    plan,
    train,
    eval,
    sweep,
    report,
    scenes,
    bench,
    doctor,
)
# By command, the key that its draws come from.
_SEEDS = {"train": "habitat.seed", "eval": "habitat_baselines.evaluator.seed"}
WORKER_ERROR = 1
USER_ERROR = 2


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line that points to the help."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit as argparse does."""
        self.exit(USER_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    parser = OneLineParser(
        prog="memo-habitat",
        description="Train, evaluate and report embodied agents with memory.",
        epilog="example: memo-habitat train --config-name=extobjnav/studio",
    )
    parser.add_argument("--version", action="version", version=f"memo-habitat {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add(commands)
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments; "key=value" may stand anywhere where a command takes overrides."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(_joined(sys.argv[1:] if argv is None else argv))
    debug = "--debug" in rest
    rest = [item for item in rest if item != "--debug"]
    overrides = [item for item in rest if not item.startswith("-") and "=" in item]
    if hasattr(arguments, "overrides"):
        arguments.overrides = [*arguments.overrides, *overrides]
        rest = [item for item in rest if item not in overrides]
    if rest:
        arguments.parser.error(
            f"unrecognized arguments: {' '.join(rest)}{_instead(arguments, rest)}"
        )
    arguments.debug = arguments.debug or debug
    return arguments


def _instead(arguments: argparse.Namespace, rest: Sequence[str]) -> str:
    """Which key of the config does what the option `--seed` of other programs does."""
    key = _SEEDS.get(arguments.command)
    if key is None or not any(item.partition("=")[0] == "--seed" for item in rest):
        return ""
    return f"; keys of the config are changed as {key}=N"


def _joined(argv: Sequence[str]) -> list[str]:
    """The arguments with "--gpu-memory -5GB" as "--gpu-memory=-5GB", or argparse sees two options.

    No option of ours begins with a digit; the command refuses the value and says what is valid.
    """
    joined: list[str] = []
    for item in argv:
        option = joined[-1] if joined else ""
        if re.match(r"-\d", item) and option.startswith("--") and "=" not in option:
            joined[-1] = f"{option}={item}"
        else:
            joined.append(item)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    That is 0, 2 for bad input, 130 if interrupted, 1 if a worker died or something is missing.
    """
    arguments = parse(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    log_filters.silence_gym_notice()
    try:
        return run(arguments)
    except (UserError, WorkerError, OSError) as error:
        # OSError: a file that Habitat itself wants and does not find, a full disk, ...
        if arguments.debug:
            raise
        print(f"memo-habitat {arguments.command}: {_one_line(error)}", file=sys.stderr)
        return WORKER_ERROR if isinstance(error, WorkerError) else USER_ERROR
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
