"""What trials come to, along the trial and episode by episode, worked by hand and by chance."""

from __future__ import annotations

import numpy as np
import pytest

from memo_habitat.report.episodes import (
    by_episode_index,
    by_trial_step,
    episode_course,
    estimate,
    gain_within_trial,
    in_every_trial,
    later_less_first,
    return_per_trial,
    tabulate,
    targets_per_1000_steps,
    trial_returns,
    up_to_trial_step,
)
from tests.factories.episodes import episode

# Lengths of the episodes of each trial; the last one is cut off.
LENGTHS = {"a": (8, 4, 2, 6), "b": (6, 6, 5)}


def episodes_of(lengths):
    records = []
    for trial, own in lengths.items():
        end = np.cumsum(own).tolist()
        for index, length in enumerate(own):
            cut = index == len(own) - 1
            records.append(
                episode(
                    trial_id=f"h/{trial}/0",
                    episode_index=index,
                    num_steps=length,
                    trial_step_end=end[index],
                    truncated=cut,
                    reward=1.0 if cut else 2.0,
                    success=0.0 if cut or length > 6 else 1.0,
                )
            )
    return tabulate(records)


def test_a_return_counts_every_episode_the_cut_off_one_too() -> None:
    episodes = episodes_of(LENGTHS)
    assert trial_returns(episodes) == {"h/a/0": 7.0, "h/b/0": 5.0}
    found = return_per_trial(episodes)
    assert (found.mean, found.low, found.high, found.groups) == (6.0, 5.0, 7.0, 2)


def test_trials_that_were_left_out_have_no_return() -> None:
    episodes = episodes_of(LENGTHS)
    assert trial_returns(episodes.select(episodes.trial == 1)) == {"h/b/0": 5.0}


def test_only_what_every_trial_has_finished_is_compared() -> None:
    shared = in_every_trial(episodes_of(LENGTHS))
    assert sorted(zip(shared.trial.tolist(), shared.index.tolist(), strict=True)) == [
        *((0, 0), (0, 1)),
        *((1, 0), (1, 1)),
    ]


def test_course_by_episode_worked_by_hand() -> None:
    course = episode_course(episodes_of(LENGTHS))
    assert course.length.tolist() == [7.0, 5.0]
    assert course.length_found.tolist() == [6.0, 5.0]
    assert course.reward.tolist() == [2.0, 2.0]
    assert course.success.tolist() == [0.5, 1.0]
    assert len(episode_course(episodes_of(LENGTHS), most=1).length) == 1


def test_later_episodes_less_the_first_worked_by_hand() -> None:
    assert later_less_first(episodes_of(LENGTHS), "num_steps") == {"h/a/0": -4.0, "h/b/0": 0.0}
    three = {"a": (8, 4, 2, 6), "b": (6, 6, 3, 5)}
    assert later_less_first(episodes_of(three), "num_steps") == {"h/a/0": -5.0, "h/b/0": -1.5}


def test_one_episode_per_trial_and_none_at_all_make_no_difference() -> None:
    assert later_less_first(episodes_of({"a": (8, 3)}), "num_steps") == {}
    assert later_less_first(episodes_of({"a": (8,)}), "num_steps") == {}
    assert len(episode_course(episodes_of({"a": (8,)})).length) == 0
    assert later_less_first(tabulate([]), "num_steps") == {}
    assert np.isnan(return_per_trial(tabulate([])).mean)


def test_an_agent_that_remembers_nothing_gains_nothing() -> None:
    # All lengths are drawn alike; taking in what only some trials finish would show a gain.
    rng = np.random.default_rng(0)
    lengths = {}
    for trial in range(1500):
        drawn = np.cumsum(rng.integers(1, 26, size=200))
        inside = drawn[drawn < 150]
        lengths[f"t{trial}"] = tuple(np.diff([0, *inside, 150]).tolist())
    episodes = episodes_of(lengths)
    gains = np.array(list(later_less_first(episodes, "num_steps").values()))
    error = gains.std() / np.sqrt(len(gains))
    assert abs(gains.mean()) < 4 * error
    finished = episodes.finished()
    lengths_of_late = finished.columns["num_steps"][finished.index > 10]
    assert lengths_of_late.mean() < 13 - 4 * lengths_of_late.std() / len(lengths_of_late) ** 0.5


@pytest.mark.parametrize("metric", ["reward", "success"])
def test_every_measure_has_a_value_per_trial(metric: str) -> None:
    assert set(later_less_first(episodes_of(LENGTHS), metric)) == {"h/a/0", "h/b/0"}


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
    assert [(b.low, b.high, b.estimate.mean, b.estimate.values) for b in found] == [
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
    assert sum(b.estimate.values for b in found) == 190


def test_rates_by_trial_step() -> None:
    found = by_trial_step(tabulate(records_of_two_trials()), "success", steps=100, buckets=4)
    assert [(b.low, b.high, b.estimate.mean, b.estimate.values) for b in found] == [
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
    assert found.groups == 2


def test_a_gain_needs_both_halves() -> None:
    found = gain_within_trial(tabulate([episode(trial_step_end=5)]), "success", 100)
    assert np.isnan(found.mean) and found.groups == 0


def test_no_records_make_an_empty_table() -> None:
    table = tabulate([])
    assert len(table) == 0
    assert by_episode_index(table, "success") == []


def test_targets_per_1000_steps_count_whole_trials() -> None:
    # Trial a found 2 in its 100 steps, trial b none.
    found = targets_per_1000_steps(tabulate(records_of_two_trials()), 100)
    assert (found.mean, found.low, found.high) == (10.0, 0.0, 20.0)
    assert found.groups == 2


def test_a_measure_that_some_episodes_lack_is_a_mean_over_the_others() -> None:
    records = [episode(detour=2.0), episode(episode_index=1, detour=None), episode(episode_index=2)]
    table = tabulate(records)
    found = estimate(table, "detour")
    assert (found.mean, found.values) == (2.0, 1)
    assert table.fields["detour"].kind == "quantity" and table.fields["spl"].kind == "rate"
