"""What an evaluation's trials come to: their returns, and later episodes against the first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memo_habitat.report.statistics import (
    Episodes,
    Estimate,
    FloatArray,
    IntArray,
    mean_with_interval,
)


def trial_returns(episodes: Episodes) -> dict[str, float]:
    """Undiscounted sum of the rewards of every trial by its name, cut-off episodes included."""
    sums = np.bincount(
        episodes.trial, weights=episodes.columns["reward"], minlength=len(episodes.trial_names)
    )
    return {episodes.trial_names[trial]: float(sums[trial]) for trial in np.unique(episodes.trial)}


def return_per_trial(episodes: Episodes, seed: int = 0) -> Estimate:
    """Mean return over trials, all their episodes included, with its interval."""
    returns = np.array(list(trial_returns(episodes).values()))
    return mean_with_interval(returns, np.arange(len(returns)), bounds=None, seed=seed)


@dataclass(frozen=True)
class EpisodeCourse:
    """Means over the trials' first, second, ... episodes; K numbers.

    Attributes:
        trials: int64 [K], how many trials have finished an episode of this number.
        length: float64 [K], steps.
        length_found: float64 [K], steps of the successful ones; NaN without any.
        reward: float64 [K], sum of the episode's rewards.
        success: float64 [K], share.
    """

    trials: IntArray
    length: FloatArray
    length_found: FloatArray
    reward: FloatArray
    success: FloatArray


def episode_course(episodes: Episodes, most: int = 20) -> EpisodeCourse:
    """Means by the number of the episode in its trial, over episodes that were not cut off.

    Numbers that fewer than half of the trials reach are left out, as in `by_episode_index`, and
    those past `most`.
    """
    trials = len(np.unique(episodes.trial))
    finished = episodes.finished()
    counts = np.bincount(finished.index, minlength=1)
    few = np.flatnonzero(counts < max(1.0, trials / 2))
    last = min(most, int(few[0]) if len(few) else len(counts))
    inside = finished.select(finished.index < last)
    found = inside.select(inside.columns["success"] > 0)

    def mean(of: Episodes, name: str) -> FloatArray:
        sums = np.bincount(of.index, weights=of.columns[name], minlength=last)
        numbers = np.bincount(of.index, minlength=last)
        return np.divide(sums, numbers, out=np.full(last, np.nan), where=numbers > 0)

    return EpisodeCourse(
        counts[:last].astype(np.int64),
        mean(inside, "num_steps"),
        mean(found, "num_steps"),
        mean(inside, "reward"),
        mean(inside, "success"),
    )


def later_less_first(episodes: Episodes, metric: str) -> dict[str, float]:
    """By trial: mean of `metric` over its later episodes less its value in the first.

    Episodes that the trial's end cut off are left out, and so are trials without a later one.
    """
    finished = episodes.finished()
    values = finished.columns[metric]
    size = len(episodes.trial_names)
    is_first = finished.index == 0
    firsts = np.full(size, np.nan)
    firsts[finished.trial[is_first]] = values[is_first]
    later = finished.trial[~is_first]
    sums = np.bincount(later, weights=values[~is_first], minlength=size)
    counts = np.bincount(later, minlength=size)
    differences = sums / np.maximum(counts, 1) - firsts
    known = (counts > 0) & ~np.isnan(firsts)
    return {finished.trial_names[t]: float(differences[t]) for t in np.flatnonzero(known)}
