"""Intervals resample trials: hand-worked numbers, and coverage on synthetic data."""

from __future__ import annotations

import numpy as np
import pytest

from memo_habitat.errors import UserError
from memo_habitat.report.statistics import (
    by_episode_index,
    by_trial_step,
    estimate,
    gain_within_trial,
    mean_with_interval,
    tabulate,
    up_to_trial_step,
)
from memo_habitat.testing.episodes import clustered, episode


def test_mean_is_over_episodes_not_over_trials() -> None:
    # Trial 0: 1 of 1; trial 1: 0 of 3. Over episodes 1/4, over trials it would be 1/2.
    found = mean_with_interval(np.array([1.0, 0, 0, 0]), np.array([0, 1, 1, 1]))
    assert found.mean == 0.25
    assert (found.episodes, found.trials) == (4, 2)


def test_interval_of_two_trials_worked_by_hand() -> None:
    # Two trials of one episode each, 0 and 1: the resampled means are 0, 1/2, 1/2, 1.
    found = mean_with_interval(np.array([0.0, 1.0]), np.array([5, 9]))
    assert (found.low, found.mean, found.high) == (0.0, 0.5, 1.0)


def test_more_episodes_of_the_same_trials_do_not_narrow_the_interval() -> None:
    values, trials = np.array([0.0, 1, 1, 0, 1]), np.arange(5)
    once = mean_with_interval(values, trials)
    repeated = mean_with_interval(np.repeat(values, 50), np.repeat(trials, 50))
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))


def test_the_same_seed_gives_the_same_interval_and_trial_numbers_do_not_matter() -> None:
    values, trials = clustered(np.random.default_rng(0), 12, 9, 0.4)
    assert mean_with_interval(values, trials) == mean_with_interval(values, trials * 7 + 3)


def test_one_trial_has_no_interval() -> None:
    found = mean_with_interval(np.array([1.0, 0.0]), np.array([0, 0]))
    assert found.mean == 0.5
    assert np.isnan(found.low) and np.isnan(found.high)


def test_nothing_gives_no_number() -> None:
    found = mean_with_interval(np.array([]), np.array([], dtype=int))
    assert np.isnan(found.mean) and found.episodes == 0


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
    for study in range(studies):
        values, trials = clustered(rng, trials_per_study, 20, 0.45)
        found = mean_with_interval(values, trials, resamples=1000, seed=study)
        hits += found.low <= 0.5 <= found.high
        half = 1.96 * values.std() / np.sqrt(len(values))
        naive_hits += abs(values.mean() - 0.5) <= half
    assert 0.90 <= hits / studies <= 0.98
    # Taking episodes for independent is the mistake that this is here to avoid.
    assert naive_hits / studies < 0.85


def records_of_two_trials() -> list:
    """Trial a: 0, 1, 1 ending at 10, 40, 80; trial b: 0, 0 ending at 30, 100, the last cut off."""
    rows = [
        ("h/a/0", 0, 10, 0.0, False),
        ("h/a/0", 1, 40, 1.0, False),
        ("h/a/0", 2, 80, 1.0, False),
        ("h/b/0", 0, 30, 0.0, False),
        ("h/b/0", 1, 100, 0.0, True),
    ]
    return [
        episode(trial_id=t, episode_index=i, trial_step_end=e, success=s, truncated=cut)
        for t, i, e, s, cut in rows
    ]


def test_cut_off_episodes_are_left_out_of_rates() -> None:
    table = tabulate(records_of_two_trials())
    assert estimate(table, "success").mean == 2 / 5
    assert estimate(table.finished(), "success").mean == 2 / 4


def test_rates_by_episode_index() -> None:
    found = by_episode_index(tabulate(records_of_two_trials()), "success")
    assert [(b.low, b.high, b.estimate.mean, b.estimate.episodes) for b in found] == [
        (0, 1, 0.0, 2),
        (1, 2, 0.5, 2),
        (2, 3, 1.0, 1),
    ]


def test_numbers_that_few_trials_reach_are_left_out() -> None:
    records = [episode(trial_id=f"h/{t}/0", episode_index=0) for t in range(3)]
    records += [episode(trial_id="h/0/0", episode_index=i) for i in range(1, 9)]
    found = by_episode_index(tabulate(records), "success")
    assert [b.high for b in found] == [1]


def test_many_episode_indices_are_joined_in_equal_ranges() -> None:
    records = [episode(trial_id=f"h/{t}/0", episode_index=i) for t in range(2) for i in range(95)]
    found = by_episode_index(tabulate(records), "success", max_points=20)
    assert len(found) <= 20
    assert {b.high - b.low for b in found[:-1]} == {5}
    assert sum(b.estimate.episodes for b in found) == 190


def test_rates_by_trial_step() -> None:
    found = by_trial_step(tabulate(records_of_two_trials()), "success", steps=100, buckets=4)
    assert [(b.low, b.high, b.estimate.mean, b.estimate.episodes) for b in found] == [
        (0.0, 25.0, 0.0, 1),
        (25.0, 50.0, 0.5, 2),
        (75.0, 100.0, 0.5, 2),
    ]


def test_rates_up_to_a_trial_step_count_everything_before() -> None:
    found = up_to_trial_step(tabulate(records_of_two_trials()), "success", [30, 100])
    assert [b.estimate.mean for b in found] == [0.0, 2 / 5]


def test_gain_compares_the_halves_of_the_same_trials() -> None:
    found = gain_within_trial(tabulate(records_of_two_trials()), "success", 100)
    # First halves 0, 1 and 0; second halves 1 and 0.
    assert found.mean == pytest.approx(1 / 2 - 1 / 3)
    assert found.trials == 2


def test_a_gain_needs_both_halves() -> None:
    found = gain_within_trial(tabulate([episode(trial_step_end=5)]), "success", 100)
    assert np.isnan(found.mean) and found.trials == 0


def test_no_records_make_an_empty_table() -> None:
    table = tabulate([])
    assert len(table) == 0
    assert by_episode_index(table, "success") == []
