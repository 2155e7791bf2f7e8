"""The searcher: it knows what it has seen, all of it and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memo_habitat.tasks.dark_key.layouts import SETTINGS, DrawnLayouts, Setting
from memo_habitat.tasks.dark_key.oracle import Searcher, oracle_actions, play
from memo_habitat.tasks.dark_key.rules import Trials

from .plain import GivenLayouts, PlainTrial
from .strategies import settings_drawn


class PlainSearcher:
    """The same, one cell at a time."""

    def __init__(self, size):
        self.size = size
        self.unlooked = {
            held: {(x, y) for x in range(size) for y in range(size)} for held in (False, True)
        }
        self.found = {}

    def wanted(self, agent, held):
        if held in self.found:
            return self.found[held]

        def order(cell):
            way = max(1, abs(cell[0] - agent[0]) + abs(cell[1] - agent[1]))
            neighbours = sum(
                (cell[0] + x, cell[1] + y) in self.unlooked[held]
                for x, y in ((0, 1), (0, -1), (1, 0), (-1, 0))
            )
            return way, neighbours, cell[1], cell[0]

        return min(self.unlooked[held], key=order)

    def act(self, agent, held):
        x, y = self.wanted(agent, held)
        if x != agent[0]:
            return "right" if x > agent[0] else "left"
        if y != agent[1]:
            return "up" if y > agent[1] else "down"
        return "stay"

    def enter(self, cell, held, reward):
        self.unlooked[held].discard(cell)
        if reward:
            self.found[held] = cell


def plain_return(setting, layout):
    cells = [(int(cell) % setting.size, int(cell) // setting.size) for cell in layout]
    trial = PlainTrial(setting.size, setting.episode_steps, setting.trial_steps, *cells)
    searcher = PlainSearcher(setting.size)
    for _ in range(setting.trial_steps):
        held, action = trial.holds_key, searcher.act(trial.agent, trial.holds_key)
        ahead = PlainTrial(setting.size, 1, 1, trial.agent, cells[1], cells[2])
        ahead.walk(action)
        searcher.enter(ahead.agent, held, trial.step(action)[0])
    return trial.total


@settings(max_examples=60)
@given(settings_drawn, st.integers(0, 2**32))
def test_it_collects_what_a_plain_one_does(setting, seed):
    source = DrawnLayouts(seed, setting.cells)
    found = play(setting, source, 5, Searcher())
    assert found.tolist() == [plain_return(setting, row) for row in source.of(np.arange(5))]


@settings(max_examples=40)
@given(settings_drawn, st.integers(0, 2**32))
def test_it_acts_alike_in_two_layouts_until_something_shows_that_they_differ(setting, seed):
    drawn = DrawnLayouts(seed, setting.cells).of(np.arange(2))
    drawn[1, 0] = drawn[0, 0]
    trials = Trials(setting, 2, GivenLayouts(drawn), renew=False)
    trials.reset()
    searcher = Searcher()
    for _ in range(setting.trial_steps):
        first, second = searcher(trials)
        assert first == second
        step = trials.step(np.array([first, second]))
        if step.rewards[0] != step.rewards[1]:
            break


def test_one_searcher_serves_trial_after_trial():
    setting, source = SETTINGS["quick"], DrawnLayouts(3, 25)
    searcher, returns = Searcher(), []
    trials = Trials(setting, 4, source)
    trials.reset()
    for _ in range(3 * setting.trial_steps):
        step = trials.step(searcher(trials))
        if step.trial_ends.all():
            returns += step.trial_returns.tolist()
    assert returns == play(setting, source, 12, Searcher()).tolist()


def test_searching_costs_some_of_the_oracles_return_and_remembering_keeps_most_of_it():
    setting, source = SETTINGS["default"], DrawnLayouts(1, 81)
    searched = play(setting, source, 2000, Searcher()).mean()
    known = play(setting, source, 2000, oracle_actions).mean()
    # Standard error of the share: 0.002.
    assert searched / known == pytest.approx(0.86, abs=0.02)


def test_it_finds_everything_in_as_many_steps_as_there_are_cells_and_ways():
    setting = Setting(3, 100, 100)
    layouts = np.array(
        [(start, key, door) for start in range(9) for key in range(9) for door in (0, 4, 8)]
    )
    trials = Trials(setting, len(layouts), GivenLayouts(layouts), renew=False)
    trials.reset()
    searcher, opened = Searcher(), np.zeros(len(layouts), dtype=bool)
    for _ in range(2 * 9 + 8):
        opened |= trials.step(searcher(trials)).successes
    assert opened.all()
