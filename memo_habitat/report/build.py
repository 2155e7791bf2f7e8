"""What the commands `memo-habitat eval` and `memo-habitat report` do after the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from memo_habitat.errors import UserError
from memo_habitat.report.html import render
from memo_habitat.report.load import load_runs
from memo_habitat.report.summary import summary_table

REPORT_FILE = "report.html"


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write one HTML file about `runs`; returns where it is.

    Args:
        runs: run folders with evaluations in them.
        out: where to write; by default report.html in the run folder, or for several runs in the
            folder of the first one's parent.

    Raises:
        UserError: a run is missing or malformed, or the report cannot be written.
    """
    loaded = load_runs(runs)
    if out is None:
        out = (loaded[0].folder if len(loaded) == 1 else loaded[0].folder.parent) / REPORT_FILE
    elif out.is_dir():
        out = out / REPORT_FILE
    return write_page(out, render(loaded))


def write_page(out: Path, page: str) -> Path:
    """Write `page` to `out`, atomically; returns `out`."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(out.name + ".partial")
        partial.write_text(page, encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        raise UserError(
            f"cannot write the report {out} ({error.strerror or error}); "
            "give another file with --out"
        ) from error
    return out


def summarise(runs: Sequence[Path]) -> str:
    """Headline table of all evaluations in `runs`, for the terminal."""
    return summary_table([found for run in load_runs(runs) for found in run.evaluations])
