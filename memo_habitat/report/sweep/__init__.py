"""The report on a sweep: several variants, each trained with several seeds."""

from memo_habitat.report.sweep.build import write_sweep_report

__all__ = ["write_sweep_report"]
