"""Intervals over trials and over seeds: hand-worked numbers, and coverage on synthetic data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from memo_habitat.errors import UserError
from memo_habitat.report.statistics import (
    difference,
    mean_curve,
    mean_with_interval,
    over_seeds,
    ratio_with_interval,
)
from tests.factories.episodes import clustered

NAN = float("nan")
# 97.5 % quantiles of Student's t with 1 and 2 degrees of freedom, from a printed table.
T1, T2 = 12.7062, 4.3027


def test_mean_is_over_episodes_not_over_trials() -> None:
    # Trial 0: 1 of 1; trial 1: 0 of 3. Over episodes 1/4, over trials it would be 1/2.
    found = mean_with_interval(np.array([1.0, 0, 0, 0]), np.array([0, 1, 1, 1]))
    assert found.mean == 0.25
    assert (found.values, found.groups) == (4, 2)


def test_interval_of_two_trials_worked_by_hand() -> None:
    # Two trials of one episode each, 0 and 1: the resampled means are 0, 1/2, 1/2, 1.
    found = mean_with_interval(np.array([0.0, 1.0]), np.array([5, 9]))
    assert (found.low, found.mean, found.high) == (0.0, 0.5, 1.0)


def test_more_episodes_of_the_same_trials_do_not_narrow_the_interval() -> None:
    values, trials = np.array([0.0, 1, 1, 0, 1]), np.arange(5)
    once = mean_with_interval(values, trials)
    repeated = mean_with_interval(np.repeat(values, 50), np.repeat(trials, 50))
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))


def test_an_interval_is_the_same_again_and_trial_numbers_do_not_matter() -> None:
    values, trials = clustered(np.random.default_rng(0), 12, 9, 0.4)
    assert mean_with_interval(values, trials) == mean_with_interval(values, trials * 7 + 3)


def test_one_trial_has_no_interval() -> None:
    found = mean_with_interval(np.array([1.0, 0.0]), np.array([0, 0]))
    assert found.mean == 0.5
    assert np.isnan(found.low) and np.isnan(found.high)


def test_nothing_gives_no_number() -> None:
    found = mean_with_interval(np.array([]), np.array([], dtype=int))
    assert np.isnan(found.mean) and found.values == 0


def test_no_success_at_all_is_bounded_by_the_binomial_over_trials() -> None:
    found = mean_with_interval(np.zeros(300), np.repeat(np.arange(30), 10))
    assert (found.mean, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.05 ** (1 / 30))
    full = mean_with_interval(np.ones(300), np.repeat(np.arange(30), 10))
    assert (full.high, full.low) == (1.0, pytest.approx(0.05 ** (1 / 30)))


def test_values_and_trials_of_different_length_are_refused() -> None:
    with pytest.raises(UserError, match="2 values for 1"):
        mean_with_interval(np.zeros(2), np.zeros(1, dtype=int))


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    trials_per_study, studies, hits, naive_hits = 40, 250, 0, 0
    for _ in range(studies):
        values, trials = clustered(rng, trials_per_study, 20, 0.45)
        found = mean_with_interval(values, trials, resamples=1000)
        hits += found.low <= 0.5 <= found.high
        half = 1.96 * values.std() / np.sqrt(len(values))
        naive_hits += abs(values.mean() - 0.5) <= half
    assert 0.90 <= hits / studies <= 0.98
    # Taking episodes for independent is the mistake that this is here to avoid.
    assert naive_hits / studies < 0.85


def test_a_ratio_weighs_episodes_by_what_they_took() -> None:
    # Trial 0: 1 success in 2 + 8 steps; trial 1: 1 in 10. Two of 20; either trial alone, 1 of 10.
    values, steps = np.array([1.0, 0.0, 1.0]), np.array([2.0, 8.0, 10.0])
    found = ratio_with_interval(values, steps, np.array([0, 0, 1]))
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)
    assert (found.values, found.groups) == (3, 2)
    assert np.isnan(ratio_with_interval(values[:0], steps[:0], np.array([], dtype=int)).mean)


def test_interval_of_two_and_three_seeds_worked_by_hand() -> None:
    # 1 and 3: s = sqrt(2), s / sqrt(2) = 1. And 1, 2, 6: s = sqrt(7), s / sqrt(3) = 1.5275.
    two = over_seeds([1.0, 3.0])
    assert (two.mean, two.groups) == (2.0, 2)
    assert (two.low, two.high) == pytest.approx((2 - T1, 2 + T1), abs=1e-3)
    three = over_seeds([1.0, 2.0, 6.0])
    assert (three.low, three.high) == pytest.approx((3 - 1.52753 * T2, 3 + 1.52753 * T2), abs=1e-3)


def test_one_seed_has_no_interval_and_none_no_mean() -> None:
    one = over_seeds([NAN, 4.0])
    assert (one.mean, one.groups) == (4.0, 1) and np.isnan(one.low) and np.isnan(one.high)
    none = over_seeds([NAN])
    assert np.isnan(none.mean) and none.groups == 0


def test_a_curve_is_the_mean_of_the_seeds_that_have_got_there() -> None:
    mean, low, high = mean_curve(np.array([[1.0, 2.0, NAN], [3.0, NAN, NAN]]))
    assert mean[:2].tolist() == [2.0, 2.0] and np.isnan(mean[2])
    assert high[0] - low[0] == pytest.approx(2 * T1, abs=1e-3)
    assert np.isnan(low[1:]).all() and np.isnan(high[1:]).all()


def test_common_seeds_are_compared_one_by_one() -> None:
    # Differences 1, 1.5 and 2, however much the seeds themselves differ; seed 9 is left out.
    found = difference({0: 11.0, 1: 101.5, 2: 7.0, 9: 0.0}, {0: 10.0, 1: 100.0, 2: 5.0})
    half = 0.5 / np.sqrt(3) * T2
    assert found.paired and found.found.groups == 3
    assert (found.found.mean, found.found.low) == pytest.approx((1.5, 1.5 - half), abs=1e-3)


def test_other_seeds_are_compared_by_their_means() -> None:
    # Both variances 2 and two seeds each: standard error sqrt(2), and Welch's 2 degrees of freedom.
    found = difference({0: 5.0, 1: 7.0}, {2: 1.0, 3: 3.0})
    assert not found.paired
    assert (found.found.mean, found.found.high) == pytest.approx((4.0, 4 + T2 * 2**0.5), abs=1e-3)


def test_a_difference_to_a_single_seed_has_no_interval() -> None:
    found = difference({0: 5.0, 1: 7.0}, {0: 1.0}).found
    assert (found.mean, found.groups) == (5.0, 1) and np.isnan(found.low)
    assert np.isnan(difference({}, {0: 1.0}).found.mean)


def test_other_seeds_agree_with_scipy_at_unequal_numbers() -> None:
    first, second = [5.0, 7.0, 6.5, 9.0], [1.0, 3.5, -2.0]
    found = difference(dict(enumerate(first)), dict(enumerate(second, start=10))).found
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.filterwarnings("error")
def test_seeds_that_are_all_alike_have_no_interval() -> None:
    alike = over_seeds([0.1, 0.1, 0.1])
    assert (alike.mean, alike.groups) == (pytest.approx(0.1), 3) and np.isnan(alike.low)
    # The differences 1.1 - 1 and 2.1 - 2 are equal up to rounding.
    paired = difference({0: 1.1, 1: 2.1}, {0: 1.0, 1: 2.0})
    assert paired.paired and np.isnan([paired.found.low, paired.found.high]).all()
    other = difference({0: 0.1, 1: 0.1, 2: 0.1}, {7: 3.0, 8: 3.0}).found
    assert other.mean == pytest.approx(-2.9) and np.isnan([other.low, other.high]).all()
    _, low, high = mean_curve(np.array([[0.0, 1.0], [0.0, 3.0]]))
    assert np.isnan([low[0], high[0]]).all() and not np.isnan([low[1], high[1]]).any()


@pytest.mark.filterwarnings("error")
def test_alike_seeds_beside_others_leave_the_others_spread() -> None:
    # 1 and 3 alone: standard error 1 and 1 degree of freedom.
    found = difference({0: 5.0, 1: 5.0}, {2: 1.0, 3: 3.0}).found
    assert (found.low, found.high) == pytest.approx((3 - T1, 3 + T1), abs=1e-3)
