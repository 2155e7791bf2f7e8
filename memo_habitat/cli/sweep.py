"""`memo-habitat sweep`: variants at several seeds, trained and evaluated in one folder."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memo_habitat.cli.common import Subparsers, add_command, add_overrides
from memo_habitat.errors import UserError, cannot_write, check_at_least_one
from memo_habitat.utils.processes import INTERRUPTED

if TYPE_CHECKING:
    from memo_habitat.sweep.runner import Failure
    from memo_habitat.sweep.spec import Request, Sweep

EXAMPLES = """
memo-habitat sweep --config-name=dark_key_to_door --variants memo,fct,rmt --seeds 0..4
memo-habitat sweep --config-name=dark_key_to_door --variants memo,fct --out runs/dark --dry-run
memo-habitat sweep --resume runs/dark --jobs 2
memo-habitat sweep --resume runs/dark --variants rmt --seeds 5..9
"""
FAILED = 1


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "sweep", run, "train and evaluate variants at several seeds", EXAMPLES
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-name", metavar="NAME", help="config that the variants derive from")
    what.add_argument("--resume", metavar="DIR", help="folder of a sweep to go on with")
    parser.add_argument(
        "--variants", metavar="A,B,...", help="choices of the group memory (default: memo)"
    )
    parser.add_argument("--seeds", metavar="0..4", help="0..4, or 0,2,5 (default: 0..2)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once (1)")
    parser.add_argument("--trials", type=int, metavar="N", help="trials evaluated in every house")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--root", default="runs", help="folder of new sweeps (default: runs)")
    where.add_argument("--out", metavar="DIR", help="this very folder; if it is a sweep, go on")
    parser.add_argument("--dry-run", action="store_true", help="print the queue and do nothing")
    add_overrides(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do what is left to do; the report's path, or how to go on, is printed last."""
    from memo_habitat.config.compose import choices, known_configs
    from memo_habitat.sweep.spec import check_sweep, plan_sweep, write_sweep
    from memo_habitat.trainer.run_dir import SWEEP_LOCK
    from memo_habitat.utils.lock import lock

    check_at_least_one("--jobs", arguments.jobs)
    if arguments.resume is not None and arguments.out is not None:
        raise UserError(f"--out {arguments.out} goes with --config-name, not with --resume")
    given = arguments.resume or arguments.out
    folder = None if given is None else Path(given)
    root = Path(arguments.root)
    sweep = plan_sweep(_request(arguments), folder, root, known_configs(), choices("memory"))
    if not sweep.is_begun:
        check_sweep(sweep)
    if arguments.dry_run:
        _print_queue(sweep)
        return 0
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
        held = lock(sweep.folder / SWEEP_LOCK)
    except OSError as error:
        raise cannot_write(sweep.folder, error) from error
    try:
        write_sweep(sweep)
        return _work(sweep, arguments.jobs)
    finally:
        os.close(held)


def _request(arguments: argparse.Namespace) -> Request:
    from memo_habitat.sweep.spec import Request, parse_seeds

    variants = None
    if arguments.variants is not None:
        variants = tuple(dict.fromkeys(arguments.variants.replace(" ", "").split(",")))
    return Request(
        arguments.config_name,
        variants,
        None if arguments.seeds is None else parse_seeds(arguments.seeds),
        tuple(arguments.overrides),
        arguments.trials,
    )


def _print_queue(sweep: Sweep) -> None:
    from memo_habitat.sweep.spec import habitat_seed
    from memo_habitat.sweep.tasks import RunTask

    print(f"{sweep.folder}: {sweep.config}, {' '.join(sweep.overrides) or 'no overrides'}")
    for member in sweep.members():
        try:
            says = RunTask(sweep, member).todo().says
        except UserError as error:
            says = f"fails, {error}"
        print(f"{member.name}: {says} (habitat.seed={habitat_seed(member.seed)})")


def _work(sweep: Sweep, jobs: int) -> int:
    """Run the queue, then tell how it ended; returns the exit status."""
    from memo_habitat.sweep.runner import Queue
    from memo_habitat.sweep.status import Terminal
    from memo_habitat.sweep.tasks import has_records

    print(f"sweep folder: {sweep.folder}", flush=True)
    outcome = Queue(sweep, jobs, Terminal()).run()
    reported = not has_records(sweep) or _write_report(sweep)
    if outcome.failures:
        _print_failures(outcome.failures)
    if outcome.interrupted or outcome.failures:
        what = "stopped" if outcome.interrupted else f"{len(outcome.failures)} failed"
        print(f"{what}; go on with: memo-habitat sweep --resume {sweep.folder}", file=sys.stderr)
    if outcome.interrupted:
        return INTERRUPTED
    return 0 if reported and not outcome.failures else FAILED


def _write_report(sweep: Sweep) -> bool:
    """Write the report on what was evaluated; whether that worked."""
    from memo_habitat.report.sweep import write_sweep_report

    try:
        print(f"report: {write_sweep_report(sweep.folder)}", flush=True)
    except UserError as error:
        print(f"no report: {error}", file=sys.stderr)
        return False
    return True


def _print_failures(failures: Sequence[Failure]) -> None:
    width = max(len(failure.name) for failure in failures)
    print("failed:", file=sys.stderr)
    for failure in failures:
        print(f"  {failure.name:<{width}}  {failure.why}: {failure.said}", file=sys.stderr)
        print(f"  {'':<{width}}  {failure.log}", file=sys.stderr)
