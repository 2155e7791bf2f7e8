"""Means over seeds: few independent trainings, so Student's t and not resampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from memo_habitat.report.statistics import LEVEL, FloatArray


@dataclass(frozen=True)
class SeedEstimate:
    """A mean over seeds and its interval.

    Attributes:
        mean: NaN without any seed.
        low: lower end of the interval; NaN with fewer than two seeds, or where all are alike.
        high: upper end.
        seeds: how many there are.
    """

    mean: float
    low: float
    high: float
    seeds: int


def over_seeds(values: Sequence[float]) -> SeedEstimate:
    """Mean of one value per seed with its 95 % interval; NaN values are left out.

    The interval is mean +- t s / sqrt(n), t the quantile of Student's distribution with n - 1
    degrees of freedom: resampling two to five values would give far too narrow a one. Values that
    are all alike tell nothing of how others would differ: they give no interval, not one without
    width.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if len(known) == 0:
        return SeedEstimate(np.nan, np.nan, np.nan, 0)
    mean, low, high = mean_curve(known[:, None])
    return SeedEstimate(float(mean[0]), float(low[0]), float(high[0]), len(known))


def mean_curve(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean [P] of curves [S, P] over seeds, and both ends [P] of its 95 % interval.

    NaN values are left out; the ends are NaN where fewer than two are left, or all are
    alike.
    """
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    sums = np.where(known, values, 0.0).sum(axis=0)
    mean = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    squares = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
    several = (counts > 1) & ~_alike(values)
    error = np.full(len(sums), np.nan)
    error[several] = np.sqrt(squares[several] / (counts[several] - 1) / counts[several])
    error[several] *= stats.t.ppf((1 + LEVEL) / 2, counts[several] - 1)
    return mean, mean - error, mean + error


def _alike(values: FloatArray) -> FloatArray:
    """Whether the known values of each column of [S, P] are equal up to rounding; bool [P]."""
    known = ~np.isnan(values)
    low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
    return high - low <= 1e-12 + 1e-9 * np.maximum(np.abs(low), np.abs(high))


@dataclass(frozen=True)
class Difference:
    """How much more one kind of agent has than another.

    Attributes:
        found: mean difference with its interval.
        paired: whether seeds were compared one by one.
    """

    found: SeedEstimate
    paired: bool


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Mean of `ours` less mean of `theirs`, values by seed, with its 95 % interval.

    Seeds that both have are compared one by one where there are two or more of them. Otherwise
    the means are compared by Welch's t, without an interval where one has a single seed or each
    has seeds that are all alike.
    """
    both = sorted(set(ours) & set(theirs))
    if len(both) > 1:
        return Difference(over_seeds([ours[seed] - theirs[seed] for seed in both]), True)
    first, second = (np.array(list(values.values())) for values in (ours, theirs))
    seeds = min(len(first), len(second))
    if seeds == 0:
        return Difference(SeedEstimate(np.nan, np.nan, np.nan, 0), False)
    mean = float(first.mean() - second.mean())
    unknown = SeedEstimate(mean, np.nan, np.nan, seeds)
    if seeds < 2:
        return Difference(unknown, False)
    # Not scipy's test, which warns of lost precision where the seeds of one kind are all alike.
    errors = [
        0.0 if _alike(own[:, None])[0] else float(own.var(ddof=1)) / len(own)
        for own in (first, second)
    ]
    if sum(errors) == 0:
        return Difference(unknown, False)
    shares = sum(e**2 / (len(own) - 1) for e, own in zip(errors, (first, second), strict=True))
    half = stats.t.ppf((1 + LEVEL) / 2, sum(errors) ** 2 / shares) * np.sqrt(sum(errors))
    return Difference(SeedEstimate(mean, float(mean - half), float(mean + half), seeds), False)
