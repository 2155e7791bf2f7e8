"""The report on a sweep: several variants, each trained with several seeds."""

from memo_habitat.report.sweep.load import load_sweep, what_is_unfinished
from memo_habitat.report.sweep.page import write_sweep_report

__all__ = ["load_sweep", "what_is_unfinished", "write_sweep_report"]
