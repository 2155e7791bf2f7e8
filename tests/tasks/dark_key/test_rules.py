"""The vectorised rules agree with the plain ones, in every observation, reward and end."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memo_habitat.errors import UserError
from memo_habitat.tasks.dark_key.layouts import (
    ACTIONS,
    BLOCK,
    DOWN,
    LEFT,
    RIGHT,
    SETTINGS,
    STAY,
    UP,
    DrawnLayouts,
    Setting,
)
from memo_habitat.tasks.dark_key.rules import Trials

from .plain import GivenLayouts, PlainTrial
from .strategies import games


def plain_trial(setting, layout):
    cells = [(int(cell) % setting.size, int(cell) // setting.size) for cell in layout]
    return PlainTrial(setting.size, setting.episode_steps, setting.trial_steps, *cells)


def observed(observations, index):
    return (
        *observations["grid"][index].tolist(),
        observations["last_reward"][index, 0],
        observations["trial_time"][index, 0],
    )


def one(setting, start, key, door, renew=True):
    trials = Trials(setting, 1, GivenLayouts([[start, key, door]]), renew=renew)
    trials.reset()
    return trials


def rewards(trials, *actions):
    return [float(trials.step(np.array([action])).rewards[0]) for action in actions]


@pytest.mark.slow
@settings(max_examples=300)
@given(games())
def test_every_step_agrees_with_the_plain_implementation(game):
    setting, layouts, actions = game
    count = actions.shape[1]
    trials = Trials(setting, count, GivenLayouts(layouts))
    seen = trials.reset()
    plain = [plain_trial(setting, layouts[i]) for i in range(count)]
    numbers = list(range(count))
    for i in range(count):
        assert observed(seen, i) == pytest.approx(plain[i].observation())
    for row in actions:
        step = trials.step(row)
        for i, trial in enumerate(plain):
            number, lengths = trial.episodes_over, trial.episode_step + 1
            reward, opened, episode_over, trial_over = trial.step(ACTIONS[row[i]])
            assert step.rewards[i] == reward
            assert step.episode_ends[i] == (episode_over or trial_over)
            assert step.trial_ends[i] == trial_over
            assert step.episode_numbers[i] == number
            assert step.episode_lengths[i] == lengths
            assert step.trial_returns[i] == trial.total
            assert step.successes[i] == opened
            if trial_over:
                numbers[i] += count
                trial = plain[i] = plain_trial(setting, layouts[numbers[i] % len(layouts)])
            assert observed(step.observations, i) == pytest.approx(trial.observation())
            assert step.observations["trial_step"][i, 0] == trial.trial_step
            assert step.observations["visited_ahead"][i].tolist() == trial.visited_ahead()
        assert trials.trial_numbers.tolist() == numbers


@settings(max_examples=100)
@given(games(), st.integers(0, 2**32))
def test_trials_that_stand_still_are_as_if_they_had_not_been_asked(game, seed):
    setting, layouts, actions = game
    count = actions.shape[1]
    stepped = np.random.default_rng(seed).random(actions.shape) < 0.5
    source = GivenLayouts(layouts)
    together, alone = Trials(setting, count, source), []
    for i in range(count):
        turn = iter(range(i, 10**6, count))
        alone.append(Trials(setting, 1, source, lambda which, turn=turn: which * 0 + next(turn)))
        alone[i].reset()
    together.reset()
    last = [None] * count
    for row, only in zip(actions, stepped, strict=True):
        step = together.step(row, only)
        for i in range(count):
            if only[i]:
                last[i] = alone[i].step(row[i : i + 1])
            if last[i] is None:
                continue
            for ours, theirs in zip(step[1:], last[i][1:], strict=True):
                assert ours[i] == theirs[0]
            for uuid, values in step.observations.items():
                assert np.array_equal(values[i], last[i].observations[uuid][0])


@pytest.mark.parametrize(
    ("key", "door", "expected"),
    [
        (0, 0, [1, 1]),  # both on the start cell: one reward a step
        (0, 4, [1, 0]),  # the key on the start cell pays after the first stay
        (4, 0, [0, 0]),  # a door without the key pays nothing
        (4, 4, [0, 0]),
    ],
)
def test_a_cell_shared_with_the_start_needs_a_step_of_its_own(key, door, expected):
    trials = one(Setting(), 0, key, door)
    assert trials.holds.tolist() == [False]
    assert rewards(trials, STAY, STAY) == expected


def test_a_door_on_the_keys_cell_pays_one_step_after_the_key():
    trials = one(Setting(), 0, 1, 1)
    assert rewards(trials, RIGHT, STAY, RIGHT) == [1, 1, 1]


def test_running_against_a_wall_is_a_step_like_any_other():
    trials = one(Setting(), 0, 0, 8)
    assert rewards(trials, LEFT) == [1]
    assert (trials.x[0], trials.y[0], trials.episode_steps[0]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("action", "corner"), [(UP, (4, 8)), (DOWN, (4, 0)), (LEFT, (0, 4)), (RIGHT, (8, 4))]
)
def test_walls_clip(action, corner):
    trials = one(Setting(), 40, 0, 80)
    for _ in range(12):
        trials.step(np.array([action]))
    assert (trials.x[0], trials.y[0]) == corner


def test_an_episode_ends_after_its_50th_step_at_the_start_without_the_key():
    trials = one(Setting(), 40, 41, 0)
    for number in range(1, 50):
        step = trials.step(np.array([RIGHT if number == 1 else UP]))
        assert not step.episode_ends[0]
    assert trials.holds[0]
    step = trials.step(np.array([UP]))
    assert step.episode_ends[0]
    assert not step.successes[0]
    assert step.episode_lengths[0] == 50
    assert step.cells[0] == 8 * 9 + 5
    assert step.observations["grid"][0].tolist() == [0.5, 0.5, 0.0, 0.0]
    assert step.observations["trial_step"][0, 0] == 50


def test_the_door_in_the_50th_step_still_pays():
    trials = one(Setting(), 0, 0, 1)
    assert sum(rewards(trials, *[STAY] * 49, RIGHT)) == 2
    assert trials.episode_steps[0] == 0


def test_the_observation_at_the_door_is_the_next_episodes_first_and_shows_the_reward():
    trials = one(Setting(), 0, 1, 2)
    trials.step(np.array([RIGHT]))
    step = trials.step(np.array([RIGHT]))
    assert step.episode_ends[0] and step.successes[0]
    assert step.observations["grid"][0].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert step.observations["last_reward"][0, 0] == 1.0
    assert step.observations["trial_step"][0, 0] == 2
    assert rewards(trials, RIGHT, RIGHT) == [1, 1]


def test_each_reward_is_paid_once_per_episode():
    trials = one(Setting(), 0, 1, 80)
    assert rewards(trials, RIGHT, STAY, LEFT, RIGHT) == [1, 0, 0, 0]


def test_a_trial_lasts_500_steps_and_the_next_ones_observation_knows_nothing_of_it():
    trials = Trials(Setting(), 1, GivenLayouts([[0, 0, 0], [80, 0, 0]]))
    trials.reset()
    for number in range(1, 501):
        step = trials.step(np.array([STAY]))
        assert step.trial_ends[0] == (number == 500)
        assert step.observations["trial_step"][0, 0] == number % 500
    assert step.trial_returns[0] == 500
    assert step.rewards[0] == 1.0
    assert observed(step.observations, 0) == (1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    assert trials.step(np.array([STAY])).trial_returns[0] == 0


def test_without_renewal_the_last_observation_shows_how_the_trial_ended():
    trials = one(Setting(3, 50, 2), 0, 8, 8, renew=False)
    trials.step(np.array([RIGHT]))
    step = trials.step(np.array([UP]))
    assert step.trial_ends[0]
    assert step.observations["grid"][0].tolist() == pytest.approx([0.5, 0.5, 0.0, 2 / 50])
    assert step.observations["trial_time"][0, 0] == 1.0
    with pytest.raises(UserError, match="reset"):
        trials.step(np.array([UP]))


def test_the_settings_scale_time_with_the_way():
    for setting in SETTINGS.values():
        assert setting.episode_steps * 8 == 50 * (setting.size - 1)
    assert SETTINGS["default"] == Setting() == Setting(9, 50, 500)
    assert (SETTINGS["quick"].size, SETTINGS["quick"].trial_steps) == (5, 150)
    assert (SETTINGS["hard"].size, SETTINGS["hard"].trial_steps) == (13, 1000)


@settings(max_examples=50)
@given(st.integers(0, 2**63), st.integers(1, 7), st.integers(1, 7), st.integers(0, 3 * BLOCK))
def test_a_trials_layout_is_the_same_however_many_run_and_in_whatever_order(seed, n, m, first):
    layouts = DrawnLayouts(seed, 81)
    few = layouts.of(np.arange(first, first + n))
    many = DrawnLayouts(seed, 81).of(np.arange(first + n + m)[::-1])[::-1]
    assert np.array_equal(few, many[first : first + n])


def test_environments_play_trials_in_turns_so_that_each_is_played_once():
    setting = Setting(3, 4, 2)
    for count in (1, 2, 3, 6):
        trials = Trials(setting, count, DrawnLayouts(7, 9))
        trials.reset()
        played = []
        for _ in range(6 // count):
            played += zip(
                trials.trial_numbers.tolist(),
                *(part.tolist() for part in (trials.starts, trials.keys, trials.doors)),
                strict=True,
            )
            for _ in range(2):
                trials.step(np.full(count, STAY))
        expected = DrawnLayouts(7, 9).of(np.arange(6)).tolist()
        assert [list(cells) for _, *cells in sorted(played)] == expected
        assert sorted(number for number, *_ in played) == list(range(6))


def test_the_layouts_of_a_seed_stay_what_they_are():
    # Returns that were written down belong to these layouts.
    found = DrawnLayouts(0, 81).of(np.array([0, 1, BLOCK]))
    assert found.tolist() == [[64, 76, 0], [25, 61, 58], [53, 54, 28]]


@pytest.mark.parametrize("apart", [1, 32, 64])
def test_neighbouring_seeds_share_no_trials_so_that_workers_play_different_ones(apart):
    numbers = np.arange(3 * BLOCK)
    one, other = (DrawnLayouts(seed, 81).of(numbers) for seed in (100, 100 + apart))
    # By chance one trial in 81 cubed is the same; a shifted stream would share nearly all.
    shared = {*map(tuple, one)} & {*map(tuple, other)}
    assert len(shared) <= len(numbers) // 100


def test_cells_are_drawn_uniformly_and_independently():
    drawn = DrawnLayouts(3, 9).of(np.arange(81_000))
    for a, b in itertools.combinations(range(3), 2):
        counts = np.bincount(drawn[:, a] * 9 + drawn[:, b], minlength=81)
        # Chi-squared with 80 degrees of freedom: 125 is exceeded once in a thousand seeds.
        assert ((counts - 1000) ** 2 / 1000).sum() < 125


def test_reset_begins_again_with_the_first_trials():
    trials = Trials(Setting(3, 4, 2), 2, DrawnLayouts(1, 9))
    first = {uuid: values.copy() for uuid, values in trials.reset().items()}
    for _ in range(5):
        trials.step(np.array([UP, RIGHT]))
    again = trials.reset()
    assert trials.trial_numbers.tolist() == [0, 1]
    assert all(np.array_equal(first[uuid], again[uuid]) for uuid in first)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Setting(size=1), "size of Dark-Key-To-Door is 1"),
        (lambda: Setting(episode_steps=0), "episode_steps of Dark-Key-To-Door is 0"),
        (lambda: Setting(trial_steps=2.5), "trial_steps of Dark-Key-To-Door is 2.5"),
        (lambda: DrawnLayouts(-1, 81), "-1"),
        (lambda: DrawnLayouts(0, 81).of(np.array([-3])), "-3"),
        (lambda: Trials(Setting(), 0, DrawnLayouts(0, 81)), "0 trials"),
        (lambda: Trials(Setting(), 1, DrawnLayouts(0, 81)).step(np.array([0])), "call reset"),
        (lambda: one(Setting(), 0, 0, 0).step(np.array([5])), "0 to 4 are up"),
        (lambda: one(Setting(), 0, 0, 0).step(np.array([-1])), "0 to 4 are up"),
        (lambda: one(Setting(), 0, 0, 0).step(np.array([1, 2])), "one for each"),
    ],
)
def test_bad_input_is_named_with_what_would_be_valid(make, named):
    with pytest.raises(UserError, match=named):
        make()
