"""The sweep's numbers as CSV files: one row per run, its learning curve, its trials' episodes."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import numpy as np

from memo_habitat.errors import UserError
from memo_habitat.report.sweep.learning import final_return, smooth, smoothing_width, steps_to
from memo_habitat.report.sweep.runs import Sweep, SweepRun
from memo_habitat.report.trials import EpisodeCourse, episode_course

RESULTS_FILE, CURVES_FILE, EPISODES_FILE = "results.csv", "curves.csv", "episodes.csv"
SHARES = (25, 50, 75, 90)
_CURVE_ROWS = 400


@dataclass(frozen=True)
class Result:
    """One run's numbers; NaN where one is not known. Returns are undiscounted, per trial.

    Attributes:
        variant: name of its variant.
        seed: its seed.
        steps: environment steps trained.
        final_return: mean over the trials that ended in the last tenth of the updates.
        held_out_return: mean over the trials of the evaluation.
        held_out_low: lower end of its 95 % interval over trials.
        held_out_high: upper end.
        oracle_ratio: held_out_return as a share of the oracle's on the same layouts.
        steps_to_25: environment steps until the smoothed training return reaches 25 % of the
            oracle's mean return; likewise 50, 75, 90.
        seconds: of training.
        steps_per_second: environment steps per second of training.
        memory_tokens: tokens in use at a trial's end, for one environment.
        memory_kv_bytes: bytes of their keys and values.
        memory_kv_bytes_full_context: bytes if every step were kept.
    """

    variant: str
    seed: int
    steps: int
    final_return: float
    held_out_return: float
    held_out_low: float
    held_out_high: float
    oracle_ratio: float
    steps_to_25: float
    steps_to_50: float
    steps_to_75: float
    steps_to_90: float
    seconds: float
    steps_per_second: float
    memory_tokens: float
    memory_kv_bytes: float
    memory_kv_bytes_full_context: float

    def steps_to(self, share: int) -> float:
        """Steps to one of `SHARES` of the oracle's return."""
        return float(getattr(self, f"steps_to_{share}"))


def results(sweep: Sweep) -> list[Result]:
    """The numbers of every run."""
    width = smoothing_width([run.progress for run in sweep.runs])
    oracle = sweep.reference_return("oracle")
    return [_result(sweep, run, width, oracle) for run in sweep.runs]


def _result(sweep: Sweep, run: SweepRun, width: float, oracle: float) -> Result:
    progress, found = run.progress, run.held_out
    steps, curve = smooth(progress, width)
    reached = {f"steps_to_{s}": steps_to(steps, curve, s / 100 * oracle) for s in SHARES}
    names = ("memory_tokens", "memory_kv_bytes", "memory_kv_bytes_full_context")
    seconds = float(progress.seconds[-1])
    return Result(
        variant=run.variant,
        seed=run.seed,
        steps=int(progress.steps[-1]),
        final_return=final_return(progress),
        held_out_return=found.mean,
        held_out_low=found.low,
        held_out_high=found.high,
        oracle_ratio=sweep.ratio(run),
        seconds=seconds,
        steps_per_second=float(progress.steps[-1]) / seconds if seconds > 0 else math.nan,
        **reached,
        **{name: progress.memory.get(name, math.nan) for name in names},
    )


def write_results(path: Path, rows: Sequence[Result]) -> None:
    """Write one row per run."""
    _write(path, (field.name for field in fields(Result)), (asdict(row).values() for row in rows))


def write_curves(path: Path, sweep: Sweep) -> None:
    """Write the returns of training, not smoothed, in at most 400 rows per run."""
    _write(path, ("variant", "seed", "steps", "seconds", "return"), _curve_rows(sweep))


def _curve_rows(sweep: Sweep) -> Iterator[tuple[str, int, int, float, float]]:
    """Each row is the mean over as many updates, at the last of them."""
    for run in sweep.runs:
        ended = run.progress.ended()
        count = len(ended.steps)
        size = max(1, -(-count // _CURVE_ROWS))
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            mean = np.average(ended.returns[part], weights=ended.trials[part])
            steps, seconds = int(ended.steps[part][-1]), float(ended.seconds[part][-1])
            yield run.variant, run.seed, steps, seconds, float(mean)


def write_episodes(path: Path, sweep: Sweep) -> None:
    """Write the means over the held-out trials' first, second, ... episodes, as in the figures."""
    means = (field.name for field in fields(EpisodeCourse))
    _write(path, ("variant", "seed", "trials", "episode", *means), _episode_rows(sweep))


def _episode_rows(sweep: Sweep) -> Iterator[tuple[str | int | float, ...]]:
    evaluations = [(run.variant, str(run.seed), run.evaluation) for run in sweep.runs]
    evaluations += [(name, "", evaluation) for name, evaluation in sweep.references.items()]
    for name, seed, evaluation in evaluations:
        if evaluation is None:
            continue
        course, trials = episode_course(evaluation.episodes), len(evaluation.trials)
        for number, row in enumerate(zip(*astuple(course), strict=True), start=1):
            yield name, seed, trials, number, *map(float, row)


def _write(path: Path, head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(head)
            writer.writerows([_cell(value) for value in row] for row in rows)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); make its folder writable"
        ) from error


def _cell(value: object) -> object:
    return f"{value:.10g}" if isinstance(value, float) else value
