"""Success, SPL, soft SPL and reward against episodes worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memo_habitat.errors import UserError
from memo_habitat.tasks.extobjnav.detections import stop_succeeds
from memo_habitat.tasks.extobjnav.episode import Account
from memo_habitat.tasks.extobjnav.goals import (
    RewardWeights,
    soft_spl,
    spl,
    step_reward,
)
from memo_habitat.tasks.extobjnav.measures import Failure
from memo_habitat.tasks.extobjnav.task import checked_distance

#: Per metre, per step and for success.
WEIGHTS = RewardWeights(1.0, -0.003, 2.0)
LENGTHS = st.floats(min_value=0.0, max_value=100.0)


def test_an_episode_fails_for_one_cause_or_succeeds():
    account = Account.of_many(4)
    account.stopped[1:] = 1.0
    account.near[2:] = 1.0
    account.success[3] = 1.0
    found = Failure(config=None, task=None).read(account)
    assert {cause: values.tolist() for cause, values in found.items()} == {
        "time_out": [1, 0, 0, 0],
        "far": [0, 1, 0, 0],
        "unseen": [0, 0, 1, 0],
    }
    assert Failure(config=None, task=None).read(account.one(1))["far"] == 1.0


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ([(1.9, 10)], True),
        ([(2.0, 10)], True),
        ([(2.001, 500)], False),
        ([(0.5, 9)], False),
        ([], False),
        # Near one instance, seeing another one that is out of reach: neither counts.
        ([(1.0, 0), (2.5, 300)], False),
        ([(2.5, 300), (1.0, 12)], True),
    ],
)
def test_a_stop_succeeds_near_an_instance_of_the_target_that_is_seen(instances, expected):
    # Beside the target's instances one of another category, in reach and in view.
    distances, pixels = zip((0.5, 900), *instances, strict=True)
    positions = np.array([[0.0, 0.8, -distance] for distance in distances])
    is_target = np.arange(len(positions)) > 0
    every = np.arange(len(positions))
    found = stop_succeeds(np.zeros(3), every, np.array(pixels), positions, is_target, 10, 2.0)
    assert found is expected


@pytest.mark.parametrize(
    ("success", "start", "path", "expected"),
    [
        (True, 4.0, 4.0, 1.0),
        (True, 4.0, 5.0, 0.8),
        (True, 4.0, 3.9, 1.0),  # discrete steps can be shorter than the field's distance
        (True, 4.0, 16.0, 0.25),
        (False, 4.0, 4.0, 0.0),
        (True, 0.0, 0.0, 1.0),
        (True, 0.0, 7.0, 1.0),
        (False, 0.0, 0.0, 0.0),
    ],
)
def test_spl_of_hand_worked_episodes(success, start, path, expected):
    assert spl(success, start, path) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("start", "left", "path", "expected"),
    [
        (4.0, 0.0, 4.0, 1.0),
        (4.0, 1.0, 3.0, 0.75),
        (4.0, 1.0, 8.0, 0.375),
        (4.0, 4.0, 0.0, 0.0),
        (4.0, 6.0, 2.0, 0.0),  # further away than at the start
        (0.0, 0.0, 0.0, 1.0),
        (0.0, 0.0, 3.0, 1.0),
        (0.0, 1.0, 1.0, 0.0),
    ],
)
def test_soft_spl_of_hand_worked_episodes(start, left, path, expected):
    assert soft_spl(start, left, path) == pytest.approx(expected)


@given(start=LENGTHS, left=LENGTHS, path=LENGTHS)
def test_both_spl_lie_between_nought_and_one(start, left, path):
    assert 0.0 <= spl(True, start, path) <= 1.0
    assert 0.0 <= soft_spl(start, left, path) <= 1.0


@pytest.mark.parametrize(
    ("before", "after", "success", "expected"),
    [
        (3.0, 2.75, False, 0.247),
        (2.75, 3.0, False, -0.253),
        (1.0, 1.0, False, -0.003),
        (0.0, 0.0, True, 1.997),
    ],
)
def test_reward_of_hand_worked_steps(before, after, success, expected):
    reward = step_reward(before, after, success, WEIGHTS)
    assert reward == pytest.approx(expected)


def test_rewards_of_an_episode_add_up_to_the_way_gained():
    distances = [3.0, 2.75, 2.75, 2.5, 0.5, 0.5]
    rewards = [
        step_reward(before, after, after == 0.5 and i == 4, WEIGHTS)
        for i, (before, after) in enumerate(pairwise(distances))
    ]
    assert sum(rewards) == pytest.approx(2.5 - 5 * 0.003 + 2.0)


def test_weights_scale_each_part_of_the_reward():
    weights = RewardWeights(distance_reward=2.0, slack_reward=-1.0, success_reward=10.0)
    assert step_reward(1.5, 1.0, True, weights) == pytest.approx(1.0 - 1.0 + 10.0)


@pytest.mark.parametrize("value", [math.inf, math.nan, -0.1])
def test_what_is_no_distance_is_refused_by_value(value):
    episode = SimpleNamespace(target_category="cup", scene_id="home", episode_id="a0")
    with pytest.raises(UserError, match=f"'cup' is {value} in scene home"):
        checked_distance(value, np.zeros(3), episode)
    assert checked_distance(0.0, np.zeros(3), episode) == 0.0
