"""The report on a sweep: several variants, each trained with several seeds."""

from memo_habitat.report.sweep.build import write_sweep_report
from memo_habitat.report.sweep.runs import SWEEP_FILE

__all__ = ["SWEEP_FILE", "write_sweep_report"]
