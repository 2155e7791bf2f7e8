"""Learning curves: smoothing, final returns and steps to a level, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from memo_habitat.report.sweep_data import Progress
from memo_habitat.report.sweep_tables import (
    final_return,
    on_one_axis,
    smooth,
    smoothing_width,
    steps_to,
)

NAN = float("nan")


def progress(returns, trials=None) -> Progress:
    returns = np.array(returns, dtype=float)
    counts = np.where(np.isnan(returns), 0.0, 1.0) if trials is None else np.array(trials, float)
    steps = 100.0 * np.arange(1, len(returns) + 1)
    return Progress(steps, steps / 50, counts, returns, len(returns), {})


def test_a_point_is_the_mean_over_the_trials_around_it() -> None:
    steps, values = smooth(progress([0.0, 3.0, 9.0, 6.0], [1, 1, 4, 1]), 200)
    assert steps.tolist() == [100, 200, 300, 400]
    # Sums over trials: 3 of 2, 39 of 6, 45 of 6, 42 of 5.
    assert values == pytest.approx([1.5, 6.5, 7.5, 8.4])


def test_updates_in_which_no_trial_ended_count_for_nothing() -> None:
    steps, values = smooth(progress([NAN, 2.0, NAN, 4.0]), 200)
    assert (steps.tolist(), values.tolist()) == ([200, 400], [2.0, 4.0])
    assert len(smooth(progress([NAN, NAN]), 200)[0]) == 0


def test_the_width_follows_the_longest_training() -> None:
    assert smoothing_width([progress([1.0] * 10), progress([1.0] * 40)]) == 0.05 * 4000


def test_the_final_return_is_that_of_the_last_tenth() -> None:
    assert final_return(progress([0.0] * 18 + [4.0, 8.0])) == 6.0
    assert final_return(progress([0.0] * 18 + [4.0, 8.0], [1] * 18 + [3, 1])) == 5.0
    assert final_return(progress([5.0, *[NAN] * 19])) == 5.0
    assert np.isnan(final_return(progress([NAN])))


def test_a_level_is_reached_at_the_first_step_at_or_above_it() -> None:
    steps, values = np.array([10.0, 20.0, 30.0]), np.array([1.0, 5.0, 3.0])
    assert steps_to(steps, values, 5.0) == 20.0
    assert steps_to(steps, values, 0.5) == 10.0
    assert np.isnan(steps_to(steps, values, 5.1)) and np.isnan(steps_to(steps, values, NAN))


def test_a_shorter_training_ends_where_it_ends() -> None:
    long = (np.array([0.0, 100.0]), np.array([0.0, 10.0]))
    short = (np.array([0.0, 50.0]), np.array([1.0, 1.0]))
    axis, values = on_one_axis([long, short])
    assert (axis[0], axis[-1]) == (0.0, 100.0)
    assert values[0] == pytest.approx(axis / 10)
    assert np.isnan(values[1][axis > 50]).all() and (values[1][axis <= 50] == 1).all()
    assert on_one_axis([])[1].size == 0
