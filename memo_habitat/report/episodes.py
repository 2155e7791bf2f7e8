"""The episodes of an evaluation as columns, and what its trials come to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.report.statistics import (
    Estimate,
    FloatArray,
    IntArray,
    difference_with_interval,
    mean_with_interval,
    ratio_with_interval,
)
from memo_habitat.tasks.record_fields import PATH_LENGTH, Kind, RecordField, inferred_field

# Houses from which on intervals speak of other houses. Of fewer, resampling them covers too little
# (92.6 % of the time with six, 77 % with three).
FEWEST_HOUSES = 8
# First targets of a trial apart from those that it asks for again.
REPEATED = RecordField(
    "condition",
    "repeated_target",
    title="Target asked for before",
    text="Whether an earlier episode of the trial asked for the same category, found or not.",
)
# Every record has these.
_ALWAYS = ("success", "num_steps", "reward")
# Beside the measures: what the memory held at the episode's end.
CONTEXT = ("context_tokens", "kv_bytes", "full_context_kv_bytes")


@dataclass(frozen=True)
class Episodes:
    """Columns over E episodes, what statistics need of their records."""

    trial: IntArray  # int64 [E], number of the episode's trial
    index: IntArray  # int64 [E], number of the episode in its trial, from 0
    end: IntArray  # int64 [E], step of the trial at which it ended
    truncated: NDArray[np.bool_]  # bool [E], cut off by the trial's end
    # Name -> float64 [E], measures and context; NaN where there is none.
    columns: dict[str, FloatArray]
    trial_names: tuple[str, ...]  # name of every trial, by its number
    fields: dict[str, RecordField]  # name -> what the measure is; of all measures
    category: IntArray  # int64 [E], number of the target's category
    category_names: tuple[str, ...]  # name of every category, by its number

    def __len__(self) -> int:
        return len(self.trial)

    @cached_property
    def houses(self) -> IntArray:
        """Number of the house of each trial, int64 [T]."""
        names = [name.rsplit("/", 2)[0] for name in self.trial_names]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)

    @property
    def resampled(self) -> str:
        """Over what intervals are: "houses", or "trials" where there are too few houses.

        Trials of one house share rooms and furniture: an interval over them tells nothing of how
        another house would differ. Fewer than `FEWEST_HOUSES` cannot tell that either.
        """
        return "houses" if len(np.unique(self.houses)) >= FEWEST_HOUSES else "trials"

    @property
    def trial_groups(self) -> IntArray:
        """Number of what is resampled, of each trial, int64 [T]."""
        return self.houses if self.resampled == "houses" else np.arange(len(self.trial_names))

    @property
    def groups(self) -> IntArray:
        """The same of each episode, int64 [E]."""
        return self.trial_groups[self.trial]

    def select(self, which: NDArray[np.bool_]) -> Episodes:
        """The episodes where `which` [E] holds."""
        return replace(
            self,
            trial=self.trial[which],
            index=self.index[which],
            end=self.end[which],
            truncated=self.truncated[which],
            category=self.category[which],
            columns={name: values[which] for name, values in self.columns.items()},
        )

    def finished(self) -> Episodes:
        """The episodes that the trial's end did not cut off."""
        return self.select(~self.truncated)

    def measures(self, *kinds: Kind) -> list[RecordField]:
        """The measures of these kinds, in the order of their declaration."""
        return [field for field in self.fields.values() if field.kind in kinds]


def tabulate(
    records: Iterable[EpisodeRecord], declared: Mapping[str, RecordField] | None = None
) -> Episodes:
    """Columns of the records, which are read one at a time and not kept.

    `declared` says what their measures are, by name; what is not declared is inferred.
    """
    names: dict[str, int] = {}
    categories: dict[str, int] = {}
    asked: set[tuple[int, int]] = set()
    places: list[tuple[int, int, int, bool, int, bool]] = []
    columns: dict[str, list[float]] = {name: [] for name in (*_ALWAYS, *CONTEXT)}
    for record in records:
        trial = names.setdefault(record.trial_id, len(names))
        category = categories.setdefault(record.target_category, len(categories))
        more = {name: getattr(record, name) for name in CONTEXT}
        if not record.grid_shape:  # where steps are the way
            more[PATH_LENGTH.name] = record.path_length
        for name, value in {**record.measures, **more}.items():
            column = columns.setdefault(name, [])
            # Earlier episodes may lack a measure that was added later.
            column.extend([np.nan] * (len(places) - len(column)))
            column.append(np.nan if value is None else float(value))
        place = (trial, record.episode_index, record.trial_step_end, record.truncated)
        places.append((*place, category, (trial, category) in asked))
        asked.add((trial, category))
    for column in columns.values():
        column.extend([np.nan] * (len(places) - len(column)))
    trial, index, end, truncated, category, again = (
        np.array(places, dtype=np.int64).reshape(-1, 6).T
    )
    known = dict(declared or {})
    if len(categories) > 1 and REPEATED.name not in columns:
        known[REPEATED.name], columns[REPEATED.name] = REPEATED, again.tolist()
    # In the order of the declaration, which comes from the task's config.
    ordered = [name for name in dict.fromkeys([*known, *columns]) if name in columns]
    return Episodes(
        trial,
        index,
        end,
        truncated.astype(bool),
        {name: np.array(columns[name], dtype=np.float64) for name in ordered},
        tuple(names),
        {name: known.get(name) or inferred_field(name) for name in ordered if name not in CONTEXT},
        category,
        tuple(categories),
    )


def estimate(episodes: Episodes, metric: str, groups: IntArray | None = None) -> Estimate:
    """Mean of `metric` over the `episodes` that have it, with its interval.

    That resamples `groups` [E], the episodes' own unless others are given.
    """
    values, groups = episodes.columns[metric], episodes.groups if groups is None else groups
    known = np.isfinite(values)
    shares = ("rate", "failure")
    is_share = metric in episodes.fields and episodes.fields[metric].kind in shares
    bounds = (0.0, 1.0) if is_share else None
    return mean_with_interval(values[known], groups[known], bounds=bounds)


# Whole trials -----------------------------------------------------------------------------------


def trial_returns(episodes: Episodes, name: str = "reward") -> dict[str, float]:
    """Sum over every trial by its name, cut-off episodes included, not discounted."""
    values = np.nan_to_num(episodes.columns[name])  # nothing from an episode that has no value
    sums = np.bincount(episodes.trial, weights=values, minlength=len(episodes.trial_names))
    return {episodes.trial_names[trial]: float(sums[trial]) for trial in np.unique(episodes.trial)}


def return_per_trial(episodes: Episodes, name: str = "reward", scale: float = 1.0) -> Estimate:
    """Mean over trials of `scale` times their return, all episodes included, with its interval.

    Without one where all trials have the same return: resampling them shows no spread.
    """
    found = trial_returns(episodes, name)
    groups = dict(zip(episodes.trial_names, episodes.trial_groups.tolist(), strict=True))
    drawn = np.array([groups[trial] for trial in found], dtype=np.int64)
    returns = scale * np.array(list(found.values()))
    estimate = mean_with_interval(returns, drawn, bounds=None)
    if len(returns) and np.ptp(returns) == 0:
        return replace(estimate, low=np.nan, high=np.nan)
    return estimate


def targets_per_1000_steps(episodes: Episodes, steps: float) -> Estimate:
    """Successes in 1,000 steps of a trial, over whole trials of `steps` steps, with its interval.

    Unlike the success rate it counts the steps: an agent that gives up at once and hopes for an
    easier start has many episodes and few successes among them, and this does not flatter it.
    """
    return return_per_trial(episodes, "success", 1000 / steps)


# Along the trial --------------------------------------------------------------------------------


class Bucket(NamedTuple):
    """An estimate over the episodes whose position lies in (low, high]."""

    low: float  # position before the bucket
    high: float  # last position of the bucket
    estimate: Estimate  # mean and interval


def by_episode_index(episodes: Episodes, metric: str, max_points: int = 20) -> list[Bucket]:
    """Mean of `metric` by the number of the episode in its trial.

    Numbers that fewer than half of the trials reach are left out: only trials with short
    episodes get that far, so they would not compare with the others. Numbers are joined in
    equal ranges when there would be more than `max_points`.
    """
    if len(episodes) == 0:
        return []
    trials = len(np.unique(episodes.trial))
    reached = np.bincount(episodes.index)
    last = int(np.flatnonzero(reached >= trials / 2).max(initial=0))
    width = -(-(last + 1) // max_points)
    edges = [*range(0, last + 1, width), last + 1]
    return _buckets(episodes, episodes.index + 1, edges, metric)


def by_trial_step(episodes: Episodes, metric: str, steps: int, buckets: int = 10) -> list[Bucket]:
    """Mean of `metric` over the episodes that ended in each equal part of a trial of `steps`."""
    edges = np.linspace(0, steps, buckets + 1).tolist()
    return _buckets(episodes, episodes.end, edges, metric)


def up_to_trial_step(episodes: Episodes, metric: str, steps: Sequence[int]) -> list[Bucket]:
    """Mean of `metric` over all episodes that ended by each of the given steps of the trial."""
    return [
        Bucket(0, step, estimate(episodes.select(episodes.end <= step), metric)) for step in steps
    ]


def _buckets(
    episodes: Episodes, position: IntArray, edges: Sequence[float], metric: str
) -> list[Bucket]:
    found = []
    for low, high in itertools.pairwise(edges):
        inside = episodes.select((position > low) & (position <= high))
        if len(inside):
            found.append(Bucket(low, high, estimate(inside, metric)))
    return found


def gain_within_trial(episodes: Episodes, metric: str, steps: int) -> Estimate:
    """Mean of `metric` in the trial's second half less that in its first, with its interval."""
    late = episodes.end > steps / 2
    return difference_with_interval(episodes.columns[metric], episodes.groups, late)


# Episode by episode -----------------------------------------------------------------------------


class EpisodeCourse(NamedTuple):
    """Means over the trials' first, second, ... episodes; K numbers."""

    length: FloatArray  # float64 [K], steps
    length_found: FloatArray  # float64 [K], steps of the successful ones; NaN without any
    reward: FloatArray  # float64 [K], sum of the episode's rewards
    success: FloatArray  # float64 [K], share


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


# Headline numbers -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """The episodes in which a condition held, or did not."""

    condition: RecordField  # its declaration
    holds: bool  # which of the two
    episodes: int  # how many were finished
    share: float  # their part of all episodes of which it is known, from 0 to 1
    targets: Estimate  # successes in 1,000 steps spent on such episodes
    estimates: dict[str, Estimate]  # name of the measure -> mean and interval over these episodes


@dataclass(frozen=True)
class Headline:
    """The headline numbers of one evaluation."""

    # Name of the measure -> mean and interval over the finished episodes.
    estimates: dict[str, Estimate]
    counting_cut: float  # success rate when cut-off episodes count as failures
    cut: int  # number of episodes that the trial's end cut off
    gain: Estimate  # success in the trial's second half less that in its first
    returns: dict[str, Estimate]  # name of a return -> its sum over a trial, mean over trials
    targets: Estimate  # successes in 1,000 steps of a trial
    splits: tuple[Split, ...]  # by condition, where one was recorded


def headline(everything: Episodes, steps: int) -> Headline:
    """The headline numbers of an evaluation: all its episodes, in trials of `steps` steps."""
    finished = everything.finished()
    return Headline(
        _estimates(finished),
        float(finished.columns["success"].sum()) / len(everything),
        len(everything) - len(finished),
        gain_within_trial(finished, "success", steps),
        {f.name: return_per_trial(everything, f.name) for f in everything.measures("return")},
        targets_per_1000_steps(everything, steps),
        tuple(
            _split(everything, condition, holds)
            for condition in everything.measures("condition")
            for holds in (True, False)
        ),
    )


def _estimates(finished: Episodes) -> dict[str, Estimate]:
    fields = finished.measures("rate", "length", "count", "quantity", "failure")
    return {field.name: estimate(finished, field.name) for field in fields}


def _split(everything: Episodes, condition: RecordField, holds: bool) -> Split:
    values = everything.columns[condition.name]
    known = int((~np.isnan(values)).sum())
    own = everything.select(values == float(holds))
    successes, steps = own.columns["success"], own.columns["num_steps"]
    return Split(
        condition,
        holds,
        len(own.finished()),
        len(own) / known if known else np.nan,
        ratio_with_interval(1000 * successes, steps, own.groups),
        _estimates(own.finished()),
    )
