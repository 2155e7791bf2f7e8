"""What an evaluation's trials come to: their returns, and later episodes against the first."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from memo_habitat.report.statistics import (
    Bucket,
    Episodes,
    Estimate,
    FloatArray,
    mean_with_interval,
)


def trial_returns(episodes: Episodes, name: str = "reward") -> dict[str, float]:
    """Undiscounted sum over every trial by its name, cut-off episodes included."""
    sums = np.bincount(
        episodes.trial, weights=episodes.columns[name], minlength=len(episodes.trial_names)
    )
    return {episodes.trial_names[trial]: float(sums[trial]) for trial in np.unique(episodes.trial)}


def return_per_trial(episodes: Episodes, name: str = "reward", seed: int = 0) -> Estimate:
    """Mean return over trials, all their episodes included, with its interval."""
    returns = np.array(list(trial_returns(episodes, name).values()))
    return mean_with_interval(returns, np.arange(len(returns)), bounds=None, seed=seed)


def targets_per_1000_steps(episodes: Episodes, steps: int, seed: int = 0) -> Estimate:
    """Successes in 1,000 steps of a trial, over whole trials of `steps` steps, with its interval.

    Unlike the success rate it counts the steps: an agent that gives up at once and hopes for an
    easier start has many episodes, few successes among them, and loses none of it here.
    """
    successes = np.bincount(
        episodes.trial, weights=episodes.columns["success"], minlength=len(episodes.trial_names)
    )
    present = np.unique(episodes.trial)
    values = 1000 / steps * successes[present]
    return mean_with_interval(values, np.arange(len(values)), bounds=None, seed=seed)


def targets_along_trial(episodes: Episodes, steps: int) -> list[Bucket]:
    """The same in each thousand steps of the trial, or each tenth of one below 10,000 steps.

    A target counts where it was found.
    """
    width = 1000 if steps >= 10_000 else steps / 10
    edges = [*np.arange(0, steps - width / 2, width).tolist(), steps]
    buckets = []
    for low, high in itertools.pairwise(edges):
        inside = (episodes.end > low) & (episodes.end <= high)
        found = replace(
            episodes,
            columns={"success": np.where(inside, episodes.columns["success"], 0.0)},
        )
        buckets.append(Bucket(low, high, targets_per_1000_steps(found, high - low)))
    return buckets


@dataclass(frozen=True)
class EpisodeCourse:
    """Means over the trials' first, second, ... episodes; K numbers.

    Attributes:
        length: float64 [K], steps.
        length_found: float64 [K], steps of the successful ones; NaN without any.
        reward: float64 [K], sum of the episode's rewards.
        success: float64 [K], share.
    """

    length: FloatArray
    length_found: FloatArray
    reward: FloatArray
    success: FloatArray


def in_every_trial(episodes: Episodes) -> Episodes:
    """The first K episodes of every trial, K the most that all trials have finished.

    Which trials have more depends on how fast their episodes were, and the episode that the
    trial's end cuts off is more often a long one: taking in what only some trials finish would
    make later episodes look shorter than the first even for an agent that remembers nothing.
    """
    finished = episodes.finished()
    counts = np.bincount(finished.trial, minlength=len(episodes.trial_names))
    present = np.unique(episodes.trial)
    return finished.select(finished.index < (counts[present].min() if len(present) else 0))


def episode_course(episodes: Episodes, most: int = 20) -> EpisodeCourse:
    """Means by the number of the episode in its trial, over the numbers that every trial reaches.

    Numbers past `most` are left out.
    """
    shared = in_every_trial(episodes)
    inside = shared.select(shared.index < most)
    last = int(inside.index.max(initial=-1)) + 1
    found = inside.select(inside.columns["success"] > 0)

    def mean(of: Episodes, name: str) -> FloatArray:
        sums = np.bincount(of.index, weights=of.columns[name], minlength=last)
        numbers = np.bincount(of.index, minlength=last)
        return np.divide(sums, numbers, out=np.full(last, np.nan), where=numbers > 0)

    return EpisodeCourse(
        mean(inside, "num_steps"),
        mean(found, "num_steps"),
        mean(inside, "reward"),
        mean(inside, "success"),
    )


def later_less_first(episodes: Episodes, metric: str) -> dict[str, float]:
    """By trial: mean of `metric` over its second to K-th episode less its value in the first.

    K is the number of episodes that every trial has finished (`in_every_trial`); nothing is
    returned where that is less than two.
    """
    shared = in_every_trial(episodes)
    last = int(shared.index.max(initial=0))
    if last == 0:
        return {}
    values, size = shared.columns[metric], len(episodes.trial_names)
    weights = np.where(shared.index == 0, -values, values / last)
    differences = np.bincount(shared.trial, weights=weights, minlength=size)
    return {
        episodes.trial_names[trial]: float(differences[trial]) for trial in np.unique(shared.trial)
    }
