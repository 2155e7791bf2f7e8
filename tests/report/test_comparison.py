"""Comparisons against SciPy and by hand; intervals over houses cover what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from memo_habitat.report.comparison import (
    holm,
    improvement,
    iqm_with_interval,
    paired,
    sign_flip,
)
from memo_habitat.report.statistics import ratio_with_interval

NAN = float("nan")


@pytest.mark.parametrize("groups", [2, 5, 8])
def test_the_sign_flip_test_is_scipys_permutation_test(groups: int) -> None:
    sums = np.random.default_rng(groups).normal(0.6, 1.0, groups)
    other = stats.permutation_test(
        (sums,), np.sum, permutation_type="samples", alternative="two-sided", n_resamples=np.inf
    )
    assert sign_flip(sums) == pytest.approx(min(1.0, other.pvalue))


def test_many_groups_are_drawn_and_agree_with_the_t_test() -> None:
    sums = np.random.default_rng(1).normal(0.25, 1.0, 60)
    assert sign_flip(sums) == pytest.approx(stats.ttest_1samp(sums, 0).pvalue, abs=0.01)
    assert sign_flip(np.full(20, 1.0)) == pytest.approx(1 / 10_001)  # never 0


def test_pairs_are_compared_trial_by_trial_and_what_is_no_number_is_listed() -> None:
    ours = {"a": 3.0, "b": 5.0, "c": NAN, "d": 9.0, "e": math.inf}
    theirs = {"a": 1.0, "b": 2.0, "c": 0.0, "e": 1.0, "f": 7.0}
    found = paired(ours, theirs, dict(zip("abcdef", range(6), strict=True)))
    assert found.left_out == ("c", "e")
    assert (found.difference.mean, found.difference.values, found.difference.groups) == (2.5, 2, 2)
    assert found.p == 0.5  # of four choices of signs, two are as far from 0
    nothing = paired({"a": NAN}, {"a": 1.0}, {"a": 0})
    assert math.isnan(nothing.difference.mean) and math.isnan(nothing.p)


def test_trials_of_one_house_count_as_one() -> None:
    names = [f"t{i}" for i in range(12)]
    ours = {name: 1.0 + 0.1 * i for i, name in enumerate(names)}
    theirs = dict.fromkeys(names, 0.0)
    alone = paired(ours, theirs, {name: i for i, name in enumerate(names)})
    housed = paired(ours, theirs, {name: i // 4 for i, name in enumerate(names)})
    assert alone.p == 2 / 2**12 and housed.p == 2 / 2**3


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, NAN, 0.4])[0::2] == pytest.approx([0.9, 0.8])
    assert math.isnan(holm([NAN])[0]) and holm([]) == []


def test_the_interquartile_mean_is_scipys_trimmed_mean() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 11))
    found = iqm_with_interval(scores)
    assert found.mean == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))
    assert found.low < found.mean < found.high
    assert math.isnan(iqm_with_interval(scores[:1]).low)


def test_the_probability_of_improvement_is_the_mean_mann_whitney_share() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = (
        rng.integers(0, 5, (4, 6)).astype(float),
        rng.integers(0, 4, (3, 6)).astype(float),
    )
    shares = [stats.mannwhitneyu(ours[:, k], theirs[:, k]).statistic / (4 * 3) for k in range(6)]
    found = improvement(ours, theirs)
    assert found.mean == pytest.approx(np.mean(shares))
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert improvement(ours, ours).mean == 0.5
    assert improvement(theirs + 9, ours).mean == 1.0
    assert math.isnan(improvement(ours * NAN, theirs).mean)


def test_rliable_gives_the_same_numbers() -> None:
    """Where it is installed; elsewhere they are compared with scipy above, and counted below."""
    metrics = pytest.importorskip("rliable.metrics", reason="pip install rliable")
    rng = np.random.default_rng(7)
    for seeds, houses in ((2, 1), (3, 8), (4, 7), (10, 26)):
        ours, theirs = rng.normal(size=(seeds, houses)), rng.normal(size=(seeds + 1, houses))
        for x, y in ((ours, theirs), (ours.round(), theirs.round())):  # with ties, too
            assert iqm_with_interval(x).mean == pytest.approx(metrics.aggregate_iqm(x), abs=1e-12)
            known = metrics.probability_of_improvement(x, y)
            assert improvement(x, y).mean == pytest.approx(known, abs=1e-12)


def test_pairs_and_middle_half_counted_one_by_one() -> None:
    """The slow way, as the paper words it."""
    rng = np.random.default_rng(11)
    ours, theirs = (
        rng.integers(0, 6, (4, 5)).astype(float),
        rng.integers(0, 6, (3, 5)).astype(float),
    )
    wins = [
        1.0 if x > y else 0.5 if x == y else 0.0
        for house in range(5)
        for x in ours[:, house]
        for y in theirs[:, house]
    ]
    assert improvement(ours, theirs).mean == pytest.approx(sum(wins) / len(wins))
    middle = sorted(ours.ravel().tolist())[5:15]  # of twenty, without the lowest and highest five
    assert iqm_with_interval(ours).mean == pytest.approx(sum(middle) / 10)


def simulated_hits(houses: int, of_house: float, of_trial: float, studies: int = 400) -> float:
    """How often intervals of a success rate cover the true one.

    The probit of a trial's rate has a part of its house and one of its own; episodes of a trial
    share both, and trials have different numbers of episodes.
    """
    rng = np.random.default_rng(houses)
    true = stats.norm.cdf(-0.5 / np.sqrt(1 + of_house**2 + of_trial**2))
    groups = np.repeat(np.arange(houses), 3)
    hits = 0
    for _ in range(studies):
        shift = of_house * rng.normal(size=houses)[groups] + of_trial * rng.normal(size=len(groups))
        episodes = rng.integers(15, 60, len(groups))
        found_in = rng.binomial(episodes, stats.norm.cdf(-0.5 + shift))
        found = ratio_with_interval(
            found_in.astype(float), episodes.astype(float), groups, resamples=2000
        )
        hits += found.low <= true <= found.high
    return hits / studies


@pytest.mark.parametrize("houses", [8, 20])
@pytest.mark.parametrize(("of_house", "of_trial"), [(1.0, 0.5), (0.0, 1.0), (0.3, 0.0)])
def test_intervals_over_houses_cover_about_as_often_as_they_say(
    houses: int, of_house: float, of_trial: float
) -> None:
    # Whether houses differ, trials, or neither; of 400 studies a share of 95 % is within 93 to 97
    # but for chance, of which 1 % is left here.
    assert 0.92 <= simulated_hits(houses, of_house, of_trial) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("houses", [8, 10, 40])
@pytest.mark.parametrize(("of_house", "of_trial"), [(1.0, 0.5), (0.0, 1.0), (0.3, 0.0)])
def test_coverage_of_many_studies(houses: int, of_house: float, of_trial: float) -> None:
    assert 0.93 <= simulated_hits(houses, of_house, of_trial, studies=4000) <= 0.97
