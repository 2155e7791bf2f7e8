"""`memo-habitat drill`: does a fault to a small local training and says whether it survived."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from memo_habitat.cli.common import ConfigName, Overrides
from memo_habitat.errors import UserError

EXAMPLES = (
    "memo-habitat drill all",
    "memo-habitat drill preempt --config-name=extobjnav/recall",
    "memo-habitat drill kill-worker memory=fct",
)
FAILED = 1
_ALL = "all"


def drill(
    name: Annotated[
        str,
        typer.Argument(
            metavar="DRILL",
            help="preempt, kill-worker, corrupt-checkpoint, disk-full, lose-rank, or all.",
        ),
    ],
    overrides: Overrides = None,
    config_name: Annotated[str | None, ConfigName] = None,
) -> None:
    """Inject a fault into a small local training and compare what it must not have harmed.

    PASS or FAIL, with what was compared; exits with 1 where one failed, whose folder is kept.
    """
    from memo_habitat.trainer.drills import DRILLS, Drill, check_overrides

    if name != _ALL and name not in DRILLS:
        raise UserError(f"unknown drill {name!r}: choose one of {', '.join([*DRILLS, _ALL])}")
    check_overrides(overrides or ())
    failed = False
    for each in DRILLS if name == _ALL else [name]:
        run, default = DRILLS[each]
        folder = Path(tempfile.mkdtemp(prefix="drill-"))
        done = Drill(folder, config_name or default, tuple(overrides or ()))
        begun = time.monotonic()
        try:
            run(done)
        except UserError as error:
            done.wrong.append(str(error))
        finally:
            done.close()
        word = "FAIL" if done.wrong else "PASS"
        print(f"{word} {each} ({time.monotonic() - begun:.0f} s)", flush=True)
        for line in (*done.wrong, *done.compared):
            print(f"     {line}", flush=True)
        failed = failed or bool(done.wrong)
        if done.wrong:
            print(f"     the runs: {folder}")
        else:
            shutil.rmtree(folder)
    if failed:
        raise typer.Exit(FAILED)
