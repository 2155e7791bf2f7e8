"""`memo-habitat sweep`: variants at several seeds, trained and evaluated in one folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memo_habitat.cli.common import Overrides, Slurm, Work, flag, option
from memo_habitat.errors import UserError, cannot_write, check_at_least_one, command

if TYPE_CHECKING:
    from memo_habitat.sweep.spec import Sweep

EXAMPLES = (
    "memo-habitat sweep --config-name=dark_key_to_door --variants memo,fct --seeds 0..4",
    "memo-habitat sweep --config-name=dark_key_to_door --out runs/dark --dry-run",
    "memo-habitat sweep --resume runs/dark --jobs 2",
    "memo-habitat sweep --resume runs/dark --variants rmt --seeds 5..9",
    "PYTHONPATH=. memo-habitat sweep --config-name=dark_key_to_door --variants memo,mine:Class",
    "memo-habitat sweep --config-name=extobjnav/apartments --slurm partition=gpu --slurm time=720",
)
FAILED = 1


def sweep(
    work: Work,
    overrides: Overrides = None,
    variants: Annotated[
        str | None,
        option("Choices of the group memory, or your own as module:Class.", "A,B,...", "memo"),
    ] = None,
    seeds: Annotated[str | None, option("0..4, or 0,2,5.", "0..4", "0..2")] = None,
    jobs: Annotated[int | None, option("Runs at once.", shown="1; on a cluster all")] = None,
    slurm: Slurm = None,
    trials: Annotated[int | None, option("Trials evaluated in every house.")] = None,
    dry_run: Annotated[bool, flag("--dry-run", "Print the queue alone.")] = False,
) -> None:
    """Train and evaluate variants at several seeds, then report on them all.

    A sweep that lies in the folder of --out already is resumed.
    """
    from memo_habitat.config.compose import choices, known_configs
    from memo_habitat.sweep.spec import Request, check_sweep, parse_seeds, parse_slurm, plan_sweep

    options = parse_slurm(slurm or ())
    if jobs is not None:
        check_at_least_one("--jobs", jobs)
    work.check()
    request = Request(
        work.config_name,
        None if variants is None else tuple(dict.fromkeys(variants.replace(" ", "").split(","))),
        None if seeds is None else parse_seeds(seeds),
        tuple(overrides or ()),
        trials,
    )
    folder = work.resume or work.out
    planned = plan_sweep(request, folder, Path(work.root), known_configs(), choices("memory"))
    if not planned.is_begun:
        check_sweep(planned)
    if dry_run:
        _print_queue(planned)
        if options:
            given = " ".join(f"{key}={value}" for key, value in options.items())
            print(f"each a job of SLURM: {given}, {'all' if jobs is None else jobs} at once")
    elif status := _run(planned, jobs, slurm or ()):
        raise typer.Exit(status)


def _print_queue(planned: Sweep) -> None:
    from memo_habitat.sweep.jobs import SweepJob
    from memo_habitat.sweep.spec import habitat_seed

    print(f"{planned.folder}: {planned.config}, {' '.join(planned.overrides) or 'no overrides'}")
    for one in planned.runs():
        try:
            pending = SweepJob(planned, one).pending()
            says = "finished" if pending is None else pending.says
        except UserError as error:
            says = f"fails, {error}"
        print(f"{one.name}: {says} (habitat.seed={habitat_seed(one.seed)})")


def _run(planned: Sweep, jobs: int | None, slurm: Sequence[str]) -> int:
    """Run the queue; the report's path, or how to resume, is printed last. Returns the status."""
    from memo_habitat.sweep.jobs import has_records
    from memo_habitat.sweep.runner import Places, Queue, say
    from memo_habitat.sweep.spec import write_sweep
    from memo_habitat.trainer.run_dir import SWEEP_LOCK
    from memo_habitat.utils.lock import hold

    at_once = jobs or (len(planned.runs()) + 1 if slurm else 1)
    try:
        planned.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(planned.folder, error) from error
    status = 0
    with hold(planned.folder / SWEEP_LOCK):
        write_sweep(planned)
        print(f"sweep folder: {planned.folder}", flush=True)
        outcome = Queue(planned, Places(planned, at_once, slurm), say).run()
        if has_records(planned):
            from memo_habitat.report.sweep import write_sweep_report  # seconds, when all is done

            try:
                print(f"report: {write_sweep_report(planned.folder)}", flush=True)
            except UserError as error:
                print(f"no report: {error}", file=sys.stderr)
                status = FAILED
    failures = outcome.failures
    remedy = f"resume with: {command('sweep', '--resume', planned.folder)}"
    if failures:
        width = max(len(failure.name) for failure in failures)
        print("failed:", file=sys.stderr)
        for failure in failures:
            print(f"  {failure.name:<{width}}  {failure.why}: {failure.said}", file=sys.stderr)
            print(f"  {'':<{width}}  {failure.log}", file=sys.stderr)
    if outcome.interrupted:
        raise KeyboardInterrupt(f"stopped; {remedy}")
    if failures:
        print(f"{len(failures)} failed; {remedy}", file=sys.stderr)
        status = FAILED
    return status
