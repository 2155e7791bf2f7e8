"""An evaluation by category, by house and along the trial in doubling parts; pairs of agents."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memo_habitat.report.along_trial import targets_between
from memo_habitat.report.comparison import Paired, holm, paired
from memo_habitat.report.episodes import Episodes, estimate, trial_returns
from memo_habitat.report.load import Evaluation
from memo_habitat.report.statistics import (
    Estimate,
    FloatArray,
    IntArray,
    mean_with_interval,
    ratio_with_interval,
)

# Steps of the trial at which the first of the doubling parts ends, in long trials.
_FIRST_MARK = 1000
# Measures of an episode that parts are told by, where they were recorded.
MEASURES = ("success", "spl", "soft_spl", "num_steps", "path_length")


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
    found = {}
    for name in MEASURES:
        if name in finished.columns:
            values = finished.columns[name]
            known = np.isfinite(values)
            bounds = (0.0, 1.0) if finished.fields[name].kind == "rate" else None
            found[name] = mean_with_interval(values[known], groups[known], bounds=bounds)
    return found


# Without a value --------------------------------------------------------------------------------


def without_value(episodes: Episodes) -> dict[str, tuple[int, int]]:
    """Measures that are no number in some finished episodes: title -> (how many, of how many)."""
    finished = episodes.finished()
    found = {}
    for name, field in finished.fields.items():
        missing = int((~np.isfinite(finished.columns[name])).sum())
        if missing:
            found[field.title] = missing, len(finished)
    return found


# Pairs of agents --------------------------------------------------------------------------------


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
