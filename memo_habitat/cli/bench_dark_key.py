"""`memo-habitat bench dark-key`: how fast Dark-Key-To-Door runs, and its oracle's return."""

from __future__ import annotations

import argparse
import json
from typing import Any

from memo_habitat.cli.common import Subparsers, add_command
from memo_habitat.errors import UserError

EXAMPLES = """
memo-habitat bench dark-key
memo-habitat bench dark-key --json --layouts 200000 --settings default
"""
SETTINGS = "quick,default,hard"
AGENTS = ("oracle", "searcher", "random")


def add(subjects: Subparsers) -> None:
    """Declare `bench dark-key`."""
    parser = add_command(
        subjects,
        "dark-key",
        run,
        "Dark-Key-To-Door: environment steps per second on one core, and what the oracle, a "
        "searcher that forgets nothing, and random actions collect in a trial",
        EXAMPLES,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--layouts", type=int, default=10_000, metavar="N", help="trials (10000)")
    parser.add_argument(
        "--settings", default=SETTINGS, metavar="NAME,NAME", help=f"of {SETTINGS} (all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the layouts (0)")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="per number of steps a second (1)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure; one line per setting."""
    if not arguments.seconds > 0.0:
        raise UserError(f"--seconds {arguments.seconds}: give more than 0")
    if arguments.seed < 0:
        raise UserError(f"--seed {arguments.seed}: give a whole number from 0 on")
    from memo_habitat.tasks.dark_key.bench import bench_dark_key

    rows = bench_dark_key(
        arguments.settings.split(","), arguments.layouts, arguments.seed, arguments.seconds
    )
    headed = False
    for row in rows:
        if arguments.json:
            print(json.dumps(row), flush=True)
            continue
        if not headed:
            print(_line("setting", "grid/episode/trial", "steps/s x64", "x4096", *AGENTS))
            headed = True
        print(_line(*_cells(row)), flush=True)
    if headed:
        print(f"returns of {arguments.layouts} trials each: mean [95 % interval], median")
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
    shape = f"{row['size']}x{row['size']}/{row['episode_steps']}/{row['trial_steps']}"
    speeds = [f"{row[f'env_steps_per_second_{count}']:,}" for count in (64, 4096)]
    returns = [
        f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}], "
        f"{row[f'{name}_median']:g}"
        for name in AGENTS
    ]
    return [row["setting"], shape, *speeds, *returns]


def _line(*cells: str) -> str:
    widths = (-9, -20, 12, 13, 30, 28, 24)
    return "".join(
        cell.ljust(-width) if width < 0 else cell.rjust(width)
        for cell, width in zip(cells, widths, strict=True)
    )
