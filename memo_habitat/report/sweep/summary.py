"""The sweep's numbers by variant: means over seeds, differences, and later episodes' gain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from memo_habitat.report.figures import trained_color
from memo_habitat.report.load import Evaluation
from memo_habitat.report.seeds import Difference, SeedEstimate, difference, over_seeds
from memo_habitat.report.statistics import Estimate, mean_with_interval
from memo_habitat.report.sweep.runs import Sweep, SweepRun
from memo_habitat.report.sweep.tables import SHARES, Result
from memo_habitat.report.trials import in_every_trial, later_less_first

# The variant that the others are compared with; where it is not there, the first.
_BASELINE = "memo"


@dataclass(frozen=True)
class Variant:
    """A variant's numbers; every estimate is over its seeds.

    Attributes:
        name: how it is called.
        color: number of the page's series colour.
        runs: its runs.
        held_out: return per trial on held-out layouts.
        ratio: the same as a share of the oracle's.
        against: the same less the baseline's; None for the baseline itself.
        final: return per trial at the end of training.
        reached: by share of the oracle's return in %, steps to it, over the seeds that reach it.
        seconds: of training.
        speed: environment steps per second of training.
        memory: memory_tokens, memory_kv_bytes, memory_kv_bytes_full_context at a trial's end, and
            peak_tokens, peak_kv_bytes along one.
    """

    name: str
    color: int
    runs: tuple[SweepRun, ...]
    held_out: SeedEstimate
    ratio: SeedEstimate
    against: Difference | None
    final: SeedEstimate
    reached: dict[int, SeedEstimate]
    seconds: SeedEstimate
    speed: SeedEstimate
    memory: dict[str, float]

    @property
    def evaluations(self) -> list[Evaluation]:
        """Of its runs that have one."""
        return [run.evaluation for run in self.runs if run.evaluation is not None]

    @property
    def best(self) -> SweepRun | None:
        """The run with the highest return on held-out layouts; None without an evaluation."""
        evaluated = [run for run in self.runs if run.evaluation is not None]
        return max(evaluated, key=lambda run: run.held_out.mean, default=None)


def baseline(sweep: Sweep) -> str:
    """Name of the variant that the others are compared with."""
    return _BASELINE if _BASELINE in sweep.variants else sweep.variants[0]


def summarise(sweep: Sweep, rows: Sequence[Result]) -> list[Variant]:
    """The variants that have runs, in order."""
    compared = baseline(sweep)
    return [
        _variant(sweep, rows, name, trained_color(number), compared)
        for number, name in enumerate(sweep.variants)
        if sweep.of(name)
    ]


def _variant(sweep: Sweep, rows: Sequence[Result], name: str, color: int, compared: str) -> Variant:
    own = [row for row in rows if row.variant == name]

    def mean(of: Callable[[Result], float]) -> SeedEstimate:
        return over_seeds([of(row) for row in own])

    def held_out(variant: str) -> dict[int, float]:
        known = (row for row in rows if row.variant == variant)
        return {
            row.seed: row.held_out_return
            for row in known
            if row.held_out_return == row.held_out_return
        }

    runs = tuple(sweep.of(name))
    memory = {
        key: mean(lambda row, key=key: float(getattr(row, key))).mean  # type: ignore[misc]
        for key in ("memory_tokens", "memory_kv_bytes", "memory_kv_bytes_full_context")
    }
    return Variant(
        name=name,
        color=color,
        runs=runs,
        held_out=mean(lambda row: row.held_out_return),
        ratio=mean(lambda row: row.oracle_ratio),
        against=None if name == compared else difference(held_out(name), held_out(compared)),
        final=mean(lambda row: row.final_return),
        reached={s: mean(lambda row, s=s: row.steps_to(s)) for s in SHARES},  # type: ignore[misc]
        seconds=mean(lambda row: row.seconds),
        speed=mean(lambda row: row.steps_per_second),
        memory={**memory, **_peak(runs)},
    )


def _peak(runs: Sequence[SweepRun]) -> dict[str, float]:
    """Most tokens and bytes in use at any step of the traced trials; NaN without any."""
    points = [
        point
        for run in runs
        if run.evaluation is not None
        for trial in run.evaluation.trace().values()
        for point in trial
    ]
    names = {"peak_tokens": "context_tokens", "peak_kv_bytes": "kv_bytes"}
    return {
        name: max((float(point[column]) for point in points), default=np.nan)
        for name, column in names.items()
    }


def gain_of_later_episodes(evaluations: Sequence[Evaluation], metric: str) -> Estimate:
    """Mean over trials of `later_less_first`, all evaluations together, with its interval.

    Whole layouts are resampled: trials of different seeds in the same layout go together.
    """
    values: list[float] = []
    layouts: list[int] = []
    numbers: dict[str, int] = {}
    for evaluation in evaluations:
        for trial, value in later_less_first(evaluation.episodes, metric).items():
            values.append(value)
            layouts.append(numbers.setdefault(trial, len(numbers)))
    return mean_with_interval(
        np.array(values, dtype=np.float64), np.array(layouts, dtype=np.int64), bounds=None
    )


def first_episode(evaluations: Sequence[Evaluation], metric: str) -> float:
    """Mean of `metric` over the first episodes of all trials; NaN without any."""
    values = [
        shared.columns[metric][shared.index == 0]
        for shared in (in_every_trial(evaluation.episodes) for evaluation in evaluations)
    ]
    together = np.concatenate(values) if values else np.zeros(0)
    return float(together.mean()) if len(together) else np.nan
