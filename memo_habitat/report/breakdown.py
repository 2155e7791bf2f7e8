"""Parts of an evaluation: along the trial, in its first and last quarter, by category, by house."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memo_habitat.report.episodes import REPEATED, Bucket, Episodes, estimate
from memo_habitat.report.statistics import (
    Estimate,
    FloatArray,
    IntArray,
    mean_with_interval,
    rate_ratio_with_interval,
    ratio_with_interval,
)
from memo_habitat.tasks.record_fields import RecordField

# Equal parts that a trial is told in, at least and at most.
_FEWEST, _MOST = 8, 16
# Steps of a part at least, where the fewest allow it: in shorter ones too few episodes end.
_SHORTEST = 128
# Steps of the trial at which the first of the doubling parts ends, in long trials.
_FIRST_MARK = 1000
# Measures of an episode that parts are told by, where they were recorded.
MEASURES = ("success", "spl", "soft_spl", "num_steps", "path_length")


# Along the trial --------------------------------------------------------------------------------


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
            found = targets_of_trials(episodes, low, high)[through] * 1000 / (high - low)
            over_houses = mean_with_interval(found, houses[through], bounds=None)
            buckets.append(Bucket(low, high, over_houses))
    return buckets


def targets_of_trials(episodes: Episodes, low: float, high: float) -> FloatArray:
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
    def key(self) -> str:
        """Which episodes these are, for programs: "all", or such as "seen_earlier=true"."""
        return "all" if self.condition is None else f"{self.condition.name}={self.holds}".lower()

    @property
    def title(self) -> str:
        """Which episodes these are, for readers."""
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


# By what they have in common ---------------------------------------------------------------------


class Part(NamedTuple):
    """Some episodes of an evaluation."""

    label: str  # which ones
    episodes: int  # how many were finished
    targets: Estimate  # found per 1,000 steps spent on them
    estimates: dict[str, Estimate]  # by measure, over the finished ones


def by_category(episodes: Episodes) -> list[Part]:
    """The episodes of each target category; intervals over houses or trials."""
    return [
        _part(name, episodes.select(episodes.category == number), resample_trials=False)
        for number, name in sorted(enumerate(episodes.category_names), key=lambda pair: pair[1])
    ]


def by_house(episodes: Episodes) -> list[Part]:
    """The episodes of each house; intervals over its trials."""
    names = [name.rsplit("/", 2)[0] for name in episodes.trial_names]
    of_episode = episodes.houses[episodes.trial]
    return [
        _part(name, episodes.select(of_episode == number), resample_trials=True)
        for number, name in enumerate(sorted(set(names)))
        if (of_episode == number).any()
    ]


def marks_of_trial(steps: int) -> list[int]:
    """Ends of parts that double from 1,000 steps on, or from an eighth of a shorter trial."""
    first = _FIRST_MARK if steps >= 4 * _FIRST_MARK else max(1, steps // 8)
    doubling = itertools.takewhile(
        lambda mark: 1.5 * mark <= steps, (first * 2**power for power in itertools.count())
    )
    return [*doubling, steps]


def by_trial_step(episodes: Episodes, steps: int) -> list[Part]:
    """The episodes that ended in each of the doubling parts of a trial of `steps` steps."""
    edges = [0, *marks_of_trial(steps)]
    found = {bucket.high: bucket.estimate for bucket in targets_between(episodes, edges)}
    parts = []
    for low, high in itertools.pairwise(edges):
        inside = episodes.select((episodes.end > low) & (episodes.end <= high)).finished()
        if high in found:
            label = f"{low + 1:,}–{high:,}"
            parts.append(Part(label, len(inside), found[high], _estimates(inside, inside.groups)))
    return parts


def _part(label: str, own: Episodes, resample_trials: bool) -> Part:
    groups = own.trial if resample_trials else own.groups
    found = ratio_with_interval(1000 * own.columns["success"], own.columns["num_steps"], groups)
    finished = own.finished()
    of_finished = finished.trial if resample_trials else finished.groups
    return Part(label, len(finished), found, _estimates(finished, of_finished))


def _estimates(finished: Episodes, groups: IntArray) -> dict[str, Estimate]:
    known = (name for name in MEASURES if name in finished.columns)
    return {name: estimate(finished, name, groups) for name in known}


def without_value(episodes: Episodes) -> dict[str, tuple[int, int]]:
    """Measures that are no number in some finished episodes: title -> (how many, of how many)."""
    finished = episodes.finished()
    found = {}
    for name, field in finished.fields.items():
        missing = int((~np.isfinite(finished.columns[name])).sum())
        if missing:
            found[field.title] = missing, len(finished)
    return found
