"""Agents against each other: on the same trials, and over seeds; many comparisons at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from memo_habitat.report.episodes import estimate, trial_returns
from memo_habitat.report.load import Evaluation
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


def sign_flip(sums: FloatArray) -> float:
    """Two-sided p-value of differences [G] that are symmetric around 0; NaN for fewer than two."""
    count = len(sums)
    if count < 2:
        return float("nan")
    # A group's own rounding must not tell its two signs apart.
    observed = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()
    if count < _EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
        return float(np.mean(np.abs(signs @ sums) >= observed))
    signs = np.random.default_rng(0).choice((1.0, -1.0), size=(RESAMPLES, count))
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


@dataclass(frozen=True)
class Versus:
    """One agent less another one on the trials that both have played."""

    ours: str  # name of the agent
    theirs: str  # of the one that is compared with
    measure: str  # what is compared
    found: Paired
    adjusted: float  # p-value, adjusted for all that is compared


def compare(evaluations: Sequence[tuple[str, Evaluation]]) -> list[Versus]:
    """Each agent (name, evaluation) less the first trained one, on the trials of both.

    The p-values are adjusted together. Trials are the same where the evaluations have their seed,
    length and split in common; nothing is compared otherwise.
    """
    trained = [pair for pair in evaluations if pair[1].agent == "checkpoint"]
    if len(evaluations) < 2 or not trained:
        return []
    name, base = trained[0]
    pairs = []
    for other, evaluation in evaluations:
        if evaluation is base or not _same_trials(evaluation, base):
            continue
        groups = dict(
            zip(base.episodes.trial_names, base.episodes.trial_groups.tolist(), strict=True)
        )
        for measure in ("targets", "success", "spl"):
            ours, theirs = (_by_trial(e, measure) for e in (evaluation, base))
            if ours and theirs:
                pairs.append((other, name, measure, paired(ours, theirs, groups)))
    adjusted = holm([found.p for *_, found in pairs])
    return [Versus(*pair, p) for pair, p in zip(pairs, adjusted, strict=True)]


def _same_trials(one: Evaluation, other: Evaluation) -> bool:
    same = all(getattr(one.meta, key) == getattr(other.meta, key) for key in ("seed", "split"))
    return same and one.steps == other.steps and bool(one.trials & other.trials)


def _by_trial(evaluation: Evaluation, measure: str) -> dict[str, float]:
    """By trial: targets per 1,000 steps, or the mean of a measure over its finished episodes."""
    episodes = evaluation.episodes
    if measure == "targets":
        found = trial_returns(episodes, "success")
        return {trial: 1000 * count / evaluation.steps for trial, count in found.items()}
    finished = episodes.finished()
    if measure not in finished.columns:
        return {}
    return {
        episodes.trial_names[trial]: estimate(
            finished.select(finished.trial == trial), measure
        ).mean
        for trial in np.unique(finished.trial)
    }


# Over seeds, as rliable does it (Agarwal et al. 2021, arXiv 2108.13264): scores [S, K] of S seeds
# in K tasks, which are houses here. Resampling is stratified: seeds of each task by themselves.

_DRAWS = 2000
_ENDS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def iqm_with_interval(scores: FloatArray) -> Estimate:
    """The interquartile mean, of the middle half of all scores, with its percentile interval; none
    with a single seed."""
    if scores.size == 0 or not np.isfinite(scores).all():
        return NOTHING
    low = high = np.nan
    if len(scores) > 1:
        drawn = _resampled(scores, 0).reshape(_DRAWS, -1)
        low, high = np.quantile(stats.trim_mean(drawn, 0.25, axis=1), _ENDS)
    found = float(stats.trim_mean(scores, 0.25, axis=None))
    return Estimate(found, float(low), float(high), scores.size, len(scores))


def improvement(ours: FloatArray, theirs: FloatArray) -> Estimate:
    """Probability that a run of ours beats one of theirs in a task drawn at random; a tie is half.

    ours [S, K], theirs [S', K]; with its percentile interval, none where either has one seed.
    """
    if ours.size == 0 or theirs.size == 0 or not np.isfinite([ours.sum(), theirs.sum()]).all():
        return NOTHING
    low = high = np.nan
    if min(len(ours), len(theirs)) > 1:
        drawn = _beats(_resampled(ours, 0), _resampled(theirs, 1))
        low, high = np.quantile(drawn, _ENDS)
    found = float(_beats(ours[None], theirs[None])[0])
    fewer = min(len(ours), len(theirs))
    return Estimate(found, float(low), float(high), ours.size + theirs.size, fewer)


def _resampled(scores: FloatArray, seed: int) -> FloatArray:
    """[R, S, K], in each task as many seeds as there are, drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(len(scores), size=(_DRAWS, *scores.shape))
    return np.take_along_axis(scores[None], drawn, axis=1)


def _beats(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """[R] of [R, S, K] and [R, S', K]."""
    above = ours[:, :, None] > theirs[:, None]
    equal = ours[:, :, None] == theirs[:, None]
    shares: FloatArray = (above + 0.5 * equal).mean(axis=(1, 2, 3))
    return shares


def scores_by_house(evaluations: Sequence[Evaluation]) -> FloatArray:
    """Targets per 1,000 steps [S, K] of S evaluations in the K houses that all of them played."""
    tables = []
    for evaluation in evaluations:
        sums: dict[str, list[float]] = {}
        for trial, value in _by_trial(evaluation, "targets").items():
            sums.setdefault(trial.rsplit("/", 2)[0], []).append(value)
        tables.append({house: float(np.mean(values)) for house, values in sums.items()})
    shared = sorted(set.intersection(*map(set, tables))) if tables else []
    return np.array([[table[house] for house in shared] for table in tables], dtype=np.float64)
