"""The sweep's numbers: by run, as CSV files too, and by variant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from memo_habitat.report.breakdown import Quarters, all_quarters, targets_along_trial
from memo_habitat.report.comparison import improvement, iqm_with_interval, scores_by_house
from memo_habitat.report.episodes import (
    EpisodeCourse,
    episode_course,
    in_every_trial,
    later_less_first,
    targets_per_1000_steps,
)
from memo_habitat.report.figures import trained_color
from memo_habitat.report.load import Evaluation
from memo_habitat.report.statistics import (
    Difference,
    Estimate,
    FloatArray,
    difference,
    mean_with_interval,
    over_seeds,
)
from memo_habitat.report.sweep_data import Progress, Sweep, SweepRun
from memo_habitat.report.tables import csv_text
from memo_habitat.utils.files import atomic_write

RESULTS_FILE, CURVES_FILE, EPISODES_FILE = "results.csv", "curves.csv", "episodes.csv"
TARGETS_FILE = "targets.csv"
SHARES = (25, 50, 75, 90)
_CURVE_ROWS = 400
# A point of a smoothed curve is the mean over this share of the longest training, half of it
# before the point.
SMOOTHING = 0.05
# A training's final return is the mean over its last updates, this share of all.
_FINAL = 0.1
_POINTS = 200
# The variant that the others are compared with; where it is not there, the first.
_BASELINE = "memo"


# Learning curves --------------------------------------------------------------------------------


def final_return(progress: Progress) -> float:
    """Mean return of the trials that ended in the last tenth of the updates; NaN without any.

    Where none ended there, because a trial takes many updates, those of the last update that has
    any count.
    """
    ended = progress.ended()
    if not len(ended.steps):
        return np.nan
    count = max(1, round(_FINAL * progress.updates))
    late = progress.trials[-count:] > 0
    if not late.any():
        return float(ended.returns[-1])
    returns, trials = progress.returns[-count:][late], progress.trials[-count:][late]
    return float(np.average(returns, weights=trials))


def smooth(progress: Progress, width: float) -> tuple[FloatArray, FloatArray]:
    """Steps [P] and mean return [P] of the trials that ended within `width` steps around them.

    One point for each update in which trials ended; half of the width lies before it.
    """
    ended = progress.ended()
    low = np.searchsorted(ended.steps, ended.steps - width / 2, "left")
    high = np.searchsorted(ended.steps, ended.steps + width / 2, "right")
    # Sums over any window are then differences of two entries, however wide it is.
    sums = np.concatenate([[0.0], np.cumsum(ended.trials * ended.returns)])
    counts = np.concatenate([[0.0], np.cumsum(ended.trials)])
    return ended.steps, (sums[high] - sums[low]) / (counts[high] - counts[low])


def smoothing_width(progresses: Sequence[Progress]) -> float:
    """Environment steps that a point of the curves of these trainings is a mean over."""
    return SMOOTHING * max(progress.steps[-1] for progress in progresses)


def on_one_axis(
    curves: Sequence[tuple[FloatArray, FloatArray]],
) -> tuple[FloatArray, FloatArray]:
    """Environment steps [P], and the curves [S, P] there; NaN where one has not begun or got to."""
    curves = [(steps, values) for steps, values in curves if len(steps)]
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    first, last = min(s[0] for s, _ in curves), max(s[-1] for s, _ in curves)
    axis = np.linspace(first, last, _POINTS)
    rows = [np.interp(axis, s, v, left=np.nan, right=np.nan) for s, v in curves]
    return axis, np.array(rows)


def steps_to(steps: FloatArray, values: FloatArray, level: float) -> float:
    """Environment steps at which the curve first reaches `level`; NaN if it does not."""
    reached = np.flatnonzero(values >= level)
    return float(steps[reached[0]]) if len(reached) else np.nan


# By run -----------------------------------------------------------------------------------------


class Result(NamedTuple):
    """One run's numbers; NaN where one is not known. Returns are undiscounted, per trial."""

    variant: str  # name of its variant
    seed: int  # its seed
    steps: int  # environment steps trained
    final_return: float  # mean over the trials that ended in the last tenth of the updates
    held_out_return: float  # mean over the trials of the evaluation
    held_out_low: float  # lower end of its 95 % interval over trials
    held_out_high: float  # upper end
    oracle_ratio: float  # held_out_return as a share of the oracle's on the same layouts
    # Environment steps until the smoothed training return reaches 25 % of the oracle's mean return;
    # likewise 50, 75, 90.
    steps_to_25: float
    steps_to_50: float
    steps_to_75: float
    steps_to_90: float
    seconds: float  # of training
    steps_per_second: float  # environment steps per second of training
    memory_tokens: float  # tokens in use at a trial's end, for one environment
    memory_kv_bytes: float  # bytes of their keys and values
    memory_kv_bytes_full_context: float  # bytes if every step were kept


_MEMORY = ("memory_tokens", "memory_kv_bytes", "memory_kv_bytes_full_context")


def results(sweep: Sweep) -> list[Result]:
    """The numbers of every run."""
    width = smoothing_width([run.progress for run in sweep.runs])
    oracle = sweep.reference_return("oracle")
    found = []
    for run in sweep.runs:
        progress, held_out = run.progress, run.held_out
        curve = smooth(progress, width)
        done, seconds = float(progress.steps[-1]), float(progress.seconds[-1])
        found.append(
            Result(
                variant=run.variant,
                seed=run.seed,
                steps=int(done),
                final_return=final_return(progress),
                held_out_return=held_out.mean,
                held_out_low=held_out.low,
                held_out_high=held_out.high,
                oracle_ratio=sweep.ratio(run),
                seconds=seconds,
                steps_per_second=done / seconds if seconds > 0 else math.nan,
                **{f"steps_to_{s}": steps_to(*curve, s / 100 * oracle) for s in SHARES},
                **{name: progress.memory.get(name, math.nan) for name in _MEMORY},
            )
        )
    return found


def write_tables(sweep: Sweep, rows: Sequence[Result]) -> None:
    """Write the CSV files: a row per run, its curve, its trials' episodes and targets."""
    atomic_write(sweep.folder / RESULTS_FILE, csv_text(Result._fields, rows))
    curves = ("variant", "seed", "steps", "seconds", "return")
    atomic_write(sweep.folder / CURVES_FILE, csv_text(curves, _curve_rows(sweep)))
    episodes = ("variant", "seed", "trials", "episode", *EpisodeCourse._fields)
    atomic_write(sweep.folder / EPISODES_FILE, csv_text(episodes, _episode_rows(sweep)))
    ends = ("targets", "low", "high")
    targets = ("variant", "seed", "trials", "which", "part", *ends)
    atomic_write(sweep.folder / TARGETS_FILE, csv_text(targets, _target_rows(sweep)))


def _curve_rows(sweep: Sweep) -> Iterator[tuple[str, int, int, float, float]]:
    """Returns of training, not smoothed: each row a mean over as many updates, at the last one."""
    for run in sweep.runs:
        ended = run.progress.ended()
        count = len(ended.steps)
        size = max(1, -(-count // _CURVE_ROWS))
        for start in range(0, count, size):
            part = slice(start, min(start + size, count))
            mean = np.average(ended.returns[part], weights=ended.trials[part])
            steps, seconds = int(ended.steps[part][-1]), float(ended.seconds[part][-1])
            yield run.variant, run.seed, steps, seconds, float(mean)


def _episode_rows(sweep: Sweep) -> Iterator[tuple[str | int | float, ...]]:
    """Means over the held-out trials' first, second, ... episodes, as in the figures."""
    for name, seed, evaluation in _evaluations(sweep):
        course, trials = episode_course(evaluation.episodes), len(evaluation.trials)
        for number, row in enumerate(zip(*course, strict=True), start=1):
            yield name, seed, trials, number, *map(float, row)


def _target_rows(sweep: Sweep) -> Iterator[tuple[str | int | float, ...]]:
    """Targets per 1,000 steps along the trial, and in its quarters also by condition."""
    for name, seed, evaluation in _evaluations(sweep):
        episodes, steps, of = evaluation.episodes, evaluation.steps, (name, seed)
        trials = len(evaluation.trials)
        for low, high, found in targets_along_trial(episodes, steps):
            part = f"{low + 1:.0f}-{high:.0f}"
            yield *of, trials, "all", part, found.mean, found.low, found.high
        for q in all_quarters(episodes, steps):
            for part, found in (("first", q.first), ("last", q.last), ("last/first", q.ratio)):
                yield *of, trials, q.key, part, found.mean, found.low, found.high


def _evaluations(sweep: Sweep) -> list[tuple[str, str, Evaluation]]:
    """Variant and seed, or name of a reference agent and nothing, with what was evaluated."""
    runs = [(run.variant, str(run.seed), run.evaluation) for run in sweep.runs]
    both = [*runs, *((name, "", evaluation) for name, evaluation in sweep.references.items())]
    return [(name, seed, e) for name, seed, e in both if e is not None]


# By variant -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One of the variants that are compared, with its runs and their numbers."""

    name: str
    color: int  # number of the page's series colour
    runs: tuple[SweepRun, ...]
    rows: tuple[Result, ...]  # one of each run
    # Return on held-out layouts less the baseline's; None for the baseline itself.
    against: Difference | None
    # Probability that a run of it finds more in a held-out house than one of the baseline's; None
    # for the baseline itself.
    improves: Estimate | None

    def over_seeds(self, column: str) -> Estimate:
        """Mean over seeds of a column of the results."""
        return over_seeds([float(getattr(row, column)) for row in self.rows])

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Of its runs that have one."""
        return tuple(run.evaluation for run in self.runs if run.evaluation is not None)

    @property
    def targets(self) -> Estimate:
        """Targets per 1,000 steps on held-out layouts."""
        found = [targets_per_1000_steps(e.episodes, e.steps).mean for e in self.evaluations]
        return over_seeds(found)

    @property
    def targets_iqm(self) -> Estimate:
        """Interquartile mean of these over seeds and houses."""
        return iqm_with_interval(scores_by_house(self.evaluations))

    @property
    def peak_tokens(self) -> float:
        """Most tokens in use in the traced trials; NaN without any."""
        traces = [trial for e in self.evaluations for trial in e.trace().values()]
        return max((p.context_tokens for trial in traces for p in trial), default=math.nan)

    @property
    def best(self) -> SweepRun | None:
        """The run with the highest return on held-out layouts; None without an evaluation."""
        evaluated = [run for run in self.runs if run.evaluation is not None]
        return max(evaluated, key=lambda run: run.held_out.mean, default=None)


def baseline(sweep: Sweep) -> str:
    """Name of the variant that the others are compared with."""
    return _BASELINE if _BASELINE in sweep.variants else sweep.variants[0]


def variants_of(sweep: Sweep, rows: Sequence[Result]) -> list[Variant]:
    """The variants that have runs, in order."""
    held_out: dict[str, dict[int, float]] = {name: {} for name in sweep.variants}
    for row in rows:
        if not math.isnan(row.held_out_return):
            held_out[row.variant][row.seed] = row.held_out_return
    compared, found = baseline(sweep), []
    for number, name in enumerate(sweep.variants):
        runs = tuple(run for run in sweep.runs if run.variant == name)
        own = tuple(row for row in rows if row.variant == name)
        against = improves = None
        if name != compared:
            against = difference(held_out[name], held_out[compared])
            ours, theirs = sweep.evaluations_of(name), sweep.evaluations_of(compared)
            scores = scores_by_house([*ours, *theirs])  # in the houses that all of them played
            improves = improvement(scores[: len(ours)], scores[len(ours) :])
        if runs:
            found.append(Variant(name, trained_color(number), runs, own, against, improves))
    return found


def gain_of_later_episodes(
    evaluations: Sequence[Evaluation], metric: str
) -> tuple[float, Estimate]:
    """Mean of `metric` over the first episodes of all trials, and how later ones differ from it.

    The difference is the mean over trials of `later_less_first`, all evaluations together. Its
    interval resamples whole layouts: trials of different seeds in the same layout go together.
    """
    shared = [in_every_trial(evaluation.episodes) for evaluation in evaluations]
    first = [value for own in shared for value in own.columns[metric][own.index == 0]]
    later = [pair for e in evaluations for pair in later_less_first(e.episodes, metric).items()]
    numbers: dict[str, int] = {}
    layouts = [numbers.setdefault(trial, len(numbers)) for trial, _ in later]
    values = np.array([value for _, value in later], dtype=np.float64)
    gain = mean_with_interval(values, np.array(layouts, dtype=np.int64), bounds=None)
    return float(np.mean(first)) if first else np.nan, gain


def quarters_over_seeds(evaluations: Sequence[Evaluation]) -> list[Quarters]:
    """First and last quarters of trials: of one evaluation, or means over the seeds of several."""
    seeds = [all_quarters(e.episodes, e.steps) for e in evaluations]
    if len(seeds) == 1:
        return seeds[0]
    return [
        replace(
            same[0],
            **{
                name: over_seeds([getattr(q, name).mean for q in same])
                for name in ("first", "last", "ratio")
            },
        )
        for same in zip(*seeds, strict=True)
    ]
