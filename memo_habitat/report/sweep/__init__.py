"""The report on a sweep: several variants, each trained with several seeds."""

from memo_habitat.report.sweep.build import write_sweep_report
from memo_habitat.report.sweep.runs import load_sweep, what_is_unfinished

__all__ = ["load_sweep", "what_is_unfinished", "write_sweep_report"]
