"""Returns of trials, and later episodes against the first, worked by hand and by chance."""

from __future__ import annotations

import numpy as np
import pytest

from memo_habitat.report.statistics import tabulate
from memo_habitat.report.trials import (
    episode_course,
    in_every_trial,
    later_less_first,
    return_per_trial,
    trial_returns,
)
from memo_habitat.testing.episodes import episode

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
    assert (found.mean, found.low, found.high, found.trials) == (6.0, 5.0, 7.0, 2)


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
