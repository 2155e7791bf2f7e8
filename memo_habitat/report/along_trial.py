"""Targets found along the trial, and how many more in its last quarter than in its first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memo_habitat.report.episodes import REPEATED, Bucket, Episodes
from memo_habitat.report.statistics import (
    Estimate,
    FloatArray,
    mean_with_interval,
    rate_ratio_with_interval,
    ratio_with_interval,
)
from memo_habitat.tasks.record_fields import RecordField

# Equal parts that a trial is told in, at least and at most.
_FEWEST, _MOST = 8, 16
# Steps of a part at least, where the fewest allow it: in shorter ones too few episodes end.
_SHORTEST = 64


def parts_of_trial(steps: int) -> int:
    """In how many equal parts a trial of `steps` steps is told: 8 to 16, of round lengths."""
    even = [count for count in range(_FEWEST, _MOST + 1) if steps % count == 0]
    if not even:
        return 10
    wide = [count for count in even if steps // count >= _SHORTEST]
    if not wide:
        return min(even)
    zeros = {
        count: len(str(steps // count)) - len(str(steps // count).rstrip("0")) for count in wide
    }
    return max(count for count in wide if zeros[count] == max(zeros.values()))


def targets_along_trial(episodes: Episodes, steps: int, parts: int = 0) -> list[Bucket]:
    """Targets per 1,000 steps in `parts` equal parts of the trial (0: of round lengths), with
    intervals over houses.

    A target counts where its episode ended, which is where it was found. Of an evaluation that is
    not finished, parts are left out that no trial has got through yet.
    """
    count = parts or parts_of_trial(steps)
    return targets_between(episodes, np.linspace(0, steps, count + 1).tolist())


def targets_between(episodes: Episodes, edges: Sequence[float]) -> list[Bucket]:
    """The same in the parts between `edges`, steps of the trial in order."""
    houses, reached = episodes.trial_groups, np.zeros(len(episodes.trial_names))
    np.maximum.at(reached, episodes.trial, episodes.end)
    buckets = []
    for low, high in itertools.pairwise(edges):
        through = reached >= high
        if through.any():
            # Trials without a success there count too, with 0.
            found = _targets(episodes, low, high)[through] * 1000 / (high - low)
            over_houses = mean_with_interval(found, houses[through], bounds=None)
            buckets.append(Bucket(low, high, over_houses))
    return buckets


def _targets(episodes: Episodes, low: float, high: float) -> FloatArray:
    """How many targets every trial found in (low, high], float64 [T]."""
    inside = (episodes.end > low) & (episodes.end <= high)
    found = np.where(inside, episodes.columns["success"], 0.0)
    counts = np.bincount(episodes.trial, weights=found, minlength=len(episodes.trial_names))
    return counts.astype(np.float64)


@dataclass(frozen=True)
class Quarters:
    """Targets per 1,000 steps in the trial's first and last quarter.

    Attributes:
        condition: of episodes in which this holds, or does not; None: of all.
        holds: which of the two.
        first: in the first quarter, with its interval over houses.
        last: in the last quarter.
        ratio: last over first, both resampled together; above 1 for an agent that gets faster.
    """

    condition: RecordField | None
    holds: bool
    first: Estimate
    last: Estimate
    ratio: Estimate

    @property
    def title(self) -> str:
        """Which episodes these are."""
        if self.condition is None:
            return "All targets"
        return f"{self.condition.title}: {'yes' if self.holds else 'no'}"


def quarters(
    episodes: Episodes, steps: int, condition: RecordField | None = None, holds: bool = True
) -> Quarters:
    """Targets in the first and last quarter of trials of `steps` steps.

    A target belongs to the quarter in which its episode ends. Steps belong to that in which they
    were taken: were those of whole episodes counted where they end, a first quarter would lack the
    steps of the episode that leaves it, and every agent would seem to get slower.
    """
    houses, quarter = episodes.trial_groups, steps / 4
    if condition is not None:
        values = episodes.columns.get(condition.name, np.full(len(episodes), np.nan))
        episodes = episodes.select(values == holds)
    start, end = episodes.end - episodes.columns["num_steps"], episodes.end
    found, took = [], []
    for low in (0.0, steps - quarter):
        high = low + quarter
        found.append(np.where((end > low) & (end <= high), episodes.columns["success"], 0.0))
        took.append(np.clip(np.minimum(end, high) - np.maximum(start, low), 0.0, None))
    groups = houses[episodes.trial]
    first, last = (
        ratio_with_interval(1000 * found[i][took[i] > 0], took[i][took[i] > 0], groups[took[i] > 0])
        for i in (0, 1)
    )
    late = np.repeat([False, True], len(groups))
    ratio = rate_ratio_with_interval(
        np.concatenate(found), np.concatenate(took), np.tile(groups, 2), late
    )
    return Quarters(condition, holds, first, last, ratio)


def all_quarters(episodes: Episodes, steps: int) -> list[Quarters]:
    """Of all episodes, then by each condition that was recorded: where it holds, and does not.

    Not by `REPEATED`: which targets come again follows from the quarter itself.
    """
    split = [
        quarters(episodes, steps, condition, holds)
        for condition in episodes.measures("condition")
        if condition != REPEATED
        for holds in (True, False)
    ]
    return [quarters(episodes, steps), *split]
