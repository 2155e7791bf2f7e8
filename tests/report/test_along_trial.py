"""Targets along the trial and in its quarters, worked by hand and against the whole trial."""

from __future__ import annotations

import numpy as np
import pytest

from memo_habitat.report.breakdown import (
    all_quarters,
    parts_of_trial,
    quarters,
    targets_along_trial,
)
from memo_habitat.report.episodes import tabulate, targets_per_1000_steps
from memo_habitat.tasks.record_fields import RecordField
from tests.factories.episodes import episode

SEEN = RecordField("condition", title="Seen").called("seen")


def episodes_of(trials, **fields):
    """Trials: name -> (end, success[, seen]) of each episode."""
    records = []
    for trial, own in trials.items():
        start = 0
        for index, (end, success, *seen) in enumerate(own):
            known = {"seen": seen[0]} if seen else {}
            records.append(
                episode(
                    trial_id=trial,
                    episode_index=index,
                    trial_step_start=start,
                    trial_step_end=end,
                    num_steps=end - start,
                    success=float(success),
                    **known,
                )
            )
            start = end
    return tabulate(records, fields)


TWO = {"h/a/0": [(10, 0), (40, 1), (80, 1), (100, 0)], "h/b/0": [(30, 0), (100, 0)]}


@pytest.mark.parametrize(
    ("steps", "parts"),
    [
        *((97, 10), (100, 10), (150, 10), (256, 8), (512, 8), (1024, 8), (1200, 8)),
        *((2048, 16), (4096, 16), (10_000, 10), (10_400, 13), (32_000, 16)),
    ],
)
def test_a_trial_is_told_in_8_to_16_parts_of_round_lengths(steps: int, parts: int) -> None:
    assert parts_of_trial(steps) == parts


def test_targets_along_the_trial_count_where_they_were_found() -> None:
    found = targets_along_trial(episodes_of(TWO), 100)
    assert [(b.low, b.high) for b in found] == [(10.0 * i, 10.0 * i + 10) for i in range(10)]
    # Those at steps 40 and 80, of two trials: one in 10 steps is 100 in 1,000.
    assert [b.estimate.mean for b in found] == [0, 0, 0, 50, 0, 0, 0, 50, 0, 0]
    assert all(b.estimate.groups == 2 for b in found)


def test_what_no_trial_has_got_through_yet_is_left_out() -> None:
    trials = {"h/a/0": [(10, 0), (45, 1)], "h/b/0": [(30, 0)], "h/c/0": [(5, 1), (8, 1)]}
    found = targets_along_trial(episodes_of(trials), 100)
    assert [b.high for b in found] == [10.0, 20.0, 30.0, 40.0]
    assert [b.estimate.groups for b in found] == [2, 2, 2, 1]


@pytest.mark.parametrize("steps", [97, 100, 512])
def test_the_parts_add_up_to_the_whole_trial(steps: int) -> None:
    rng = np.random.default_rng(steps)
    trials = {}
    for trial in range(20):
        ends = [*np.sort(rng.choice(np.arange(1, steps), 9, replace=False)).tolist(), steps]
        trials[f"h{trial % 9}/a/{trial}"] = [(end, rng.random() < 0.5) for end in ends]
    episodes = episodes_of(trials)
    parts = targets_along_trial(episodes, steps)
    whole = targets_per_1000_steps(episodes, steps)
    assert np.mean([part.estimate.mean for part in parts]) == pytest.approx(whole.mean)
    assert {part.estimate.groups for part in parts} == {9}


@pytest.mark.parametrize(("houses", "groups"), [(8, 8), (7, 14)])
def test_houses_are_resampled_and_trials_where_there_are_few(houses: int, groups: int) -> None:
    trials = {f"h{h}/a/{r}": [(9, 1)] for h in range(houses) for r in range(2)}
    episodes = episodes_of(trials)
    assert episodes.resampled == ("houses" if houses == 8 else "trials")
    assert len(set(episodes.groups.tolist())) == groups
    assert targets_per_1000_steps(episodes, 9).groups == groups


def test_an_interval_over_houses_is_wider_where_trials_of_a_house_are_alike() -> None:
    alike = {f"h{h}/a/{r}": [(50, h % 2), (100, h % 2)] for h in range(6) for r in range(8)}
    parted = {f"h{r}/a/{h}": own[-1:] for (name, own) in alike.items() for h, r in [_parts(name)]}
    wide, narrow = (targets_along_trial(episodes_of(t), 100)[-1].estimate for t in (alike, parted))
    assert wide.mean == narrow.mean
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def _parts(name):
    house, _, repetition = name.split("/")
    return int(house[1:]), int(repetition)


def test_quarters_worked_by_hand() -> None:
    trials = {
        "h/a/0": [(20, 1), (50, 0), (80, 1), (90, 1), (100, 0)],
        "g/a/0": [(25, 1), (60, 1), (100, 1)],
    }
    found = quarters(episodes_of(trials), 100)
    # One each in the first 25 steps; two and one in the last 25, where step 80 and 100 belong.
    assert (found.first.mean, found.last.mean, found.ratio.mean) == (40.0, 60.0, 1.5)
    assert (found.ratio.low, found.ratio.high, found.ratio.groups) == (1.0, 2.0, 2)


def test_quarters_by_condition_are_per_step_of_theirs_in_which_it_holds() -> None:
    trials = {
        "h/a/0": [(20, 1, False), (50, 0, True), (80, 1, True), (90, 1, True), (100, 0, False)],
        "g/a/0": [(10, 0, True), (25, 1, True), (60, 1, False), (100, 1, True)],
    }
    episodes = episodes_of(trials, seen=SEEN)
    every, yes, no = all_quarters(episodes, 100)
    assert [part.title for part in (every, yes, no)] == ["All targets", "Seen: yes", "Seen: no"]
    assert yes.first.mean == pytest.approx(1000 / 30)  # one in 5 steps of h, 10 + 15 of g
    assert yes.last.mean == pytest.approx(3000 / 40)  # three in 5 + 10 steps of h, 25 of g
    assert yes.ratio.mean == pytest.approx((3 / 40) / (1 / 30))
    assert no.first.mean == pytest.approx(1000 / 20)
    assert no.last.mean == no.ratio.mean == 0.0


def test_without_a_target_in_the_first_quarter_there_is_no_ratio() -> None:
    found = quarters(episodes_of({"h/a/0": [(90, 1), (100, 0)], "g/a/0": [(100, 1)]}), 100)
    assert found.last.mean == 40.0
    assert np.isnan(found.ratio.mean)


def test_where_few_houses_have_early_targets_the_ratio_has_no_upper_end() -> None:
    trials = {f"h{i}/a/0": [(90, 1), (100, 0)] for i in range(3)}
    trials["g/a/0"] = [(20, 1), (90, 1), (100, 0)]
    found = quarters(episodes_of(trials), 100).ratio
    assert found.mean == 4.0 and np.isinf(found.high) and np.isfinite(found.low)


def test_an_agent_that_remembers_nothing_gains_nothing_from_quarter_to_quarter() -> None:
    rng = np.random.default_rng(0)
    trials = {}
    for trial in range(400):
        # At every step one in twenty ends, one half of those with a target found.
        ends = [*(np.flatnonzero(rng.random(399) < 0.05) + 1).tolist(), 400]
        own = [(end, end < 400 and rng.random() < 0.5, rng.random() < 0.4) for end in ends]
        trials[f"h{trial % 40}/a/{trial}"] = own
    for part in all_quarters(episodes_of(trials, seen=SEEN), 400):
        assert part.ratio.low < 1.0 < part.ratio.high
        assert part.ratio.high - part.ratio.low < 0.4
