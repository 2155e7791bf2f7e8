"""`memo-habitat report`: one HTML file on one or several runs, or on a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memo_habitat.cli.common import flag, option
from memo_habitat.errors import UserError

EXAMPLES = (
    "memo-habitat report runs/extobjnav-studio-20260101-120000",
    "memo-habitat report runs/memo runs/fct --out memo-and-fct.html",
    "memo-habitat report sweeps/dark_key",
    "memo-habitat report runs/memo runs/fct --csv > numbers.csv",
)


def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or one sweep folder.")
    ],
    out: Annotated[
        Path | None,
        option("Where to write it.", "FILE", "report.html in the run folder, or beside several"),
    ] = None,
    as_json: Annotated[bool, flag("--json", "Print the numbers; no page is made.")] = False,
    as_csv: Annotated[bool, flag("--csv", "The same as lines of a table.")] = False,
    as_latex: Annotated[bool, flag("--latex", "The headline numbers as a LaTeX table.")] = False,
) -> None:
    """Write the report of evaluated runs, one HTML file; its path is printed last."""
    from memo_habitat.report import SWEEP_FILE, tables
    from memo_habitat.report.html import agents_of, write_report
    from memo_habitat.report.load import left_out, load_runs
    from memo_habitat.report.sweep import agents_of as agents_of_sweep
    from memo_habitat.report.sweep import write_sweep_report
    from memo_habitat.report.sweep_data import load_sweep
    from memo_habitat.trainer.run_dir import open_run

    sweep = folders[0] if (folders[0] / SWEEP_FILE).exists() else None
    if sweep is not None and (len(folders) > 1 or out is not None):
        raise UserError(
            f"{sweep} is a sweep: report it alone and without --out; its report lies in its folder"
        )
    makes = {tables.as_json: as_json, tables.as_csv: as_csv, tables.as_latex: as_latex}
    if wanted := [make for make, chosen in makes.items() if chosen]:
        if len(wanted) > 1 or out is not None:
            raise UserError(
                "--json, --csv and --latex print numbers: give one of them, without --out"
            )
        agents = (
            agents_of(load_runs(folders)) if sweep is None else agents_of_sweep(load_sweep(sweep))
        )
        print(wanted[0](agents), end="")
    elif sweep is None:
        paths = [open_run(folder).path for folder in folders]
        page = write_report(paths, out)
        for note in (note for path in paths for note in left_out(path)):
            print(note)
        print(page)
    else:
        found = load_sweep(sweep)
        page = write_sweep_report(found)
        if unfinished := found.unfinished():
            print(unfinished)
        print(page)
