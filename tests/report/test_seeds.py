"""Means over seeds with Student's t, against hand-worked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from memo_habitat.report.seeds import difference, mean_curve, over_seeds

NAN = float("nan")
# 97.5 % quantiles of Student's t with 1 and 2 degrees of freedom, from a printed table.
T1, T2 = 12.7062, 4.3027


def test_interval_of_two_and_three_seeds_worked_by_hand() -> None:
    # 1 and 3: s = sqrt(2), s / sqrt(2) = 1. And 1, 2, 6: s = sqrt(7), s / sqrt(3) = 1.5275.
    two = over_seeds([1.0, 3.0])
    assert (two.mean, two.seeds) == (2.0, 2)
    assert (two.low, two.high) == pytest.approx((2 - T1, 2 + T1), abs=1e-3)
    three = over_seeds([1.0, 2.0, 6.0])
    assert (three.low, three.high) == pytest.approx((3 - 1.52753 * T2, 3 + 1.52753 * T2), abs=1e-3)


def test_one_seed_has_no_interval_and_none_no_mean() -> None:
    one = over_seeds([NAN, 4.0])
    assert (one.mean, one.seeds) == (4.0, 1) and np.isnan(one.low) and np.isnan(one.high)
    none = over_seeds([NAN])
    assert np.isnan(none.mean) and none.seeds == 0


def test_a_curve_is_the_mean_of_the_seeds_that_have_got_there() -> None:
    mean, low, high = mean_curve(np.array([[1.0, 2.0, NAN], [3.0, NAN, NAN]]))
    assert mean[:2].tolist() == [2.0, 2.0] and np.isnan(mean[2])
    assert high[0] - low[0] == pytest.approx(2 * T1, abs=1e-3)
    assert np.isnan(low[1:]).all() and np.isnan(high[1:]).all()


def test_common_seeds_are_compared_one_by_one() -> None:
    # Differences 1, 1.5 and 2, however much the seeds themselves differ; seed 9 is left out.
    found = difference({0: 11.0, 1: 101.5, 2: 7.0, 9: 0.0}, {0: 10.0, 1: 100.0, 2: 5.0})
    half = 0.5 / np.sqrt(3) * T2
    assert found.paired and found.found.seeds == 3
    assert (found.found.mean, found.found.low) == pytest.approx((1.5, 1.5 - half), abs=1e-3)


def test_other_seeds_are_compared_by_their_means() -> None:
    # Both variances 2 and two seeds each: standard error sqrt(2), and Welch's 2 degrees of freedom.
    found = difference({0: 5.0, 1: 7.0}, {2: 1.0, 3: 3.0})
    assert not found.paired
    assert (found.found.mean, found.found.high) == pytest.approx((4.0, 4 + T2 * 2**0.5), abs=1e-3)


def test_a_difference_to_a_single_seed_has_no_interval() -> None:
    found = difference({0: 5.0, 1: 7.0}, {0: 1.0}).found
    assert (found.mean, found.seeds) == (5.0, 1) and np.isnan(found.low)
    assert np.isnan(difference({}, {0: 1.0}).found.mean)


def test_other_seeds_agree_with_scipy_at_unequal_numbers() -> None:
    first, second = [5.0, 7.0, 6.5, 9.0], [1.0, 3.5, -2.0]
    found = difference(dict(enumerate(first)), dict(enumerate(second, start=10))).found
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.filterwarnings("error")
def test_seeds_that_are_all_alike_have_no_interval() -> None:
    alike = over_seeds([0.1, 0.1, 0.1])
    assert (alike.mean, alike.seeds) == (pytest.approx(0.1), 3) and np.isnan(alike.low)
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
