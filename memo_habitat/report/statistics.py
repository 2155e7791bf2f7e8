"""Means with 95 % intervals: over houses or trials, inside which episodes depend on each other, and
over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from memo_habitat.errors import UserError

LEVEL = 0.95
RESAMPLES = 10_000
# Resamples drawn at once: bounds memory at about 8 * CHUNK bytes per trial.
CHUNK = 2_000
# Draws of up to this many numbers are kept for the next estimate over as many trials.
KEPT = 2_000_000

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval."""

    mean: float  # NaN without any value
    low: float  # lower end of the interval; NaN where there is none, as with a single group
    high: float  # upper end
    values: int  # how many values the mean is over
    groups: int  # how many independent draws they come from: trials or seeds


NOTHING = Estimate(np.nan, np.nan, np.nan, 0, 0)


# Over trials: the cluster bootstrap ------------------------------------------------------------


def mean_with_interval(
    values: FloatArray,
    trials: IntArray,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    resamples: int = RESAMPLES,
) -> Estimate:
    """Mean over episodes with a 95 % percentile interval of the cluster bootstrap over trials.

    Whole trials are drawn with replacement (Davison & Hinkley, Bootstrap Methods, 1997, 3.8) and
    the mean over their episodes is taken. What is called trials here may be whole houses: of a
    hierarchy of houses, trials and episodes the outermost level is drawn and all within it kept.
    (To draw trials again within the drawn houses would count what differs between trials twice,
    ibid.: it is in the houses' means already.) Where every episode has the same extreme value (no
    success at all, say), resampling shows no spread; the open end is then the exact binomial
    bound (Clopper & Pearson 1934) with every trial counted as one draw.

    Args:
        values: float [E], one per episode.
        trials: int [E], the episode's trial.
        bounds: smallest and largest value possible; None if there are none.
        resamples: how many draws of all trials.
    """
    if len(values) != len(trials):
        raise UserError(f"{len(values)} values for {len(trials)} trial numbers; give one each")
    found = ratio_with_interval(values, np.ones(len(values)), trials, resamples=resamples)
    if bounds is None or found.groups < 2 or found.mean not in bounds or np.ptp(values) > 0:
        return found
    slack = (1 - (1 - LEVEL) ** (1 / found.groups)) * (bounds[1] - bounds[0])
    if found.mean == bounds[0]:
        return replace(found, high=found.mean + slack)
    return replace(found, low=found.mean - slack)


def ratio_with_interval(
    values: FloatArray,
    weights: FloatArray,
    trials: IntArray,
    *,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Sum of the values over the sum of their weights, resampled as in `mean_with_interval`.

    Values and weights are float [E]: such as an episode's success, and its steps (above 0).
    """
    code = np.unique(trials, return_inverse=True)[1]
    sums, took = np.bincount(code, weights=values), np.bincount(code, weights=weights)
    return _resample(
        lambda drawn: (drawn @ sums) / (drawn @ took), len(sums), len(values), resamples
    )


def difference_with_interval(
    values: FloatArray, trials: IntArray, late: NDArray[np.bool_]
) -> Estimate:
    """Mean of the late episodes less that of the others, both from the same resampled trials.

    What is peculiar to a trial cancels. Trials without episodes of both kinds are left out.
    `late` is bool [E].
    """
    both = np.intersect1d(trials[late], trials[~late])
    kept = np.isin(trials, both)
    values, late = values[kept], late[kept]
    code = np.unique(trials[kept], return_inverse=True)[1]
    sums = [np.bincount(code[part], weights=values[part]) for part in (late, ~late)]
    counts = [np.bincount(code[part]) for part in (late, ~late)]
    return _resample(
        lambda drawn: (
            (drawn @ sums[0]) / (drawn @ counts[0]) - (drawn @ sums[1]) / (drawn @ counts[1])
        ),
        len(both),
        len(values),
    )


def rate_ratio_with_interval(
    values: FloatArray, weights: FloatArray, trials: IntArray, late: NDArray[np.bool_]
) -> Estimate:
    """The late values over their weights, as a multiple of the others'; resampled together.

    All are [E], `late` is bool. The upper end is infinite where the others' values are 0 in too
    many resamples; without any there is no ratio at all.
    """
    code = np.unique(trials, return_inverse=True)[1]
    count = int(code.max(initial=-1)) + 1
    late_sums, late_took, sums, took = (
        np.bincount(code[part], weights=column[part], minlength=count)
        for part in (late, ~late)
        for column in (values, weights)
    )
    if not (sums.sum() > 0 and late_took.sum() > 0):
        return NOTHING

    def ratio(drawn: FloatArray) -> FloatArray:
        # 0 where the drawn trials have nothing late, infinite where they have nothing early.
        over = (drawn @ late_sums) * (drawn @ took)
        under = (drawn @ late_took) * (drawn @ sums)
        found: FloatArray = np.divide(over, under, out=np.full(len(over), np.inf), where=under > 0)
        return found

    return _resample(ratio, count, len(values))


def _resample(
    statistic: Callable[[FloatArray], FloatArray],
    trials: int,
    values: int,
    resamples: int = RESAMPLES,
) -> Estimate:
    """A statistic of how often each trial counts, [R, G] to [R], with its interval."""
    if trials == 0:
        return NOTHING
    # Every trial drawn once is what was measured; a single trial has nothing to be drawn from.
    mean, low, high = float(statistic(np.ones((1, trials)))[0]), np.nan, np.nan
    if trials > 1:
        drawn = [statistic(counts) for counts in _resampled_counts(trials, resamples)]
        all_drawn = np.concatenate(drawn)
        # Between infinite numbers nothing can be interpolated.
        method: Any = "linear" if np.isfinite(all_drawn).all() else "nearest"
        low, high = np.quantile(all_drawn, _quantiles(trials), method=method)
    return Estimate(mean, float(low), float(high), values, trials)


def _quantiles(groups: int) -> FloatArray:
    """Which quantiles of a statistic's resamples are both ends of its interval, [2].

    Expanded percentiles (Hesterberg 2015, arXiv 1411.5279): of n groups resampled means spread
    too little, by sqrt((n - 1) / n), and as if the spread were known, by the normal quantile in
    place of Student's. Without this an interval over 10 groups covers the mean 91 % of the time.
    """
    slack = stats.t.ppf((1 + LEVEL) / 2, groups - 1) * np.sqrt(groups / (groups - 1))
    return np.array(stats.norm.cdf([-slack, slack]))


@lru_cache(maxsize=8)
def _kept_counts(trials: int, resamples: int) -> FloatArray:
    """As `_resampled_counts`, kept: a report asks for the same draws some hundred times."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(trials, np.full(trials, 1 / trials), size=resamples)
    return drawn.astype(np.float64)


def _resampled_counts(trials: int, resamples: int) -> Iterator[FloatArray]:
    """How often each trial is drawn, [R, G], in chunks of R."""
    if trials * resamples <= KEPT:
        yield _kept_counts(trials, resamples)
        return
    rng = np.random.default_rng(0)
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        yield rng.multinomial(trials, np.full(trials, 1 / trials), size=size).astype(np.float64)


# Over seeds: few independent trainings, so Student's t and not resampling ----------------------


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of one value per seed with its 95 % interval; NaN values are left out.

    The interval is mean +- t s / sqrt(n), t the quantile of Student's distribution with n - 1
    degrees of freedom: resampling two to five values would give far too narrow a one. Values that
    are all alike tell nothing of how others would differ: they give no interval, not one without
    width.
    """
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    known = int((~np.isnan(column)).sum())
    mean, low, high = (float(ends[0]) for ends in mean_curve(column))
    return Estimate(mean, low, high, known, known)


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


def _alike(values: FloatArray) -> NDArray[np.bool_]:
    """Whether the known values of each column of [S, P] are equal up to rounding; bool [P]."""
    known = ~np.isnan(values)
    low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
    high = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
    alike: NDArray[np.bool_] = high - low <= 1e-12 + 1e-9 * np.maximum(np.abs(low), np.abs(high))
    return alike


class Difference(NamedTuple):
    """How much more one kind of agent has than another."""

    found: Estimate  # mean difference with its interval
    paired: bool  # whether seeds were compared one by one


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Mean of `ours` less mean of `theirs`, values by seed, with its 95 % interval.

    Seeds that both have are compared one by one where there are two or more of them. Otherwise
    the means are compared by Welch's t, without an interval where one has a single seed or each
    has seeds that are all alike.
    """
    both = sorted(set(ours) & set(theirs))
    if len(both) > 1:
        return Difference(over_seeds([ours[seed] - theirs[seed] for seed in both]), True)
    kinds = [np.array(list(values.values())) for values in (ours, theirs)]
    seeds = min(map(len, kinds))
    if seeds == 0:
        return Difference(NOTHING, False)
    mean, half = float(kinds[0].mean() - kinds[1].mean()), np.nan
    if seeds > 1:
        # Not scipy's test, which warns of lost precision where the seeds of one kind are all alike.
        errors = np.array([0.0 if _alike(k[:, None])[0] else k.var(ddof=1) / len(k) for k in kinds])
        if errors.any():
            freedom = errors.sum() ** 2 / sum(errors**2 / [len(k) - 1 for k in kinds])
            half = stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(errors.sum())
    return Difference(Estimate(mean, mean - half, mean + half, seeds, seeds), False)
