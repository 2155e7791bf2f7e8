"""`memo-habitat report`: one HTML file on one or several runs, or on a sweep."""

from __future__ import annotations

import argparse
from pathlib import Path

from memo_habitat.cli.common import Subparsers, add_command
from memo_habitat.errors import UserError

EXAMPLES = """
memo-habitat report runs/extobjnav-studio-20260101-120000
memo-habitat report runs/memo runs/fct --out memo-and-fct.html
memo-habitat report sweeps/dark_key
"""


def add(commands: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "report", run, "write the report of evaluated runs, one file", EXAMPLES
    )
    parser.add_argument(
        "folders", metavar="RUN", nargs="+", help="run folders, or one sweep folder"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="default: report.html in the run folder, or beside several"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report; prints what of a sweep is missing, and the report's path last."""
    from memo_habitat.report.build import write_report
    from memo_habitat.report.sweep_folder import SWEEP_FILE
    from memo_habitat.trainer.run_dir import open_run

    if (Path(arguments.folders[0]) / SWEEP_FILE).exists():
        _report_sweep(arguments)
        return 0
    runs = [open_run(folder) for folder in arguments.folders]
    out = Path(arguments.out) if arguments.out else None
    print(write_report([run.path for run in runs], out))
    return 0


def _report_sweep(arguments: argparse.Namespace) -> None:
    from memo_habitat.report.sweep import load_sweep, what_is_unfinished, write_sweep_report

    if len(arguments.folders) > 1 or arguments.out:
        raise UserError(
            f"{arguments.folders[0]} is a sweep: report it alone and without --out; its report "
            "lies in its folder"
        )
    sweep = load_sweep(Path(arguments.folders[0]))
    page = write_sweep_report(sweep)
    if line := what_is_unfinished(sweep):
        print(line)
    print(page)
