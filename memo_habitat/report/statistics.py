"""Means with intervals that resample trials, whose episodes depend on each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from memo_habitat.errors import UserError
from memo_habitat.evaluation.records import EpisodeRecord

LEVEL = 0.95
RESAMPLES = 10_000
# Resamples drawn at once: bounds memory at about 8 * CHUNK bytes per trial.
CHUNK = 2_000
# Draws of up to this many numbers are kept for the next estimate over as many trials.
KEPT = 2_000_000
METRICS = ("success", "spl", "soft_spl")

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes and its interval.

    Attributes:
        mean: mean over all episodes; NaN without any.
        low: lower end of the interval; NaN with fewer than two trials.
        high: upper end.
        episodes: how many episodes.
        trials: how many trials they come from.
    """

    mean: float
    low: float
    high: float
    episodes: int
    trials: int


@dataclass(frozen=True)
class Bucket:
    """An estimate over the episodes whose position lies in (low, high].

    Attributes:
        low: position before the bucket.
        high: last position of the bucket.
        estimate: mean and interval.
    """

    low: float
    high: float
    estimate: Estimate


@dataclass(frozen=True)
class Episodes:
    """Columns over E episodes, what statistics need of their records.

    Attributes:
        trial: int64 [E], number of the episode's trial.
        index: int64 [E], number of the episode in its trial, from 0.
        end: int64 [E], step of the trial at which it ended.
        truncated: bool [E], cut off by the trial's end.
        columns: name -> float64 [E], the measures; NaN where there is none.
        trial_names: name of every trial, by its number.
    """

    trial: IntArray
    index: IntArray
    end: IntArray
    truncated: NDArray[np.bool_]
    columns: dict[str, FloatArray]
    trial_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.trial)

    def select(self, which: NDArray[np.bool_]) -> Episodes:
        """The episodes where `which` [E] holds."""
        columns = {name: values[which] for name, values in self.columns.items()}
        return Episodes(
            self.trial[which],
            self.index[which],
            self.end[which],
            self.truncated[which],
            columns,
            self.trial_names,
        )

    def finished(self) -> Episodes:
        """The episodes that the trial's end did not cut off."""
        return self.select(~self.truncated)


_COLUMNS = (
    *METRICS,
    "distance_to_goal",
    "num_steps",
    "collisions",
    "reward",
    "start_distance",
    "path_length",
    "context_tokens",
    "kv_bytes",
    "full_context_kv_bytes",
)


def tabulate(records: Iterable[EpisodeRecord]) -> Episodes:
    """Columns of the records, which are read one at a time and not kept."""
    names: dict[str, int] = {}
    places: list[tuple[int, int, int]] = []
    flags: list[bool] = []
    rows: list[list[float]] = []
    for record in records:
        trial = names.setdefault(record.trial_id, len(names))
        places.append((trial, record.episode_index, record.trial_step_end))
        flags.append(record.truncated)
        values = (getattr(record, name) for name in _COLUMNS)
        rows.append([np.nan if value is None else float(value) for value in values])
    place = np.array(places, dtype=np.int64).reshape(-1, 3)
    table = np.array(rows, dtype=np.float64).reshape(-1, len(_COLUMNS))
    return Episodes(
        place[:, 0],
        place[:, 1],
        place[:, 2],
        np.array(flags, dtype=bool),
        {name: table[:, column] for column, name in enumerate(_COLUMNS)},
        tuple(names),
    )


def _sums(values: FloatArray, trials: IntArray) -> tuple[FloatArray, FloatArray]:
    """Sum and number of the values of every trial that has any, [G] each."""
    _, code = np.unique(trials, return_inverse=True)
    sums = np.bincount(code, weights=values).astype(np.float64)
    return sums, np.bincount(code).astype(np.float64)


@lru_cache(maxsize=8)
def _kept_counts(trials: int, resamples: int, seed: int) -> FloatArray:
    """As `_resampled_counts`, kept: a report asks for the same draws some hundred times."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(trials, np.full(trials, 1 / trials), size=resamples)
    return drawn.astype(np.float64)


def _resampled_counts(trials: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each trial is drawn, [R, G], in chunks of R."""
    if trials * resamples <= KEPT:
        yield _kept_counts(trials, resamples, seed)
        return
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        yield rng.multinomial(trials, np.full(trials, 1 / trials), size=size).astype(np.float64)


def mean_with_interval(
    values: FloatArray,
    trials: IntArray,
    *,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean over episodes with a 95 % percentile interval of the cluster bootstrap over trials.

    Whole trials are drawn with replacement (Davison & Hinkley, Bootstrap Methods, 1997, 3.8) and
    the mean over their episodes is taken. Where every episode has the same extreme value (no
    success at all, say), resampling shows no spread; the open end is then the exact binomial
    bound (Clopper & Pearson 1934) with every trial counted as one draw.

    Args:
        values: float [E], one per episode.
        trials: int [E], the episode's trial.
        bounds: smallest and largest value possible; None if there are none.
        resamples: how many draws of all trials.
        seed: of the draws.
    """
    if len(values) != len(trials):
        raise UserError(f"{len(values)} values for {len(trials)} trial numbers; give one each")
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, 0)
    sums, counts = _sums(values, trials)
    mean, groups = float(values.mean()), len(sums)
    if groups < 2:
        return Estimate(mean, np.nan, np.nan, len(values), groups)
    if bounds is not None and np.all(values == values[0]) and values[0] in bounds:
        slack = (1 - (1 - LEVEL) ** (1 / groups)) * (bounds[1] - bounds[0])
        low, high = (mean, mean + slack) if mean == bounds[0] else (mean - slack, mean)
        return Estimate(mean, low, high, len(values), groups)
    means = np.concatenate(
        [(drawn @ sums) / (drawn @ counts) for drawn in _resampled_counts(groups, resamples, seed)]
    )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean, float(low), float(high), len(values), groups)


def estimate(episodes: Episodes, metric: str, seed: int = 0) -> Estimate:
    """Mean of `metric` over `episodes` with its interval."""
    bounds = (0.0, 1.0) if metric in METRICS else None
    return mean_with_interval(episodes.columns[metric], episodes.trial, bounds=bounds, seed=seed)


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
    """Mean of `metric` over the episodes that ended in each of `buckets` equal parts of the trial.

    Args:
        episodes: the episodes.
        metric: name of a column.
        steps: length of the trial.
        buckets: number of parts.
    """
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


def gain_within_trial(
    episodes: Episodes,
    metric: str,
    steps: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean of `metric` in the trial's second half less that in its first, with its interval.

    Both halves come from the same resampled trials, so differences between houses cancel. Trials
    without a finished episode in both halves are left out.
    """
    late = episodes.end > steps / 2
    both = np.intersect1d(episodes.trial[late], episodes.trial[~late])
    kept = np.isin(episodes.trial, both)
    if len(both) == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, 0)
    values, trials, late = episodes.columns[metric][kept], episodes.trial[kept], late[kept]
    first_sums, first_counts = _sums(values[~late], trials[~late])
    last_sums, last_counts = _sums(values[late], trials[late])
    difference = float(values[late].mean() - values[~late].mean())
    if len(both) < 2:
        return Estimate(difference, np.nan, np.nan, len(values), len(both))
    drawn_differences = np.concatenate(
        [
            (drawn @ last_sums) / (drawn @ last_counts)
            - (drawn @ first_sums) / (drawn @ first_counts)
            for drawn in _resampled_counts(len(both), resamples, seed)
        ]
    )
    low, high = np.quantile(drawn_differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(difference, float(low), float(high), len(values), len(both))
