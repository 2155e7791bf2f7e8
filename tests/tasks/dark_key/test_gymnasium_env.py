"""The Gymnasium environment passes the checker and follows the rules."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest

gymnasium = pytest.importorskip(
    "gymnasium", reason="gymnasium is not installed: pip install 'memo-habitat[gymnasium]'"
)

from gymnasium.utils.env_checker import check_env  # noqa: E402

from memo_habitat.errors import UserError  # noqa: E402
from memo_habitat.tasks.dark_key import NAME, register  # noqa: E402
from memo_habitat.tasks.dark_key.gymnasium_env import DarkKeyToDoorEnv  # noqa: E402
from memo_habitat.tasks.dark_key.layouts import (  # noqa: E402
    SETTINGS,
    DrawnLayouts,
)
from memo_habitat.tasks.dark_key.oracle import oracle_actions, oracle_returns  # noqa: E402

QUICK = {"size": 5, "episode_steps": 25, "trial_steps": 150}


@pytest.mark.parametrize(
    "options",
    [{}, {"meta": False}, QUICK, {"render_mode": "rgb_array"}, {"render_mode": "ansi"}],
    ids=str,
)
def test_the_checker_has_nothing_to_say(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(NAME, **options).unwrapped)


def test_the_name_can_carry_the_module_so_that_nothing_need_be_imported_first():
    code = (
        "import gymnasium; env = gymnasium.make"
        f"('memo_habitat.tasks.dark_key.gymnasium_env:{NAME}'); print(env.reset(seed=0)[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout == "(12,)\n", done.stderr


def test_registering_twice_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()


def test_the_oracle_collects_its_return_in_one_gymnasium_episode_per_trial():
    env = DarkKeyToDoorEnv(**QUICK)
    layouts = DrawnLayouts(4, 25).of(np.arange(3))
    for number in range(3):
        _, info = env.reset(seed=4 if number == 0 else None)
        assert info["trial_number"] == number
        total, successes, steps, terminated = 0.0, 0, 0, False
        while not terminated:
            _, reward, terminated, truncated, info = env.step(oracle_actions(env._trials)[0])
            total, steps = total + reward, steps + 1
            successes += info["is_success"]
            assert not truncated
            assert info["is_success"] <= info["episode_end"]
        assert steps == 150
        assert total == info["trial_return"] == oracle_returns(SETTINGS["quick"], layouts)[number]
        assert successes == total // 2


def test_the_observation_shows_first_step_last_reward_trial_time_and_last_action():
    env = DarkKeyToDoorEnv()
    seed = next(s for s in range(10**5) if len(set(DrawnLayouts(s, 81).of(np.array([0]))[0])) == 1)
    seen, _ = env.reset(seed=seed)
    assert seen[3:].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0]
    seen, reward, *_ = env.step(4)
    assert reward == 1.0
    assert seen[2:].tolist() == pytest.approx([1, 1 / 50, 0, 1, 1 / 500, 0, 0, 0, 0, 1])
    seen, reward, *_, info = env.step(4)
    assert info["episode_end"] and info["is_success"]
    assert seen[2:].tolist() == pytest.approx([0, 0, 1, 1, 2 / 500, 0, 0, 0, 0, 1])


def test_a_trial_that_ends_within_an_episode_shows_where():
    env = DarkKeyToDoorEnv(size=9, episode_steps=50, trial_steps=3)
    seed = next(s for s in range(100) if DrawnLayouts(s, 81).of(np.array([0]))[0].min() > 9)
    env.reset(seed=seed)
    for action in (2, 3, 3):
        seen, _, terminated, _, info = env.step(action)
    assert terminated and info["episode_end"]
    assert seen[3] == pytest.approx(3 / 50)
    assert (seen[4], seen[6]) == (0.0, 1.0)
    with pytest.raises(UserError, match="reset"):
        env.step(0)


def test_pictures_show_agent_key_and_door():
    env = DarkKeyToDoorEnv(**QUICK, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (120, 120, 3) and first.dtype == np.uint8
    env.step(int(oracle_actions(env._trials)[0]))
    assert not np.array_equal(first, env.render())


def test_text_shows_agent_key_and_door():
    env = DarkKeyToDoorEnv(**QUICK, render_mode="ansi")
    seed = next(s for s in range(99) if len(set(DrawnLayouts(s, 25).of(np.array([0]))[0])) == 3)
    env.reset(seed=seed)
    text = env.render()
    assert [len(row) for row in text.splitlines()] == [5] * 5
    assert all(text.count(mark) == 1 for mark in "ADk")
