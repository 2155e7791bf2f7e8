"""`memo-habitat` in a process of its own, with pretend_job's jobs and an empty report.

python -m tests.sweep.command sweep ...
"""

from __future__ import annotations

import sys
import types
from pathlib import Path


def write_sweep_report(folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text("a report")
    return path


def stand_in() -> types.ModuleType:
    module = types.ModuleType("memo_habitat.report.sweep")
    module.write_sweep_report = write_sweep_report
    return module


if __name__ == "__main__":
    sys.modules["memo_habitat.report.sweep"] = stand_in()
    from memo_habitat.cli import main
    from memo_habitat.sweep import runner, spec

    runner.PROGRAM = "tests.sweep.pretend_job"
    runner.SLURM_SECONDS = 0.2
    spec.check_sweep = lambda sweep: None
    sys.exit(main.main())
