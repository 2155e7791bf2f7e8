"""The oracle collects what its closed form says, and nothing collects more."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memo_habitat.tasks.dark_key.layouts import SETTINGS, DrawnLayouts, Setting
from memo_habitat.tasks.dark_key.oracle import (
    oracle_actions,
    oracle_returns,
    play,
    steps_to_door,
)

from .plain import GivenLayouts, PlainTrial
from .strategies import settings_drawn


def best_return(setting, layout):
    """The most that any actions collect: all of them tried, equal situations together."""
    cells = [(int(cell) % setting.size, int(cell) // setting.size) for cell in layout]
    best = {(cells[0], False, 0): 0.0}
    for _ in range(setting.trial_steps):
        after = {}
        for (agent, holds, episode_step), total in best.items():
            for action in ("up", "down", "left", "right", "stay"):
                trial = PlainTrial(setting.size, setting.episode_steps, setting.trial_steps, *cells)
                trial.agent, trial.holds_key, trial.episode_step = agent, holds, episode_step
                reward = trial.step(action)[0]
                situation = (trial.agent, trial.holds_key, trial.episode_step)
                after[situation] = max(after.get(situation, 0.0), total + reward)
        best = after
    return max(best.values())


@pytest.mark.parametrize(
    "setting",
    [Setting(2, 3, 11), Setting(2, 50, 12), Setting(2, 2, 9), Setting(2, 1, 3)],
    ids=str,
)
def test_no_actions_beat_the_oracle_in_any_layout_of_a_small_grid(setting):
    layouts = np.array(list(itertools.product(range(setting.cells), repeat=3)))
    found = play(setting, GivenLayouts(layouts), len(layouts), oracle_actions)
    assert found.tolist() == [best_return(setting, layout) for layout in layouts]


@pytest.mark.parametrize("layout", [(0, 8, 8), (4, 4, 4), (0, 4, 8), (8, 2, 0), (1, 1, 7)])
@pytest.mark.parametrize("limit", [3, 5, 9])
def test_no_actions_beat_the_oracle_on_three_by_three_cells(layout, limit):
    setting = Setting(3, limit, 21)
    assert oracle_returns(setting, np.array([layout])) == best_return(setting, layout)


@settings(max_examples=100)
@given(settings_drawn, st.integers(0, 2**32))
def test_the_oracle_collects_what_its_closed_form_says(setting, seed):
    source = DrawnLayouts(seed, setting.cells)
    found = play(setting, source, 30, oracle_actions)
    assert found.tolist() == oracle_returns(setting, source.of(np.arange(30))).tolist()


def test_at_nine_by_nine_the_oracle_collects_about_99_8_and_at_random_about_2_6():
    setting, source = SETTINGS["default"], DrawnLayouts(1, 81)
    layouts = source.of(np.arange(200_000))
    returns = oracle_returns(setting, layouts)
    # Standard errors: 0.11 of the mean return, 0.01 of the shortest episode.
    assert returns.mean() == pytest.approx(99.8, abs=0.5)
    assert np.median(returns) == 83
    assert sum(part.mean() for part in steps_to_door(layouts, 9)) == pytest.approx(11.9, abs=0.05)
    rng = np.random.default_rng(0)
    random = play(setting, source, 4000, lambda trials: rng.integers(5, size=trials.count))
    assert random.mean() == pytest.approx(2.6, abs=0.15)


def test_the_longest_way_fits_well_into_every_settings_episode():
    for setting in SETTINGS.values():
        corners = np.array([[0, setting.cells - 1, 0]])
        (to_key,), (to_door,) = steps_to_door(corners, setting.size)
        assert (to_key + to_door) * 50 == setting.episode_steps * 32


def test_play_gives_each_trial_its_own_return_however_many_run_together(monkeypatch):
    from memo_habitat.tasks.dark_key import oracle

    setting, source = SETTINGS["quick"], DrawnLayouts(5, 25)
    whole = play(setting, source, 100, oracle_actions)
    monkeypatch.setattr(oracle, "_TOGETHER", 7)
    assert play(setting, source, 100, oracle_actions).tolist() == whole.tolist()
