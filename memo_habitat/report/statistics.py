"""Means with intervals that resample trials, whose episodes depend on each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from memo_habitat.errors import UserError
from memo_habitat.evaluation.records import EpisodeRecord
from memo_habitat.tasks.record_fields import Kind, RecordField, inferred_field

LEVEL = 0.95
RESAMPLES = 10_000
# Resamples drawn at once: bounds memory at about 8 * CHUNK bytes per trial.
CHUNK = 2_000
# Draws of up to this many numbers are kept for the next estimate over as many trials.
KEPT = 2_000_000
# Every record has these.
_ALWAYS = ("success", "num_steps", "reward")
# Beside the measures: what the memory held at the episode's end.
_CONTEXT = ("context_tokens", "kv_bytes", "full_context_kv_bytes")

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
        columns: name -> float64 [E], measures and context; NaN where there is none.
        trial_names: name of every trial, by its number.
        fields: name -> what the measure is; of all measures.
    """

    trial: IntArray
    index: IntArray
    end: IntArray
    truncated: NDArray[np.bool_]
    columns: dict[str, FloatArray]
    trial_names: tuple[str, ...]
    fields: dict[str, RecordField]

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
            self.fields,
        )

    def measures(self, *kinds: Kind) -> list[RecordField]:
        """The measures of these kinds, in the order of their declaration."""
        return [field for field in self.fields.values() if field.kind in kinds]

    def finished(self) -> Episodes:
        """The episodes that the trial's end did not cut off."""
        return self.select(~self.truncated)


def tabulate(
    records: Iterable[EpisodeRecord], declared: Mapping[str, RecordField] | None = None
) -> Episodes:
    """Columns of the records, which are read one at a time and not kept.

    Args:
        records: the episodes.
        declared: what their measures are, by name; what is not declared is inferred.
    """
    names: dict[str, int] = {}
    places: list[tuple[int, int, int]] = []
    flags: list[bool] = []
    columns: dict[str, list[float]] = {name: [] for name in (*_ALWAYS, *_CONTEXT)}
    for record in records:
        trial = names.setdefault(record.trial_id, len(names))
        context = {name: getattr(record, name) for name in _CONTEXT}
        for name, value in {**record.measures, **context}.items():
            column = columns.setdefault(name, [])
            # An earlier episode may lack a measure that was added later.
            column.extend([np.nan] * (len(flags) - len(column)))
            column.append(np.nan if value is None else float(value))
        places.append((trial, record.episode_index, record.trial_step_end))
        flags.append(record.truncated)
    place = np.array(places, dtype=np.int64).reshape(-1, 3)
    known = dict(declared or {})
    # In the order of the declaration, which comes from the task's config.
    ordered = [name for name in dict.fromkeys([*known, *columns]) if name in columns]
    return Episodes(
        place[:, 0],
        place[:, 1],
        place[:, 2],
        np.array(flags, dtype=bool),
        {name: _padded(columns[name], len(flags)) for name in ordered},
        tuple(names),
        {name: known.get(name) or inferred_field(name) for name in ordered if name not in _CONTEXT},
    )


def _padded(values: Sequence[float], size: int) -> FloatArray:
    column = np.full(size, np.nan)
    column[: len(values)] = values
    return column


def _sums(values: FloatArray, trials: IntArray) -> tuple[FloatArray, FloatArray]:
    """Sum and number of the values of every trial that has any, [G] each."""
    _, code = np.unique(trials, return_inverse=True)
    sums = np.bincount(code, weights=values).astype(np.float64)
    return sums, np.bincount(code).astype(np.float64)


def _percentile_interval(
    numerators: FloatArray, denominators: FloatArray, resamples: int, seed: int
) -> tuple[float, float]:
    """95 % interval of sum / sum, when trials [G] are drawn with replacement."""
    ratios = np.concatenate(
        [
            (drawn @ numerators) / (drawn @ denominators)
            for drawn in _resampled_counts(len(numerators), resamples, seed)
        ]
    )
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


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
    low, high = _percentile_interval(sums, counts, resamples, seed)
    return Estimate(mean, low, high, len(values), groups)


def ratio_with_interval(
    values: FloatArray,
    weights: FloatArray,
    trials: IntArray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Sum of the values over the sum of their weights, resampled as in `mean_with_interval`.

    Args:
        values: float [E], one per episode, such as its success.
        weights: float [E], what it took, such as its steps; above 0.
        trials: int [E], the episode's trial.
        resamples: how many draws of all trials.
        seed: of the draws.
    """
    if len(values) == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, 0)
    sums, _ = _sums(values, trials)
    took, _ = _sums(weights, trials)
    ratio = float(values.sum() / weights.sum())
    low, high = np.nan, np.nan
    if len(sums) > 1:
        low, high = _percentile_interval(sums, took, resamples, seed)
    return Estimate(ratio, low, high, len(values), len(sums))


def estimate(episodes: Episodes, metric: str, seed: int = 0) -> Estimate:
    """Mean of `metric` over the `episodes` that have it, with its interval."""
    values = episodes.columns[metric]
    known = ~np.isnan(values)
    is_rate = metric in episodes.fields and episodes.fields[metric].kind == "rate"
    bounds = (0.0, 1.0) if is_rate else None
    return mean_with_interval(values[known], episodes.trial[known], bounds=bounds, seed=seed)


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
