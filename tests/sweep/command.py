"""`memo-habitat` in a process of its own, with pretend_worker's workers and an empty report.

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
    from memo_habitat.sweep import job, spec

    job.WORKER = "tests.sweep.pretend_worker"
    spec.check_sweep = lambda sweep: None
    sys.exit(main.main())
