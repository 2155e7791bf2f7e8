"""Agents against each other: on the same trials, and over seeds; many comparisons at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memo_habitat.report.statistics import (
    LEVEL,
    NOTHING,
    RESAMPLES,
    Estimate,
    FloatArray,
    mean_with_interval,
)

# Groups up to which all 2^G choices of signs are tried.
_EXACT = 13


@dataclass(frozen=True)
class Paired:
    """What one agent has more than another one on the same trials.

    Attributes:
        difference: mean over trials with its interval; houses or trials are resampled.
        p: of no difference, two-sided; NaN with a single group.
        left_out: names of the common trials in which a value is NaN or infinite: in no number here.
    """

    difference: Estimate
    p: float
    left_out: tuple[str, ...]


def paired(
    ours: Mapping[str, float], theirs: Mapping[str, float], groups: Mapping[str, int]
) -> Paired:
    """Compare values by trial; `groups` has the number of what is resampled of each trial.

    The p-value is that of the sign-flip test: were there no difference, that of every group would
    be as likely to have the other sign. All signs are tried, or 10,000 draws of them with 13
    groups or more.
    """
    both = [trial for trial in ours if trial in theirs]
    differences = np.array([ours[trial] - theirs[trial] for trial in both], dtype=np.float64)
    finite = np.isfinite(differences)
    left_out = tuple(trial for trial, good in zip(both, finite, strict=True) if not good)
    numbers = np.array([groups[trial] for trial in both], dtype=np.int64)[finite]
    if not finite.any():
        return Paired(NOTHING, np.nan, left_out)
    found = mean_with_interval(differences[finite], numbers, bounds=None)
    codes = np.unique(numbers, return_inverse=True)[1]
    sums = np.bincount(codes, weights=differences[finite]).astype(np.float64)
    return Paired(found, sign_flip(sums), left_out)


def sign_flip(sums: FloatArray, seed: int = 0) -> float:
    """Two-sided p-value of differences [G] that are symmetric around 0; NaN for fewer than two."""
    count = len(sums)
    if count < 2:
        return float("nan")
    # A group's own rounding must not tell its two signs apart.
    observed = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()
    if count < _EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
        return float(np.mean(np.abs(signs @ sums) >= observed))
    signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(RESAMPLES, count))
    # What was observed counts as a draw: a p-value is never 0 (Phipson & Smyth 2010).
    return float((1 + np.sum(np.abs(signs @ sums) >= observed)) / (1 + RESAMPLES))


def holm(p_values: Sequence[float]) -> list[float]:
    """The same adjusted for being several (Holm 1979): below 0.05 all together err in 5 % at most.

    NaN stays and does not count.
    """
    p = np.array(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    p[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return [float(value) for value in p]


# Over seeds, as rliable does it (Agarwal et al. 2021, arXiv 2108.13264): scores [S, K] of S seeds
# in K tasks, which are houses here. Resampling is stratified: seeds of each task by themselves.


def iqm(scores: FloatArray) -> float:
    """Interquartile mean: of the middle half of all scores."""
    values = np.sort(scores, axis=None)
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean())


def iqm_with_interval(scores: FloatArray, resamples: int = 2000, seed: int = 0) -> Estimate:
    """The interquartile mean with its percentile interval; none with a single seed."""
    if scores.size == 0 or not np.isfinite(scores).all():
        return NOTHING
    low = high = np.nan
    if len(scores) > 1:
        drawn = np.sort(_resampled(scores, resamples, seed).reshape(resamples, -1), axis=1)
        cut = drawn.shape[1] // 4
        means = drawn[:, cut : drawn.shape[1] - cut].mean(axis=1)
        low, high = np.quantile(means, _ENDS)
    return Estimate(iqm(scores), float(low), float(high), scores.size, len(scores))


def improvement(
    ours: FloatArray, theirs: FloatArray, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Probability that a run of ours beats one of theirs in a task drawn at random; a tie is half.

    ours [S, K], theirs [S', K]; with its percentile interval, none where either has one seed.
    """
    if ours.size == 0 or theirs.size == 0 or not np.isfinite([ours.sum(), theirs.sum()]).all():
        return NOTHING
    low = high = np.nan
    if min(len(ours), len(theirs)) > 1:
        drawn = _beats(_resampled(ours, resamples, seed), _resampled(theirs, resamples, seed + 1))
        low, high = np.quantile(drawn, _ENDS)
    found = float(_beats(ours[None], theirs[None])[0])
    fewer = min(len(ours), len(theirs))
    return Estimate(found, float(low), float(high), ours.size + theirs.size, fewer)


_ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def _resampled(scores: FloatArray, resamples: int, seed: int) -> FloatArray:
    """[R, S, K], in each task as many seeds as there are, drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(len(scores), size=(resamples, *scores.shape))
    return np.take_along_axis(scores[None], drawn, axis=1)


def _beats(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """[R] of [R, S, K] and [R, S', K]."""
    above = ours[:, :, None] > theirs[:, None]
    equal = ours[:, :, None] == theirs[:, None]
    shares: FloatArray = (above + 0.5 * equal).mean(axis=(1, 2, 3))
    return shares
